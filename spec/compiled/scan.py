"""Numba twins of ``spec.ops.scan``: channels are the lanes, a tile of them stays in the nearest cache."""

import numpy as np
from numba import njit, prange

from .. import ops
from ..contract import implements
from .recurrence import advance, shift
from .threads import spread

TILE = 128
HALVES_ADDED = 128  # states whose half products, below 2**23 each, add up within 32 bits


@implements(ops.decay_modulate)
def decay_modulate(base, mod, *, k, n_max):
    batch, length, channels = mod.shape
    flat = np.ascontiguousarray(mod).reshape(batch * length, channels)
    return _decay_modulate(np.ascontiguousarray(base), flat, n_max).reshape(*mod.shape, base.shape[1])


@spread
def _decay_modulate(base, mod, n_max):
    n = np.empty((len(mod), *base.shape), np.int16)
    for row in prange(len(mod)):
        for d in range(base.shape[0]):
            for i in range(base.shape[1]):
                n[row, d, i] = min(max(base[d, i] + mod[row, d], 0), n_max)
    return n


@njit(inline="always")
def read(h, c, s_h):
    return np.int64(shift(h, s_h)) * np.int64(c)


@njit(inline="always")
def read_halves(h, c, s_h):
    """Return the products of c with the two halves of h as the output reads it: both fit 32 bits."""
    seen = shift(h, s_h)
    return np.int32(shift(seen, 16) * c), np.int32(np.int32(seen & np.int32(0xFFFF)) * c)


@spread
def _scan(x, mod, base, b, c, skip, h, k, n_max, s_v, s_h, s_y, convex):
    """Scan channels, the state the first axis: h is (B, N, D), base (N, D), b and c (N, B, L).

    Four steps a pass, so that a state is loaded and stored once in four; a last pass of fewer repeats the last step and
    keeps the state before the repetitions.
    """
    batch, length, channels = x.shape
    y, end = np.empty_like(x), np.empty_like(h)
    tiles = (channels + TILE - 1) // TILE
    for task in prange(batch * tiles):
        i, first = task // tiles, task % tiles * TILE
        size = min(TILE, channels - first)
        states, bases = np.zeros((len(base), TILE), np.int32), np.zeros((len(base), TILE), np.int32)
        states[:, :size] = h[i, :, first : first + size]
        bases[:, :size] = base[:, first : first + size]
        inputs, moves = np.zeros((4, TILE), np.int32), np.zeros((4, TILE), np.int32)
        sums = np.zeros((4, TILE), np.int64)
        high, low = np.zeros((4, TILE), np.int32), np.zeros((4, TILE), np.int32)
        for t in range(0, length, 4):
            steps = min(4, length - t)
            t1, t2, t3 = min(t + 1, length - 1), min(t + 2, length - 1), min(t + 3, length - 1)
            for u in range(steps):
                for d in range(size):
                    inputs[u, d] = x[i, t + u, first + d]
                    moves[u, d] = mod[i, t + u, first + d]
                    sums[u, d] = np.int64(inputs[u, d]) * skip[first + d] + ((1 << s_y) >> 1)
            for s in range(len(base)):
                row, slow = states[s], bases[s]
                b0, b1, b2, b3 = b[s, i, t], b[s, i, t1], b[s, i, t2], b[s, i, t3]
                c0, c1, c2, c3 = c[s, i, t], c[s, i, t1], c[s, i, t2], c[s, i, t3]
                for d in range(TILE):
                    h0 = advance(row[d], slow[d], moves[0, d], inputs[0, d], b0, k, n_max, s_v, convex)
                    h1 = advance(h0, slow[d], moves[1, d], inputs[1, d], b1, k, n_max, s_v, convex)
                    h2 = advance(h1, slow[d], moves[2, d], inputs[2, d], b2, k, n_max, s_v, convex)
                    h3 = advance(h2, slow[d], moves[3, d], inputs[3, d], b3, k, n_max, s_v, convex)
                    row[d] = h3 if steps == 4 else h2 if steps == 3 else h1 if steps == 2 else h0
                    a0, z0 = read_halves(h0, c0, s_h)
                    a1, z1 = read_halves(h1, c1, s_h)
                    a2, z2 = read_halves(h2, c2, s_h)
                    a3, z3 = read_halves(h3, c3, s_h)
                    high[0, d] += a0
                    high[1, d] += a1
                    high[2, d] += a2
                    high[3, d] += a3
                    low[0, d] += z0
                    low[1, d] += z1
                    low[2, d] += z2
                    low[3, d] += z3
                if s % HALVES_ADDED == HALVES_ADDED - 1 or s == len(base) - 1:
                    for u in range(steps):
                        for d in range(size):
                            sums[u, d] += (np.int64(high[u, d]) << 16) + low[u, d]
                    high[:], low[:] = 0, 0
            for u in range(steps):
                for d in range(size):
                    y[i, t + u, first + d] = min(max(sums[u, d] >> s_y, -32767), 32767)
        end[i, :, first : first + size] = states[:, :size]
    return y, end


