"""Triton versions of ``spec.ops.scan``.

A sequence: a channel a lane, its states in registers, so the sum over the states stays in the thread; the inputs of the
next steps are loaded before this block's arithmetic and stores. Where there are too few channels for the device, or too
many states for a thread, programs share a channel's states and add into one sum; integer addition has no order. A step
alone has nothing to load ahead, so it is a tile.

``ssd_scan`` is ``selective_scan`` over the channels (h, p), a channel's decay being that of its head.
"""
# ruff: noqa: RUF005 -- Triton compiles no unpacking inside a tuple

import torch
import triton
import triton.language as tl

from mamba_integer.spec import ops
from mamba_integer.spec.contract import implements
from mamba_integer.spec.ops.scan import sum_dtype

from . import integers
from .launch import elementwise

CHANNELS = 32
STEPS = 4  # that a program loads ahead
SLICES = (16, 8, 4)  # states a program
PROGRAMS = 1024  # about two warps for each scheduler of a large device
TILE = 256


@implements(ops.decay_modulate)
def decay_modulate(base, mod, *, k, n_max):
    n = torch.empty((*mod.shape, base.shape[1]), dtype=torch.int16, device=mod.device)
    return elementwise(modulate_kernel, n, base, mod, states=base.shape[1], entries=base.numel(), n_max=n_max)


@triton.jit
def modulate(base, mod, n_max):
    return tl.minimum(tl.maximum(base + mod, 0), n_max)


