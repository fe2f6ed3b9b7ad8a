"""``spec.ops.norm_backward`` on unbounded integers."""

import numpy as np

from .integers import round_div, saturate, shift_round
from .norm import row_scale
from .observe import see


def error_of_row(x, gamma, dy, dr, b, e):
    """Return the gradient of one row of Python integers, and the terms that it adds to the gradient of gamma."""
    D = len(x)
    c, k, m = row_scale(x, b)
    n = [see("unit", shift_round(see("scaled", v * m) * 2**12, k + b)) for v in c]
    g = [see("g", shift_round(see("product", d * w), 8)) for d, w in zip(dy, gamma, strict=True)]
    mean = see("g_mean", round_div(see("g_sum", sum(g)), D))
    q = see("divisor", max(1, shift_round(see("energy", sum(u * u for u in n)), 12)))
    p = see("slope", round_div(see("dot", sum(v * u for v, u in zip(g, n, strict=True))), q))
    dx = []
    for v, u, past in zip(g, n, dr, strict=True):
        across = see("across", v - mean - shift_round(see("along", u * p), 12))
        raised = see("raised", across * m * 2 ** max(0, 8 - e))
        update = see("update", shift_round(raised, k + b + max(0, e - 8)))
        dx.append(see("dx", saturate(see("total", past + update), 32)))
    return dx, [see("gain", d * u) for d, u in zip(dy, n, strict=True)]


def bitshift_norm_backward(x, gamma, dy, dr, *, b, e):
    rows = zip(*(a.reshape(-1, x.shape[-1]).tolist() for a in (x, dy, dr)), strict=True)
    results = [error_of_row(row, gamma.tolist(), d, past, b, e) for row, d, past in rows]
    dx = np.array([row for row, _ in results], "int32").reshape(x.shape)
    gains = zip(*(gain for _, gain in results), strict=True) if results else [()] * x.shape[-1]
    return dx, np.array([see("dgamma", sum(column)) for column in gains], "int64")


__all__ = ["bitshift_norm_backward"]
