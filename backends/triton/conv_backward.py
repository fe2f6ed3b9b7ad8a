"""Triton versions of ``spec.ops.conv_backward``: channels on lanes, three steps' gradients handed on in registers."""

# ruff: noqa: RUF005 -- Triton compiles no unpacking inside a tuple

import torch
import triton
import triton.language as tl

from mamba_integer.spec import ops
from mamba_integer.spec.contract import implements

from . import integers
from .conv import load_input

CHANNELS, STEPS, AHEAD = 256, 32, 8


@triton.jit
def load_steps(dy_pointer, x_pointer, batch, t, length, channels, channel, COUNT: tl.constexpr):
    """Load gradients and inputs of COUNT steps from t on: a store between two loads would keep them in turn."""
    loaded = ()
    for u in tl.static_range(COUNT):
        inside = channel < tl.where(t + u < length, channels, 0)
        place = (batch * length + t + u) * channels + channel
        dy = tl.load(dy_pointer + place, mask=inside, other=0).to(tl.int32)
        loaded = loaded + ((dy, tl.load(x_pointer + place, mask=inside, other=0).to(tl.int32)),)
    return loaded


@triton.jit
def passed(dy, x, w, bias, s: tl.constexpr):
    """Return the gradient where the convolution's result was not saturated, else 0."""
    y = integers.shift_round(bias + w[0] * x[0] + w[1] * x[1] + w[2] * x[2] + w[3] * x[3], s)
    return tl.where(tl.abs(y) <= 32767, dy, 0)


@triton.jit
def put_step(dx_pointer, g, w, batch, t, start, length, channels, channel, s: tl.constexpr):
    """Store the gradient of the input at t, which the gradients g at t .. t + 3 make, unless t is out of range."""
    back = w[3] * g[0].to(tl.int64) + w[2] * g[1].to(tl.int64) + w[1] * g[2].to(tl.int64) + w[0] * g[3].to(tl.int64)
    dx = integers.saturate(integers.shift_round(back, s), 32)
    inside = channel < tl.where((t >= start) & (t < length), channels, 0)
    tl.store(dx_pointer + (batch * length + t) * channels + channel, dx.to(tl.int32), mask=inside)


@triton.jit
def conv_backward_kernel(
    dx_pointer,
    sums_pointer,
    dy_pointer,
    x_pointer,
    w_pointer,
    bias_pointer,
    state_pointer,
    length,
    channels,
    s: tl.constexpr,
    STEPS: tl.constexpr,
    AHEAD: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    blocks = tl.cdiv(length, STEPS)
    batch = (tl.program_id(0) // blocks).to(tl.int64)
    start = tl.program_id(0) % blocks * STEPS
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    mask = channel < channels
    w, x, g, sums = (), (), (), ()
    for j in tl.static_range(4):
        w = w + (tl.load(w_pointer + 4 * channel + j, mask=mask, other=0).to(tl.int32),)
        sums = sums + (tl.zeros([CHANNELS], tl.int64),)
    total = tl.zeros([CHANNELS], tl.int64)
    bias = tl.load(bias_pointer + channel, mask=mask, other=0)
    for j in tl.static_range(3):
        old = load_input(x_pointer, state_pointer, batch, start - 3 + j, length, channels, channel)
        x = x + (old.to(tl.int32),)
        g = g + (tl.zeros([CHANNELS], tl.int32),)

    for t in range(start, start + STEPS, AHEAD):
        loaded = load_steps(dy_pointer, x_pointer, batch, t, length, channels, channel, AHEAD)
        for u in tl.static_range(AHEAD):
            dy, newest = loaded[u]
            x = (x[0], x[1], x[2], newest)
            new = passed(dy, x, w, bias, s)
            wide = new.to(tl.int64)
            sums = (sums[0] + wide * x[0], sums[1] + wide * x[1], sums[2] + wide * x[2], sums[3] + wide * x[3])
            total += wide
            g = (g[0], g[1], g[2], new)
            put_step(dx_pointer, g, w, batch, t + u - 3, start, length, channels, channel, s)
            x, g = (x[1], x[2], x[3]), (g[1], g[2], g[3])
    # The last three inputs also need the gradients after them, which other programs add to their sums.
    end = start + STEPS
    loaded = load_steps(dy_pointer, x_pointer, batch, end, length, channels, channel, 3)
    for u in tl.static_range(3):
        dy, newest = loaded[u]
        x = (x[0], x[1], x[2], newest)
        g = (g[0], g[1], g[2], passed(dy, x, w, bias, s))
        put_step(dx_pointer, g, w, batch, end + u - 3, start, length, channels, channel, s)
        x, g = (x[1], x[2], x[3]), (g[1], g[2], g[3])
    for j in tl.static_range(4):
        tl.atomic_add(sums_pointer + j * channels + channel, sums[j], mask=mask, sem="relaxed")
    tl.atomic_add(sums_pointer + 4 * channels + channel, total, mask=mask, sem="relaxed")


@implements(ops.causal_conv1d_backward)
def causal_conv1d_backward(dy, x, w, bias, state, *, s):
    batch, length, channels = x.shape
    dx = torch.empty(x.shape, dtype=torch.int32, device=x.device)
    sums = torch.zeros((5, channels), dtype=torch.int64, device=x.device)
    if x.numel():
        steps = min(STEPS, triton.next_power_of_2(length))
        grid = (batch * triton.cdiv(length, steps), triton.cdiv(channels, CHANNELS))
        arrays = (a.contiguous() for a in (dy, x, w, bias, state))
        sizes = {"STEPS": steps, "AHEAD": min(AHEAD, steps), "CHANNELS": CHANNELS}
        conv_backward_kernel[grid](dx, sums, *arrays, length, channels, s=s, **sizes)
    return dx, sums[:4].t().contiguous(), sums[4]


__all__ = ["causal_conv1d_backward"]
