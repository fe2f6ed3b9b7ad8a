"""Numba twins of ``spec.ops.ssd_chunk_backward``: products of rows of int16, as in the forward op.

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
from .scan_backward import put
from .ssd_chunk import _boundary, _exponents, _scores, dot, power, row_exponent
from .threads import spread


@njit(inline="always")
def rescale(x, s):
    return shift_round(x << max(0, -s), max(0, s))


@njit(inline="always")
def limb_exponent(largest):
    e = max(bit_length(largest) - 15, 0)
    return e + 1 if shift_round(largest, e) > LARGEST_TWO_LIMBS else e


@njit
def _mix(scores, sums, lengths, weights, mixed, turned, exponents):
    """Fill the row exponents and the factors of a chunk, and those with time turned, from scores up to the diagonal."""
    products = np.empty(len(sums), np.int64)
    for i in range(len(sums)):
        largest, whole = np.int64(0), sums[i] >> FRACTION_BITS
        for j in range(i + 1):
            lag = min(whole - (sums[j] >> FRACTION_BITS) + POWER_BITS - lengths[j], 31)
            products[j] = (np.int64(scores[i, j]) * weights[j]) >> lag
            largest = max(largest, abs(products[j]))
        exponents[i] = row_exponent(largest)
        for j in range(i + 1):
            mixed[i, j] = shift_round(products[j], exponents[i])
            turned[j, i] = mixed[i, j]


@njit
def _cut(values, factors, cut):
    """Fill values (P, n) times the factor of each position as numbers of two limbs; return their exponent."""
    largest = np.int64(0)
    for p in range(values.shape[0]):
        for i in range(values.shape[1]):
            largest = max(largest, abs(values[p, i] * factors[i]))
    e = limb_exponent(largest)
    for p in range(values.shape[0]):
        for i in range(values.shape[1]):
            cut[p, i] = shift_round(values[p, i] * factors[i], e)
    return e


@njit
def _chunk(dy, x, d, b, bt, c, ct, scores, skip, state, lam, db, dc, whole, t, u, g, k_bits, s_h, s_g):
    """Add a head's chunk into db and dc, move lam to the chunk's start, and return the sums of dx (n, P) and dd.

    dy, x are (P, n), b and c (n, S), bt and ct (S, n), scores (n, Q), state and lam (P, S).
    """
    width, n = x.shape
    states = b.shape[1]
    inputs, high, low = np.empty((n, width), np.int16), np.empty((n, width), np.int16), np.empty((n, width), np.int16)
    for p in range(width):
        for i in range(n):
            inputs[i, p] = x[p, i]
            high[i, p] = (dy[p, i] + 128) >> 8
            low[i, p] = dy[p, i] - (high[i, p] << 8)
    sums, weights, lengths = np.empty(n, np.int64), np.empty(n, np.int64), np.empty(n, np.int64)
    _exponents(d, sums, weights, lengths, t)
    down, factors, exponents = np.empty(n, np.int64), np.empty(n, np.int64), np.empty(n, np.int64)
    mixed, turned = np.zeros((n, n), np.int16), np.zeros((n, n), np.int16)
    errors, slope = np.empty((width, n), np.int16), np.empty((width, states), np.int16)
    seen, seen_turned = np.empty((width, states), np.int16), np.empty((states, width), np.int16)
    slope_turned = np.empty((states, width), np.int16)
    dx, dd = np.empty((n, width), np.int64), np.empty(n, np.int64)
    largest, past = np.int64(0), np.int64(0)
    for p in range(width):
        for s in range(states):
            value = shift_round(np.int64(state[p, s]), s_h)
            seen[p, s] = min(max(value, -LARGEST_TWO_LIMBS), LARGEST_TWO_LIMBS)
            seen_turned[s, p] = seen[p, s]
            largest = max(largest, abs(np.int64(lam[p, s])))
    k = limb_exponent(largest)
    for p in range(width):
        for s in range(states):
            slope[p, s] = shift_round(np.int64(lam[p, s]), k)
            slope_turned[s, p] = slope[p, s]
            past += np.int64(slope[p, s]) * np.int64(seen[p, s])
    k += s_g
    kept, last = np.int64(1) << DECAY_BITS, sums[n - 1]
    if whole:
        kept = power(last, DECAY_BITS)
    past = rescale(shift_round(past, DECAY_BITS) * kept * whole, STATE_BITS + DECAY_BITS + ENERGY_BITS - s_h - k)

    for i in range(n):
        down[i] = power(sums[i] & (ONE - 1), DECAY_BITS)
    _mix(scores, sums, lengths, weights, mixed, turned, exponents)
    for i in range(n):
        factors[i] = down[i] << exponents[i]
    r = _cut(dy, factors, errors)
    inner = t + 14 + ENERGY_BITS - r
    flow, stream = np.int64(0), np.int64(0)  # what left and hasn't arrived, inside the chunk and through states
    arrived = np.int64(0)
    for i in range(n):
        leaving, arriving, stored, carried = np.int64(0), np.int64(0), np.int64(0), np.int64(0)
        weight = np.int64(0)
        if whole:
            weight = power(last - sums[i], DECAY_BITS) - power(last - sums[i] + d[i], DECAY_BITS)
        for p in range(width):
            through = np.int64(dot(turned[i, i:], errors[p, i:], n - i))
            inside = np.int64(dot(mixed[i], x[p], i + 1))
            into = np.int64(dot(slope[p], b[i], states)) * weight
            leaving += through * x[p, i]
            arriving += inside * errors[p, i]
            stored += into * x[p, i]
            carried += np.int64(dot(c[i], seen[p], states)) * dy[p, i]
            dx[i, p] = rescale(through, 17 - r) + rescale(into, 2 * DECAY_BITS - g - k)
            dx[i, p] += (np.int64(dy[p, i]) * skip) << g
        stored = rescale(stored, 2 * DECAY_BITS + ENERGY_BITS - k)
        carried = shift_round(shift_round(carried, DECAY_BITS) * power(sums[i], k_bits), u - DECAY_BITS + ENERGY_BITS)
        gate, ratio = power(d[i], POWER_BITS), np.int64(0)
        if d[i] > 0:
            ratio = (gate << DECAY_BITS) // ((1 << POWER_BITS) - gate)
        gated = saturate(rescale(leaving, inner) + stored, GATED_BITS)
        dd[i] = shift_round(gated * ratio, DECAY_BITS) - rescale(flow, inner) - stream - past
        flow += leaving - arriving
        stream += stored - carried
        arrived += carried
        for s in range(states):
            db[i, s] += rescale(np.int64(dot(inputs[i], slope_turned[s], width)) * weight, 2 * DECAY_BITS - g - k)
    for i in range(n):
        dd[i] -= arrived

    # The gradient of scores, cut as the scores are.
    product = np.zeros((n, n), np.int32)
    for i in range(n):
        for j in range(i + 1):
            product[i, j] = (dot(high[i], inputs[j], width) << 8) + dot(low[i], inputs[j], width)
    _mix(product, sums, lengths, weights, mixed, turned, exponents)
    most = np.int64(0)
    for i in range(n):
        factors[i] = down[i] << exponents[i]
        most = max(most, factors[i])
    q = max(bit_length(most) - 8, 0)
    queries = np.empty((states, n), np.int16)
    for s in range(states):
        for i in range(n):
            queries[s, i] = shift_round(ct[s, i] * factors[i], q)
    for i in range(n):
        for s in range(states):
            db[i, s] += rescale(np.int64(dot(turned[i, i:], queries[s, i:], n - i)), 17 - q)
            dc[i, s] += rescale(np.int64(dot(mixed[i], bt[s], i + 1)) * down[i], 17 - exponents[i])
            total = (np.int64(dot(high[i], seen_turned[s], width)) << 8) + dot(low[i], seen_turned[s], width)
            dc[i, s] += shift_round(total * power(sums[i], k_bits), u - g)

    for i in range(n):
        factors[i] = power(sums[i], DECAY_BITS)
    w = _cut(dy, factors, errors)
    for p in range(width):
        for s in range(states):
            added = rescale(np.int64(dot(errors[p], ct[s], n)), s_g - w)
            lam[p, s] = saturate(shift_round(np.int64(lam[p, s]) * kept, DECAY_BITS) + added, 32)
    return dx, dd


@spread
def _back(dy, x, d, b, bt, c, ct, scores, skip, h, dh, chunk, t, u, g, k_bits, s_h, s_g):
    """Walk rows back: dy and x are (B, H, P, L), d (B, H, L), b and c (B, L, S), bt and ct (B, S, L)."""
    batch, heads, width, length = x.shape
    states, chunks = b.shape[2], (length + chunk - 1) // chunk
    dx, dd = np.empty((batch, length, heads, width), np.int64), np.empty((batch, length, heads), np.int64)
    db, dc, start = np.zeros(b.shape, np.int64), np.zeros(c.shape, np.int64), dh.copy()
    for row in prange(batch):
        kept = np.empty((chunks + 1, width, states), np.int32)
        sums, weights, lengths = np.empty(chunk, np.int64), np.empty(chunk, np.int64), np.empty(chunk, np.int64)
        weighed = np.empty(chunk, np.int16)
        for head in range(heads):
            kept[0] = h[row, head]
            for n in range(length // chunk):
                first = n * chunk
                kept[n + 1] = kept[n]
                _exponents(d[row, head, first : first + chunk], sums, weights, lengths, t)
                _boundary(x[row, head], d[row, head], sums, bt[row], first, kept[n + 1], weighed, weights)
            for n in range(chunks - 1, -1, -1):
                at = slice(n * chunk, min(n * chunk + chunk, length))
                part_x, part_d = _chunk(
                    np.ascontiguousarray(dy[row, head, :, at]),
                    np.ascontiguousarray(x[row, head, :, at]),
                    d[row, head, at],
                    b[row, at],
                    np.ascontiguousarray(bt[row, :, at]),
                    c[row, at],
                    np.ascontiguousarray(ct[row, :, at]),
                    scores[row, at],
                    skip[head],
                    kept[n],
                    start[row, head],
                    db[row, at],
                    dc[row, at],
                    n < length // chunk,
                    t,
                    u,
                    g,
                    k_bits,
                    s_h,
                    s_g,
                )
                dx[row, at, head] = part_x
                dd[row, at, head] = part_d
    return dx, dd, db, dc, start


@implements(ops.ssd_chunk_scan_backward)
def ssd_chunk_scan_backward(dy, x, d, b, c, skip, h, dh, *, q, s_h, s_g, s_x, s_d, s_b, s_c):
    chunk, states, (batch, length) = 1 << q, b.shape[2], x.shape[:2]
    across = [np.ascontiguousarray(a.transpose(0, 2, 3, 1), np.int16) for a in (dy, x)]
    rows = [np.ascontiguousarray(a, np.int16) for a in (b, c)]
    turned = [np.ascontiguousarray(a.transpose(0, 2, 1)) for a in rows]
    zeros, ends = np.zeros(batch, np.int32), np.full(batch, length, np.int32)
    whole = [np.pad(a, ((0, 0), (0, -length % chunk), (0, 0))) for a in rows]
    scores = _scores(*whole, zeros, ends, chunk)
    bits = weight_bits(states), sum_bits(states), gradient_bits(states), carried_bits(states, s_h)
    exponents = np.ascontiguousarray(d.transpose(0, 2, 1), np.int32)
    arrays = (*across, exponents, rows[0], turned[0], rows[1], turned[1], scores, np.ascontiguousarray(skip))
    totals = _back(*arrays, *map(np.ascontiguousarray, (h, dh)), chunk, *bits, s_h, s_g)
    dx, dd, db, dc, start = totals
    dd = shift_round_ln2(put(dd, s_d))
    dskip = np.einsum("blhp,blhp->h", dy.astype(np.int64), x.astype(np.int64))
    return put(dx, s_x), dd, put(db, s_b), put(dc, s_c), dskip, start


def shift_round_ln2(dd):
    """Return gradients of natural exponents as those of exponents of two."""
    return ((dd.astype(np.int64) * LN2 + (1 << (DECAY_BITS - 1))) >> DECAY_BITS).astype(np.int32)


__all__ = ["ssd_chunk_scan_backward"]
