"""One step of training as a pure function: from a state and a batch to the next state."""

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property, partial
from math import prod
from typing import Any

import numpy as np

from .. import ops as golden
from ..contract import DomainError, trusted_values
from ..model.blocks import Call, Network, Observe
from ..model.config import MAMBA2, ModelConfig
from ..model.formats import FORMATS, Formats, state_formats
from ..model.language_model import attach, extra, joiner, rotations
from .backward import (
    CONV,
    STATES,
    ExponentError,
    Exponents,
    NetworkBackward,
    Pass,
    first_exponent,
    gradient_names,
    is_operand,
    largest_magnitudes,
)
from .masters import Master, initial_masters, masters_of, project
from .options import Options
from .proof import prove_step
from .sums import BatchSums

FIRST_MOMENTUM_EXPONENT = 60
TOKENS, STEP, FIRST = ("read", "target"), "step", "first"  # of what `whole_pass` takes
LOSS_BITS = 16
PIECE = 1 << 22  # elements of gradients that ranks exchange while a pass goes on: about those of a layer


@dataclass(frozen=True)
class State:
    """All that a step changes, in arrays of a run's backend. Nothing changes a State: a step returns a new one."""

    step: int
    masters: Mapping[str, Any]
    momenta: Mapping[str, Any]
    gradient_exponents: Mapping[str, int]
    momentum_exponents: Mapping[str, int]


@dataclass(frozen=True)
class Metrics:
    """Metrics of a step over all ranks: summed loss in bits, Q.16; tokens; masters stopped at an end of their range."""

    loss: int
    tokens: int
    clipped: int
    rate: int


class Alone:
    """The exchange of a run that has one rank. That of several also has ``sums()``, to which arrays are added."""

    rank, ranks = 0, 1

    def sum(self, arrays: list[np.ndarray]) -> list[np.ndarray]:
        return arrays


@dataclass(frozen=True)
class Run:
    """Constants of a step: the model's config, the options, a backend, and the other ranks.

    ``micro_batch`` is how many sequences are computed at once; it changes no integer.
    """

    config: ModelConfig
    options: Options
    ops: Any = golden
    device: str = "cpu"
    formats: Formats = FORMATS
    micro_batch: int = 1 << 16
    exchange: Any = field(default_factory=Alone)

    @cached_property
    def backend(self) -> tuple[Callable, Callable, Any]:
        return attach(self.ops, self.device)

    @property
    def kernels(self) -> Any:
        return self.backend[2]

    def load(self, array: np.ndarray) -> Any:
        return self.backend[0](array)

    def store(self, array: Any) -> np.ndarray:
        return self.backend[1](array)

    @cached_property
    def join(self) -> Callable:
        return joiner(self.ops)

    def at_once(self, name: str) -> Callable | None:
        """Return what the backend has to run an op on many arrays at once, if it has such."""
        return extra(self.ops, name)

    @property
    def replays(self) -> bool:
        """Whether the backend has a way to compute a function again and again."""
        return bool(self.at_once("replayed"))

    def replay(self, rows: int) -> Callable:
        """Return what computes `whole_pass` again and again, for passes of so many rows."""
        replayed: Any = self.at_once("replayed")
        return self.once(("pass", rows), lambda: replayed(partial(whole_pass, self)))

    def settled(self, wanted: Mapping[str, int]) -> Exponents:
        """Return the settled exponents of a step that wants these; those of the last step that asked are kept."""
        kept = self._made.get("exponents")
        if kept is None or kept.wanted is not wanted:
            kept = Exponents(wanted, self.options.gradient_bits)
            NetworkBackward(Network(self.config, self.formats, self.kernels, {}), kept)
            self._made["exponents"] = kept
        return kept

    def copied(self, array: Any) -> Any:
        """Return a copy of an array, for what must outlast the next call of a `replay`."""
        return self.join([array], 0)

    @cached_property
    def masters(self) -> dict[str, Master]:
        return masters_of(self.config, self.formats)

    @cached_property
    def rules(self) -> dict[str, np.ndarray]:
        """The parameters of `lion_update` that no step changes, one of each master in an array."""
        rules = self.masters.values()
        decays = [self.options.decay if rule.decays else 0 for rule in rules]
        ranges = np.array([(rule.low, rule.high) for rule in rules], np.int64).T
        return dict(zip(("low", "high", "decay"), (*ranges, np.array(decays, np.int64)), strict=True))

    @cached_property
    def gradient_names(self) -> list[str]:
        return gradient_names(self.config)

    @cached_property
    def streams(self) -> dict[str, int]:
        return {name: i for i, name in enumerate(self.gradient_names)}

    @cached_property
    def _made(self) -> dict[Any, Any]:
        return {}

    def once(self, key: Any, make: Callable[[], Any]) -> Any:
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]

    def prove(self) -> None:
        """Prove, once, that no step of this run leaves an op's domain: as `prove_step`."""
        self.once("proof", lambda: prove_step(self.config, self.options, self.formats))

    def start(self, batch: int) -> dict[str, Any]:
        """Return the state of sequences that have read nothing."""
        formats = partial(state_formats, self.config, batch, self.formats)
        return self.once(
            ("start", batch), lambda: {n: self.load(np.zeros(f.shape, f.dtype)) for n, f in formats().items()}
        )

    def rotation(self, length: int) -> tuple[Any, ...] | None:
        """Return the coefficients of every position, as the model takes them for rows from their start."""
        if not (self.config.rotate and MAMBA2 in self.config.kinds):
            return None
        positions, pairs = np.arange(length), self.config.mamba2_d_state // 2
        make = lambda: tuple(map(self.load, rotations(positions, pairs, self.formats.rotation)))  # noqa: E731
        return self.once(("rotation", length), make)

    def fill(self, batch: int) -> Any:
        """Return the open chunks of sequences that have read nothing."""
        return self.once(("fill", batch), lambda: self.load(np.zeros(batch, np.int32)))

    def zeros_like(self, array: Any) -> Any:
        shape = tuple(array.shape)
        return self.once(("zeros", shape), lambda: self.load(np.zeros(shape, np.int32)))


