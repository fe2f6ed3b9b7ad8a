"""Chunked scans that are wrong on purpose: mistakes that the author of a kernel makes.

Reachable by name: ``mamba-integer conform --backend mamba_integer.conformance.mutants.ssd_chunk:state_updated_twice``.
"""

from collections.abc import Callable
from functools import partial

import numpy as np

from mamba_integer import spec
from mamba_integer.spec.integers import bit_length, saturate, shift_floor, shift_round
from mamba_integer.spec.ops import ssd_chunk, ssd_chunk_backward

from .harness import Golden, after, replaced, under

OPS = ("ssd_chunk_scan", "ssd_chunk_scan_step")
BUGS: dict[str, tuple[str, ...]] = {}
NEXT_BOUNDARY, CHUNK_OUTPUTS, POWER = ssd_chunk.next_boundary, ssd_chunk.chunk_outputs, ssd_chunk.power


def plant(name: str, wrong: Callable[[str], Callable], ops: tuple[str, ...] = OPS) -> Golden:
    """Return a backend in which the ops are wrong: ``wrong(op)`` is the bug in each."""
    BUGS[name] = ops
    return Golden(**{op: wrong(op) for op in ops})


def plant_in(bug: str, name: str, replacement: Callable, ops: tuple[str, ...] = OPS) -> Golden:
    """Plant a bug in the place of one function of the golden module."""
    return plant(bug, lambda op: under(name, replacement, op, ssd_chunk), ops)


def with_rounding(name: str, rounding: Callable) -> Callable:
    """Return a function of the golden module as it is with another rounding."""
    function = getattr(ssd_chunk, name)

    def wrong(*arguments):
        with replaced(ssd_chunk.integers, "shift_round", rounding):
            return function(*arguments)

    return wrong


# --- the boundary ---


def boundary_without_last(x, d, b, h):
    x = x.copy()
    x[-1] = 0
    return NEXT_BOUNDARY(x, d, b, h)


def boundary_twice(x, d, b, h):
    return NEXT_BOUNDARY(x, d, b, NEXT_BOUNDARY(x, d, b, h))


def boundary_without_decay(x, d, b, h):
    return h + NEXT_BOUNDARY(x, d, b, np.zeros_like(h))


def weights_with_their_own_decay(x, d, b, h):
    """Weigh a position by the decay from the position before it: the exponents' sums shifted by one."""
    return NEXT_BOUNDARY(np.roll(x, 1, axis=0), d, np.roll(b, 1, axis=0), h)


def boundary_in_int16(x, d, b, h):
    """Keep the state rounded, as the output reads it."""
    return NEXT_BOUNDARY(x, d, b, shift_round(h, 12) << 12)


# --- outputs ---


def exponent_of_chunk(x, d, b, c, skip, h, s_h, s_y):
    """Take a row's exponent from all of the chunk: run each row with the largest exponent of any."""
    exponents = []

    def noted(largest):
        exponents.append(ROW_EXPONENT(largest))
        return exponents[-1]

    with replaced(ssd_chunk, "row_exponent", noted):
        CHUNK_OUTPUTS(x, d, b, c, skip, h, s_h, s_y)
    highest = np.maximum.reduce(exponents) if exponents else 1
    with replaced(ssd_chunk, "row_exponent", lambda largest: highest):
        return CHUNK_OUTPUTS(x, d, b, c, skip, h, s_h, s_y)


def without_own_position(x, d, b, c, skip, h, s_h, s_y):
    """Leave out j = i: the lower triangle without its diagonal."""
    rows = []
    for row in range(len(c)):
        upto = slice(0, len(b) - len(c) + row + 1)
        inputs = b[upto].copy()
        inputs[-1] = 0
        rows.append(CHUNK_OUTPUTS(x[upto], d[upto], inputs, c[row : row + 1], skip, h, s_h, s_y))
    return np.concatenate(rows) if rows else CHUNK_OUTPUTS(x, d, b, c, skip, h, s_h, s_y)


