"""Numba twins of ``spec.ops.scan_backward``: channels are the lanes, as in the forward scan.

A first pass keeps the states at the start of each chunk of steps. The second goes through the chunks backwards: one
state after another, it computes the chunk's states again and walks back through them, all of it in the nearest cache.
"""

from functools import partial

import numpy as np
from numba import njit, prange

from .. import ops
from ..contract import implements
from .integers import saturate, shift_round
from .recurrence import advance, clamp, input_of, shift
from .threads import spread

TILE = 128
CHUNK = 32


@partial(spread, lightness=4)
def _put(totals, s):
    """Round sums to gradients of 32 bits."""
    result = np.empty(len(totals), np.int32)
    for i in prange(len(totals)):
        result[i] = saturate(shift_round(totals[i], s), 32)
    return result


def put(totals, s):
    return _put(totals.reshape(-1), s).reshape(totals.shape)


@spread
def _decay_modulate_backward(dn, base, mod, n_max):
    """Return the sums of each row of steps in dbase, and those of dmod."""
    batch, length, channels, states = dn.shape
    dbase, dmod = np.zeros((batch, channels, states), np.int64), np.empty(mod.shape, np.int64)
    for i in prange(batch):
        for t in range(length):
            for d in range(channels):
                total = np.int64(0)
                for s in range(states):
                    decay = np.int32(base[d, s]) + np.int32(mod[i, t, d])
                    passed = np.int64(dn[i, t, d, s]) if 0 <= decay <= n_max else np.int64(0)
                    dbase[i, d, s] += passed
                    total += passed
                dmod[i, t, d] = total
    return dbase, dmod


@implements(ops.decay_modulate_backward)
def decay_modulate_backward(dn, base, mod, *, k, n_max, s_n):
    dbase, dmod = _decay_modulate_backward(*map(np.ascontiguousarray, (dn, base, mod)), n_max)
    return dbase.sum(axis=0), put(dmod, s_n)


@njit(inline="always")
def rounded(product, s):
    """Return an int32 product over 2**s, rounded; the half still fits."""
    return shift(np.int32(product + np.int32((1 << s) >> 1)), s)


@njit(inline="always")
def rounded_even(product, s):
    """Return an int32 product over 2**s, rounded, ties to even."""
    odd = np.int32(shift(product, s) & np.int32(min(s, 1)))
    return shift(np.int32(np.int32(product + np.int32(((1 << s) - 1) >> 1)) + odd), s)


@njit(inline="always")
def scaled(x, factor, k):
    """Return x * factor over 2**k, rounded, in 32 bits: x's last k bits apart, as the forward scan's product."""
    low = np.int32(np.int32(x & np.int32((1 << k) - 1)) * factor)
    return np.int32(np.int32(shift(x, k) * factor) + rounded(low, k))