def initial_state(run: Run, masters: Mapping[str, np.ndarray] | None = None) -> State:
    """Return the state before the first step: seeded masters, or those given; no momentum."""
    masters = initial_masters(run.config, run.options.seed, run.formats) if masters is None else masters
    return State(
        0,
        {name: run.load(array) for name, array in masters.items()},
        {name: run.load(np.zeros(array.shape, np.int32)) for name, array in masters.items()},
        {name: first_exponent(name, run.options.gradient_bits) for name in run.gradient_names},
        dict.fromkeys(masters, FIRST_MOMENTUM_EXPONENT),
    )


def train_step(
    run: Run, state: State, ids: np.ndarray, first: int = 0, observe: Observe | None = None
) -> tuple[State, Metrics]:
    """Return the state after a step on a batch, and what the step saw.

    The result depends on the batch of all ranks together: neither on how many there are nor on the micro-batches.

    Parameters
    ----------
    run : Run
    state : State
    ids : int32 array, shape (rows, length + 1)
        This rank's sequences, one or more; the last token of each is only predicted.
    first : int
        The number of this rank's first row in the whole batch.
    observe : callable, optional
        Is shown each tensor of the forward pass as by `LanguageModel.prefill`, and each gradient of the
        backward pass, of every micro-batch: ``observe(layer, name, array)``.

    Raises
    ------
    DomainError
        ids of another dtype or length, out of the vocabulary, or rows that are not within the run's batch.
    ProofError
        A batch of this size may leave an op's domain.
    ExponentError
        The gradients grew or shrank beyond measure.
    """
    run.prove()
    check_ids(run, ids, first)
    with trusted_values():
        return _train_step(run, state, ids, first, observe)


def check_ids(run: Run, ids: np.ndarray, first: int) -> None:
    wanted = (run.options.length + 1,)
    if ids.dtype != np.int32 or ids.ndim != 2 or not len(ids) or ids.shape[1:] != wanted:
        raise DomainError("train_step", "ids", f"{ids.dtype} {ids.shape}", f"int32 (rows, {wanted[0]})")
    if ids.size and not 0 <= ids.min() <= ids.max() < run.config.vocab_size:
        raise DomainError("train_step", "ids", f"{ids.min()} to {ids.max()}", f"[0, {run.config.vocab_size - 1}]")
    last = run.options.batch - len(ids)
    if type(first) is not int or not 0 <= first <= last:
        raise DomainError("train_step", "first", f"{first!r} for {len(ids)} rows", f"an integer of [0, {last}]")


