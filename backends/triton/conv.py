"""Triton versions of ``spec.ops.conv``: channels on lanes, the four taps' inputs handed on in registers."""

# ruff: noqa: RUF005 -- Triton compiles no unpacking inside a tuple

import torch
import triton
import triton.language as tl

from mamba_integer.spec import ops
from mamba_integer.spec.contract import implements

from . import integers
from .activation import squareplus_of
from .launch import ceil_div, launch, rows

CHANNELS, STEPS = 256, 16


@triton.jit
def load_input(x_pointer, state_pointer, batch, t, length, channels, distance, channel):
    """Load the input at time t, which for t < 0 is in the state."""
    x = x_pointer + (batch * length + t) * distance + channel
    old = state_pointer + (batch * 3 + t + 3) * channels + channel
    new = tl.load(x, mask=channel < tl.where(t >= 0, channels, 0), other=0)
    return new + tl.load(old, mask=channel < tl.where(t >= 0, 0, channels), other=0)


@triton.jit
def conv_kernel(
    y_pointer,
    state_out_pointer,
    w_pointer,
    bias_pointer,
    state_pointer,
    x_pointer,
    length,
    channels,
    distance,
    s: tl.constexpr,
    f: tl.constexpr,
    offset: tl.constexpr,
    ACTIVATED: tl.constexpr,
    STEPS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    program, blocks = tl.program_id(0), tl.cdiv(channels, CHANNELS)
    channel = program % blocks * CHANNELS + tl.arange(0, CHANNELS)
    pieces = tl.maximum(tl.cdiv(length, STEPS), 1)
    start = (program // blocks % pieces).to(tl.int64) * STEPS
    batch = (program // blocks // pieces).to(tl.int64)
    mask = channel < channels
    if start == 0:
        for j in tl.static_range(3):
            last = load_input(x_pointer, state_pointer, batch, length - 3 + j, length, channels, distance, channel)
            tl.store(state_out_pointer + (batch * 3 + j) * channels + channel, last, mask=mask)
    taps = w_pointer + 4 * channel.to(tl.int64)
    w0 = tl.load(taps, mask=mask, other=0).to(tl.int32)
    w1 = tl.load(taps + 1, mask=mask, other=0).to(tl.int32)
    w2 = tl.load(taps + 2, mask=mask, other=0).to(tl.int32)
    w3 = tl.load(taps + 3, mask=mask, other=0).to(tl.int32)
    bias = tl.load(bias_pointer + channel, mask=mask, other=0)
    x0 = load_input(x_pointer, state_pointer, batch, start - 3, length, channels, distance, channel)
    x1 = load_input(x_pointer, state_pointer, batch, start - 2, length, channels, distance, channel)
    x2 = load_input(x_pointer, state_pointer, batch, start - 1, length, channels, distance, channel)
    pitch, x_pitch = tl.full([], channels, tl.int64), tl.full([], distance, tl.int64)
    y_pointer += (batch * length + start) * channels + channel
    x_pointer += (batch * length + start) * distance + channel
    loaded = ()  # all before the first store, which would keep later loads waiting
    for step in tl.static_range(STEPS):
        inside = channel < tl.where(start + step < length, channels, 0)
        loaded = loaded + (tl.load(x_pointer + step * x_pitch, mask=inside, other=0),)
    for step in tl.static_range(STEPS):
        x3 = loaded[step]
        inside = channel < tl.where(start + step < length, channels, 0)
        total = bias + w0 * x0 + w1 * x1 + w2 * x2 + w3 * x3
        y = integers.saturate(integers.shift_round(total, s), 16)
        if ACTIVATED:
            y = squareplus_of(y, f, offset)
        tl.store(y_pointer + step * pitch, y.to(tl.int16), mask=inside)
        x0, x1, x2 = x1, x2, x3


@implements(ops.causal_conv1d)
def causal_conv1d(x, w, bias, state, *, s):
    return convolved(x, w, bias, state, s=s, f=0, offset=0, ACTIVATED=False)


def activated_conv(x, w, bias, state, *, s, f, offset):
    """Return `squareplus` of the result of `causal_conv1d`, and its state, in one launch."""
    return convolved(x, w, bias, state, s=s, f=f, offset=offset, ACTIVATED=True)


def convolved(x, w, bias, state, **constants):
    batch, length, channels = x.shape
    y, new = (torch.empty(a.shape, dtype=torch.int16, device=x.device) for a in (x, state))
    if new.numel():
        steps = min(STEPS, triton.next_power_of_2(max(length, 1)))
        programs = ceil_div(channels, CHANNELS) * max(1, ceil_div(length, steps)) * batch
        sizes = {"STEPS": steps, "CHANNELS": CHANNELS}
        x, distance = rows(x)
        extents = length, channels, distance
        launch(conv_kernel, programs, (y, new), (w, bias, state), *extents, strided=(x,), **constants, **sizes)
    return y, new


@implements(ops.conv1d_step)
def conv1d_step(x, w, bias, state, *, s):
    y, state = causal_conv1d.kernel(x[:, None], w, bias, state, s=s)
    return y[:, 0], state


__all__ = ["activated_conv", "causal_conv1d", "conv1d_step"]