@njit
def _back_tile(gradients, dy, x, mod, base, b, c, skip, h, dh, task, k, n_max, s_v, s_h, convex, s_g, s_w):
    """Walk a tile of channels of a row back; fill its part of the gradients, which are those that `_back` returns."""
    dx, dmod, dbase, db, dc, dskip, start = gradients
    length, channels, states, tiles = x.shape[1], x.shape[2], len(base), db.shape[1]
    chunks = (length + CHUNK - 1) // CHUNK
    fine, coarse = max(0, s_v + s_h - s_g), max(0, s_g - s_v - s_h)
    i, tile = task // tiles, task % tiles
    first = tile * TILE
    size = min(TILE, channels - first)
    state, lams = np.zeros((states, TILE), np.int32), np.zeros((states, TILE), np.int32)
    bases, base_sums = np.zeros((states, TILE), np.int32), np.zeros((states, TILE), np.int64)
    state[:, :size] = h[i, :, first : first + size]
    lams[:, :size] = dh[i, :, first : first + size]
    bases[:, :size] = base[:, first : first + size]
    starts = np.empty((chunks, states, TILE), np.int32)
    known = np.zeros((CHUNK + 1, TILE), np.int32)
    inputs, moves = np.zeros((CHUNK, TILE), np.int32), np.zeros((CHUNK, TILE), np.int32)
    errors = np.zeros((CHUNK, TILE), np.int32)
    through, moved = np.zeros((CHUNK, TILE), np.int64), np.zeros((CHUNK, TILE), np.int64)
    nows, values = np.empty(TILE, np.int32), np.empty(TILE, np.int32)
    decays, factors = np.empty(TILE, np.int32), np.empty(TILE, np.int32)
    passes = np.empty(TILE, np.bool_)
    skip_sums = np.zeros(TILE, np.int64)

    for chunk in range(chunks - 1):
        t0 = chunk * CHUNK
        inputs[:, :size] = x[i, t0 : t0 + CHUNK, first : first + size]
        moves[:, :size] = mod[i, t0 : t0 + CHUNK, first : first + size]
        starts[chunk] = state
        for s in range(states):
            row, slow = state[s], bases[s]
            for u in range(CHUNK):
                into = b[s, i, t0 + u]
                for d in range(TILE):
                    row[d] = advance(row[d], slow[d], moves[u, d], inputs[u, d], into, k, n_max, s_v, convex)
    if chunks:
        starts[chunks - 1] = state

    for chunk in range(chunks - 1, -1, -1):
        t0 = chunk * CHUNK
        steps = min(CHUNK, length - t0)
        inputs[:steps, :size] = x[i, t0 : t0 + steps, first : first + size]
        moves[:steps, :size] = mod[i, t0 : t0 + steps, first : first + size]
        errors[:steps, :size] = dy[i, t0 : t0 + steps, first : first + size]
        through[:], moved[:] = 0, 0
        for s in range(states):
            lam, slow, slow_sums = lams[s], bases[s], base_sums[s]
            known[0] = starts[chunk, s]
            for u in range(steps):
                into = b[s, i, t0 + u]
                for d in range(TILE):
                    known[u + 1, d] = advance(
                        known[u, d], slow[d], moves[u, d], inputs[u, d], into, k, n_max, s_v, convex
                    )
            for u in range(steps - 1, -1, -1):
                into, out = b[s, i, t0 + u], c[s, i, t0 + u]
                # Loops over few arrays each, for the compiler makes lanes of no others.
                for d in range(TILE):
                    decay = np.int32(slow[d] + moves[u, d])
                    n = clamp(decay, 0, n_max)
                    now = np.int32(lam[d] + rounded_even(np.int32(errors[u, d] * out), s_g))
                    lam[d], nows[d], values[d], decays[d] = scaled(now, n, k), now, now, n
                    passes[d] = decay == n
                    factors[d] = known[u, d] if passes[d] else np.int32(0)
                if convex:
                    for d in range(TILE):
                        values[d] = scaled(nows[d], np.int32(np.int32(1 << k) - decays[d]), k)
                    for d in range(TILE):
                        added = input_of(inputs[u, d], into, s_v)
                        factors[d] = np.int32(factors[d] - (added if passes[d] else np.int32(0)))
                for d in range(TILE):
                    w = shift_round(np.int64(nows[d]) * np.int64(factors[d]), s_w)
                    moved[u, d] += w
                    slow_sums[d] += w
                to_b, to_c = np.int64(0), np.int64(0)
                for d in range(TILE):
                    through[u, d] += np.int64(values[d]) * np.int64(into)
                    to_b += np.int64(values[d]) * np.int64(inputs[u, d])
                    to_c += np.int64(shift(known[u + 1, d], s_h)) * np.int64(errors[u, d])
                db[i, tile, t0 + u, s], dc[i, tile, t0 + u, s] = to_b, to_c
        for u in range(steps):
            for d in range(size):
                error = np.int64(errors[u, d])
                dx[i, t0 + u, first + d] = (through[u, d] << coarse) + ((error * skip[first + d]) << fine)
                dmod[i, t0 + u, first + d] = moved[u, d]
                skip_sums[d] += error * inputs[u, d]
    start[i, :, first : first + size] = lams[:, :size]
    dbase[i, :, first : first + size] = base_sums[:, :size]
    dskip[i, first : first + size] = skip_sums[:size]


