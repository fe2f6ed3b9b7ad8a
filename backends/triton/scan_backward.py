"""Triton versions of ``spec.ops.scan_backward``: `scan_walk` leaves sums, which a kernel of its own rounds."""

import torch
import triton
import triton.language as tl

from mamba_integer.spec import ops
from mamba_integer.spec.contract import implements

from . import integers, staged_walk
from .launch import dense, elementwise, launch, zeros
from .recurrence import is_far, mixture_words
from .scan_walk import CHANNELS, STATES, STEPS, starts_kernel, walk_kernel

DECAY_ROWS = 64  # of a program, which it sums up before it adds to memory


@triton.jit(do_not_specialize=["s"])
def put_kernel(result_pointer, total_pointer, size, s, BLOCK: tl.constexpr):
    offset = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    s = integers.scalar(s).to(tl.int64)
    total = tl.load(total_pointer + offset, mask=offset < size, other=0)
    rounded = integers.saturate(integers.shift_round(total, s), 32)
    tl.store(result_pointer + offset, rounded.to(tl.int32), mask=offset < size)


def put(total, s):
    result = torch.empty(total.shape, dtype=torch.int32, device=total.device)
    return elementwise(put_kernel, result, total, integers=(s,))


@triton.jit(do_not_specialize=["n_max", "s_n"])
def decay_kernel(
    dbase_pointer,
    dmod_pointer,
    dn_pointer,
    base_pointer,
    mod_pointer,
    rows,
    channels,
    states,
    n_max,
    s_n,
    ROWS: tl.constexpr,
    CHANNELS: tl.constexpr,
    STATES: tl.constexpr,
):
    """Sum the gradients of some channels, side by side in memory, over their states, and over some rows."""
    blocks = tl.cdiv(channels, CHANNELS)
    channel = (tl.program_id(0) % blocks).to(tl.int64) * CHANNELS + tl.arange(0, CHANNELS)
    row = (tl.program_id(0) // blocks).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    known = (row < rows)[:, None] & (channel < channels)[None, :]
    lane = row[:, None] * channels + channel[None, :]
    mod = tl.load(mod_pointer + lane, mask=known, other=0).to(tl.int32)
    total = tl.zeros([ROWS, CHANNELS], tl.int64)
    for first in range(0, states, STATES):
        state = first + tl.arange(0, STATES)
        entry = channel[:, None] * states + state[None, :]
        inside = (channel < channels)[:, None] & (state < states)[None, :]
        base = tl.load(base_pointer + entry, mask=inside, other=0).to(tl.int32)
        place = lane[:, :, None] * states + state[None, None, :]
        dn = tl.load(dn_pointer + place, mask=known[:, :, None] & (state < states)[None, None, :], other=0)
        decay = base[None, :, :] + mod[:, :, None]
        passed = tl.where((decay >= 0) & (decay <= n_max), dn, 0).to(tl.int64)
        total += tl.sum(passed, axis=2)
        tl.atomic_add(dbase_pointer + entry, tl.sum(passed, axis=0), mask=inside, sem="relaxed")
    rounded = integers.saturate(integers.shift_round(total, s_n.to(tl.int64)), 32)
    tl.store(dmod_pointer + lane, rounded.to(tl.int32), mask=known)


@implements(ops.decay_modulate_backward)
def decay_modulate_backward(dn, base, mod, *, k, n_max, s_n):
    channels, states = base.shape
    dbase = zeros(base.shape, torch.int64, dn.device)
    dmod = torch.empty(mod.shape, dtype=torch.int32, device=dn.device)
    rows = mod.shape[:-1].numel()
    size = min(16, triton.next_power_of_2(max(states, 1)))
    width = 64 // size
    sizes, rule = (rows, channels, states), (n_max, s_n)
    programs = triton.cdiv(channels, width) * triton.cdiv(rows, DECAY_ROWS)
    tile = {"ROWS": DECAY_ROWS, "CHANNELS": width, "STATES": size}
    launch(decay_kernel, programs, (dbase, dmod), (dn, base, mod), *sizes, *rule, **tile)
    return dbase, dmod


def walk_back(dy, x, mod, base, b, c, skip, h, dh, width, *, k, n_max, s_v, s_h, convex, s_g, s_w, s_n, s_x, s_b, s_c):
    """Walk channels back, ``width`` of them under one modulation; without a base, that is the decay.

    Returned are dx, dmod, dbase (None without a base), db, dc, dskip and dh.
    """
    batch, length, channels = x.shape
    states = h.shape[-1]

    def sums(*shape):
        return torch.zeros(shape, dtype=torch.int64, device=x.device)

    formats = dict(n_max=n_max, k=k, s_v=s_v)
    backward = dict(s_h=s_h, s_g=s_g, s_w=s_w, fine=max(0, s_v + s_h - s_g), coarse=max(0, s_g - s_v - s_h))
    if base is not None and x.numel() and staged_walk.suits(x, states):
        results = staged_walk.walk_back(
            *(dy, x, mod, base, b, c, skip, h, dh), formats | {"CONVEX": convex}, backward | {"s_n": s_n, "s_x": s_x}
        )
        dx, dmod, dbase, db, dc, dskip, end = results
        return dx, dmod, dbase, put(db[..., :states], s_b), put(dc[..., :states], s_c), dskip, end
    parts = triton.cdiv(states, STATES)
    padded = parts * STATES
    dx, dmod = sums(*x.shape), sums(*mod.shape)
    dbase = None if base is None else sums(*base.shape)
    mixed, dskip = sums(batch, length, parts, 2, STATES), sums(*skip.shape)
    end = torch.empty(dh.shape, dtype=torch.int32, device=dh.device)
    if x.numel() == 0:
        end.copy_(dh)
    else:
        steps = STEPS if length >= STEPS else 1
        blocks = length // steps + length % steps
        starts = torch.empty((batch, blocks, padded, channels), dtype=torch.int32, device=x.device)
        programs = triton.cdiv(channels, CHANNELS) * parts * batch
        dy, x, mod, base, skip, h, dh = dense(dy, x, mod, base, skip, h, dh)
        (b, words), (c, _) = mixture_words(b, STATES), mixture_words(c, STATES)
        sizes = (length, channels, states, words)
        far = is_far(length * channels, length * words, channels * STATES)
        tile = dict(WIDTH=width, MODULATED=base is not None, FAR=far, STATES=STATES, STEPS=steps, CHANNELS=CHANNELS)
        forward = formats | dict(convex=convex, FINER=s_v < 0)
        launch(starts_kernel, programs, (starts,), (x, mod, base, b, h), *sizes, **forward, **tile, num_warps=1)
        launch(
            walk_kernel,
            programs,
            (dx, dmod, dbase, mixed, dskip, end),
            (starts, dy, x, mod, base, b, c, skip, dh),
            *sizes,
            **forward,
            **backward,
            **tile,
            SHARED=parts > 1,
            num_warps=1,
        )
    db, dc = (a.flatten(-2)[..., :states] for a in mixed.unbind(-2))
    return put(dx, s_x), put(dmod, s_n), dbase, put(db, s_b), put(dc, s_c), dskip, end


@implements(ops.selective_scan_backward)
def selective_scan_backward(dy, x, mod, base, b, c, skip, h, dh, **parameters):
    return walk_back(dy, x, mod, base, b, c, skip, h, dh, 1, **parameters)


@implements(ops.ssd_scan_backward)
def ssd_scan_backward(dy, x, n, b, c, skip, h, dh, **parameters):
    rows, carried = (a.flatten(-2) for a in (dy, x)), (a.flatten(1, 2) for a in (h, dh))
    dx, dn, _, db, dc, dskip, end = walk_back(*rows, n, None, b, c, skip, *carried, x.shape[-1], **parameters)
    return dx.view(x.shape), dn, db, dc, dskip, end.view(h.shape)


__all__ = ["decay_modulate_backward", "selective_scan_backward", "ssd_scan_backward"]
