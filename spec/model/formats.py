"""The Q formats of a model, in one place: what each array means, and every constant that the ops take because of it.

``Q.f`` is an integer in units of ``2**-f``. That no op leaves its domain under these formats is a computation: `proof`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from math import isqrt, prod
from types import SimpleNamespace
from typing import Any

import numpy as np

from ..arrays import NUMPY, type_text
from ..contract import DomainError, PackedTernary, Tensor, dtype_name, find_op, known_size
from ..integers import Dyadic
from ..ops.ssd_chunk import STATE_BITS
from .config import MAMBA1, ModelConfig

KERNEL = 4
# The arrays that a "mamba2" block's scan carries beside its fill: the boundary state, and x, d and b of the open chunk.
CHUNK_STATE = ("scan", "open_x", "open_d", "open_b")
LARGEST_FACTOR = 2**15 - 1
LARGEST_SHIFT = 30
DTYPE_BYTES = {"uint8": 1, "int8": 1, "int16": 2, "int32": 4}


@dataclass(frozen=True)
class Formats:
    """Fraction bits of everything a model computes, and the parameters of its ops that follow.

    ``xz`` is Q.activation, and so are the results of the norm, the convolution, the gate and the output projection,
    and the logits; the scan's output is that of the recurrence, and skip * x.
    """

    activation: int = 8
    residual: int = 12
    gain: int = 12  # of the norms
    mantissa: int = 3  # of the norms' scale
    kernel: int = 6  # weights of the convolution
    mixture: int = 5  # B and C, int8
    exponent: int = 12  # decay exponents of the chunked scan
    scan_input: int = 4  # x of the chunked scan, int8: nearly 8, which few activations pass
    boundary: int = 12  # the chunked scan's state, as its output reads it
    decay: int = 15
    margin: int = 5  # decays are at most 1 - 2**(margin - decay)
    state: int = 21  # in a convex step a floor costs up to 2**(decay - margin) units of the state
    read: int = 13  # of the state, as the output reads it
    rotation: int = 15

    @property
    def skip(self) -> int:
        """Fraction bits of a "mamba1" block's skip weights: skip * x has the format of the scan's sum."""
        return self.read + self.mixture - self.activation

    @property
    def norm(self) -> dict[str, int]:
        return {"b": self.mantissa, "s": self.gain - self.activation}

    @property
    def squareplus(self) -> dict[str, int]:
        """The result is zero at zero: a constant would drown what the scan and its projection read."""
        return {"f": self.activation, "offset": 1 << self.activation}

    @property
    def conv(self) -> dict[str, int]:
        return {"s": self.kernel}

    @property
    def requantize(self) -> dict[str, int]:
        return {"shift": self.activation - self.mixture}

    @property
    def modulation(self) -> dict[str, int]:
        return {"k": self.decay, "n_max": (1 << self.decay) - (1 << self.margin)}

    @property
    def scan(self) -> dict[str, int]:
        """A state is a mean of what came before, so that it stays within the range of one step's input."""
        shifts = {"s_v": self.activation + self.mixture - self.state, "s_h": self.state - self.read, "s_y": self.skip}
        return self.modulation | shifts | {"convex": 1}

    @property
    def chunk_skip(self) -> int:
        """Fraction bits of a "mamba2" block's skip weights: the format of c b."""
        return 2 * self.mixture

    @property
    def chunk_state(self) -> int:
        """Fraction bits of the chunked scan's state."""
        return STATE_BITS + self.mixture + self.scan_input

    @property
    def chunk_input(self) -> dict[str, int]:
        return {"shift": self.activation - self.scan_input}

    @property
    def chunk_decay(self) -> dict[str, int]:
        """Exponents fill int16: a step keeps 2**-8 at least, and one whose exponent is 0 reads nothing."""
        return {"k": 15, "n_max": (1 << 15) - 1}

    @property
    def chunk_scan(self) -> dict[str, int]:
        return {
            "s_h": self.chunk_state - self.boundary,
            "s_y": self.chunk_skip + self.scan_input - self.activation,
        }

    def linear(self, width: int, doublings: int = 0) -> dict[str, int]:
        """Return the scale of a ternary matrix of ``width`` columns, a third of them zero: ``1/sqrt(2 width / 3)``.

        ``doublings`` multiplies it by a power of two.
        """
        return _parameters(dyadic_root(3, 2 * width, doublings))

    def gate(self, layers: int) -> dict[str, int]:
        """Return the factor of a block's result: ``2/sqrt(layers)``, and from its format to the residual stream's."""
        return _parameters(dyadic_root(4, layers, self.residual - self.activation))


