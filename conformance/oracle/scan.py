"""``spec.ops.scan`` on unbounded integers: one channel at a time, the decays as rational weights."""

import numpy as np

from .integers import saturate, shift_even, shift_round
from .observe import see


def rounded(name: str, value: int, s: int) -> int:
    """Return value / 2**s to nearest; the value with its half added is recorded."""
    return shift_round(see(name, value + 2**s // 2) - 2**s // 2, s)


def rounded_even(name: str, value: int, s: int) -> int:
    """Return value / 2**s to nearest, ties to even; the value with its half added is recorded."""
    return shift_even(see(name, value + 2**s // 2) - 2**s // 2, s)


def modulated(base: int, mod: int, n_max: int) -> int:
    return max(0, min(n_max, base + mod))


def decay_modulate(base, mod, *, k, n_max):
    n = np.empty((*mod.shape, base.shape[1]), "int16")
    for b, t, d, i in np.ndindex(n.shape):
        total = see("sum", int(base[d, i]) + int(mod[b, t, d]))
        n[b, t, d, i] = see("n", modulated(total, 0, n_max))
    return n


def advance(state, n, x, into, k, s_v, convex):
    """Return v and the new state."""
    v = see("v", rounded("product", x * into * 2 ** max(0, -s_v), max(0, s_v)))
    numerator = see("numerator", state * n + v * (2**k - n * convex))
    return v, see("h", numerator // 2**k)


def step(x, decays, b, c, skip, h, k, s_v, s_h, s_y, convex):
    """Return y and the new states of one channel, all Python integers."""
    new, total = [], skip * x
    for state, n, into, out in zip(h, decays, b, c, strict=True):
        new.append(advance(state, n, x, into, k, s_v, convex)[1])
        total += see("term", new[-1] // 2**s_h * out)
    return see("y", saturate(rounded("sum", total, s_y), 16)), new


def selective_scan(x, mod, base, b, c, skip, h, *, k, n_max, s_v, s_h, s_y, convex):
    y, end = np.empty(x.shape, "int16"), np.empty(h.shape, "int32")
    for i, d in np.ndindex(h.shape[:2]):
        state = h[i, d].tolist()
        for t in range(x.shape[1]):
            decays = [see("n", modulated(slow, int(mod[i, t, d]), n_max)) for slow in base[d].tolist()]
            arrays = (int(x[i, t, d]), decays, b[i, t].tolist(), c[i, t].tolist(), int(skip[d]))
            y[i, t, d], state = step(*arrays, state, k, s_v, s_h, s_y, convex)
        end[i, d] = state
    return y, end


def ssd_scan(x, n, b, c, skip, h, *, k, n_max, s_v, s_h, s_y, convex):
    y, end = np.empty(x.shape, "int16"), np.empty(h.shape, "int32")
    for i, head, p in np.ndindex(h.shape[:3]):
        state = h[i, head, p].tolist()
        for t in range(x.shape[1]):
            decays = [int(n[i, t, head])] * len(state)
            arrays = (int(x[i, t, head, p]), decays, b[i, t].tolist(), c[i, t].tolist(), int(skip[head]))
            y[i, t, head, p], state = step(*arrays, state, k, s_v, s_h, s_y, convex)
        end[i, head, p] = state
    return y, end


def selective_scan_step(x, mod, base, b, c, skip, h, **parameters):
    y, h = selective_scan(x[:, None], mod[:, None], base, b[:, None], c[:, None], skip, h, **parameters)
    return y[:, 0], h


def ssd_scan_step(x, n, b, c, skip, h, **parameters):
    y, h = ssd_scan(x[:, None], n[:, None], b[:, None], c[:, None], skip, h, **parameters)
    return y[:, 0], h


__all__ = ["decay_modulate", "selective_scan", "selective_scan_step", "ssd_scan", "ssd_scan_step"]
