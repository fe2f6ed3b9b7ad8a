"""Triton versions of ``spec.ops.scan``.

A sequence: a lane holds a channel and some of its states in registers, so most of the sum over the states stays in the
lane; the inputs of the next steps are loaded before this block's arithmetic and stores. Where there are too few
channels for the device, or too many states for a lane, lanes share a channel's states and add up what they have; where
there are too many for a program, programs do. Integer addition has no order. A step alone has nothing to load ahead, so
it is a tile.

``ssd_scan`` is ``selective_scan`` over the channels (h, p), a channel's decay being that of its head.
"""

import torch
import triton
import triton.language as tl

from mamba_integer.spec import ops
from mamba_integer.spec.contract import implements
from mamba_integer.spec.ops.scan import sum_dtypes

from . import integers, staged_scan
from .launch import elementwise, launch
from .recurrence import (
    advance,
    input_of,
    is_far,
    lanes_if,
    load_lane,
    load_lanes,
    load_mixtures,
    mix_states,
    mixture_words,
    modulate,
    pitches_of,
    place_of,
    run_states,
    store_lane,
)

LANES = 32  # of a program
STEPS = 2  # that a program loads ahead, at least
STATES = (16, 8, 4)  # of a lane
SLICES = (1, 4, 32)  # of a channel's states: lanes that share them
PROGRAMS = 384  # about three warps for each multiprocessor of a large device
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
def round_sum(total, s_y, ROUNDED: tl.constexpr):
    return integers.saturate(integers.shift_round(total, s_y.to(total.dtype)).to(ROUNDED), 16).to(tl.int16)


@triton.jit(do_not_specialize=["s_y"])
def round_kernel(y_pointer, total_pointer, size, s_y, ROUNDED: tl.constexpr, BLOCK: tl.constexpr):
    offset = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    total = tl.load(total_pointer + offset, mask=offset < size, other=0)
    tl.store(y_pointer + offset, round_sum(total, s_y, ROUNDED), mask=offset < size)


@triton.jit
def load_steps(pointers, places, pitches, t, mask, COUNT: tl.constexpr, STATES: tl.constexpr):
    """Load the inputs of the steps from t on: x and its modulation of each lane, b and c of its states."""
    x_pointer, mod_pointer, b_pointer, c_pointer = pointers
    channel, head, word = places
    channels, heads, words = pitches
    return (
        load_lanes(x_pointer, channel + t * channels, channels, mask, COUNT),
        load_lanes(mod_pointer, head + t * heads, heads, mask, COUNT),
        load_mixtures(b_pointer, word + t * words, words, COUNT, STATES),
        load_mixtures(c_pointer, word + t * words, words, COUNT, STATES),
    )


