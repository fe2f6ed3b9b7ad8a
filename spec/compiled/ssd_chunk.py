"""Numba twins of ``spec.ops.ssd_chunk``: every product is one of rows of int16, which the compiler multiplies by pairs.

Positions are first laid out on the grid: the open chunk, then the call's, time the last axis of x and of one copy of b.
"""

import numpy as np
from numba import njit, prange

from .. import ops
from ..contract import implements
from ..ops.ssd_chunk import (
    DECAY_BITS,
    FRACTION_BITS,
    LARGEST_EXPONENT,
    LARGEST_ROW_EXPONENT,
    LARGEST_TWO_LIMBS,
    ONE,
    POWER,
    POWER_BITS,
    carried_bits,
    sum_bits,
    weight_bits,
)
from .integers import bit_length, saturate, shift_round
from .threads import spread

C0, C1, C2, C3, C4, C5, C6 = POWER


@njit(inline="always")
def fraction_power(f):
    """Return 2**(-f / 4096) in Q.30 for a fraction."""
    p = C5 + ((C6 * f) >> FRACTION_BITS)
    p = C4 + ((p * f) >> FRACTION_BITS)
    p = C3 + ((p * f) >> FRACTION_BITS)
    p = C2 + ((p * f) >> FRACTION_BITS)
    p = C1 + ((p * f) >> FRACTION_BITS)
    return C0 + ((p * f) >> FRACTION_BITS)


@njit(inline="always")
def power(z, bits):
    return shift_round(fraction_power(z & (ONE - 1)), POWER_BITS - bits + min(z >> FRACTION_BITS, 32))


@njit(inline="always")
def dot(a, b, count):
    total = np.int32(0)
    for k in range(count):
        total = np.int32(total + np.int32(a[k]) * np.int32(b[k]))
    return total


@njit(inline="always")
def row_exponent(largest):
    e = max(bit_length(largest) - 7, 1)
    return e + 1 if shift_round(largest, e) > 127 else e


@spread
def _scores(b, c, first, stop, chunk):
    """Return the scores of each position with those of its chunk up to it."""
    batch, length, states = b.shape
    scores = np.zeros((batch, length, chunk), np.int32)
    chunks = length // chunk
    for task in prange(batch * chunks):
        row, start = task // chunks, task % chunks * chunk
        for i in range(max(first[row], start), min(stop[row], start + chunk)):
            for j in range(i - start + 1):
                scores[row, i, j] = dot(c[row, i], b[row, start + j], states)
    return scores


@njit
def _exponents(d, sums, gains, lengths, t):
    """Fill the sums, the weights and the gains' bit lengths of a chunk's positions."""
    total = np.int64(0)
    for j in range(len(d)):
        total += d[j]
        if d[j] == LARGEST_EXPONENT:
            total &= -ONE
        rest = ONE - (total & (ONE - 1))
        gain = power(rest, POWER_BITS) - power(rest + d[j], POWER_BITS)
        length = bit_length(gain)
        sums[j], lengths[j] = total, length
        gains[j] = shift_round(gain, max(length - t, 0))


@njit
def _boundary(x, d, sums, bt, start, state, weighed, weights):
    """Move a head's states over the whole chunk that starts at ``start``: x is (P, T), bt (S, T), state (P, S)."""
    n, last, largest = len(sums), sums[-1], np.int64(0)
    for j in range(n):
        weights[j] = power(last - sums[j], DECAY_BITS) - power(last - sums[j] + d[start + j], DECAY_BITS)
        largest = max(largest, weights[j])
    r, kept = max(bit_length(largest) - 8, 0), power(last, DECAY_BITS)
    for p in range(len(x)):
        for j in range(n):
            weighed[j] = shift_round(x[p, start + j] * weights[j], r)
        for s in range(len(bt)):
            added = np.int64(dot(weighed, bt[s, start : start + n], n))
            state[p, s] = shift_round(np.int64(state[p, s]) * kept, DECAY_BITS) + (added << (r + 2))


