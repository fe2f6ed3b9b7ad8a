"""The proof that a training step never leaves an op's domain: sums of a whole batch fit, counters are used once.

As for the model's own proof, the code that trains runs on intervals in place of arrays. A step's batch is taken whole;
its parts, on ranks or as micro-batches, add up to no more.
"""

from dataclasses import replace

from ..bounds import Interval
from ..model.blocks import Call, Network
from ..model.config import ModelConfig
from ..model.formats import FORMATS, Formats, parameter_formats, state_formats
from ..model.proof import Abstract, AbstractOps, ProofError, abstract_rotation
from ..ops.gradient import GRADIENT
from .backward import NORM_EXPONENTS, Exponents, NetworkBackward, Pass, first_exponent, gradient_names
from .options import Options


def prove_step(config: ModelConfig, options: Options, formats: Formats = FORMATS) -> dict[str, Interval]:
    """Return the proved bound of every parameter's gradient, summed over a batch.

    Raises
    ------
    ProofError
        A value may leave an op's domain.
    DomainError
        An intermediate, or a counter of rounding words, doesn't fit its type for a batch of this size.
    """
    ops, shape = AbstractOps(), (options.batch, options.length)
    weights = {name: Abstract.of(format) for name, format in parameter_formats(config, formats).items()}
    network = Network(config, formats, ops, weights)
    names = gradient_names(config)
    exponents = Exponents({name: first_exponent(name, options.gradient_bits) for name in names}, options.gradient_bits)
    backward = NetworkBackward(network, exponents)
    start = {
        name: replace(Abstract.of(format), range=Interval(0, 0))
        for name, format in state_formats(config, options.batch, formats).items()
    }
    tape: dict[tuple[str, str], Abstract] = {}
    keep = lambda layer, name, array: tape.__setitem__((layer, name), array)  # noqa: E731
    ids = Abstract(shape, "int32", Interval(0, config.vocab_size - 1))
    rotation = abstract_rotation(config, formats, shape)
    logits, _ = network(Call(True, rotation, Abstract((options.batch,), "int32", Interval(0, 0)), keep), ids, start)
    rounding = {"seed": options.seed, "step": 0, "first": 0}
    d_logits = ops.cross_entropy_pow2_backward(logits, ids, f=formats.activation, stream=len(names), **rounding)
    streams = {name: i for i, name in enumerate(names)}
    backward_pass = Pass(ops, joined, zeros_like, exponents, rounding, streams, rotation)
    backward(backward_pass, tape, ids, start, d_logits)
    for exponent in NORM_EXPONENTS:
        r, d = (
            tape["embedding", "residual"],
            Abstract(tape["embedding", "residual"].shape, "int16", Interval.signed(16)),
        )
        ops.bitshift_norm_backward(r, weights["norm"], d, zeros_like(r), b=formats.mantissa, e=exponent)
    bounds = {name: gradient.range for name, gradient in backward_pass.gradients.items()}
    for name, bound in bounds.items():
        if bound.low not in GRADIENT or bound.high not in GRADIENT:
            raise ProofError(f"{name}: the gradient of a batch may be in {bound}, allowed {GRADIENT}")
    return bounds


def joined(arrays: list[Abstract], axis: int) -> Abstract:
    first, *others = arrays
    shape, bound = list(first.shape), first.range
    for array in others:
        shape[axis] += array.shape[axis]
        bound = bound.union(array.range)
    return Abstract(tuple(shape), first.dtype, bound)


def zeros_like(array: Abstract) -> Abstract:
    return Abstract(tuple(array.shape), "int32", Interval(0, 0))