def _train_step(run: Run, state: State, ids: np.ndarray, first: int, observe: Observe | None) -> tuple[State, Metrics]:
    sums, replays = BatchSums(run), run.replays and not observe
    if replays:
        exponents = run.settled(state.gradient_exponents)
    else:
        weights = project(run.kernels, state.masters, run.masters)
        network = Network(run.config, run.formats, run.kernels, weights)
        exponents = Exponents(state.gradient_exponents, run.options.gradient_bits)
        backward = NetworkBackward(network, exponents)
    for start in range(0, len(ids), run.micro_batch):
        rows = ids[start : start + run.micro_batch]
        sums.last = start + run.micro_batch >= len(ids)
        if replays:
            sums.add(*replayed_pass(run, exponents, state, rows, first + start, sums))
        else:
            sums.add(*one_pass(run, network, backward, exponents, rows, state.step, first + start, observe, sums.take))
    sums.exchange()
    return update(run, state, exponents, sums)


def replayed_pass(run, exponents, state, ids, first, sums):
    """Do what `one_pass` does by a call of `Run.replay`, whose results last until the next one."""
    read, target = tokens(run, ids)
    numbers = {**exponents.shifts, STEP: state.step, FIRST: first * read.shape[1]}
    arrays = {**state.masters, **dict(zip(TOKENS, (read, target), strict=True))}

    def take(gradients):
        for name, gradient in gradients.items():
            outlasts = sums.last or name in sums.gradients  # which are added to it
            sums.take(name, gradient if outlasts else run.copied(gradient))

    backward_pass, losses, rest = run.replay(len(ids))(arrays, numbers, take)
    take(rest)
    backward_pass.exponents = exponents
    return backward_pass, run.copied(losses)


def whole_pass(
    run: Run, arrays: Mapping[str, Any], integers: Mapping[str, Any], take: Callable[[dict[str, Any]], None]
) -> tuple[Pass, Any, dict[str, Any]]:
    """Run some rows forward and backward: a function of arrays and of integers that are but parameters of ops.

    ``arrays`` are the masters and the tokens, ``integers`` the shifts of `Exponents`, the number of the step and that
    of the rows' first token in the whole batch. ``take`` is called where the pass may be cut; of several ranks, it gets
    gradients there as soon as they are many.
    Returned are the pass, the losses and the gradients that ``take`` did not get.
    """
    weights = project(run.kernels, {name: arrays[name] for name in run.masters}, run.masters)
    take({})  # a device may begin with these while the host prepares the rest
    network = Network(run.config, run.formats, run.kernels, weights)
    bits = run.options.gradient_bits
    exponents = Exponents({name: first_exponent(name, bits) for name in run.gradient_names}, bits)
    backward = NetworkBackward(network, exponents)
    exponents.shifts = dict(integers)
    rest: dict[str, Any] = {}

    def keep(name, gradient):
        rest[name] = gradient
        if run.exchange.ranks > 1 and sum(prod(array.shape) for array in rest.values()) >= PIECE:
            take(dict(rest))
            rest.clear()

    place = integers[STEP], integers[FIRST]
    read, target = (arrays[name] for name in TOKENS)
    passed = tokens_pass(run, network, backward, exponents, read, target, *place, take=keep, layer_rows={})
    return *passed, rest


def one_pass(run, network, backward, exponents, ids, step, first, observe=None, take=None):
    """Run some rows forward and backward; hand each gradient to ``take`` at once; return the pass and the losses."""
    read, target = tokens(run, ids)
    first *= read.shape[1]
    return tokens_pass(run, network, backward, exponents, read, target, step, first, observe, take)


def tokens(run: Run, ids: np.ndarray) -> tuple[Any, Any]:
    """Return the tokens that a batch reads and those that it predicts, as the backend's arrays."""
    read, target = (run.load(np.ascontiguousarray(part)) for part in (ids[:, :-1], ids[:, 1:]))
    return read, target