@spread
def _scan(x, d, bt, c, scores, skip, h, first, stop, chunk, t, u, k, s_h, s_y):
    """Scan heads: x is (B, H, P, T) on the grid, d (B, H, T), bt (B, S, T), c (B, T, S); y comes on the grid too."""
    batch, heads, width, length = x.shape
    states = h.shape[3]
    y, end = np.zeros((batch, length, heads, width), np.int16), h.copy()
    for task in prange(batch * heads):
        row, head = task // heads, task % heads
        state, seen = end[row, head], np.empty((width, states), np.int16)
        sums, weights, lengths = np.empty(chunk, np.int64), np.empty(chunk, np.int64), np.empty(chunk, np.int64)
        mixed, weighed, products = np.empty(chunk, np.int16), np.empty(chunk, np.int16), np.empty(chunk, np.int64)
        for start in range(0, stop[row], chunk):
            size = min(chunk, stop[row] - start)
            _exponents(d[row, head, start : start + size], sums[:size], weights[:size], lengths[:size], t)
            for p in range(width):
                for s in range(states):
                    value = shift_round(np.int64(state[p, s]), s_h)
                    seen[p, s] = min(max(value, -LARGEST_TWO_LIMBS), LARGEST_TWO_LIMBS)
            for i in range(max(first[row] - start, 0), size):
                largest, whole = np.int64(0), sums[i] >> FRACTION_BITS
                for j in range(i + 1):
                    lag = min(whole - (sums[j] >> FRACTION_BITS) + POWER_BITS - lengths[j], 31)
                    products[j] = (scores[row, start + i, j] * weights[j]) >> lag
                    largest = max(largest, abs(products[j]))
                e = row_exponent(largest)
                for j in range(i + 1):
                    mixed[j] = shift_round(products[j], e)
                inside_factor = shift_round(fraction_power(sums[i] & (ONE - 1)), LARGEST_ROW_EXPONENT - e)
                before_factor = power(sums[i], k)
                for p in range(width):
                    total = np.int64(dot(mixed, x[row, head, p, start : start + size], i + 1)) * inside_factor
                    total += np.int64(dot(c[row, start + i], seen[p], states)) * before_factor
                    total += (np.int64(x[row, head, p, start + i]) * skip[head]) << u
                    y[row, start + i, head, p] = saturate(shift_round(total, u + s_y), 16)
            if size == chunk:
                _boundary(x[row, head], d[row, head], sums, bt[row], start, state, weighed, weights)
    return y, end


def on_grid(before, after, fill, chunk, axes):
    """Return whole chunks on the grid, transposed: of each row the first ``fill`` of ``before``, then ``after``."""
    length = after.shape[1]
    last = int(fill.max(initial=0)) + length
    whole = np.zeros(
        (len(after), -(-last // chunk) * chunk, *after.shape[2:]), np.int32 if after.itemsize > 1 else np.int16
    )
    for row, filled in enumerate(fill):
        whole[row, :filled] = before[row, :filled]
        whole[row, filled : filled + length] = after[row]
    return np.ascontiguousarray(whole.transpose(axes))


def open_chunk(before, after, fill, rest):
    """Return the open chunk that a call leaves: the last ``rest`` positions of each row, then zeros."""
    opened = np.zeros(before.shape, before.dtype)
    for row, (filled, kept) in enumerate(zip(fill, rest, strict=True)):
        known = np.concatenate([before[row, :filled], after[row]])
        opened[row, :kept] = known[len(known) - kept :]
    return opened


@implements(ops.ssd_chunk_scan)
def ssd_chunk_scan(x, d, b, c, skip, h, open_x, open_d, open_b, fill, *, s_h, s_y):
    length, chunk, states = x.shape[1], open_x.shape[1], b.shape[2]
    stop = fill + length
    inputs = on_grid(open_x, x, fill, chunk, (0, 2, 3, 1)), on_grid(open_d, d, fill, chunk, (0, 2, 1))
    keys = on_grid(open_b, b, fill, chunk, (0, 1, 2))
    queries = on_grid(np.zeros((len(b), chunk, states), np.int8), c, fill, chunk, (0, 1, 2))
    scores = _scores(keys, queries, fill, stop, chunk)
    bits = weight_bits(states), sum_bits(states), carried_bits(states, s_h)
    bt, skip = np.ascontiguousarray(keys.transpose(0, 2, 1)), np.ascontiguousarray(skip)
    grid, h = _scan(*inputs, bt, queries, scores, skip, np.ascontiguousarray(h), fill, stop, chunk, *bits, s_h, s_y)
    y = np.empty(x.shape, np.int16)
    for row, filled in enumerate(fill):
        y[row] = grid[row, filled : filled + length]
    rest = (stop % chunk).astype(np.int32)
    opened = (open_chunk(*pair, fill, rest) for pair in ((open_x, x), (open_d, d), (open_b, b)))
    return y, h, *opened, rest


@implements(ops.ssd_chunk_scan_step)
def ssd_chunk_scan_step(x, d, b, c, skip, *state, s_h, s_y):
    sequence = (a[:, None] for a in (x, d, b, c))
    y, *after = ssd_chunk_scan.kernel(*sequence, skip, *state, s_h=s_h, s_y=s_y)
    return y[:, 0], *after


__all__ = ["ssd_chunk_scan", "ssd_chunk_scan_step"]