@spread
def _back(dy, x, mod, base, b, c, skip, h, dh, k, n_max, s_v, s_h, convex, s_g, s_w):
    """Walk channels back, the state the first axis: h and dh are (B, N, D), base (N, D), b and c (N, B, L).

    Returned are, as sums but for the last: dx, dmod, dbase of each row, db and dc of each tile, dskip of each row, dh.
    """
    batch, length, channels = x.shape
    states, tiles = len(base), (channels + TILE - 1) // TILE
    start, dbase, dskip = np.empty_like(dh), np.empty(h.shape, np.int64), np.empty((batch, channels), np.int64)
    dx, dmod = np.empty(x.shape, np.int64), np.empty(x.shape, np.int64)
    db, dc = np.empty((batch, tiles, length, states), np.int64), np.empty((batch, tiles, length, states), np.int64)
    gradients = dx, dmod, dbase, db, dc, dskip, start
    for task in prange(batch * tiles):
        _back_tile(gradients, dy, x, mod, base, b, c, skip, h, dh, task, k, n_max, s_v, s_h, convex, s_g, s_w)
    return gradients


def walk_back(dy, x, mod, base, b, c, skip, h, dh, *, s_n, s_x, s_b, s_c, **parameters):
    """Return dx, dmod as sums, dbase, db, dc, dskip and dh."""
    mixtures = (np.moveaxis(a, 2, 0).astype(np.int32) for a in (b, c))
    arrays = (dy, x, mod, base.T, *mixtures, skip, h.swapaxes(1, 2), dh.swapaxes(1, 2))
    order = ("k", "n_max", "s_v", "s_h", "convex", "s_g", "s_w")
    gradients = _back(*map(np.ascontiguousarray, arrays), *(parameters[name] for name in order))
    dx, dmod, dbase, db, dc, dskip, start = gradients
    shared = put(db.sum(axis=1), s_b), put(dc.sum(axis=1), s_c)
    dbase = np.ascontiguousarray(dbase.sum(axis=0).T)
    return put(dx, s_x), dmod, dbase, *shared, dskip.sum(axis=0), np.ascontiguousarray(start.swapaxes(1, 2))


@implements(ops.selective_scan_backward)
def selective_scan_backward(dy, x, mod, base, b, c, skip, h, dh, **parameters):
    dx, dmod, *rest = walk_back(dy, x, mod, base, b, c, skip, h, dh, **parameters)
    return dx, put(dmod, parameters["s_n"]), *rest


@implements(ops.ssd_scan_backward)
def ssd_scan_backward(dy, x, n, b, c, skip, h, dh, **parameters):
    batch, length, heads, width = x.shape
    channels, states = heads * width, h.shape[-1]
    base = np.zeros((channels, states), np.int16)
    rows = (a.reshape(batch, length, channels) for a in (dy, x))
    carried = (a.reshape(batch, channels, states) for a in (h, dh))
    repeated = np.repeat(n, width, axis=2), base, b, c, np.repeat(skip, width)
    dx, dn, _, db, dc, dskip, start = walk_back(*rows, *repeated, *carried, **parameters)
    dn = put(dn.reshape(x.shape).sum(axis=3), parameters["s_n"])
    return dx.reshape(x.shape), dn, db, dc, dskip.reshape(heads, width).sum(axis=1), start.reshape(h.shape)


__all__ = ["decay_modulate_backward", "selective_scan_backward", "ssd_scan_backward"]
