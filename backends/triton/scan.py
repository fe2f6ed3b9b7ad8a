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
from .launch import elementwise, launch
from .recurrence import (
    advance,
    input_of,
    is_far,
    lanes_if,
    load_inputs,
    load_lane,
    load_mixture,
    modulate,
    pitches_of,
    place_of,
    run_states,
    store_lane,
)

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
def modulate_kernel(n_pointer, base_pointer, mod_pointer, size, states, entries, n_max, BLOCK: tl.constexpr):
    offset = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    base = tl.load(base_pointer + offset % entries, mask=offset < size, other=0).to(tl.int32)
    mod = tl.load(mod_pointer + offset // states, mask=offset < size, other=0).to(tl.int32)
    tl.store(n_pointer + offset, modulate(base, mod, n_max).to(tl.int16), mask=offset < size)


@triton.jit
def round_sum(total, s_y: tl.constexpr):
    return integers.saturate(integers.shift_round(total, s_y), 16).to(tl.int16)


@triton.jit
def round_kernel(y_pointer, total_pointer, size, s_y: tl.constexpr, BLOCK: tl.constexpr):
    offset = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    total = tl.load(total_pointer + offset, mask=offset < size, other=0)
    tl.store(y_pointer + offset, round_sum(total, s_y), mask=offset < size)


@triton.jit
def load_steps(pointers, c_pointer, pitches, t, mask, COUNT: tl.constexpr, STATES: tl.constexpr):
    """Load what the steps from t on take: the inputs of their states, and c."""
    t = tl.full([], t, tl.int64)
    inputs = load_inputs(pointers, pitches, t, mask, COUNT, STATES)
    c_pointer += t * pitches[2]
    loaded = ()
    for u in tl.static_range(COUNT):
        loaded = loaded + ((inputs[u], load_mixture(c_pointer + u * pitches[2], STATES)),)
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
    inputs, c = loaded
    h = run_states(h, base, inputs, n_max, s_v, k, convex, MODULATED, STATES)
    total = (inputs[0].to(tl.int32) * skip).to(WIDE)
    for i in tl.static_range(STATES):
        total += (h[i] >> s_h).to(WIDE) * c[i]
    return h, total


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
    FAR: tl.constexpr,
    STATES: tl.constexpr,
    STEPS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    first_channel, part, batch = place_of(tl.program_id(0), channels, padded, STATES, CHANNELS)
    channel = first_channel + tl.arange(0, CHANNELS)
    mask = channel < channels
    heads = channels // WIDTH
    pitches = pitches_of(channels, heads, padded, FAR)
    pitch = pitches[0]
    pointers = (
        x_pointer + batch * length * channels + channel,
        mod_pointer + batch * length * heads + channel // WIDTH,
        b_pointer + batch * length * padded + part * STATES,
    )
    c_pointer += batch * length * padded + part * STATES
    y_pointer += batch * length * channels + channel
    skip = tl.load(skip_pointer + channel // WIDTH, mask=lanes_if(part == 0, channel, channels), other=0).to(tl.int32)
    lane = batch * channels + channel
    h = load_lane(h_pointer, lane, channel, channels, part, states, STATES)
    base = load_lane(base_pointer, channel.to(tl.int64), channel, channels, part, states, STATES) if MODULATED else ()

    # Two blocks a pass: a block is loaded into the registers that the one before the last has left.
    whole = length - length % (2 * STEPS)
    even = load_steps(pointers, c_pointer, pitches, 0, mask, STEPS, STATES)
    for first in range(0, whole, 2 * STEPS):
        odd = load_steps(pointers, c_pointer, pitches, first + STEPS, mask, STEPS, STATES)
        block = y_pointer + tl.full([], first, tl.int64) * pitch
        for u in tl.static_range(STEPS):
            h, total = run_step(h, base, even[u], skip, n_max, k, s_v, s_h, convex, MODULATED, WIDE, STATES)
            put_sum(block + u * pitch, total, mask, s_y, SHARED)
        t = tl.minimum(first + 2 * STEPS, whole - STEPS)
        even = load_steps(pointers, c_pointer, pitches, t, mask, STEPS, STATES)
        for u in tl.static_range(STEPS):
            h, total = run_step(h, base, odd[u], skip, n_max, k, s_v, s_h, convex, MODULATED, WIDE, STATES)
            put_sum(block + (STEPS + u) * pitch, total, mask, s_y, SHARED)
    for t in range(whole, length):
        last = load_steps(pointers, c_pointer, pitches, t, mask, 1, STATES)
        h, total = run_step(h, base, last[0], skip, n_max, k, s_v, s_h, convex, MODULATED, WIDE, STATES)
        put_sum(y_pointer + tl.full([], t, tl.int64) * pitch, total, mask, s_y, SHARED)

    store_lane(end_pointer, lane, h, channel, channels, part, states, STATES)


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
    program, blocks = tl.program_id(0), tl.cdiv(channels, CHANNELS)
    channel = (program % blocks).to(tl.int64) * CHANNELS + tl.arange(0, CHANNELS)
    batch = (program // blocks).to(tl.int64)
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
        h = advance(h, n, input_of(x[:, None], b[None, :], s_v), k, convex)
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
    launch(
        scan_kernel,
        blocks * parts * batch,
        (total, end),
        (x, mod, base, b, c, skip, h),
        length,
        channels,
        states,
        b.shape[-1],
        **parameters,
        WIDTH=width,
        MODULATED=base is not None,
        SHARED=shared,
        WIDE=getattr(tl, wide),
        FAR=is_far(channels, 2 * STEPS),
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
    size = min(TILE, triton.next_power_of_2(states))
    lanes = TILE // size
    launch(
        step_kernel,
        triton.cdiv(channels, lanes) * batch,
        (y, end),
        (x, mod, base, b, c, skip, h),
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