def low_limb_unsigned(x, d, b, c, skip, h, s_h, s_y):
    """Put states together from a high limb that was rounded for a signed low one, and an unsigned low one."""
    seen = np.clip(shift_round(h, s_h), -ssd_chunk.LARGEST_TWO_LIMBS, ssd_chunk.LARGEST_TWO_LIMBS)
    wrong = (((seen + 128) >> 8) << 8) + (seen & 255)
    return CHUNK_OUTPUTS(x, d, b, c, skip, wrong << s_h, s_h, s_y)


def seen_wraps(x, d, b, c, skip, h, s_h, s_y):
    return CHUNK_OUTPUTS(x, d, b, c, skip, shift_round(h, s_h).astype(np.int16).astype(np.int64) << s_h, s_h, s_y)


def skip_after_saturation(x, d, b, c, skip, h, s_h, s_y):
    y = CHUNK_OUTPUTS(x, d, b, c, np.zeros_like(skip), h, s_h, s_y).astype(np.int64)
    return saturate(y + shift_round(x[len(x) - len(c) :] * skip[:, None], s_y), 16)


def uncorrected_exponent(largest):
    """Take the exponent from the bit length alone; a factor that is rounded to 128 wraps."""
    return np.maximum(bit_length(largest) - 7, 1)


def narrow_exponent(largest):
    return np.maximum(bit_length(largest) - 7, 0)


def wide_exponent(largest):
    return np.maximum(bit_length(largest) - 6, 1)


# --- powers of two ---


def power_of_fifth_degree(z, bits):
    coefficients = ssd_chunk.POWER
    with replaced(ssd_chunk, "POWER", coefficients[:-1]):
        return POWER(z, bits)


def power_of_whole_part(z, bits):
    return POWER(z & -ssd_chunk.ONE, bits)


def power_without_end(z, bits):
    """Let the shift of a power wrap, as the hardware's does."""
    return POWER(z & ((16 << ssd_chunk.FRACTION_BITS) - 1), bits)


def plain_sums(d):
    return np.cumsum(d, axis=0)


def sums_in_int16(d):
    return np.cumsum(np.minimum(d, 32767), axis=0)


# --- the open chunk ---


def with_fill(op: str, change: Callable[[np.ndarray, int], np.ndarray]) -> Callable:
    def wrong(*arrays, **parameters):
        *rest, fill = arrays
        return spec.OPS[op].golden(*rest, change(fill, rest[-1].shape[1]), **parameters)

    return wrong


def first_fill(fill, chunk):
    return np.repeat(fill[:1], len(fill))


def late_fill(fill, chunk):
    return np.minimum(fill + 1, chunk - 1).astype(fill.dtype)


def not_cleared(results, arrays, parameters):
    """Leave the old contents of the open chunk in place, at and beyond the new fill."""
    y, h, *opened, fill = results
    kept = []
    for new, old in zip(opened, arrays[-4:-1], strict=True):
        beyond = np.arange(old.shape[1]) >= fill[:, None]
        kept.append(np.where(beyond.reshape(beyond.shape + (1,) * (old.ndim - 2)), old, new))
    return y, h, *kept, fill


def fill_unwrapped(results, arrays, parameters):
    *rest, fill = results
    return *rest, np.where(fill == 0, arrays[-2].shape[1], fill).astype(fill.dtype)


