"""Triton versions of ``spec.ops.conv_backward``: channels on lanes, three steps' gradients handed on in registers."""

# ruff: noqa: RUF005 -- Triton compiles no unpacking inside a tuple

import torch
import triton
import triton.language as tl

from mamba_integer.spec import ops
from mamba_integer.spec.contract import implements

from . import integers
from .activation_backward import squareplus_gradient
from .conv import load_input
from .gradient import narrowed
from .launch import ceil_div, launch, rows, words, zeros

CHANNELS, STEPS, AHEAD = 256, 32, 4


@triton.jit
def load_steps(dy_pointer, x_pointer, t, length, channels, distance, channel, COUNT: tl.constexpr):
    """Load gradients and inputs of COUNT steps from t on: a store between two loads would keep them in turn."""
    pitch, x_pitch = tl.full([], channels, tl.int64), tl.full([], distance, tl.int64)
    loaded = ()
    for u in tl.static_range(COUNT):
        inside = channel < tl.where(t + u < length, channels, 0)
        dy = tl.load(dy_pointer + (t + u) * pitch, mask=inside, other=0)
        x = tl.load(x_pointer + (t + u) * x_pitch, mask=inside, other=0).to(tl.int32)
        loaded = loaded + ((dy, x),)
    return loaded


@triton.jit
def load_taps(w_pointer, channel, mask):
    """Load the four bytes of each channel as a word, the oldest input's tap in the lowest."""
    word = tl.load(w_pointer + channel, mask=mask, other=0)
    return ((word << 24) >> 24, (word << 16) >> 24, (word << 8) >> 24, word >> 24)


@triton.jit
def passed(dy, x, w, bias, activation, s: tl.constexpr, NARROW: tl.constexpr):
    """Return the gradient where the convolution's result was not saturated, else 0; with NARROW, through squareplus."""
    y = integers.shift_round(bias + w[0] * x[0] + w[1] * x[1] + w[2] * x[2] + w[3] * x[3], s)
    if NARROW:
        dy = squareplus_gradient(dy, integers.saturate(y, 16), activation[0], activation[1])
    return tl.where(tl.abs(y) <= 32767, dy.to(tl.int32), 0)


