"""The step of the scans and its loads, shared by the forward and the backward kernels.

A lane holds a channel of a row of the batch and some of its states: a tuple of registers. A program's lanes are
CHANNELS channels times SLICES slices of the states. The mixtures b and c come as words of four int8, a slice's at a
place that may differ per lane. Offsets inside a row of the batch are int32 unless the row is too long, which is for the
host to say.
"""
# ruff: noqa: RUF005 -- Triton compiles no unpacking inside a tuple

import torch
import triton
import triton.language as tl

from . import integers
from .instructions import clamped_sum, dot_high_halves, dot_low_halves, times_byte
from .launch import words


@triton.jit
def modulate(base, mod, n_max):
    return clamped_sum(base, mod, n_max)


@triton.jit
def input_of(x, b, s_v):
    return integers.rescale(x * b, s_v)


@triton.jit
def input_of_byte(x, word, i: tl.constexpr, s_v, FINER: tl.constexpr):
    """Return v of an int16 x, in int32, and of int8 ``i`` of a word of b; FINER says that s_v is negative."""
    if FINER:
        return times_byte(x, word, i, tl.zeros_like(x)) << -s_v
    else:
        return times_byte(x, word, i, (1 << s_v) >> 1) >> s_v


@triton.jit
def advance(h, n, v, k, convex: tl.constexpr):
    """Return the new state; the wide product is narrowed at once."""
    # (h n + v (2**k - n)) >> k is v more than ((h - v) n) >> k.
    decaying = h - v if convex else h
    return ((decaying.to(tl.int64) * n) >> k).to(tl.int32) + v


@triton.jit
def run_states(
    h,
    base,
    inputs,
    u: tl.constexpr,
    n_max,
    k,
    s_v,
    convex: tl.constexpr,
    FINER: tl.constexpr,
    MODULATED: tl.constexpr,
    STATES: tl.constexpr,
):
    """Return the states of each lane after step u of those whose x, mod and b were loaded."""
    x, mod, b = inputs[0][u].to(tl.int32), inputs[1][u].to(tl.int32), inputs[2][u]
    new = ()
    for i in tl.static_range(STATES):
        n = modulate(base[i], mod, n_max) if MODULATED else mod
        new = new + (advance(h[i], n, input_of_byte(x, b[i // 4], i % 4, s_v, FINER), k, convex),)
    return new


@triton.jit
def mix_states(h, c, s_h, COARSER: tl.constexpr, WIDE: tl.constexpr, STATES: tl.constexpr):
    """Return the sum over a lane's states of (h >> s_h) c; COARSER says that s_h isn't 0."""
    # Two states per instruction, in halves of 16 bits: 16 states of 2**16 * 2**7 fit int32.
    tl.static_assert(STATES <= 128)
    low, high = tl.zeros_like(h[0]), tl.zeros_like(h[0])
    for i in tl.static_range(0, STATES, 2):
        even, odd = h[i], h[i + 1]
        if COARSER:
            even, odd = even >> s_h, odd >> s_h
        low = dot_low_halves(even, odd, c[i // 4], i % 4, low)
        high = dot_high_halves(even, odd, c[i // 4], i % 4, high)
    return high.to(WIDE) * 65536 + low


@triton.jit
def place_of(program, channels, words, STATES: tl.constexpr, CHANNELS: tl.constexpr, SLICES: tl.constexpr):
    """Return each lane's channel and slice, whether the slice is the program's first, and the row of the batch."""
    blocks, parts = tl.cdiv(channels, CHANNELS), words // (STATES // 4 * SLICES)
    lane = tl.arange(0, CHANNELS * SLICES)
    channel = program % blocks * CHANNELS + lane // SLICES
    part = program // blocks % parts
    batch = (program // blocks // parts).to(tl.int64)
    if SLICES == 1:  # the same for all lanes, a scalar
        return channel, part, lane == lane, batch
    else:
        return channel, part * SLICES + lane % SLICES, lane % SLICES == 0, batch


@triton.jit
def pitches_of(channels, heads, words, FAR: tl.constexpr):
    """Return how far the next step of x, of its modulation and of a mixture lies."""
    if FAR:
        return tl.full([], channels, tl.int64), tl.full([], heads, tl.int64), tl.full([], words, tl.int64)
    else:
        return tl.full([], channels, tl.int32), tl.full([], heads, tl.int32), tl.full([], words, tl.int32)


def is_far(*row: int) -> bool:
    """Return whether an offset inside a row of the batch, of so many elements, may be more than int32 tells."""
    return max(row) >= 1 << 31


def mixture_words(mixture, size):
    """Return b or c as words of four int8, with zeros up to a multiple of ``size`` states, and the words per step."""
    padded = torch.nn.functional.pad(mixture, (0, -mixture.shape[-1] % size))
    return words(padded), padded.shape[-1] // 4


@triton.jit
def load_lanes(pointer, place, pitch, mask, COUNT: tl.constexpr):
    """Load what each lane has at some steps, of which the first is at ``place``."""
    loaded = ()
    for _ in tl.static_range(COUNT):
        loaded = loaded + (tl.load(pointer + place, mask=mask, other=0),)
        place += pitch
    return loaded


@triton.jit
def load_mixtures(pointer, place, pitch, COUNT: tl.constexpr, STATES: tl.constexpr):
    """Load the words of b or c for a slice's states at some steps, of which the first is at ``place``."""
    loaded = ()
    for _ in tl.static_range(COUNT):
        mixture = ()
        for i in tl.static_range(STATES // 4):
            mixture = mixture + (tl.load(pointer + place + i),)
        loaded = loaded + (mixture,)
        place += pitch
    return loaded


@triton.jit
def lanes_if(condition, channel, channels):
    """Return which lanes hold a channel where a condition holds."""
    return channel < tl.where(condition, channels, 0)


@triton.jit
def load_lane(pointer, lane, channel, channels, part, states, STATES: tl.constexpr):
    """Load each lane's states from an array whose last axis they are; beyond the last they are 0."""
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