@triton.jit
def modulate_kernel(n_pointer, base_pointer, mod_pointer, size, states, entries, n_max, BLOCK: tl.constexpr):
    offset = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    base = tl.load(base_pointer + offset % entries, mask=offset < size, other=0).to(tl.int32)
    mod = tl.load(mod_pointer + offset // states, mask=offset < size, other=0).to(tl.int32)
    tl.store(n_pointer + offset, modulate(base, mod, n_max).to(tl.int16), mask=offset < size)


@triton.jit
def advance(h, n, x, b, k: tl.constexpr, s_v: tl.constexpr, convex: tl.constexpr):
    """Return the new state; the wide product is narrowed at once."""
    v = integers.rescale(x * b, s_v)
    # (h n + v (2**k - n)) >> k is v more than ((h - v) n) >> k.
    decaying = h - v if convex else h
    return ((decaying.to(tl.int64) * n) >> k).to(tl.int32) + v


@triton.jit
def round_sum(total, s_y: tl.constexpr):
    return integers.saturate(integers.shift_round(total, s_y), 16).to(tl.int16)


@triton.jit
def round_kernel(y_pointer, total_pointer, size, s_y: tl.constexpr, BLOCK: tl.constexpr):
    offset = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    total = tl.load(total_pointer + offset, mask=offset < size, other=0)
    tl.store(y_pointer + offset, round_sum(total, s_y), mask=offset < size)


@triton.jit
def load_steps(
    x_pointer,
    mod_pointer,
    b_pointer,
    c_pointer,
    t,
    channels,
    heads,
    padded,
    mask,
    STATES: tl.constexpr,
    STEPS: tl.constexpr,
):
    """Load what the steps from t on take: x and mod of each lane, and the b and c that all lanes share."""
    t = tl.full([], t, tl.int64)
    x_pointer += t * channels
    mod_pointer += t * heads
    b_pointer += t * padded
    c_pointer += t * padded
    loaded = ()
    for u in tl.static_range(STEPS):
        x = tl.load(x_pointer + u * channels, mask=mask, other=0)
        mod = tl.load(mod_pointer + u * heads, mask=mask, other=0)
        b, c = (), ()
        for i in tl.static_range(STATES):
            b = b + (tl.load(b_pointer + u * padded + i),)
            c = c + (tl.load(c_pointer + u * padded + i),)
        loaded = loaded + ((x, mod, b, c),)
    return loaded


@triton.jit
def run_step(
    h,
    base,
    loaded,
    skip,
    n_max,
    k: tl.constexpr,
    s_v: tl.constexpr,
    s_h: tl.constexpr,
    convex: tl.constexpr,
    MODULATED: tl.constexpr,
    WIDE: tl.constexpr,
    STATES: tl.constexpr,
):
    """Return the new states of each lane and what they and the skip add to the lane's sum."""
    x, mod, b, c = loaded
    x, n = x.to(tl.int32), mod.to(tl.int32)
    total = (x * skip).to(WIDE)
    new = ()
    for i in tl.static_range(STATES):
        decay = modulate(base[i], n, n_max) if MODULATED else n
        state = advance(h[i], decay, x, b[i], k, s_v, convex)
        total += (state >> s_h).to(WIDE) * c[i]
        new = new + (state,)
    return new, total


@triton.jit
def put_sum(y_pointer, total, mask, s_y: tl.constexpr, SHARED: tl.constexpr):
    if SHARED:
        tl.atomic_add(y_pointer, total, mask=mask, sem="relaxed")
    else:
        tl.store(y_pointer, round_sum(total, s_y), mask=mask)


# n_max stays a variable: known to be no less than 0, the decay would be multiplied as an unsigned number, which the
# device has to make of three products.
@triton.jit(do_not_specialize=["n_max"])
def scan_kernel(
    y_pointer,
    end_pointer,
    x_pointer,
    mod_pointer,
    base_pointer,
    b_pointer,
    c_pointer,
    skip_pointer,
    h_pointer,
    length,
    channels,
    states,
    padded,
    n_max,
    k: tl.constexpr,
    s_v: tl.constexpr,
    s_h: tl.constexpr,
    s_y: tl.constexpr,
    convex: tl.constexpr,
    WIDTH: tl.constexpr,
    MODULATED: tl.constexpr,
    SHARED: tl.constexpr,
    WIDE: tl.constexpr,
    STATES: tl.constexpr,
    STEPS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    channel = tl.program_id(0) * CHANNELS + tl.arange(0, CHANNELS)
    mask = channel < channels
    part = tl.program_id(1)
    batch = tl.program_id(2).to(tl.int64)
    heads = channels // WIDTH
    x_pointer += batch * length * channels + channel
    y_pointer += batch * length * channels + channel
    mod_pointer += batch * length * heads + channel // WIDTH
    b_pointer += batch * length * padded + part * STATES
    c_pointer += batch * length * padded + part * STATES
    lane = batch * channels + channel
    skip = tl.load(skip_pointer + channel // WIDTH, mask=channel < tl.where(part == 0, channels, 0), other=0)
    skip = skip.to(tl.int32)
    h, base = (), ()
    for i in tl.static_range(STATES):
        inside = channel < tl.where(part * STATES + i < states, channels, 0)
        h = h + (tl.load(h_pointer + lane * states + part * STATES + i, mask=inside, other=0),)
        if MODULATED:
            slow = tl.load(base_pointer + channel * states + part * STATES + i, mask=inside, other=0)
            base = base + (slow.to(tl.int32),)

    # Two blocks a pass: a block is loaded into the registers that the one before the last has left.
    whole = length - length % (2 * STEPS)
    even = load_steps(x_pointer, mod_pointer, b_pointer, c_pointer, 0, channels, heads, padded, mask, STATES, STEPS)
    for first in range(0, whole, 2 * STEPS):
        odd = load_steps(
            x_pointer, mod_pointer, b_pointer, c_pointer, first + STEPS, channels, heads, padded, mask, STATES, STEPS
        )
        block = y_pointer + tl.full([], first, tl.int64) * channels
        for u in tl.static_range(STEPS):
            h, total = run_step(h, base, even[u], skip, n_max, k, s_v, s_h, convex, MODULATED, WIDE, STATES)
            put_sum(block + u * channels, total, mask, s_y, SHARED)
        t = tl.minimum(first + 2 * STEPS, whole - STEPS)
        even = load_steps(x_pointer, mod_pointer, b_pointer, c_pointer, t, channels, heads, padded, mask, STATES, STEPS)
        for u in tl.static_range(STEPS):
            h, total = run_step(h, base, odd[u], skip, n_max, k, s_v, s_h, convex, MODULATED, WIDE, STATES)
            put_sum(block + (STEPS + u) * channels, total, mask, s_y, SHARED)
    for t in range(whole, length):
        last = load_steps(x_pointer, mod_pointer, b_pointer, c_pointer, t, channels, heads, padded, mask, STATES, 1)
        h, total = run_step(h, base, last[0], skip, n_max, k, s_v, s_h, convex, MODULATED, WIDE, STATES)
        put_sum(y_pointer + tl.full([], t, tl.int64) * channels, total, mask, s_y, SHARED)

    for i in tl.static_range(STATES):
        inside = channel < tl.where(part * STATES + i < states, channels, 0)
        tl.store(end_pointer + lane * states + part * STATES + i, h[i], mask=inside)


@triton.jit(do_not_specialize=["n_max"])
def step_kernel(
    y_pointer,
    end_pointer,
    x_pointer,
    mod_pointer,
    base_pointer,
    b_pointer,
    c_pointer,
    skip_pointer,
    h_pointer,
    channels,
    states,
    n_max,
    k: tl.constexpr,
    s_v: tl.constexpr,
    s_h: tl.constexpr,
    s_y: tl.constexpr,
    convex: tl.constexpr,
    WIDTH: tl.constexpr,
    MODULATED: tl.constexpr,
    STATES: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    channel = tl.program_id(0) * CHANNELS + tl.arange(0, CHANNELS)
    batch = tl.program_id(1).to(tl.int64)
    lane, mask = batch * channels + channel, channel < channels
    x = tl.load(x_pointer + lane, mask=mask, other=0).to(tl.int32)
    mod = tl.load(mod_pointer + batch * (channels // WIDTH) + channel // WIDTH, mask=mask, other=0).to(tl.int32)
    total = (x * tl.load(skip_pointer + channel // WIDTH, mask=mask, other=0).to(tl.int32)).to(tl.int64)
    for first in range(0, states, STATES):
        state = first + tl.arange(0, STATES)
        inside = mask[:, None] & (state < states)[None, :]
        place = lane[:, None] * states + state[None, :]
        h = tl.load(h_pointer + place, mask=inside, other=0)
        b = tl.load(b_pointer + batch * states + state, mask=state < states, other=0).to(tl.int32)
        c = tl.load(c_pointer + batch * states + state, mask=state < states, other=0).to(tl.int32)
        n = mod[:, None]
        if MODULATED:
            entry = channel[:, None] * states + state[None, :]
            n = modulate(tl.load(base_pointer + entry, mask=inside, other=0).to(tl.int32), n, n_max)
        h = advance(h, n, x[:, None], b[None, :], k, s_v, convex)
        tl.store(end_pointer + place, h, mask=inside)
        total += tl.sum((h >> s_h).to(tl.int64) * c[None, :], axis=1)
    tl.store(y_pointer + lane, round_sum(total, s_y), mask=mask)


def states_a_program(states: int, programs: int) -> int:
    """Return the most states a program may hold while there are enough programs for the device."""
    for size in SLICES:
        if size <= triton.next_power_of_2(states) and programs * triton.cdiv(states, size) >= PROGRAMS:
            return size
    return SLICES[-1]


def widened(mixture, size):
    """Return b or c in int32, so that no lane unpacks it, with zeros up to a multiple of ``size`` states."""
    return torch.nn.functional.pad(mixture.int(), (0, -mixture.shape[-1] % size))


def scan(x, mod, base, b, c, skip, h, width, **parameters):
    """Scan a sequence of channels, ``width`` of them under one modulation; without a base, that is the decay."""
    batch, length, channels = x.shape
    states = h.shape[-1]
    if 0 in x.shape:
        return torch.empty_like(x), h.clone()
    blocks = triton.cdiv(channels, CHANNELS)
    size = states_a_program(states, batch * blocks)
    parts = triton.cdiv(states, size)
    shared = parts > 1
    b, c = widened(b, size), widened(c, size)
    end = torch.empty(h.shape, dtype=torch.int32, device=x.device)
    wide = sum_dtype(states, **parameters)
    y = torch.empty(x.shape, dtype=torch.int16, device=x.device)
    total = torch.zeros(x.shape, dtype=getattr(torch, wide), device=x.device) if shared else y
    scan_kernel[(blocks, parts, batch)](
        total,
        end,
        *contiguous(x, mod, base, b, c, skip, h),
        length,
        channels,
        states,
        b.shape[-1],
        **parameters,
        WIDTH=width,
        MODULATED=base is not None,
        SHARED=shared,
        WIDE=getattr(tl, wide),
        STATES=size,
        STEPS=STEPS if length >= STEPS else 1,
        CHANNELS=CHANNELS,
        num_warps=1,
    )
    return (elementwise(round_kernel, y, total, s_y=parameters["s_y"]) if shared else y), end


def step(x, mod, base, b, c, skip, h, width, **parameters):
    """Advance channels by one step, ``width`` of them under one modulation; without a base, that is the decay."""
    batch, channels = x.shape
    states = h.shape[-1]
    y = torch.empty(x.shape, dtype=torch.int16, device=x.device)
    end = torch.empty(h.shape, dtype=torch.int32, device=x.device)
    if y.numel():
        size = min(TILE, triton.next_power_of_2(states))
        lanes = TILE // size
        step_kernel[(triton.cdiv(channels, lanes), batch)](
            y,
            end,
            *contiguous(x, mod, base, b, c, skip, h),
            channels,
            states,
            **parameters,
            WIDTH=width,
            MODULATED=base is not None,
            STATES=size,
            CHANNELS=lanes,
            num_warps=2,
        )
    return y, end


def contiguous(*arrays):
    return (None if array is None else array.contiguous() for array in arrays)


@implements(ops.selective_scan)
def selective_scan(x, mod, base, b, c, skip, h, **parameters):
    return scan(x, mod, base, b, c, skip, h, 1, **parameters)


@implements(ops.selective_scan_step)
def selective_scan_step(x, mod, base, b, c, skip, h, **parameters):
    return step(x, mod, base, b, c, skip, h, 1, **parameters)


@implements(ops.ssd_scan)
def ssd_scan(x, n, b, c, skip, h, **parameters):
    y, end = scan(x.flatten(-2), n, None, b, c, skip, h.flatten(1, 2), x.shape[-1], **parameters)
    return y.view(x.shape), end.view(h.shape)


@implements(ops.ssd_scan_step)
def ssd_scan_step(x, n, b, c, skip, h, **parameters):
    y, end = step(x.flatten(-2), n, None, b, c, skip, h.flatten(1, 2), x.shape[-1], **parameters)
    return y.view(x.shape), end.view(h.shape)


__all__ = ["decay_modulate", "selective_scan", "selective_scan_step", "ssd_scan", "ssd_scan_step"]
