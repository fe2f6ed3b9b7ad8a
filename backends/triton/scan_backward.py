"""Triton versions of ``spec.ops.scan_backward``.

As in the forward scan, a channel is a lane with a few of its states in registers. One kernel runs the states and keeps
those at the start of each block of steps; the other goes through the blocks backwards, computes a block's states again
in registers, and walks back through them. Programs that share a channel's states, or channels that share b and c, add
into one sum; integer addition has no order. Rounding the sums is a kernel of its own.
"""
# ruff: noqa: RUF005 -- Triton compiles no unpacking inside a tuple

import torch
import triton
import triton.language as tl

from mamba_integer.spec import ops
from mamba_integer.spec.contract import implements

from . import integers
from .launch import elementwise
from .scan import contiguous, modulate, widened

CHANNELS = 64  # a program; a thread has CHANNELS / 32 of them, which it adds up before the warp does
STATES = 4  # a program, at most
STEPS = 4  # a block
LIMB = tl.constexpr(24)  # bits: the sum of CHANNELS such limbs fits int32
LOW = tl.constexpr((1 << 24) - 1)


@triton.jit(do_not_specialize=["s"])
def put_kernel(result_pointer, total_pointer, size, s, BLOCK: tl.constexpr):
    offset = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    total = tl.load(total_pointer + offset, mask=offset < size, other=0)
    rounded = integers.saturate(integers.shift_round(total, s.to(tl.int64)), 32)
    tl.store(result_pointer + offset, rounded.to(tl.int32), mask=offset < size)


def put(total, s):
    result = torch.empty(total.shape, dtype=torch.int32, device=total.device)
    return elementwise(put_kernel, result, total, s=s)


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
    STATES: tl.constexpr,
):
    """Sum the gradients of one channel over its states, and over some rows."""
    channel = tl.program_id(0)
    row = tl.program_id(1).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    mod = tl.load(mod_pointer + row * channels + channel, mask=row < rows, other=0).to(tl.int32)
    total = tl.zeros([ROWS], tl.int64)
    for first in range(0, states, STATES):
        state = first + tl.arange(0, STATES)
        inside = (row < rows)[:, None] & (state < states)[None, :]
        place = (row[:, None] * channels + channel) * states + state[None, :]
        dn = tl.load(dn_pointer + place, mask=inside, other=0).to(tl.int64)
        base = tl.load(base_pointer + channel * states + state, mask=state < states, other=0).to(tl.int32)
        decay = base[None, :] + mod[:, None]
        passed = tl.where((decay >= 0) & (decay <= n_max), dn, 0)
        total += tl.sum(passed, axis=1)
        target = dbase_pointer + channel * states + state
        tl.atomic_add(target, tl.sum(passed, axis=0), mask=state < states, sem="relaxed")
    rounded = integers.saturate(integers.shift_round(total, s_n.to(tl.int64)), 32)
    tl.store(dmod_pointer + row * channels + channel, rounded.to(tl.int32), mask=row < rows)


@implements(ops.decay_modulate_backward)
def decay_modulate_backward(dn, base, mod, *, k, n_max, s_n):
    channels, states = base.shape
    dbase = torch.zeros(base.shape, dtype=torch.int64, device=dn.device)
    dmod = torch.empty(mod.shape, dtype=torch.int32, device=dn.device)
    if mod.numel():
        size, rows = min(16, triton.next_power_of_2(states)), mod.numel() // channels
        lanes = 1024 // size
        decay_kernel[(channels, triton.cdiv(rows, lanes))](
            dbase, dmod, *contiguous(dn, base, mod), rows, channels, states, n_max, s_n, ROWS=lanes, STATES=size
        )
    return dbase, dmod


@triton.jit
def scaled(x, factor, k: tl.constexpr):
    """Return x * factor over 2**k, rounded: the wide product is narrowed at once."""
    return ((x.to(tl.int64) * factor + ((1 << k) >> 1)) >> k).to(tl.int32)


@triton.jit
def input_of(x, b, s_v):
    return integers.rescale(x * b, s_v)


@triton.jit
def advance(h, n, v, k: tl.constexpr, convex: tl.constexpr):
    decaying = h - v if convex else h
    return ((decaying.to(tl.int64) * n) >> k).to(tl.int32) + v


