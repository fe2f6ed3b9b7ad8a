"""Numba twins of ``spec.ops.ssd_chunk_backward``: products of words of two numbers of 16 bits, as in the forward op.

A task is a row of the batch, whose heads add into its own sums of db and dc. A first pass keeps the states at the
boundaries; the second walks back through the chunks.
"""

import numpy as np
from numba import njit, prange

from .. import ops
from ..contract import implements
from ..ops.ssd_chunk import (
    DECAY_BITS,
    FRACTION_BITS,
    LARGEST_TWO_LIMBS,
    ONE,
    POWER_BITS,
    STATE_BITS,
    carried_bits,
    sum_bits,
    weight_bits,
)
from ..ops.ssd_chunk_backward import ENERGY_BITS, GATED_BITS, LN2, gradient_bits
from .integers import bit_length, saturate, shift_round
from .products import LANES, ROWS, multiply_pairs, pair_columns, pair_rows
from .scan_backward import put
from .ssd_chunk import (
    _boundary,
    _exponents,
    _see,
    power,
    row_exponent,
    score_panels,
    score_products,
    state_words,
    time_words,
    up_to,
)
from .threads import spread


@njit(inline="always")
def rescale(x, s):
    return shift_round(x << max(0, -s), max(0, s))


@njit(inline="always")
def limb_exponent(largest):
    e = max(bit_length(largest) - 15, 0)
    return e + 1 if shift_round(largest, e) > LARGEST_TWO_LIMBS else e


@njit
def _mix(scores, sums, weights, shifts, products, mixed, turned, exponents):
    """Fill the row exponents and the factors of a chunk, and those with time turned, from scores up to the diagonal."""
    for i in range(len(exponents)):
        largest, whole, count = np.int64(0), np.int64(sums[i] >> FRACTION_BITS), up_to(i + 1, LANES)
        for j in range(count):
            product = (np.int64(scores[i, j]) * weights[j]) >> min(whole + shifts[j], 31)
            products[j] = product if j <= i else 0
        for j in range(count):
            largest = max(largest, abs(products[j]))
        exponents[i] = row_exponent(largest)
        for j in range(count):
            mixed[i, j] = shift_round(products[j], exponents[i])
        for j in range(i + 1):
            turned[j, i] = mixed[i, j]


@njit
def _cut(values, factors, cut):
    """Fill values (n, P) times the factor of each position as numbers of two limbs; return their exponent."""
    largest = np.int64(0)
    for i in range(len(factors)):
        factor = factors[i]
        for p in range(values.shape[1]):
            largest = max(largest, abs(values[i, p] * factor))
    e = limb_exponent(largest)
    for i in range(len(factors)):
        factor = factors[i]
        for p in range(values.shape[1]):
            cut[i, p] = shift_round(values[i, p] * factor, e)
    return e


@njit
def _flows(dx, sums, products, dy, x, errors, scales, shifts):
    """Fill a position's dx; add its products through the chunk and through states, leaving and arriving, to its sums.

    The products are, for each p: errors through the chunk, inputs inside it, slopes and seen states with its b and c.
    """
    through, inside, into, carried = products
    weight, skip = scales
    inner, outer = shifts
    leaving, arriving, stored, carrying = np.int64(0), np.int64(0), np.int64(0), np.int64(0)
    for p in range(LANES):
        entering = np.int64(into[p]) * weight
        leaving += np.int64(through[p]) * x[p]
        arriving += np.int64(inside[p]) * errors[p]
        stored += entering * x[p]
        carrying += np.int64(carried[p]) * dy[p]
        dx[p] = rescale(np.int64(through[p]), inner) + rescale(entering, outer) + dy[p] * skip
    sums[0] += leaving
    sums[1] += arriving
    sums[2] += stored
    sums[3] += carrying


@njit
def _mixtures(db, dc, products, scales, shifts):
    """Add a position's products with each s to its db and dc."""
    into, through, inside, high, low = products
    weight, down, kept = scales
    outer, b_shift, c_shift, past = shifts
    for s in range(len(db)):
        db[s] += rescale(np.int64(into[s]) * weight, outer) + rescale(np.int64(through[s]), b_shift)
        total = (np.int64(high[s]) << 8) + low[s]
        dc[s] += rescale(np.int64(inside[s]) * down, c_shift) + shift_round(total * kept, past)