@implements(ops.selective_scan)
def selective_scan(x, mod, base, b, c, skip, h, *, k, n_max, s_v, s_h, s_y, convex):
    mixtures = (np.moveaxis(a, 2, 0).astype(np.int32) for a in (b, c))
    arrays = (np.ascontiguousarray(a) for a in (x, mod, base.T, *mixtures, skip, h.swapaxes(1, 2)))
    y, h = _scan(*arrays, k, n_max, s_v, s_h, s_y, convex)
    return y, np.ascontiguousarray(h.swapaxes(1, 2))


@spread
def _step(x, mod, base, b, c, skip, h, k, n_max, s_v, s_h, s_y, convex):
    """Run one step of channels (H, P) whose states lie together: x is (B, H, P), h (B, H, P, N), base (H, N).

    One step reads and writes each state once, so the lanes are the states, as they lie in memory.
    """
    batch, heads, width = x.shape
    y, end = np.empty_like(x), np.empty_like(h)
    for task in prange(batch * heads):
        i, head = task // heads, task % heads
        move = np.int32(mod[i, head])
        for p in range(width):
            value = np.int32(x[i, head, p])
            total = np.int64(value) * skip[head] + ((1 << s_y) >> 1)
            for s in range(h.shape[3]):
                slow, factor = np.int32(base[head, s]), np.int32(b[i, s])
                new = advance(h[i, head, p, s], slow, move, value, factor, k, n_max, s_v, convex)
                end[i, head, p, s] = new
                total += read(new, c[i, s], s_h)
            y[i, head, p] = min(max(total >> s_y, -32767), 32767)
    return y, end


@implements(ops.selective_scan_step)
def selective_scan_step(x, mod, base, b, c, skip, h, *, k, n_max, s_v, s_h, s_y, convex):
    arrays = map(np.ascontiguousarray, (x[..., None], mod, base, b, c, skip, h[:, :, None]))
    y, end = _step(*arrays, k, n_max, s_v, s_h, s_y, convex)
    return y.reshape(x.shape), end.reshape(h.shape)


@implements(ops.ssd_scan)
def ssd_scan(x, n, b, c, skip, h, **parameters):
    batch, length, heads, width = x.shape
    channels, states = heads * width, h.shape[-1]
    base = np.zeros((channels, states), np.int16)
    arrays = (x.reshape(batch, length, channels), np.repeat(n, width, axis=2), base, b, c, np.repeat(skip, width))
    y, end = selective_scan.kernel(*arrays, h.reshape(batch, channels, states), **parameters)
    return y.reshape(x.shape), end.reshape(h.shape)


@implements(ops.ssd_scan_step)
def ssd_scan_step(x, n, b, c, skip, h, *, k, n_max, s_v, s_h, s_y, convex):
    base = np.zeros((x.shape[1], h.shape[-1]), np.int16)
    arrays = map(np.ascontiguousarray, (x, n, base, b, c, skip, h))
    return _step(*arrays, k, n_max, s_v, s_h, s_y, convex)


__all__ = ["decay_modulate", "selective_scan", "selective_scan_step", "ssd_scan", "ssd_scan_step"]