@triton.jit
def put_step(dx_pointer, g, w, shift, inside, s: tl.constexpr, NARROW: tl.constexpr, SHORT: tl.constexpr):
    """Store the gradient of an input, which the gradients of its own step's result and of the next three make.

    Of ``SHORT`` gradients, of 16 bits, it is below 2**25 before it is rounded.
    """
    if SHORT:
        dx = integers.shift_round(w[3] * g[0] + w[2] * g[1] + w[1] * g[2] + w[0] * g[3], s)
    else:
        back = w[3] * g[0].to(tl.int64) + w[2] * g[1].to(tl.int64) + w[1] * g[2].to(tl.int64) + w[0] * g[3].to(tl.int64)
        dx = integers.saturate(integers.shift_round(back, s), 32).to(tl.int32)
    if NARROW:
        dx = narrowed(dx, shift)
    tl.store(dx_pointer, dx.to(dx_pointer.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["f", "offset", "shift"])
def conv_backward_kernel(
    dx_pointer,
    sums_pointer,
    dy_pointer,
    w_pointer,
    bias_pointer,
    state_pointer,
    x_pointer,
    length,
    channels,
    distance,
    dx_distance,
    f,
    offset,
    shift,
    s: tl.constexpr,
    NARROW: tl.constexpr,
    STEPS: tl.constexpr,
    AHEAD: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    SHORT: tl.constexpr = dy_pointer.dtype.element_ty == tl.int16
    program, pieces = tl.program_id(0), tl.cdiv(length, STEPS)
    start = (program % pieces).to(tl.int64) * STEPS
    blocks = tl.cdiv(channels, CHANNELS)
    channel = program // pieces % blocks * CHANNELS + tl.arange(0, CHANNELS)
    batch = (program // pieces // blocks).to(tl.int64)
    mask = channel < channels
    bias = tl.load(bias_pointer + channel, mask=mask, other=0)
    x = (
        load_input(x_pointer, state_pointer, batch, start - 3, length, channels, distance, channel).to(tl.int32),
        load_input(x_pointer, state_pointer, batch, start - 2, length, channels, distance, channel).to(tl.int32),
        load_input(x_pointer, state_pointer, batch, start - 1, length, channels, distance, channel).to(tl.int32),
    )
    nothing, total = tl.zeros([CHANNELS], tl.int32), tl.zeros([CHANNELS], tl.int64)
    g, sums = (nothing, nothing, nothing), (total, total, total, total)
    pitch, dx_pitch = tl.full([], channels, tl.int64), tl.full([], dx_distance, tl.int64)
    activation, shift = (f, offset), integers.scalar(shift)
    dx_pointer += batch * length * dx_distance + channel
    dy_pointer += batch * length * channels + channel
    x_pointer += batch * length * distance + channel
    for t in range(start, start + STEPS, AHEAD):
        # Loaded anew, the taps are known to be narrow where they multiply, and a product takes one instruction.
        w = load_taps(w_pointer, channel, mask)
        loaded = load_steps(dy_pointer, x_pointer, t, length, channels, distance, channel, AHEAD)
        put = dx_pointer + (t - 3) * dx_pitch
        for u in tl.static_range(AHEAD):
            dy, newest = loaded[u]
            known = (x[0], x[1], x[2], newest)
            new = passed(dy, known, w, bias, activation, s, NARROW)
            wide = new.to(tl.int64)
            sums = (
                sums[0] + wide * x[0],
                sums[1] + wide * x[1],
                sums[2] + wide * x[2],
                sums[3] + wide * newest,
            )
            total += wide
            later = (g[0], g[1], g[2], new)
            own = (t + u - 3 >= start) & (t + u - 3 < length)
            put_step(put + u * dx_pitch, later, w, shift, channel < tl.where(own, channels, 0), s, NARROW, SHORT)
            x, g = known[1:], later[1:]
    # The last three inputs also need the gradients after them, which other programs add to their sums.
    end = start + STEPS
    w = load_taps(w_pointer, channel, mask)
    loaded = load_steps(dy_pointer, x_pointer, end, length, channels, distance, channel, 3)
    put = dx_pointer + (end - 3) * dx_pitch
    for u in tl.static_range(3):
        dy, newest = loaded[u]
        known = (x[0], x[1], x[2], newest)
        later = (g[0], g[1], g[2], passed(dy, known, w, bias, activation, s, NARROW))
        own = (end + u - 3 >= start) & (end + u - 3 < length)
        put_step(put + u * dx_pitch, later, w, shift, channel < tl.where(own, channels, 0), s, NARROW, SHORT)
        x, g = known[1:], later[1:]
    for j in tl.static_range(4):
        tl.atomic_add(sums_pointer + j * pitch + channel, sums[j], mask=mask, sem="relaxed")
    tl.atomic_add(sums_pointer + 4 * pitch + channel, total, mask=mask, sem="relaxed")


@implements(ops.causal_conv1d_backward)
def causal_conv1d_backward(dy, x, w, bias, state, *, s):
    dx = torch.empty(x.shape, dtype=torch.int32, device=x.device)
    return dx, *gradients(dx, dy, x, w, bias, state, s)


def narrow_conv_gradients(dy, x, w, bias, state, dz, *, f, offset, s, shift):
    """Return a block's gradient of x and z, in 16 bits and joined, of the taps and of the bias.

    That of x comes through `squareplus_backward`, `causal_conv1d_backward` and `round_to_int16`, in one launch.
    """
    inner, joined = x.shape[-1], getattr(dz, "joined", None)
    if joined is None:
        joined = torch.empty((*x.shape[:-1], 2 * inner), dtype=torch.int16, device=x.device)
        joined[..., inner:].copy_(dz)
    return joined, *gradients(joined[..., :inner], dy, x, w, bias, state, s, (f, offset, shift))


def gradients(dx, dy, x, w, bias, state, s, through=()):
    """Put the gradient of x into dx; return those of the taps and of the bias."""
    batch, length, channels = x.shape
    sums = zeros((5, channels), torch.int64, x.device)
    if x.numel():
        steps = min(STEPS, triton.next_power_of_2(length))
        programs = batch * ceil_div(length, steps) * ceil_div(channels, CHANNELS)
        arrays, (x, distance) = (dy, words(w), bias, state), rows(x)
        sizes = {"STEPS": steps, "AHEAD": min(AHEAD, steps), "CHANNELS": CHANNELS}
        extents = length, channels, distance, rows(dx)[1], *(through or (0, 0, 0))
        constants = sizes | {"s": s, "NARROW": bool(through)}
        launch(conv_backward_kernel, programs, (dx, sums), arrays, *extents, strided=(x,), **constants)
    # Copied: a result is memory of its own, and of one channel the transpose would be a view.
    return sums[:4].t().clone(memory_format=torch.contiguous_format), sums[4].clone()


__all__ = ["causal_conv1d_backward", "narrow_conv_gradients"]