@triton.jit
def put_lanes(sums, product, place, PLACES: tl.constexpr):
    """Put the sum of an int64 product, below 2**46, over all lanes at one of the places of ``sums``.

    The sums are kept, and taken, in two limbs, since the warp has an instruction that adds its lanes in 32 bits.
    """
    here = tl.arange(0, PLACES) == place
    low = tl.sum((product & LOW).to(tl.int32), axis=0)
    high = tl.sum((product >> LIMB).to(tl.int32), axis=0)
    return tl.where(here, low, sums[0]), tl.where(here, high, sums[1])


@triton.jit
def put_sum(target, total, mask, SHARED: tl.constexpr):
    if SHARED:
        tl.atomic_add(target, total, mask=mask, sem="relaxed")
    else:
        tl.store(target, total, mask=mask)


@triton.jit
def load_inputs(
    x_pointer,
    mod_pointer,
    b_pointer,
    t,
    channels,
    heads,
    padded,
    mask,
    COUNT: tl.constexpr,
    STATES: tl.constexpr,
):
    """Load what the states of the steps from t on take."""
    t = tl.full([], t, tl.int64)
    x_pointer += t * channels
    mod_pointer += t * heads
    b_pointer += t * padded
    loaded = ()
    for u in tl.static_range(COUNT):
        x = tl.load(x_pointer + u * channels, mask=mask, other=0)
        mod = tl.load(mod_pointer + u * heads, mask=mask, other=0)
        b = ()
        for i in tl.static_range(STATES):
            b = b + (tl.load(b_pointer + u * padded + i),)
        loaded = loaded + ((x, mod, b),)
    return loaded


@triton.jit
def load_errors(dy_pointer, c_pointer, t, channels, padded, mask, COUNT: tl.constexpr, STATES: tl.constexpr):
    """Load what the steps from t on take besides, on the way back."""
    t = tl.full([], t, tl.int64)
    dy_pointer += t * channels
    c_pointer += t * padded
    loaded = ()
    for u in tl.static_range(COUNT):
        dy = tl.load(dy_pointer + u * channels, mask=mask, other=0)
        c = ()
        for i in tl.static_range(STATES):
            c = c + (tl.load(c_pointer + u * padded + i),)
        loaded = loaded + ((dy, c),)
    return loaded


@triton.jit
def load_states(pointer, stride, mask, STATES: tl.constexpr):
    h = ()
    for i in tl.static_range(STATES):
        h = h + (tl.load(pointer + i * stride, mask=mask, other=0),)
    return h


@triton.jit
def store_states(pointer, stride, h, mask, STATES: tl.constexpr):
    for i in tl.static_range(STATES):
        tl.store(pointer + i * stride, h[i], mask=mask)


@triton.jit
def run_step(
    h, base, inputs, n_max, s_v, k: tl.constexpr, convex: tl.constexpr, MODULATED: tl.constexpr, STATES: tl.constexpr
):
    """Return the new states of each lane."""
    x, mod, b = inputs
    x, mod = x.to(tl.int32), mod.to(tl.int32)
    new = ()
    for i in tl.static_range(STATES):
        n = modulate(base[i], mod, n_max) if MODULATED else mod
        new = new + (advance(h[i], n, input_of(x, b[i], s_v), k, convex),)
    return new


@triton.jit
def load_lane(pointer, lane, channel, part, states, channels, STATES: tl.constexpr):
    """Load a program's states of each lane from an array whose last axis they are; beyond the last they are 0."""
    h = ()
    for i in tl.static_range(STATES):
        inside = channel < tl.where(part * STATES + i < states, channels, 0)
        h = h + (tl.load(pointer + lane * states + part * STATES + i, mask=inside, other=0).to(tl.int32),)
    return h


