"""Torch versions of ``spec.ops.scan_backward``: a loop over time, all channels and states at once.

The states at the start of each chunk of steps are kept; those between are computed again.
"""

import torch

from mamba_integer.spec import ops
from mamba_integer.spec.contract import implements

from . import integers
from .recurrence import advance, input_of, modulate

CHUNK = 32


def put(total, s):
    return integers.saturate(integers.shift_round(total, s), 32).int()


def passing(base, mod, n_max):
    total = mod[..., None].int() + base
    return (total >= 0) & (total <= n_max)


@implements(ops.decay_modulate_backward)
def decay_modulate_backward(dn, base, mod, *, k, n_max, s_n):
    g = dn.long() * passing(base, mod, n_max)
    return g.sum(dim=(0, 1)), put(g.sum(dim=-1), s_n)


def retreat(lam, dy, x, n, b, c, skip, before, h, *, k, s_v, s_h, convex, s_g, s_w):
    """Return, of one step: lam before it, the sum of dx, w, and what it adds to db and dc."""
    fine = s_v + s_h - s_g
    dy, x, n = dy.long(), x.long(), n.long()
    lam = lam + integers.shift_even(dy[..., None] * c, s_g)
    dv, moved = lam, before.long()
    if convex:
        dv = integers.shift_round(lam * ((1 << k) - n), k)
        moved = moved - input_of(x, b, s_v)
    w = integers.shift_round(lam * moved, s_w)
    dx = ((dv * b).sum(dim=-1) << max(0, -fine)) + ((dy * skip) << max(0, fine))
    return integers.shift_round(lam * n, k), dx, w, dv * x[..., None], (h >> s_h).long() * dy[..., None]


def backwards(length, h, run_step):
    """Yield each step from the last to the first with the states before and after it; ``run_step(t, h)`` runs one."""
    starts = []
    for t in range(length):
        if t % CHUNK == 0:
            starts.append(h)
        h = run_step(t, h)
    for chunk in reversed(range(len(starts))):
        steps = range(chunk * CHUNK, min((chunk + 1) * CHUNK, length))
        states = [starts[chunk]]
        for t in steps:
            states.append(run_step(t, states[-1]))
        for t in reversed(steps):
            yield t, states[t - steps[0]], states[t - steps[0] + 1]


def gradients(*likes):
    return (torch.empty(like.shape, dtype=torch.int32, device=like.device) for like in likes)


@implements(ops.selective_scan_backward)
def selective_scan_backward(
    dy, x, mod, base, b, c, skip, h, dh, *, k, n_max, s_v, s_h, convex, s_g, s_w, s_n, s_x, s_b, s_c
):
    forward = dict(k=k, s_v=s_v, s_h=s_h, convex=convex)

    def run_step(t, h):
        v = input_of(x[:, t], b[:, t, None], s_v)
        return advance(h, modulate(base, mod[:, t], n_max), v, k, convex)

    dx, dmod, db, dc = gradients(x, mod, b, c)
    dbase, lam = torch.zeros_like(base, dtype=torch.int64), dh.long()
    for t, before, after in backwards(x.shape[1], h, run_step):
        n = modulate(base, mod[:, t], n_max)
        step = (dy[:, t], x[:, t], n, b[:, t, None], c[:, t, None], skip, before, after)
        lam, into, w, to_b, to_c = retreat(lam, *step, **forward, s_g=s_g, s_w=s_w)
        w = w * passing(base, mod[:, t], n_max)
        dx[:, t], dmod[:, t] = put(into, s_x), put(w.sum(dim=-1), s_n)
        db[:, t], dc[:, t] = put(to_b.sum(dim=1), s_b), put(to_c.sum(dim=1), s_c)
        dbase += w.sum(dim=0)
    return dx, dmod, dbase, db, dc, (dy.long() * x).sum(dim=(0, 1)), lam.int()


@implements(ops.ssd_scan_backward)
def ssd_scan_backward(dy, x, n, b, c, skip, h, dh, *, k, n_max, s_v, s_h, convex, s_g, s_w, s_n, s_x, s_b, s_c):
    forward = dict(k=k, s_v=s_v, s_h=s_h, convex=convex)

    def run_step(t, h):
        v = input_of(x[:, t], b[:, t, None, None], s_v)
        return advance(h, n[:, t, :, None, None], v, k, convex)

    dx, dn, db, dc = gradients(x, n, b, c)
    lam = dh.long()
    for t, before, after in backwards(x.shape[1], h, run_step):
        mixtures, heads = (b[:, t, None, None], c[:, t, None, None]), n[:, t, :, None, None]
        step = (dy[:, t], x[:, t], heads, *mixtures, skip[:, None], before, after)
        lam, into, w, to_b, to_c = retreat(lam, *step, **forward, s_g=s_g, s_w=s_w)
        dx[:, t], dn[:, t] = put(into, s_x), put(w.sum(dim=(2, 3)), s_n)
        db[:, t], dc[:, t] = put(to_b.sum(dim=(1, 2)), s_b), put(to_c.sum(dim=(1, 2)), s_c)
    return dx, dn, db, dc, (dy.long() * x).sum(dim=(0, 1, 3)), lam.int()


__all__ = ["decay_modulate_backward", "selective_scan_backward", "ssd_scan_backward"]