@njit
def _chunk(
    dy, x, d, keys, keys_by_time, c, queries, queries_by_time, scores, skip, state, lam, db, dc, dx, dd, whole, bits
):
    """Add a head's chunk into db and dc, fill dx (n, P) and the sums dd (n), and move lam to the chunk's start.

    dy, x and c are (Q, P) and (Q, S), zero after n; state and lam are (P, S).
    """
    t, u, g, k_bits, s_h, s_g, s_x = bits
    n, (chunk, width), states = len(d), x.shape, state.shape[1]
    half, lanes = (n + 1) // 2, up_to(chunk, LANES)
    p_lanes, s_lanes = up_to(width, LANES), up_to(states, LANES)
    sums, weights, shifts = np.zeros(lanes, np.int32), np.zeros(lanes, np.int32), np.zeros(lanes, np.int32)
    _exponents(d, sums, weights, shifts, t)

    seen, slope = np.empty((width, states), np.int16), np.empty((width, states), np.int16)
    _see(state, seen, s_h)
    largest, past = np.int64(0), np.int64(0)
    for p in range(width):
        for s in range(states):
            largest = max(largest, abs(np.int64(lam[p, s])))
    k = limb_exponent(largest)
    for p in range(width):
        for s in range(states):
            slope[p, s] = shift_round(np.int64(lam[p, s]), k)
            past += np.int64(slope[p, s]) * np.int64(seen[p, s])
    k += s_g
    kept, last = np.int64(1) << DECAY_BITS, np.int64(sums[n - 1])
    if whole:
        kept = power(last, DECAY_BITS)
    past = rescale(shift_round(past, DECAY_BITS) * kept * whole, STATE_BITS + DECAY_BITS + ENERGY_BITS - s_h - k)
    seen_by_p, slope_by_p = np.zeros((keys.shape[1], p_lanes), np.int32), np.zeros((keys.shape[1], p_lanes), np.int32)
    pair_columns(seen_by_p, seen)
    pair_columns(slope_by_p, slope)
    seen_by_s, slope_by_s = np.zeros((p_lanes // 2, s_lanes), np.int32), np.zeros((p_lanes // 2, s_lanes), np.int32)
    pair_rows(seen_by_s, seen)
    pair_rows(slope_by_s, slope)

    # Copies, because the compiler makes lanes of arrays whose elements it knows to lie side by side.
    inputs, given = np.zeros((chunk, p_lanes), np.int16), np.zeros((chunk, p_lanes), np.int16)
    errors, totals = np.zeros((chunk, p_lanes), np.int16), np.empty(LANES, np.int64)
    high, low = np.zeros((chunk, p_lanes), np.int16), np.zeros((chunk, p_lanes), np.int16)
    for i in range(n):
        for p in range(width):
            inputs[i, p] = x[i, p]
            given[i, p] = dy[i, p]
        for p in range(width):
            high[i, p] = (given[i, p] + 128) >> 8
            low[i, p] = given[i, p] - (high[i, p] << 8)
    inputs_by_p, inputs_by_time = np.zeros((chunk // 2, p_lanes), np.int32), np.zeros((p_lanes // 2, lanes), np.int32)
    pair_rows(inputs_by_p, inputs)
    pair_columns(inputs_by_time[:, :chunk], inputs)
    input_words, given_words = inputs.view(np.int32), given.view(np.int32)
    high_words, low_words = high.view(np.int32), low.view(np.int32)

    # The gradient of scores, cut as the scores are.
    product = np.zeros((chunk, lanes), np.int32)
    block = np.empty((5, ROWS, LANES), np.int32)
    for i in range(0, n, ROWS):
        for j in range(0, i + ROWS, LANES):
            multiply_pairs(block[0], given_words[i : i + ROWS], inputs_by_time[:, j : j + LANES])
            product[i : i + ROWS, j : j + LANES] = block[0]

    mixed, turned = np.zeros((chunk, lanes), np.int16), np.zeros((chunk, lanes), np.int16)
    mixed_words, turned_words = mixed.view(np.int32), turned.view(np.int32)
    down, factors, exponents = np.empty(n, np.int64), np.empty(n, np.int64), np.empty(n, np.int64)
    entering, products = np.zeros(n, np.int64), np.empty(lanes, np.int64)
    for i in range(n):
        down[i] = power(np.int64(sums[i] & (ONE - 1)), DECAY_BITS)
        if whole:
            entering[i] = power(last - sums[i], DECAY_BITS) - power(last - sums[i] + d[i], DECAY_BITS)
    _mix(scores, sums, weights, shifts, products, mixed, turned, exponents)
    for i in range(n):
        factors[i] = down[i] << exponents[i]
    r = _cut(given, factors, errors)
    errors_by_p = np.zeros((chunk // 2, p_lanes), np.int32)
    pair_rows(errors_by_p, errors)
    flows = np.zeros((n, 4), np.int64)
    inner, outer = t + 14 + ENERGY_BITS - r, 2 * DECAY_BITS - g - k
    for first in range(0, n, ROWS):
        for column in range(0, width, LANES):
            at = slice(column, column + LANES)
            later, earlier = slice(first // 2, half), (first + ROWS) // 2
            multiply_pairs(block[0], turned_words[first : first + ROWS, later], errors_by_p[later, at])
            multiply_pairs(block[1], mixed_words[first : first + ROWS], inputs_by_p[:earlier, at])
            multiply_pairs(block[2], keys[first : first + ROWS], slope_by_p[:, at])
            multiply_pairs(block[3], queries[first : first + ROWS], seen_by_p[:, at])
            for i in range(first, min(first + ROWS, n)):
                rows = block[0, i - first], block[1, i - first], block[2, i - first], block[3, i - first]
                scales = entering[i], np.int64(skip) << g
                _flows(totals, flows[i], rows, given[i, at], inputs[i, at], errors[i, at], scales, (17 - r, outer))
                for p in range(column, min(column + LANES, width)):
                    dx[i, p] = saturate(shift_round(totals[p - column], s_x), 32)
    flow, stream = np.int64(0), np.int64(0)  # what left and hasn't arrived, inside the chunk and through states
    arrived = np.int64(0)
    for i in range(n):
        leaving, arriving, stored, carried = flows[i]
        stored = rescale(stored, 2 * DECAY_BITS + ENERGY_BITS - k)
        carried = shift_round(carried, DECAY_BITS) * power(np.int64(sums[i]), k_bits)
        carried = shift_round(carried, u - DECAY_BITS + ENERGY_BITS)
        gate, ratio = power(np.int64(d[i]), POWER_BITS), np.int64(0)
        if d[i] > 0:
            ratio = (gate << DECAY_BITS) // ((1 << POWER_BITS) - gate)
        gated = saturate(rescale(leaving, inner) + stored, GATED_BITS)
        dd[i] = shift_round(gated * ratio, DECAY_BITS) - rescale(flow, inner) - stream - past
        flow += leaving - arriving
        stream += stored - carried
        arrived += carried
    for i in range(n):
        dd[i] -= arrived

    _mix(product, sums, weights, shifts, products, mixed, turned, exponents)
    most = np.int64(0)
    for i in range(n):
        factors[i] = down[i] << exponents[i]
        most = max(most, factors[i])
    q = max(bit_length(most) - 8, 0)
    asked, asked_by_s = np.zeros((chunk, states), np.int16), np.zeros((chunk // 2, s_lanes), np.int32)
    for i in range(n):
        for s in range(states):
            asked[i, s] = shift_round(c[i, s] * factors[i], q)
    pair_rows(asked_by_s, asked)
    for first in range(0, n, ROWS):
        for column in range(0, states, LANES):
            at = slice(column, column + LANES)
            later, earlier = slice(first // 2, half), (first + ROWS) // 2
            multiply_pairs(block[0], input_words[first : first + ROWS], slope_by_s[:, at])
            multiply_pairs(block[1], turned_words[first : first + ROWS, later], asked_by_s[later, at])
            multiply_pairs(block[2], mixed_words[first : first + ROWS], keys_by_time[:earlier, at])
            multiply_pairs(block[3], high_words[first : first + ROWS], seen_by_s[:, at])
            multiply_pairs(block[4], low_words[first : first + ROWS], seen_by_s[:, at])
            for i in range(first, min(first + ROWS, n)):
                rows = (
                    block[0, i - first],
                    block[1, i - first],
                    block[2, i - first],
                    block[3, i - first],
                    block[4, i - first],
                )
                scales = entering[i], down[i], power(np.int64(sums[i]), k_bits)
                _mixtures(db[i, at], dc[i, at], rows, scales, (outer, 17 - q, 17 - exponents[i], u - g))

    for i in range(n):
        factors[i] = power(np.int64(sums[i]), DECAY_BITS)
    w = _cut(given, factors, errors)
    pair_rows(errors_by_p, errors)
    for first in range(0, width, ROWS):
        for column in range(0, states, LANES):
            multiply_pairs(
                block[0], errors_by_p[:half, first : first + ROWS].T, queries_by_time[:half, column : column + LANES]
            )
            for p in range(first, min(first + ROWS, width)):
                for s in range(column, min(column + LANES, states)):
                    added = rescale(np.int64(block[0, p - first, s - column]), s_g - w)
                    lam[p, s] = saturate(shift_round(np.int64(lam[p, s]) * kept, DECAY_BITS) + added, 32)


@njit
def _walk(gradients, dy, x, d, c, words, scores, skip, h, chunk, bits):
    """Walk a row back, whose gradients and arrays these are: dy and x (T, H, P), d (H, T), c (T, S)."""
    dx, dd, db, dc, start = gradients
    keys, keys_by_time, queries, queries_by_time = words
    length, (padded, heads, width), lanes = len(dx), x.shape, up_to(chunk, LANES)
    kept = np.empty((padded // chunk + 1, width, c.shape[1]), np.int32)
    sums, weights, shifts = np.empty(lanes, np.int32), np.empty(lanes, np.int32), np.empty(lanes, np.int32)
    weighed = np.zeros((chunk // 2, up_to(width, LANES)), np.int32)
    for head in range(heads):
        kept[0] = h[head]
        for n in range(length // chunk):
            at, pairs = slice(n * chunk, n * chunk + chunk), slice(n * chunk // 2, (n + 1) * chunk // 2)
            kept[n + 1] = kept[n]
            _exponents(d[head, at], sums, weights, shifts, bits[0])
            _boundary(x[at, head], d[head, at], sums, keys_by_time[pairs], kept[n + 1], weighed, weights)
        for n in range(padded // chunk - 1, -1, -1):
            at, pairs = slice(n * chunk, n * chunk + chunk), slice(n * chunk // 2, (n + 1) * chunk // 2)
            real = slice(n * chunk, min(n * chunk + chunk, length))
            _chunk(
                dy[at, head],
                x[at, head],
                d[head, real],
                keys[at],
                keys_by_time[pairs],
                c[at],
                queries[at],
                queries_by_time[pairs],
                scores[at],
                skip[head],
                kept[n],
                start[head],
                db[real],
                dc[real],
                dx[real, head],
                dd[real, head],
                n < length // chunk,
                bits,
            )


@spread
def _back(dx, dd, db, dc, start, dy, x, d, c, words, scores, skip, h, chunk, bits):
    """Walk rows back: dy and x are (B, T, H, P), d (B, H, T), c (B, T, S); the first arrays are filled.

    ``words`` are those of b and of c, of pairs of states and of pairs of positions.
    """
    keys, keys_by_time, queries, queries_by_time = words
    for row in prange(len(dx)):
        gradients = dx[row], dd[row], db[row], dc[row], start[row]
        row_words = keys[row], keys_by_time[row], queries[row], queries_by_time[row]
        _walk(gradients, dy[row], x[row], d[row], c[row], row_words, scores[row], skip, h[row], chunk, bits)


@spread
def _skip_sums(dy, x):
    """Return the sums of products over positions and channels, of each row and head."""
    sums = np.empty((x.shape[0], x.shape[2]), np.int64)
    for row in prange(len(x)):
        for head in range(x.shape[2]):
            total = np.int64(0)
            for t in range(x.shape[1]):
                for p in range(x.shape[3]):
                    total += np.int32(np.int32(dy[row, t, head, p]) * np.int32(x[row, t, head, p]))
            sums[row, head] = total
    return sums


@implements(ops.ssd_chunk_scan_backward)
def ssd_chunk_scan_backward(dy, x, d, b, c, skip, h, dh, *, q, s_h, s_g, s_x, s_d, s_b, s_c):
    chunk, states, (batch, length) = 1 << q, b.shape[2], x.shape[:2]
    dy_grid, x_grid, d_grid, b_grid, c_grid = (whole_chunks(a, chunk) for a in (dy, x, d, b, c))
    words = [make(a) for a in (b_grid, c_grid) for make in (state_words, time_words)]
    ends = np.zeros(batch, np.int32), np.full(batch, length, np.int32)
    scores = score_products(score_panels(words[0], chunk), words[2], *ends, chunk)
    bits = weight_bits(states), sum_bits(states), gradient_bits(states), carried_bits(states, s_h), s_h, s_g, s_x
    exponents = np.ascontiguousarray(d_grid.transpose(0, 2, 1), np.int32)
    arrays = dy_grid, x_grid, exponents, c_grid, tuple(words), scores, np.array(skip)
    dx, dd, start = np.empty(x.shape, np.int32), np.empty(d.shape, np.int64), np.array(dh, order="C")
    db, dc = np.zeros(b.shape, np.int64), np.zeros(c.shape, np.int64)
    _back(dx, dd, db, dc, start, *arrays, np.array(h, order="C"), chunk, bits)
    dd = shift_round_ln2(put(dd, s_d))
    dskip = _skip_sums(dy_grid, x_grid).sum(axis=0)
    return dx, dd, put(db, s_b), put(dc, s_c), dskip, start


def whole_chunks(sequence, chunk):
    """Return a sequence (B, L, ...) with zeros up to whole chunks, in C order whatever the order was."""
    batch, length, *rest = sequence.shape
    whole = np.zeros((batch, -(-length // chunk) * chunk, *rest), sequence.dtype)
    whole[:, :length] = sequence
    return whole


def shift_round_ln2(dd):
    """Return gradients of natural exponents as those of exponents of two."""
    return ((dd.astype(np.int64) * LN2 + (1 << (DECAY_BITS - 1))) >> DECAY_BITS).astype(np.int32)


__all__ = ["ssd_chunk_scan_backward"]