FORMATS = Formats()

# log2 of the size of each projection's results, relative to its inputs. dt_proj's are added to decays.
DOUBLINGS = {"in_proj": 0, "x_proj": -1, "dt_proj": 1, "out_proj": 0, "head": 0}


@lru_cache
def dyadic_root(numerator: int, denominator: int, doublings: int) -> Dyadic:
    """Return ``2**doublings * sqrt(numerator / denominator)``, floored to the 15 bits that a factor may have."""
    for shift in range(LARGEST_SHIFT, -1, -1):
        bits = 2 * (shift + doublings)
        num = isqrt((numerator << max(bits, 0)) // (denominator << max(-bits, 0)))
        if num <= LARGEST_FACTOR:
            return Dyadic(num, shift)
    raise ValueError(f"2**{doublings} * sqrt({numerator} / {denominator}) is above {LARGEST_FACTOR}")


def _parameters(scale: Dyadic) -> dict[str, int]:
    return {"num": scale.num, "shift": scale.shift}


@dataclass(frozen=True)
class Format:
    """Format of one stored array. ``digits`` is the number of columns of a packed ternary matrix, else 0."""

    shape: tuple[int, ...]
    dtype: str
    q: str
    low: int
    high: int
    digits: int = 0

    @property
    def size_in_bytes(self) -> int:
        return prod(self.shape) * DTYPE_BYTES[self.dtype]

    def check(self, name: str, array: Any, values: bool = True) -> None:
        """Raise DomainError unless the array is what this says; ``values`` off checks dtype and shape alone."""
        if isinstance(array, np.ndarray) or not hasattr(array, "dtype"):
            NUMPY.check("model", name, array)
        if dtype_name(array) != self.dtype:
            raise DomainError("model", name, f"dtype {dtype_name(array)}", self.dtype)
        if tuple(array.shape) != self.shape:
            raise DomainError("model", name, f"shape {tuple(array.shape)}", self.shape)
        if values and 0 not in self.shape:
            kind = PackedTernary if self.digits else Tensor
            kind(name, self.dtype, "...", self.low, self.high).check_values(
                "model", array, SimpleNamespace(K=self.digits)
            )


def ternary(rows: int, columns: int) -> Format:
    return Format((rows, -(-columns // 4)), "uint8", "2-bit ternary", 0, 255, columns)


def signed(dtype: str, q: int, *shape: int, limit: int | None = None) -> Format:
    limit = limit or (1 << (int(dtype.removeprefix("int")) - 1)) - 1
    return Format(shape, dtype, f"Q.{q}", -limit, limit)


def decays(q: int, *shape: int) -> Format:
    """Return the format of the part of decays, or of their exponents, that is a weight."""
    return Format(shape, "int16", f"Q.{q}", 0, (1 << 15) - 1)


def parameter_formats(config: ModelConfig, formats: Formats = FORMATS) -> dict[str, Format]:
    """Return what each parameter of a model is, by name, in the order in which they are stored and drawn."""
    if not isinstance(config, ModelConfig):
        raise DomainError("model", "config", type_text(config), "a ModelConfig: spec.model.find_config")
    d, inner, f = config.d_model, config.d_inner, formats
    result = {"embedding": signed("int16", f.residual, config.vocab_size, d)}
    for i, kind in enumerate(config.kinds):
        if kind == MAMBA1:
            state, skip = config.mamba1_d_state, signed("int16", f.skip, inner)
            projected, decay = config.dt_rank + 2 * state, decays(f.decay, inner, state)
        else:
            state, skip = config.mamba2_d_state, signed("int16", f.chunk_skip, config.nheads)
            projected, decay = config.nheads + 2 * state, decays(f.exponent, config.nheads, 1)
        block = {
            "norm": signed("int16", f.gain, d),
            "in_proj": ternary(2 * inner, d),
            "conv_weight": signed("int8", f.kernel, inner, KERNEL),
            "conv_bias": signed("int32", f.kernel + f.activation, inner, limit=1 << 24),
            "x_proj": ternary(projected, inner),
            "decay": decay,
            "skip": skip,
            "out_proj": ternary(d, inner),
        }
        if kind == MAMBA1:
            block["dt_proj"] = ternary(inner, config.dt_rank)
        result |= {f"layers.{i}.{name}": format for name, format in block.items()}
    result["norm"] = signed("int16", f.gain, d)
    result["head"] = ternary(config.vocab_size, d)
    return result


def state_formats(config: ModelConfig, batch: int, formats: Formats = FORMATS) -> dict[str, Format]:
    """Return what each array of a state is, by name. The bound of the scans' states holds for every length."""
    result = {}
    for i, kind in enumerate(config.kinds):
        result[f"layers.{i}.conv"] = signed("int16", formats.activation, batch, KERNEL - 1, config.d_inner)
        arrays = channel_state(config, batch, formats) if kind == MAMBA1 else chunk_state(config, batch, formats)
        result |= {f"layers.{i}.{name}": format for name, format in arrays.items()}
    return result


def channel_state(config: ModelConfig, batch: int, formats: Formats) -> dict[str, Format]:
    """Return the state of a "mamba1" block's scan."""
    (h,) = find_op("selective_scan").carried
    bound = h.range(SimpleNamespace(**formats.scan))
    shape = batch, config.d_inner, config.mamba1_d_state
    return {"scan": Format(shape, h.dtypes[0], f"Q.{formats.state}", bound.low, bound.high)}


def chunk_state(config: ModelConfig, batch: int, formats: Formats) -> dict[str, Format]:
    """Return the state of a "mamba2" block's scan, in the order of the op; the fill follows from the position."""
    at = SimpleNamespace(
        B=batch,
        H=config.nheads,
        P=config.headdim,
        S=config.mamba2_d_state,
        q=config.chunk_size.bit_length() - 1,
        **formats.chunk_scan,
    )
    bits = formats.chunk_state, formats.scan_input, formats.exponent, formats.mixture
    result = {}
    for name, q, tensor in zip(CHUNK_STATE, bits, find_op("ssd_chunk_scan").carried, strict=False):
        shape, bound = tuple(known_size(size, at) for size in tensor.dimensions), tensor.range(at)
        result[name] = Format(shape, tensor.dtypes[0], f"Q.{q}", bound.low, bound.high)
    return result


def check_arrays(
    arrays: Mapping[str, Any], wanted: Mapping[str, Format], values: bool = True, argument: str = "parameters"
) -> None:
    """Raise DomainError unless the arrays are those of ``wanted``: no name less, none more, each as its format says."""
    if not isinstance(arrays, Mapping):
        raise DomainError("model", argument, type_text(arrays), f"a dict of arrays by name: {', '.join(wanted)}")
    for name in arrays:
        if name not in wanted:
            raise DomainError("model", name, "an unknown array", f"arrays {list(wanted)}")
    for name, format in wanted.items():
        if name not in arrays:
            raise DomainError("model", name, "nothing", f"{format.dtype} array of shape {format.shape}")
        format.check(name, arrays[name], values)
