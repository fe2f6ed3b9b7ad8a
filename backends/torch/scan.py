"""Torch versions of ``spec.ops.scan``: a loop over time, all channels and states at once."""

import torch

from mamba_integer.spec import ops
from mamba_integer.spec.contract import implements

from . import integers
from .recurrence import advance, input_of, modulate


@implements(ops.decay_modulate)
def decay_modulate(base, mod, *, k, n_max):
    return modulate(base, mod, n_max).to(torch.int16)


def run_step(h, n, x, b, c, skip, k, s_v, s_h, s_y, convex):
    """Return y and the new h of one step; the state is the last axis of h, n, b and c, which x and skip lack."""
    h = advance(h, n, input_of(x, b, s_v), k, convex)
    total = ((h >> s_h).long() * c).sum(dim=-1) + x.long() * skip
    return integers.saturate(integers.shift_round(total, s_y), 16).to(torch.int16), h


@implements(ops.selective_scan_step)
def selective_scan_step(x, mod, base, b, c, skip, h, *, k, n_max, s_v, s_h, s_y, convex):
    n = modulate(base, mod, n_max)
    return run_step(h, n, x, b[:, None], c[:, None], skip, k, s_v, s_h, s_y, convex)


@implements(ops.ssd_scan_step)
def ssd_scan_step(x, n, b, c, skip, h, *, k, n_max, s_v, s_h, s_y, convex):
    heads, mixtures = n[..., None, None], (b[:, None, None], c[:, None, None])
    return run_step(h, heads, x, *mixtures, skip[:, None], k, s_v, s_h, s_y, convex)


@implements(ops.selective_scan)
def selective_scan(x, mod, base, b, c, skip, h, **parameters):
    y, h = torch.empty(x.shape, dtype=x.dtype, device=x.device), h.clone()
    for t in range(x.shape[1]):
        step = (x[:, t], mod[:, t], base, b[:, t], c[:, t], skip)
        y[:, t], h = selective_scan_step.kernel(*step, h, **parameters)
    return y, h


@implements(ops.ssd_scan)
def ssd_scan(x, n, b, c, skip, h, **parameters):
    y, h = torch.empty(x.shape, dtype=x.dtype, device=x.device), h.clone()
    for t in range(x.shape[1]):
        y[:, t], h = ssd_scan_step.kernel(x[:, t], n[:, t], b[:, t], c[:, t], skip, h, **parameters)
    return y, h


__all__ = ["decay_modulate", "selective_scan", "selective_scan_step", "ssd_scan", "ssd_scan_step"]