def tokens_pass(run, network, backward, exponents, read, target, step, first, observe=None, take=None, layer_rows=None):
    """Do what `one_pass` does, with the backend's arrays of tokens; ``first`` counts tokens of the whole batch.

    ``layer_rows`` keeps for the pass back what it else computes again, at the cost of memory.
    """
    ops, (rows, length) = run.kernels, read.shape
    tape: dict[tuple[str, str], Any] = {}
    rotation, start = run.rotation(length), run.start(rows)

    fused = {name: run.at_once(f"narrow_{name}_gradients") for name in ("gate", "chunk", "conv")}
    fused["weight"] = None if observe else run.at_once("rounded_weight_gradient")
    unused = {*STATES, *([CONV] if fused["conv"] else [])}

    def keep(layer: str, name: str, array: Any) -> None:
        if name not in unused:
            tape[layer, name] = array
        if observe:
            observe(layer, name, array)

    # The convolution's result is used once more by a pass back without a way of its own.
    activated = None if observe or not fused["conv"] else run.at_once("activated_conv")
    call = Call(True, rotation, run.fill(rows), keep, activated, layer_rows)
    logits, _ = network(call, read, start)
    rounding = {"seed": run.options.seed, "step": step, "first": first}
    f = run.formats.activation
    losses = ops.cross_entropy_pow2(logits, target, f=f)
    stream = len(run.streams)
    d_logits = ops.cross_entropy_pow2_backward(logits, target, f=f, stream=stream, **rounding)
    constants = exponents, rounding, run.streams, rotation, observe, run.at_once("largest_magnitudes"), take
    backward_pass = Pass(ops, run.join, run.zeros_like, *constants, **fused, layer_rows=layer_rows or {})
    backward(backward_pass, tape, read, start, d_logits)
    return backward_pass, losses


def one_by_one(update: Callable, arrays: list[tuple[Any, ...]]) -> Callable:
    """Return what updates arrays by their parameters, to lists of masters, momenta and counts of clipped."""

    def updates(parameters: Mapping[str, np.ndarray]) -> tuple[list[Any], list[Any], list[Any]]:
        results = [update(*a, **{n: int(p[i]) for n, p in parameters.items()}) for i, a in enumerate(arrays)]
        masters, momenta, clipped = (list(part) for part in zip(*results, strict=True))
        return masters, momenta, clipped

    return updates


def update(run: Run, state: State, exponents: Exponents, sums: BatchSums) -> tuple[State, Metrics]:
    """Return the state after the optimizer's step."""
    ops, options = run.kernels, run.options
    rate = int(golden.learning_rate(np.array(state.step, np.int32), **options.schedule))
    names = list(run.masters)
    # The host prepares what it can before it waits for the passes.
    before, scale = (np.array([table[n] for n in names], np.int32) for table in (state.momentum_exponents, sums.scales))
    rates = np.array([run.masters[name].rate(rate) for name in names], np.int64)
    settled = False
    while not settled:  # else the sums over the ranks needed more bits than they had
        arrays = [table[name] for table in (sums.gradients, state.momenta) for name in names]
        magnitudes = run.join(largest_magnitudes(ops, run.at_once("largest_magnitudes"), arrays), 0)
        prepare = run.at_once("lion_updates") or partial(one_by_one, ops.lion_update)
        updates = prepare([(state.masters[name], state.momenta[name], sums.gradients[name]) for name in names])
        settled = sums.settled()
    gradient, momentum = run.store(magnitudes).reshape(2, len(names))
    after = golden.momentum_exponent(before, scale, gradient, momentum)
    up = after - scale
    # A gradient of zeros has no magnitude that would keep the shift in its range.
    shifts = {"m_shift": before - after, "g_up": np.clip(up, 0, 27), "g_down": np.clip(-up, 0, 62)}
    masters, momenta, clipped = updates({**run.rules, "lr": rates, **shifts})
    masters, momenta, momentum_exponents = (
        dict(zip(names, part, strict=True)) for part in (masters, momenta, after.tolist())
    )
    gradient_exponents = next_exponents(run, state, exponents, sums)
    if run.replays:  # while the device is at the update; where the next step fails, it says so itself
        with suppress(ExponentError):
            run.settled(gradient_exponents)
    loss, tokens = sums.totals.tolist()
    metrics = Metrics(loss, tokens, int(run.store(run.join(clipped, 0)).sum()), rate)
    return State(state.step + 1, masters, momenta, gradient_exponents, momentum_exponents), metrics


def next_exponents(run: Run, state: State, exponents: Exponents, sums: BatchSums) -> dict[str, int]:
    """Return the exponents of the next step's gradients; a gradient that this step lacked keeps its own."""
    used = np.array([exponents.used.get(name, wanted) for name, wanted in state.gradient_exponents.items()], np.int32)
    of_activations = golden.gradient_exponent(used, sums.largest, bits=16).tolist()
    bits = run.options.gradient_bits
    of_operands = of_activations if bits == 16 else golden.gradient_exponent(used, sums.largest, bits=bits).tolist()
    result = dict(state.gradient_exponents)
    for name, exponent, operand in zip(run.gradient_names, of_activations, of_operands, strict=True):
        if name in exponents.used:
            result[name] = operand if is_operand(name) else exponent
    return result
