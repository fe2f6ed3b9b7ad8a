"""Numba twins of ``spec.ops.ssd_chunk``: every product is one of words of two numbers of 16 bits.

Positions are first laid out on the grid: the open chunk, then the call's. Inputs that all heads share are made
words once: a row's pairs of states, or each state's pairs of positions.
"""

from functools import partial

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
from .cache import compiled
from .integers import bit_length, saturate, shift_round
from .products import LANES, ROWS, multiply_pairs, pair_columns, pair_rows, word_of
from .recurrence import shift
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
def row_exponent(largest):
    e = max(bit_length(largest) - 7, 1)
    return e + 1 if shift_round(largest, e) > 127 else e


@njit(inline="always")
def up_to(count, size):
    """Return the least multiple of a size that is no less than a count."""
    return (count + size - 1) // size * size


def score_products(b, c, first, stop, chunk):
    """Return the scores of each position with those of its chunk: b is (B, chunks, S / 2, lanes), c (B, T, S / 2)."""
    scores = np.zeros((*c.shape[:2], b.shape[3]), np.int32)
    _scores(scores, b, c, first, stop, chunk)
    return scores


@spread
def _scores(scores, b, c, first, stop, chunk):
    chunks = scores.shape[1] // chunk
    for task in prange(len(scores) * chunks):
        row, start = task // chunks, task % chunks * chunk
        block = np.empty((ROWS, LANES), np.int32)
        last = min(stop[row] - start, chunk)
        for i in range(max(first[row] - start, 0) // ROWS * ROWS, last, ROWS):
            for j in range(0, i + ROWS, LANES):
                multiply_pairs(block, c[row, start + i : start + i + ROWS], b[row, start // chunk, :, j : j + LANES])
                for n in range(ROWS):
                    for lane in range(LANES):
                        scores[row, start + i + n, j + lane] = block[n, lane]


@njit
def _exponents(d, sums, weights, shifts, t):
    """Fill the sums, the weights and the bits by which the scores of a chunk's positions are shifted before its own."""
    total = np.int64(0)
    for j in range(len(d)):
        total += d[j]
        if d[j] == LARGEST_EXPONENT:
            total &= -ONE
        sums[j] = total
    for j in range(len(d)):
        rest = np.int64(ONE - (sums[j] & (ONE - 1)))
        weights[j] = power(rest, POWER_BITS) - power(rest + d[j], POWER_BITS)
    for j in range(len(d)):
        length = bit_length(weights[j])
        shifts[j] = POWER_BITS - length - (sums[j] >> FRACTION_BITS)
        weights[j] = shift_round(weights[j], max(length - t, 0))


@njit(inline="always")
def mix(scores, sums, weights, shifts, i, products, mixed):
    """Fill row i of a chunk's factors, zeros after the diagonal, and return the row's exponent."""
    count, whole, largest = up_to(i + 1, LANES), np.int32(sums[i] >> FRACTION_BITS), np.int32(0)
    for j in range(count):
        product = shift(np.int32(scores[j] * weights[j]), min(np.int32(whole + shifts[j]), np.int32(31)))
        products[j] = product if j <= i else np.int32(0)
    for j in range(count):
        largest = max(largest, abs(products[j]))
    e = row_exponent(np.int64(largest))
    half = np.int32((1 << e) >> 1)
    for j in range(count):
        mixed[j] = shift(np.int32(products[j] + half), e)
    return e


@njit(inline="always")
def seen_of(state, s_h):
    return min(max(shift_round(np.int64(state), s_h), -LARGEST_TWO_LIMBS), LARGEST_TWO_LIMBS)


@njit
def _see(state, seen, s_h):
    """Fill the shifted states of a head, which the outputs read."""
    for p in range(state.shape[0]):
        for s in range(state.shape[1]):
            seen[p, s] = seen_of(state[p, s], s_h)


@njit
def _boundary(x, d, sums, b, state, weighed, weights):
    """Move a head's states over a whole chunk: x is (Q, P), b has the words (Q / 2, S) of pairs of positions."""
    count, last, largest = len(x), np.int64(sums[len(x) - 1]), np.int64(0)
    for j in range(count):
        weights[j] = power(last - sums[j], DECAY_BITS) - power(last - sums[j] + d[j], DECAY_BITS)
    for j in range(count):
        largest = max(largest, np.int64(weights[j]))
    r, kept = max(bit_length(largest) - 8, 0), power(last, DECAY_BITS)
    half = np.int32((1 << r) >> 1)
    for pair in range(count // 2):
        early, late = weights[2 * pair], weights[2 * pair + 1]
        for p in range(x.shape[1]):
            low = shift(np.int32(np.int32(x[2 * pair, p] * early) + half), r)
            weighed[pair, p] = word_of(low, shift(np.int32(np.int32(x[2 * pair + 1, p] * late) + half), r))
    block = np.empty((ROWS, LANES), np.int32)
    for first in range(0, x.shape[1], ROWS):
        for column in range(0, state.shape[1], LANES):
            multiply_pairs(block, weighed[:, first : first + ROWS].T, b[:, column : column + LANES])
            for p in range(first, min(first + ROWS, x.shape[1])):
                for s in range(column, min(column + LANES, state.shape[1])):
                    added = np.int64(block[p - first, s - column]) << (r + 2)
                    state[p, s] = shift_round(np.int64(state[p, s]) * kept, DECAY_BITS) + added


@njit
def _outputs(y, inside, before, x, factors, s):
    """Round outputs of one position: apart from the loops around it, this one runs in lanes."""
    inside_factor, before_factor, skip = factors
    for p in range(len(y)):
        total = inside[p] * inside_factor + before[p] * before_factor + x[p] * skip
        y[p] = saturate(shift_round(total, s), 16)


@njit
def _scan_head(y, state, x, d, b, c, scores, skip, first, stop, chunk, bits):
    """Fill the outputs of a head, and move its states: x is (T, P), d (T), y (L, P)."""
    t, u, k, s_h, s_y = bits
    width, seen = x.shape[1], np.empty(state.shape, np.int16)
    panel = np.zeros((c.shape[1], up_to(width, LANES)), np.int32)
    inputs = np.zeros((chunk // 2, panel.shape[1]), np.int32)
    weighed = np.zeros_like(inputs)
    mixed = np.zeros((chunk, up_to(chunk, LANES)), np.int16)
    rows, products = mixed.view(np.int32), np.empty(mixed.shape[1], np.int32)
    sums, weights, shifts = np.zeros_like(products), np.zeros_like(products), np.zeros_like(products)
    inside, before = np.empty((ROWS, LANES), np.int32), np.empty((ROWS, LANES), np.int32)
    inside_factors, before_factors = np.empty(chunk, np.int64), np.empty(chunk, np.int64)
    for start in range(0, stop, chunk):
        size, known = min(chunk, stop - start), max(first - start, 0)
        values, queries = x[start : start + chunk], c[start : start + chunk]
        _exponents(d[start : start + size], sums, weights, shifts, t)
        for i in range(known, size):
            e = mix(scores[start + i], sums, weights, shifts, i, products, mixed[i])
            fraction = fraction_power(np.int64(sums[i] & (ONE - 1)))
            inside_factors[i] = shift_round(fraction, LARGEST_ROW_EXPONENT - e)
            before_factors[i] = power(np.int64(sums[i]), k)
        _see(state, seen, s_h)
        pair_columns(panel, seen)
        pair_rows(inputs, values)
        for block in range(known // ROWS * ROWS, size, ROWS):
            for column in range(0, width, LANES):
                at = slice(column, column + LANES)
                multiply_pairs(inside, rows[block : block + ROWS], inputs[: (block + ROWS) // 2, at])
                multiply_pairs(before, queries[block : block + ROWS], panel[:, at])
                for i in range(max(known, block), min(block + ROWS, size)):
                    output = y[start + i - first, column : column + LANES]
                    factors = inside_factors[i], before_factors[i], np.int64(skip) << u
                    _outputs(output, inside[i - block], before[i - block], values[i, at], factors, u + s_y)
        if size == chunk:
            keys = b[start // 2 : (start + chunk) // 2]
            _boundary(values, d[start : start + chunk], sums, keys, state, weighed, weights)


@spread
def _scan(y, h, x, d, b, c, scores, skip, first, stop, chunk, bits):
    """Scan heads and move h: on the grid are x (B, T, H, P), d (B, H, T), words b (B, T / 2, S) and c (B, T, S / 2)."""
    heads = len(skip)
    for task in prange(len(x) * heads):
        row, head = task // heads, task % heads
        arrays = x[row, :, head], d[row, head], b[row], c[row], scores[row]
        _scan_head(y[row, :, head], h[row, head], *arrays, skip[head], first[row], stop[row], chunk, bits)


def on_grid(before, after, fill, chunk):
    """Return whole chunks on the grid: of each row the first ``fill`` of ``before``, then ``after``, then zeros."""
    length = after.shape[1]
    last = int(fill.max(initial=0)) + length
    whole = np.zeros((len(after), -(-last // chunk) * chunk, *after.shape[2:]), before.dtype)
    for row, filled in enumerate(fill):
        whole[row, :filled] = before[row, :filled]
        whole[row, filled : filled + length] = after[row]
    return whole


def state_words(rows):
    """Return rows (B, T, S) as words (B, T, S / 2) of two states."""
    halves = np.zeros((*rows.shape[:2], -(-rows.shape[2] // 2) * 2), np.int16)
    halves[:, :, : rows.shape[2]] = rows
    return halves.view(np.int32)


def time_words(rows):
    """Return rows (B, T, S), T even, as words (B, T / 2, lanes) of two positions."""
    batch, length, states = rows.shape
    halves = np.zeros((batch, length // 2, -(-states // LANES) * LANES, 2), np.int16)
    halves[:, :, :states] = rows.reshape(batch, length // 2, 2, states).swapaxes(2, 3)
    return halves.view(np.int32)[..., 0]


def score_panels(words, chunk):
    """Return words (B, T, S / 2) turned within each chunk: (B, chunks, S / 2, lanes)."""
    batch, length, pairs = words.shape
    panels = np.zeros((batch, length // chunk, pairs, -(-chunk // LANES) * LANES), np.int32)
    panels[..., :chunk] = words.reshape(batch, length // chunk, chunk, pairs).swapaxes(2, 3)
    return panels


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
    fill, skip = np.array(fill), np.array(skip)  # Numba would compile all anew for a view, or one that is read-only
    stop = fill + length
    values, exponents = on_grid(open_x, x, fill, chunk), on_grid(open_d, d, fill, chunk)
    keys = on_grid(open_b, b, fill, chunk)
    queries = state_words(on_grid(np.zeros_like(open_b), c, fill, chunk))
    scores = score_products(score_panels(state_words(keys), chunk), queries, fill, stop, chunk)
    bits = weight_bits(states), sum_bits(states), carried_bits(states, s_h), s_h, s_y
    y, h, turned = np.empty(x.shape, np.int16), np.array(h, order="C"), np.ascontiguousarray(exponents.swapaxes(1, 2))
    arrays = values, turned, time_words(keys), queries, scores, skip
    _scan(y, h, *arrays, fill, stop, chunk, bits)
    rest = (stop % chunk).astype(np.int32)
    opened = (open_chunk(*pair, fill, rest) for pair in ((open_x, x), (open_d, d), (open_b, b)))
    return y, h, *opened, rest


@compiled
def _grow(rows, new, fill):
    """Put a position after the first ``fill`` of each row (B, Q, ...), and zeros after it."""
    for row in range(len(rows)):
        rows[row, fill[row]] = new[row]
        rows[row, fill[row] + 1 :] = 0


@compiled
def _last_scores(scores, b, c, fill):
    """Fill the scores of each row's last position with all up to it: b is (B, Q, S), c (B, S)."""
    for row in range(len(scores)):
        for j in range(fill[row] + 1):
            total = np.int32(0)
            for s in range(c.shape[1]):
                total = np.int32(total + np.int32(b[row, j, s]) * np.int32(c[row, s]))
            scores[row, j] = total


@njit(inline="always")
def _copied_and_read(end, state, c, s_h):
    """Copy the states of a channel; return the sum of their shifted values times c."""
    total = np.int32(0)
    for s in range(len(c)):
        end[s] = state[s]
        # Rounded without the sum that may leave 32 bits.
        seen = np.int32(shift(state[s], s_h) + np.int32(shift(state[s], s_h - 1) & np.int32(1)))
        seen = min(max(seen, np.int32(-LARGEST_TWO_LIMBS)), np.int32(LARGEST_TWO_LIMBS))
        total = np.int32(total + np.int32(seen * np.int32(c[s])))
    return total


@njit(inline="always")
def _add_input(inside, x, factor):
    for p in range(len(x)):
        inside[p] += np.int32(np.int32(x[p]) * factor)


@partial(spread, lightness=4)
def _step(y, end, h, x, d, b, c, scores, skip, fill, bits):
    """Run the last position of each row: x is (B, Q, H, P), d (B, H, Q), b (B, Q, S), c (B, S), scores (B, lanes).

    A state is read once and copied on the way; it moves at the end of a chunk alone.
    """
    t, u, k, s_h, s_y = bits
    chunk, heads, width = x.shape[1:]
    for task in prange(len(x) * heads):
        row, head = task // heads, task % heads
        i, exponents, products = fill[row], d[row, head], np.empty(scores.shape[1], np.int32)
        sums, weights, shifts = np.zeros_like(products), np.zeros_like(products), np.zeros_like(products)
        mixed = np.empty(len(products), np.int16)
        _exponents(exponents[: i + 1], sums, weights, shifts, t)
        e = mix(scores[row], sums, weights, shifts, i, products, mixed)
        inside, before = np.zeros(width, np.int32), np.empty(width, np.int32)
        for j in range(i + 1):
            _add_input(inside, x[row, j, head], np.int32(mixed[j]))
        for p in range(width):
            before[p] = _copied_and_read(end[row, head, p], h[row, head, p], c[row], s_h)
        fraction = fraction_power(np.int64(sums[i] & (ONE - 1)))
        inside_factor, before_factor = shift_round(fraction, LARGEST_ROW_EXPONENT - e), power(np.int64(sums[i]), k)
        factors = inside_factor, before_factor, np.int64(skip[head]) << u
        _outputs(y[row, head], inside, before, x[row, i, head], factors, u + s_y)
        if i + 1 == chunk:
            keys = np.zeros((chunk // 2, up_to(b.shape[2], LANES)), np.int32)
            pair_rows(keys, b[row])
            weighed = np.zeros((chunk // 2, up_to(width, LANES)), np.int32)
            _boundary(x[row, :, head], exponents, sums, keys, end[row, head], weighed, weights)


@implements(ops.ssd_chunk_scan_step)
def ssd_chunk_scan_step(x, d, b, c, skip, h, open_x, open_d, open_b, fill, *, s_h, s_y):
    chunk, states = open_x.shape[1], b.shape[1]
    opened = [np.array(a, order="C") for a in (open_x, open_d, open_b)]
    queries, fill = np.ascontiguousarray(c), np.ascontiguousarray(fill)
    for rows, new in zip(opened, (x, d, b), strict=True):
        _grow(rows, np.ascontiguousarray(new), fill)
    scores = np.zeros((len(x), -(-chunk // LANES) * LANES), np.int32)
    _last_scores(scores, opened[2], queries, fill)
    bits = weight_bits(states), sum_bits(states), carried_bits(states, s_h), s_h, s_y
    y, end = np.empty(x.shape, np.int16), np.empty(h.shape, np.int32)
    values, exponents, keys = opened[0], np.ascontiguousarray(opened[1].swapaxes(1, 2)), opened[2]
    _step(
        y,
        end,
        np.ascontiguousarray(h),
        values,
        exponents,
        keys,
        queries,
        scores,
        np.ascontiguousarray(skip),
        fill,
        bits,
    )
    rest = (fill + 1) % chunk
    for rows in opened:
        rows[rest == 0] = 0
    return y, end, *opened, rest.astype(np.int32)


__all__ = ["ssd_chunk_scan", "ssd_chunk_scan_step"]
