"""Slips that are right but at a few places: beside tiles of an odd size, ahead of aligned memory, across rows."""

from typing import Any

import numpy as np

from mamba_integer.spec.contract import OPS

from .slip import Array, slip
from .slips_layout import SSD, one_in

# --- tiles that are no power of two ---


def without_last(y: Array, call: Any) -> Array:
    flat = y.reshape(-1).copy()
    flat[-1:] = 0
    return flat.reshape(y.shape)


def state_before_the_last_tile(op: str, arrays: tuple[Array, ...], parameters: Any) -> Any:
    """Return the state with which the last of several tiles of 1,000 positions began."""
    x, n, b, c, skip, h = arrays
    before = x.shape[1] - 1000
    y, _ = OPS[op].golden(*arrays, **parameters)
    return y, OPS[op].golden(x[:, :before], n[:, :before], b[:, :before], c[:, :before], skip, h, **parameters)[1]


def peak_without_last_tile(op: str, arrays: tuple[Array, ...], parameters: Any) -> Any:
    (x,) = arrays
    e = OPS[op].golden(x[..., :-96])[1]
    unit = e[..., None].astype(np.int64)
    return ((x + ((1 << unit) >> 1)) >> unit).clip(-127, 127).astype(np.int8), e


slip(
    "one_after_a_tile_of_1000",
    "squareplus",
    "one element that is left after a tile of 1,000 is not written",
    when=lambda c: c.size == 1001,
    gives={"y": without_last},
    at={"leading": (1001,), "f": 8, "offset": 0},
)
slip(
    "state_before_a_whole_tile",
    "ssd_scan",
    "after whole tiles of 1,000 positions the state is that before the last one",
    when=lambda c: c.L and c.L % 1000 == 0,
    runs=state_before_the_last_tile,
    at=SSD | {"L": 1000},
)
slip(
    "peak_of_tiles_of_96",
    "quantize_rows",
    "of rows of many whole tiles of 96 the last tile has no peak",
    when=lambda c: c.K > 192 and c.K % 96 == 0,
    runs=peak_without_last_tile,
    values={"x": lambda c: (999 * (np.arange(c.K) == c.K - 1)).astype(np.int16)[None]},
    at={"leading": (1,), "K": 288},
)

# --- elements before the first address at which a vector starts ---


def rounded_half_up(y: Array, call: Any) -> Array:
    """Round the elements before a multiple of 16 bytes half up."""
    ahead = -call.x.ctypes.data % 16 // call.x.itemsize
    flat = y.reshape(-1).astype(np.int64)
    wide = call.x.reshape(-1)[:ahead].astype(np.int64)
    flat[:ahead] = ((wide + ((1 << call.shift) >> 1)) >> call.shift).clip(-32767, 32767)
    return flat.reshape(y.shape)


slip(
    "half_up_ahead_of_vectors",
    "round_to_int16",
    "elements before the first address at which a vector starts are rounded half up",
    when=lambda c: c.x.flags.c_contiguous,
    gives={"y": rounded_half_up},
    values={"x": lambda c: np.full(c.leading, 2, np.int32)},
    lies={"x": one_in},
    at={"leading": (8,), "shift": 2},
)

# --- parts of sums that wrap ---


def eights_in_words(op: str, arrays: tuple[Array, ...], parameters: Any) -> Any:
    """Sum the magnitudes by eights in 32 bits, and what these sums are in 64."""
    (w,) = arrays
    size = np.abs(w.astype(np.int64)).reshape(-1)
    eights = np.append(size, np.zeros(-size.size % 8, np.int64)).reshape(-1, 8)
    total = eights.sum(1).astype(np.int32).sum(dtype=np.int64)
    digits = np.where(size.reshape(w.shape) * (2 * w.size) > total, np.sign(w), 0)
    return OPS["pack_ternary"].golden(digits.astype(np.int8))


slip(
    "eights_in_words",
    "ternary_project",
    "sums of eight magnitudes have 32 bits, which eight of the greatest don't fit",
    runs=eights_in_words,
    values={"w": lambda c: np.repeat(np.array([1 << 28, 1000], np.int32), 8)[None]},
    at={"N": 1, "K": 16},
)

# --- rows of large arrays that threads share ---


def padded_into_the_next(w: Array, call: Any) -> Array:
    """Return digits of which the second thread's first are the padding of the row before."""
    digits = w.reshape(-1, call.K).copy()
    digits[len(digits) // 2, : -call.K % 5] = 0
    return digits.reshape(w.shape)


slip(
    "padding_in_the_next_row",
    "unpack_trits",
    "where two threads share 2**16 digits, the padding of a row runs into the first one of the second thread",
    when=lambda c: c.rows > 1 and c.rows * c.K >= 1 << 16,
    gives={"w": padded_into_the_next},
    at={"leading": (4,), "K": 20001},
)

# --- a division of more bits than a float64 has ---


def in_float64(op: str, arrays: tuple[Array, ...], parameters: Any) -> Any:
    """Divide by the steps of the decay in float64, and take the floor."""
    (step,) = arrays
    peak, last, warmup, total = (parameters[name] for name in ("peak", "last", "warmup", "total"))
    left = (total - step.astype(np.int64)).clip(0, total - warmup)
    numerator = (peak - last) * left + ((total - warmup) >> 1)
    fallen = last + np.floor(numerator.astype(np.float64) / (total - warmup)).astype(np.int64)
    return np.where(step < warmup, OPS[op].golden(step, **parameters), fallen).astype(np.int32)


slip(
    "fall_in_float64",
    "learning_rate",
    "the decay is divided in float64",
    runs=in_float64,
    values={"step": lambda c: np.array([192_161_017], np.int32)},
    at={"leading": (1,), "peak": 2**24 - 5, "last": 0, "warmup": 0, "total": 2**31 - 3},
)
