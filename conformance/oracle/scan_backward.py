"""``spec.ops.scan_backward`` on unbounded integers: one state at a time, forward and then back."""

from typing import Any

import numpy as np

from .integers import saturate
from .observe import see
from .scan import advance, modulated, rounded, rounded_even


def nothing(*shape: int) -> Any:
    """Return zeros that are Python integers."""
    return np.full(shape, 0, object)


def put(name: str, totals: Any, s: int) -> np.ndarray:
    result = np.empty(totals.shape, "int32")
    for place in np.ndindex(totals.shape):
        result[place] = see(name, saturate(rounded(f"{name} sum", totals[place], s), 32))
    return result


def exact(name: str, totals: Any) -> np.ndarray:
    for place in np.ndindex(totals.shape):
        see(name, totals[place])
    return totals.astype("int64")


def clamped(slow: int, mod: int, n_max: int) -> bool:
    return slow + mod < 0 or slow + mod > n_max


def decay_modulate_backward(dn, base, mod, *, k, n_max, s_n):
    dbase, dmod = nothing(*base.shape), nothing(*mod.shape)
    for b, t, d, i in np.ndindex(dn.shape):
        total = see("sum", int(base[d, i]) + int(mod[b, t, d]))
        passed = see("passed", int(dn[b, t, d, i]) if 0 <= total <= n_max else 0)
        dbase[d, i] += passed
        dmod[b, t, d] += passed
    return exact("dbase", dbase), put("dmod", dmod, s_n)


def one_state(dy, x, decays, b, c, h, dh, k, s_v, s_h, convex, s_g, s_w):
    """Return dh before the steps, and for each step dv, w and the shifted state: all Python integers."""
    added, states = [], [h]
    for t in range(len(x)):
        v, state = advance(states[-1], decays[t], x[t], b[t], k, s_v, convex)
        added.append(v)
        states.append(state)
    steps: list[tuple[int, int, int]] = []
    for t in range(len(x) - 1, -1, -1):
        lam = see("lam", dh + see("u", rounded_even("output product", dy[t] * c[t], s_g)))
        dv = see("dv", rounded("kept", lam * (2**k - decays[t] * convex), k))
        w = see("w", rounded("moved", lam * (states[t] - added[t] * convex), s_w))
        steps.insert(0, (dv, w, states[t + 1] // 2**s_h))
        dh = see("dh", rounded("decayed", lam * decays[t], k))
    return dh, steps


def input_gradient(through: int, past: int, s_v: int, s_h: int, s_g: int) -> int:
    """Return the gradient of x through the states and past them, in the finer of the two units."""
    finer = s_v + s_h - s_g
    return through + past * 2**finer if finer > 0 else through * 2**-finer + past


def selective_scan_backward(
    dy, x, mod, base, b, c, skip, h, dh, *, k, n_max, s_v, s_h, convex, s_g, s_w, s_n, s_x, s_b, s_c
):
    through, past, dmod, dskip = nothing(*x.shape), nothing(*x.shape), nothing(*x.shape), nothing(*skip.shape)
    db, dc, dbase, start = nothing(*b.shape), nothing(*c.shape), nothing(*base.shape), np.empty(h.shape, "int32")
    for i, d, s in np.ndindex(h.shape):
        slow, mods, inputs, errors = int(base[d, s]), mod[i, :, d].tolist(), x[i, :, d].tolist(), dy[i, :, d].tolist()
        decays = [see("n", modulated(slow, move, n_max)) for move in mods]
        mixtures = b[i, :, s].tolist(), c[i, :, s].tolist()
        carried = int(h[i, d, s]), int(dh[i, d, s])
        start[i, d, s], steps = one_state(errors, inputs, decays, *mixtures, *carried, k, s_v, s_h, convex, s_g, s_w)
        for t, (dv, w, seen) in enumerate(steps):
            through[i, t, d] += dv * mixtures[0][t]
            db[i, t, s] += dv * inputs[t]
            dc[i, t, s] += seen * errors[t]
            if not clamped(slow, mods[t], n_max):
                dmod[i, t, d] += w
                dbase[d, s] += w
    for i, t, d in np.ndindex(x.shape):
        past[i, t, d] = int(dy[i, t, d]) * int(skip[d])
        dskip[d] += int(dy[i, t, d]) * int(x[i, t, d])
    dx = nothing(*x.shape)
    for place in np.ndindex(x.shape):
        dx[place] = input_gradient(through[place], past[place], s_v, s_h, s_g)
    sums = put("dx", dx, s_x), put("dmod", dmod, s_n), exact("dbase", dbase), put("db", db, s_b), put("dc", dc, s_c)
    return *sums, exact("dskip", dskip), start


def ssd_scan_backward(dy, x, n, b, c, skip, h, dh, *, k, n_max, s_v, s_h, convex, s_g, s_w, s_n, s_x, s_b, s_c):
    through, dx, dn, dskip = nothing(*x.shape), nothing(*x.shape), nothing(*n.shape), nothing(*skip.shape)
    db, dc, start = nothing(*b.shape), nothing(*c.shape), np.empty(h.shape, "int32")
    for i, head, p, s in np.ndindex(h.shape):
        decays, inputs, errors = n[i, :, head].tolist(), x[i, :, head, p].tolist(), dy[i, :, head, p].tolist()
        mixtures = b[i, :, s].tolist(), c[i, :, s].tolist()
        carried = int(h[i, head, p, s]), int(dh[i, head, p, s])
        results = one_state(errors, inputs, decays, *mixtures, *carried, k, s_v, s_h, convex, s_g, s_w)
        start[i, head, p, s], steps = results
        for t, (dv, w, seen) in enumerate(steps):
            through[i, t, head, p] += dv * mixtures[0][t]
            db[i, t, s] += dv * inputs[t]
            dc[i, t, s] += seen * errors[t]
            dn[i, t, head] += w
    for i, t, head, p in np.ndindex(x.shape):
        error = int(dy[i, t, head, p])
        dx[i, t, head, p] = input_gradient(through[i, t, head, p], error * int(skip[head]), s_v, s_h, s_g)
        dskip[head] += error * int(x[i, t, head, p])
    sums = put("dx", dx, s_x), put("dn", dn, s_n), put("db", db, s_b), put("dc", dc, s_c)
    return *sums, exact("dskip", dskip), start


__all__ = ["decay_modulate_backward", "selective_scan_backward", "ssd_scan_backward"]