ROW_EXPONENT = ssd_chunk.row_exponent
boundary_off_by_one = plant_in("boundary_off_by_one", "next_boundary", boundary_without_last)
state_updated_twice = plant_in("state_updated_twice", "next_boundary", boundary_twice)
state_never_decays = plant_in("state_never_decays", "next_boundary", boundary_without_decay)
weights_late = plant_in("weights_late", "next_boundary", weights_with_their_own_decay)
state_kept_as_seen = plant_in("state_kept_as_seen", "next_boundary", boundary_in_int16)
boundary_floored = plant_in("boundary_floored", "next_boundary", with_rounding("next_boundary", shift_floor))
outputs_floored = plant_in("outputs_floored", "chunk_outputs", with_rounding("chunk_outputs", shift_floor))
chunk_exponent = plant_in("chunk_exponent", "chunk_outputs", exponent_of_chunk, OPS[:1])
own_position_lost = plant_in("own_position_lost", "chunk_outputs", without_own_position)
limb_unsigned = plant_in("limb_unsigned", "chunk_outputs", low_limb_unsigned)
state_wraps = plant_in("state_wraps", "chunk_outputs", seen_wraps)
skip_late = plant_in("skip_late", "chunk_outputs", skip_after_saturation)
exponent_uncorrected = plant_in("exponent_uncorrected", "row_exponent", uncorrected_exponent)
exponent_from_zero = plant_in("exponent_from_zero", "row_exponent", narrow_exponent)
exponent_one_more = plant_in("exponent_one_more", "row_exponent", wide_exponent)
power_shortened = plant_in("power_shortened", "power", power_of_fifth_degree)
fraction_ignored = plant_in("fraction_ignored", "power", power_of_whole_part)
power_wraps = plant_in("power_wraps", "power", power_without_end)
fraction_remembered = plant_in("fraction_remembered", "exponent_sums", plain_sums)
exponents_narrowed = plant_in("exponents_narrowed", "exponent_sums", sums_in_int16)
fill_of_first_row = plant("fill_of_first_row", partial(with_fill, change=first_fill))
fill_one_more = plant("fill_one_more", partial(with_fill, change=late_fill))
open_chunk_not_cleared = plant("open_chunk_not_cleared", lambda op: after(op, not_cleared))
fill_not_wrapped = plant("fill_not_wrapped", lambda op: after(op, fill_unwrapped))


# --- the backward op ---

BACK = ("ssd_chunk_scan_backward",)
CHUNK_BACKWARD = ssd_chunk_backward.chunk_backward


def plant_back(bug: str, name: str, replacement: object) -> Golden:
    """Plant a bug in the place of one name of the backward op's module."""
    return plant(bug, lambda op: under(name, replacement, op, ssd_chunk_backward), BACK)


def up_to(steps):
    return np.cumsum(steps, axis=1)


def always_whole(dy, x, d, b, c, skip, h, lam, whole, s_h, s_g):
    return CHUNK_BACKWARD(dy, x, d, b, c, skip, h, lam, True, s_h, s_g)


def from_later_state(dy, x, d, b, c, skip, h, lam, whole, s_h, s_g):
    """Take the state after the chunk for the one before it."""
    if whole:
        h = ssd_chunk.next_boundary(x.swapaxes(0, 1), d.T, b, h)
    return CHUNK_BACKWARD(dy, x, d, b, c, skip, h, lam, whole, s_h, s_g)


def chunks_apart(dy, x, d, b, c, skip, h, lam, whole, s_h, s_g):
    *parts, start = CHUNK_BACKWARD(dy, x, d, b, c, skip, h, lam, whole, s_h, s_g)
    return *parts, start - shift_round(lam, 1)


def one_limb(largest):
    return np.maximum(bit_length(largest) - 7, 0)


def limbs_uncorrected(largest):
    """Take an exponent with which a high limb may be 128, and wrap."""
    return np.maximum(bit_length(largest) - 15, 0)


def rescale_floored(x, s):
    return (x << np.maximum(-s, 0)) >> np.maximum(s, 0)


def mix_by_columns(scores, weight, lag):
    """Cut the factors by the exponents of columns, on whose axis the transposed product doesn't sum."""
    mixed = np.tril((scores * weight[:, None, :]) >> lag)
    e = ROW_EXPONENT(np.abs(mixed).max(axis=1))
    return e, shift_round(mixed, e[:, None, :])


def gate_as_decay(z, bits):
    return POWER(z + (bits == ssd_chunk.POWER_BITS), bits)


crossing_itself = plant_back("crossing_itself", "before", up_to)
tail_whole = plant_back("tail_whole", "chunk_backward", always_whole)
later_state = plant_back("later_state", "chunk_backward", from_later_state)
adjoint_lost = plant_back("adjoint_lost", "chunk_backward", chunks_apart)
single_limb = plant_back("single_limb", "limb_exponent", one_limb)
limb_uncorrected = plant_back("limb_uncorrected", "limb_exponent", limbs_uncorrected)
back_floored = plant_back("back_floored", "rescale", rescale_floored)
columns_cut = plant_back("columns_cut", "mix", mix_by_columns)
gate_late = plant_back("gate_late", "power", gate_as_decay)
natural_exponent = plant_back("natural_exponent", "LN2", 1 << 15)
