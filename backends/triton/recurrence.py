"""The step of the scans and its loads, shared by the forward and the backward kernels.

A program has some channels of a row of the batch, one per lane, and some of their states: a tuple of registers.
Its loads lie a few steps apart: the pitches are int32 unless so many channels pass it, which is for the host to say.
"""
# ruff: noqa: RUF005 -- Triton compiles no unpacking inside a tuple

import triton
import triton.language as tl

from . import integers


@triton.jit
def modulate(base, mod, n_max):
    return tl.minimum(tl.maximum(base + mod, 0), n_max)


@triton.jit
def input_of(x, b, s_v):
    return integers.rescale(x * b, s_v)


@triton.jit
def advance(h, n, v, k: tl.constexpr, convex: tl.constexpr):
    """Return the new state; the wide product is narrowed at once."""
    # (h n + v (2**k - n)) >> k is v more than ((h - v) n) >> k.
    decaying = h - v if convex else h
    return ((decaying.to(tl.int64) * n) >> k).to(tl.int32) + v


@triton.jit
def run_states(
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
def place_of(program, channels, padded, STATES: tl.constexpr, CHANNELS: tl.constexpr):
    """Return a program's first channel, its part of the ``padded`` states, and its row of the batch."""
    blocks, parts = tl.cdiv(channels, CHANNELS), padded // STATES
    return program % blocks * CHANNELS, program // blocks % parts, (program // blocks // parts).to(tl.int64)


@triton.jit
def pitches_of(channels, heads, padded, FAR: tl.constexpr):
    """Return how far the next step of x, of its modulation and of a mixture lies."""
    if FAR:
        return tl.full([], channels, tl.int64), tl.full([], heads, tl.int64), tl.full([], padded, tl.int32)
    else:
        return tl.full([], channels, tl.int32), tl.full([], heads, tl.int32), tl.full([], padded, tl.int32)


def is_far(channels, steps):
    """Return whether the last of some steps may lie farther from the first than int32 tells."""
    return channels * steps >= 1 << 31


@triton.jit
def load_mixture(pointer, STATES: tl.constexpr):
    """Load what one step's b or c has for a program's states: scalars, which all lanes share."""
    mixture = ()
    for i in tl.static_range(STATES):
        mixture = mixture + (tl.load(pointer + i),)
    return mixture


@triton.jit
def load_inputs(pointers, pitches, t, mask, COUNT: tl.constexpr, STATES: tl.constexpr):
    """Load what the states of the steps from t on take: x and mod of each lane, and b."""
    x_pointer, mod_pointer, b_pointer = pointers
    channels, heads, padded = pitches
    t = tl.full([], t, tl.int64)
    x_pointer += t * channels
    mod_pointer += t * heads
    b_pointer += t * padded
    loaded = ()
    for u in tl.static_range(COUNT):
        x = tl.load(x_pointer + u * channels, mask=mask, other=0)
        mod = tl.load(mod_pointer + u * heads, mask=mask, other=0)
        loaded = loaded + ((x, mod, load_mixture(b_pointer + u * padded, STATES)),)
    return loaded


@triton.jit
def lanes_if(condition, channel, channels):
    """Return which lanes hold a channel, if a scalar condition holds; else none."""
    return channel < tl.where(condition, channels, 0)


@triton.jit
def load_lane(pointer, lane, channel, channels, part, states, STATES: tl.constexpr):
    """Load a program's states of each lane from an array whose last axis they are; beyond the last they are 0."""
    h = ()
    for i in tl.static_range(STATES):
        inside = lanes_if(part * STATES + i < states, channel, channels)
        h = h + (tl.load(pointer + lane * states + part * STATES + i, mask=inside, other=0).to(tl.int32),)
    return h


@triton.jit
def store_lane(pointer, lane, h, channel, channels, part, states, STATES: tl.constexpr):
    for i in tl.static_range(STATES):
        inside = lanes_if(part * STATES + i < states, channel, channels)
        tl.store(pointer + lane * states + part * STATES + i, h[i], mask=inside)