# n_max stays a variable for the forward scan's reason; the shifts, so that another format is no other kernel.
@triton.jit(do_not_specialize=["n_max", "s_v"])
def starts_kernel(
    starts_pointer,
    x_pointer,
    mod_pointer,
    base_pointer,
    b_pointer,
    h_pointer,
    length,
    channels,
    states,
    padded,
    n_max,
    s_v,
    k: tl.constexpr,
    convex: tl.constexpr,
    WIDTH: tl.constexpr,
    MODULATED: tl.constexpr,
    STATES: tl.constexpr,
    STEPS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    """Run the states; keep those before each block of steps, and before each of the steps after the last block."""
    channel = tl.program_id(0) * CHANNELS + tl.arange(0, CHANNELS)
    mask = channel < channels
    part = tl.program_id(1)
    batch = tl.program_id(2).to(tl.int64)
    heads = channels // WIDTH
    x_pointer += batch * length * channels + channel
    mod_pointer += batch * length * heads + channel // WIDTH
    b_pointer += batch * length * padded + part * STATES
    h = load_lane(h_pointer, batch * channels + channel, channel, part, states, channels, STATES)
    base = load_lane(base_pointer, channel, channel, part, states, channels, STATES) if MODULATED else ()
    blocks = length // STEPS
    starts_pointer += ((batch * (blocks + length % STEPS)) * padded + part * STATES) * channels + channel
    block_size = tl.full([], padded, tl.int64) * channels

    loaded = load_inputs(x_pointer, mod_pointer, b_pointer, 0, channels, heads, padded, mask, STEPS, STATES)
    for block in range(blocks):
        t = tl.minimum(block + 1, blocks - 1) * STEPS
        ahead = load_inputs(x_pointer, mod_pointer, b_pointer, t, channels, heads, padded, mask, STEPS, STATES)
        store_states(starts_pointer + block * block_size, channels, h, mask, STATES)
        for u in tl.static_range(STEPS):
            h = run_step(h, base, loaded[u], n_max, s_v, k, convex, MODULATED, STATES)
        loaded = ahead
    for t in range(blocks * STEPS, length):
        last = load_inputs(x_pointer, mod_pointer, b_pointer, t, channels, heads, padded, mask, 1, STATES)
        store_states(starts_pointer + (t - blocks * (STEPS - 1)) * block_size, channels, h, mask, STATES)
        h = run_step(h, base, last[0], n_max, s_v, k, convex, MODULATED, STATES)


@triton.jit
def retreat(
    lam,
    sums,
    mixed,
    base,
    before,
    after,
    inputs,
    errors,
    place,
    n_max,
    s_v,
    s_h,
    s_g,
    s_w,
    k: tl.constexpr,
    convex: tl.constexpr,
    MODULATED: tl.constexpr,
    STATES: tl.constexpr,
    PLACES: tl.constexpr,
):
    """Walk back over one step; return lam before it, the sums of w, of db and dc, and what it adds to dx and dmod."""
    x, mod, b = inputs
    dy, c = errors
    x, mod, dy = x.to(tl.int32), mod.to(tl.int32), dy.to(tl.int32)
    through, moved = tl.zeros_like(x).to(tl.int64), tl.zeros_like(x).to(tl.int64)
    earlier, added = (), ()
    for i in tl.static_range(STATES):
        n = modulate(base[i], mod, n_max) if MODULATED else mod
        now = lam[i] + integers.shift_even(dy * c[i], s_g)
        state = before[i] - input_of(x, b[i], s_v) if convex else before[i]
        if MODULATED:
            state = tl.where(base[i] + mod == n, state, 0)
        w = integers.shift_round(now.to(tl.int64) * state, s_w)
        moved += w
        if MODULATED:
            added = added + (sums[i] + w,)
        dv = scaled(now, (1 << k) - n, k) if convex else now
        through += dv.to(tl.int64) * b[i]
        mixed = put_lanes(mixed, dv.to(tl.int64) * x, place + i, PLACES)
        mixed = put_lanes(mixed, (after[i] >> s_h).to(tl.int64) * dy, place + STATES + i, PLACES)
        earlier = earlier + (scaled(now, n, k),)
    return earlier, added, mixed, through, moved


@triton.jit
def walk_block(
    lam,
    sums,
    skip_sum,
    base,
    start,
    inputs,
    errors,
    t,
    dx_pointer,
    dmod_pointer,
    mixed_pointer,
    skip,
    channels,
    heads,
    padded,
    mask,
    n_max,
    s_v,
    s_h,
    s_g,
    s_w,
    fine,
    coarse,
    k: tl.constexpr,
    convex: tl.constexpr,
    MODULATED: tl.constexpr,
    SHARED: tl.constexpr,
    ONE_HEAD: tl.constexpr,
    STATES: tl.constexpr,
    COUNT: tl.constexpr,
):
    """Compute the states of a block of steps again, and walk back through them."""
    PLACES: tl.constexpr = COUNT * 2 * STATES
    known = (start,)
    for u in tl.static_range(COUNT):
        known = known + (run_step(known[u], base, inputs[u], n_max, s_v, k, convex, MODULATED, STATES),)
    t = tl.full([], t, tl.int64)
    dx_pointer += t * channels
    dmod_pointer += t * heads
    mixed = (tl.zeros([PLACES], tl.int32), tl.zeros([PLACES], tl.int32))
    for u in tl.static_range(COUNT - 1, -1, -1):
        lam, sums, mixed, through, moved = retreat(
            lam,
            sums,
            mixed,
            base,
            known[u],
            known[u + 1],
            inputs[u],
            errors[u],
            u * 2 * STATES,
            n_max,
            s_v,
            s_h,
            s_g,
            s_w,
            k,
            convex,
            MODULATED,
            STATES,
            PLACES,
        )
        dy, x = errors[u][0].to(tl.int64), inputs[u][0].to(tl.int64)
        put_sum(dx_pointer + u * channels, (through << coarse) + ((dy * skip) << fine), mask, SHARED)
        if ONE_HEAD:
            tl.atomic_add(dmod_pointer + u * heads, tl.sum(moved, axis=0), sem="relaxed")
        else:
            put_sum(dmod_pointer + u * heads, moved, mask, SHARED or not MODULATED)
        skip_sum += dy * x
    place = tl.arange(0, PLACES)
    target = mixed_pointer + 2 * t * padded + place // (2 * STATES) * (2 * padded) + place % (2 * STATES)
    tl.atomic_add(target, (mixed[1].to(tl.int64) << LIMB) + mixed[0], sem="relaxed")
    return lam, sums, skip_sum


@triton.jit(do_not_specialize=["n_max", "s_v", "s_h", "s_g", "s_w", "fine", "coarse"])
def back_kernel(
    dx_pointer,
    dmod_pointer,
    dbase_pointer,
    mixed_pointer,
    dskip_pointer,
    end_pointer,
    starts_pointer,
    dy_pointer,
    x_pointer,
    mod_pointer,
    base_pointer,
    b_pointer,
    c_pointer,
    skip_pointer,
    dh_pointer,
    length,
    channels,
    states,
    padded,
    n_max,
    s_v,
    s_h,
    s_g,
    s_w,
    fine,
    coarse,
    k: tl.constexpr,
    convex: tl.constexpr,
    WIDTH: tl.constexpr,
    MODULATED: tl.constexpr,
    SHARED: tl.constexpr,
    STATES: tl.constexpr,
    STEPS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    ONE_HEAD: tl.constexpr = WIDTH % CHANNELS == 0
    channel = tl.program_id(0) * CHANNELS + tl.arange(0, CHANNELS)
    mask = channel < channels
    part = tl.program_id(1)
    batch = tl.program_id(2).to(tl.int64)
    heads = channels // WIDTH
    head = tl.program_id(0) * CHANNELS // WIDTH if ONE_HEAD else channel // WIDTH
    x_pointer += batch * length * channels + channel
    dy_pointer += batch * length * channels + channel
    dx_pointer += batch * length * channels + channel
    mod_pointer += batch * length * heads + channel // WIDTH
    dmod_pointer += batch * length * heads + head
    b_pointer += batch * length * padded + part * STATES
    c_pointer += batch * length * padded + part * STATES
    mixed_pointer += 2 * (batch * length * padded + part * STATES)
    lane = batch * channels + channel
    lam = load_lane(dh_pointer, lane, channel, part, states, channels, STATES)
    base = load_lane(base_pointer, channel, channel, part, states, channels, STATES) if MODULATED else ()
    sums = ()
    if MODULATED:
        for _ in tl.static_range(STATES):
            sums = sums + (tl.zeros([CHANNELS], tl.int64),)
    owns_skip = channel < tl.where(part == 0, channels, 0)
    skip = tl.load(skip_pointer + channel // WIDTH, mask=owns_skip, other=0).to(tl.int64)
    skip_sum = tl.zeros([CHANNELS], tl.int64)
    shift_w, shift_fine, shift_coarse = s_w.to(tl.int64), fine.to(tl.int64), coarse.to(tl.int64)
    blocks = length // STEPS
    starts_pointer += ((batch * (blocks + length % STEPS)) * padded + part * STATES) * channels + channel
    block_size = tl.full([], padded, tl.int64) * channels

    for j in range(length % STEPS):
        t = length - 1 - j
        inputs = load_inputs(x_pointer, mod_pointer, b_pointer, t, channels, heads, padded, mask, 1, STATES)
        errors = load_errors(dy_pointer, c_pointer, t, channels, padded, mask, 1, STATES)
        start = load_states(starts_pointer + (t - blocks * (STEPS - 1)) * block_size, channels, mask, STATES)
        lam, sums, skip_sum = walk_block(
            lam,
            sums,
            skip_sum,
            base,
            start,
            inputs,
            errors,
            t,
            dx_pointer,
            dmod_pointer,
            mixed_pointer,
            skip,
            channels,
            heads,
            padded,
            mask,
            n_max,
            s_v,
            s_h,
            s_g,
            shift_w,
            shift_fine,
            shift_coarse,
            k,
            convex,
            MODULATED,
            SHARED,
            ONE_HEAD,
            STATES,
            1,
        )
    t = (blocks - 1) * STEPS
    inputs = load_inputs(x_pointer, mod_pointer, b_pointer, t, channels, heads, padded, mask, STEPS, STATES)
    start = load_states(starts_pointer + (blocks - 1) * block_size, channels, mask, STATES)
    # The errors are needed last: the time that their loads take is that of computing the states.
    for j in range(blocks):
        block = blocks - 1 - j
        errors = load_errors(dy_pointer, c_pointer, block * STEPS, channels, padded, mask, STEPS, STATES)
        t = tl.maximum(block - 1, 0) * STEPS
        inputs_ahead = load_inputs(x_pointer, mod_pointer, b_pointer, t, channels, heads, padded, mask, STEPS, STATES)
        start_ahead = load_states(starts_pointer + tl.maximum(block - 1, 0) * block_size, channels, mask, STATES)
        lam, sums, skip_sum = walk_block(
            lam,
            sums,
            skip_sum,
            base,
            start,
            inputs,
            errors,
            block * STEPS,
            dx_pointer,
            dmod_pointer,
            mixed_pointer,
            skip,
            channels,
            heads,
            padded,
            mask,
            n_max,
            s_v,
            s_h,
            s_g,
            shift_w,
            shift_fine,
            shift_coarse,
            k,
            convex,
            MODULATED,
            SHARED,
            ONE_HEAD,
            STATES,
            STEPS,
        )
        inputs, start = inputs_ahead, start_ahead

    for i in tl.static_range(STATES):
        inside = channel < tl.where(part * STATES + i < states, channels, 0)
        tl.store(end_pointer + lane * states + part * STATES + i, lam[i], mask=inside)
        if MODULATED:
            tl.atomic_add(dbase_pointer + channel * states + part * STATES + i, sums[i], mask=inside, sem="relaxed")
    tl.atomic_add(dskip_pointer + channel // WIDTH, skip_sum, mask=owns_skip, sem="relaxed")


def walk_back(dy, x, mod, base, b, c, skip, h, dh, width, *, k, n_max, s_v, s_h, convex, s_g, s_w, s_n, s_x, s_b, s_c):
    """Walk channels back, ``width`` of them under one modulation; without a base, that is the decay.

    Returned are dx, dmod, dbase (None without a base), db, dc, dskip and dh.
    """
    batch, length, channels = x.shape
    states = h.shape[-1]

    def sums(*shape):
        return torch.zeros(shape, dtype=torch.int64, device=x.device)

    size = min(STATES, triton.next_power_of_2(states))
    parts = triton.cdiv(states, size)
    padded = parts * size
    dx, dmod = sums(*x.shape), sums(*mod.shape)
    dbase = None if base is None else sums(*base.shape)
    mixed, dskip = sums(batch, length, parts, 2, size), sums(*skip.shape)
    end = dh.clone()
    if x.numel():
        steps = STEPS if length >= STEPS else 1
        blocks = length // steps + length % steps
        starts = torch.empty((batch, blocks, padded, channels), dtype=torch.int32, device=x.device)
        grid = (triton.cdiv(channels, CHANNELS), parts, batch)
        dy, x, mod, base, skip, h, dh = contiguous(dy, x, mod, base, skip, h, dh)
        b, c = widened(b, size), widened(c, size)
        sizes = (length, channels, states, padded)
        tile = dict(WIDTH=width, MODULATED=base is not None, STATES=size, STEPS=steps, CHANNELS=CHANNELS)
        formats = dict(k=k, convex=convex, n_max=n_max, s_v=s_v)
        starts_kernel[grid](starts, x, mod, base, b, h, *sizes, **formats, **tile, num_warps=1)
        back_kernel[grid](
            *(dx, dmod, dbase, mixed, dskip, end),
            starts,
            *(dy, x, mod, base, b, c, skip, dh),
            *sizes,
            **formats,
            s_h=s_h,
            s_g=s_g,
            s_w=s_w,
            fine=max(0, s_v + s_h - s_g),
            coarse=max(0, s_g - s_v - s_h),
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