@triton.jit
def run_step(
    h,
    base,
    loaded,
    u: tl.constexpr,
    skip,
    formats,
    convex: tl.constexpr,
    FINER: tl.constexpr,
    COARSER: tl.constexpr,
    MODULATED: tl.constexpr,
    WIDE: tl.constexpr,
    STATES: tl.constexpr,
    SLICES: tl.constexpr,
):
    """Return the new states of each lane and the sum, of the channel's slices in this program, that makes y."""
    n_max, k, s_v, s_h = formats
    h = run_states(h, base, loaded, u, n_max, k, s_v, convex, FINER, MODULATED, STATES)
    total = mix_states(h, loaded[3][u], s_h, COARSER, WIDE, STATES) + loaded[0][u].to(WIDE) * skip
    if SLICES > 1:
        tile: tl.constexpr = [total.shape[0] // SLICES, SLICES]
        channel_sums = tl.sum(tl.reshape(total, tile), axis=1)
        total = tl.reshape(tl.broadcast_to(channel_sums[:, None], tile), total.shape)
    return h, total


@triton.jit
def put_sum(y_pointer, total, mask, s_y, SHARED: tl.constexpr, ROUNDED: tl.constexpr):
    if SHARED:
        tl.atomic_add(y_pointer, total, mask=mask, sem="relaxed")
    else:
        tl.store(y_pointer, round_sum(total, s_y, ROUNDED), mask=mask)


# Formats and sizes stay variables, so that others are no other kernel.
@triton.jit(do_not_specialize=["length", "channels", "states", "words", "n_max", "k", "s_v", "s_h", "s_y"])
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
    words,
    n_max,
    k,
    s_v,
    s_h,
    s_y,
    convex: tl.constexpr,
    FINER: tl.constexpr,
    COARSER: tl.constexpr,
    WIDTH: tl.constexpr,
    MODULATED: tl.constexpr,
    SHARED: tl.constexpr,
    WIDE: tl.constexpr,
    ROUNDED: tl.constexpr,
    FAR: tl.constexpr,
    STATES: tl.constexpr,
    STEPS: tl.constexpr,
    CHANNELS: tl.constexpr,
    SLICES: tl.constexpr,
):
    channel, part, first_slice, batch = place_of(tl.program_id(0), channels, words, STATES, CHANNELS, SLICES)
    mask = channel < channels
    heads = channels // WIDTH
    pitches = pitches_of(channels, heads, words, FAR)
    pitch = pitches[0]
    pointers = (
        x_pointer + batch * length * channels,
        mod_pointer + batch * length * heads,
        b_pointer + batch * length * words,
        c_pointer + batch * length * words,
    )
    places = (channel, channel // WIDTH, part * (STATES // 4))
    formats = (n_max, k, s_v, s_h)
    y_pointer += batch * length * channels
    y_mask = lanes_if(first_slice, channel, channels)
    skip = tl.load(skip_pointer + channel // WIDTH, mask=lanes_if(part == 0, channel, channels), other=0).to(tl.int32)
    lane = batch * channels + channel
    h = load_lane(h_pointer, lane, channel, channels, part, states, STATES)
    base = load_lane(base_pointer, channel.to(tl.int64), channel, channels, part, states, STATES) if MODULATED else ()

    # Two blocks a pass: a block is loaded into the registers that the one before the last has left.
    whole = length - length % (2 * STEPS)
    moving = tl.where(length < STEPS, 0, 1)  # no further than a sequence goes
    first_pitches = (pitches[0] * moving, pitches[1] * moving, pitches[2] * moving)
    even = load_steps(pointers, places, first_pitches, 0, mask, STEPS, STATES)
    for first in range(0, whole, 2 * STEPS):
        odd = load_steps(pointers, places, pitches, first + STEPS, mask, STEPS, STATES)
        at = channel + first * pitch
        for u in tl.static_range(STEPS):
            h, total = run_step(
                h, base, even, u, skip, formats, convex, FINER, COARSER, MODULATED, WIDE, STATES, SLICES
            )
            put_sum(y_pointer + at, total, y_mask, s_y, SHARED, ROUNDED)
            at += pitch
        t = tl.minimum(first + 2 * STEPS, whole - STEPS)
        even = load_steps(pointers, places, pitches, t, mask, STEPS, STATES)
        for u in tl.static_range(STEPS):
            h, total = run_step(h, base, odd, u, skip, formats, convex, FINER, COARSER, MODULATED, WIDE, STATES, SLICES)
            put_sum(y_pointer + at, total, y_mask, s_y, SHARED, ROUNDED)
            at += pitch
    for t in range(whole, length):
        last = load_steps(pointers, places, pitches, t, mask, 1, STATES)
        h, total = run_step(h, base, last, 0, skip, formats, convex, FINER, COARSER, MODULATED, WIDE, STATES, SLICES)
        put_sum(y_pointer + channel + t * pitch, total, y_mask, s_y, SHARED, ROUNDED)

    store_lane(end_pointer, lane, h, channel, channels, part, states, STATES)


@triton.jit(do_not_specialize=["n_max", "k", "s_v", "s_h", "s_y"])
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
    k,
    s_v,
    s_h,
    s_y,
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
    tl.store(y_pointer + lane, round_sum(total, s_y, tl.int64), mask=mask)


def tile_of(states: int, sequences: int) -> tuple[int, int]:
    """Return how many states a lane holds and how many lanes share a channel's: the least that hold all, if any do.

    A lane with many states spends less on its inputs; a device with too few lanes for its schedulers waits for each.
    """
    tiles = [(held, slices) for held in STATES for slices in SLICES]
    least = min((held * slices for held, slices in tiles if held * slices >= states), default=STATES[0] * SLICES[-1])
    tiles = [(held, slices) for held, slices in tiles if held * slices == least]
    return next((tile for tile in tiles if triton.cdiv(sequences * tile[1], LANES) >= PROGRAMS), tiles[-1])


def scan(x, mod, base, b, c, skip, h, width, **parameters):
    """Scan a sequence of channels, ``width`` of them under one modulation; without a base, that is the decay."""
    batch, length, channels = x.shape
    states = h.shape[-1]
    if 0 in x.shape:
        return torch.empty_like(x), h.clone()
    if base is not None and staged_scan.suits(x, states):
        return staged_scan.scan(x, mod, base, b, c, skip, h, **parameters)
    held, slices = tile_of(states, batch * channels)
    (b, words), (c, _) = mixture_words(b, held * slices), mixture_words(c, held * slices)
    blocks, parts = triton.cdiv(channels, LANES // slices), 4 * words // (held * slices)
    shared = parts > 1
    end = torch.empty(h.shape, dtype=torch.int32, device=x.device)
    wide, rounded = sum_dtypes(states, **parameters) if slices == 1 else ("int64", "int64")
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
        words,
        **parameters,
        FINER=parameters["s_v"] < 0,
        COARSER=parameters["s_h"] > 0,
        WIDTH=width,
        MODULATED=base is not None,
        SHARED=shared,
        WIDE=getattr(tl, wide),
        ROUNDED=getattr(tl, rounded),
        FAR=is_far(length * channels, length * words),
        STATES=held,
        STEPS=STEPS,
        CHANNELS=LANES // slices,
        SLICES=slices,
        num_warps=1,
    )
    if shared:
        elementwise(round_kernel, y, total, s_y=parameters["s_y"], ROUNDED=getattr(tl, rounded))
    return y, end


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
