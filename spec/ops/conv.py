"""The causal convolution of each channel with four taps, whole sequences and single steps."""

from __future__ import annotations

import numpy as np

from .. import integers
from ..arrays import Int8Array, Int16Array, Int32Array
from ..bounds import Interval, Width
from ..contract import Parameter, Tensor, op

TAPS = 4
BIAS = 1 << 24


def conv_widths(at):
    total = (Interval.signed(16) * Interval.signed(8)).sum(TAPS) + Interval.symmetric(BIAS)
    return {
        "sum": Width(total + ((1 << at.s) >> 1), "int32"),
        "y": Width(total.shift_round(at.s).saturate(16), "int16"),
    }


def tensors(x: str) -> tuple[Tensor, ...]:
    return (
        Tensor("x", "int16", x, meaning="inputs, any Q format"),
        Tensor("w", "int8", "D 4", meaning="taps, Q.s, that of the oldest input first"),
        Tensor("bias", "int32", "D", -BIAS, BIAS, "biases, the format of x with s more fraction bits"),
        Tensor(
            "state",
            "int16",
            "B 3 D",
            meaning="the three inputs before x, oldest first; zeros at the start of a sequence",
        ),
    )


STATE = Tensor("state", "int16", "B 3 D", meaning="the last three inputs, oldest first")
SHIFT = Parameter("s", 0, 22, "fraction bits of w")


@op(
    inputs=tensors("B L D"),
    outputs=(Tensor("y", "int16", "B L D", meaning="the format of x"), STATE),
    parameters=(SHIFT,),
    clauses={
        "C1": "y at t is saturate(floor((bias + sum over j of w[:, j] * x at t - 3 + j) / 2**s + 1/2), 16)",
        "C2": "x at -3, -2, -1 is the state; the new state is the last three of the state followed by x",
        "C3": "a sequence cut anywhere, the state carried over, gives the same integers",
    },
    widths=conv_widths,
)
def causal_conv1d(
    x: Int16Array, w: Int8Array, bias: Int32Array, state: Int16Array, /, *, s: int
) -> tuple[Int16Array, Int16Array]:
    """Convolve each channel with its four causal taps; return the outputs and the last three inputs.

    ``y_t = saturate(shift_round(bias + sum_j w_j x_{t-3+j}, s), 16)`` (C1), with x at -3, -2, -1 from the state (C2).

    Examples
    --------
    >>> x, w = np.array([[[4], [8], [-6]]], np.int16), np.array([[0, 0, 1, 2]], np.int8)
    >>> y, state = causal_conv1d(x, w, np.array([1], np.int32), np.array([[[0], [0], [2]]], np.int16), s=1)
    >>> y.ravel().tolist(), state.ravel().tolist()
    ([6, 11, -1], [4, 8, -6])
    """
    length = x.shape[1]
    known = np.concatenate([state, x], axis=1)
    # ACCUMULATE
    total = np.broadcast_to(bias.astype(np.int64), x.shape)
    for j in range(TAPS):
        total = total + known[:, j : j + length].astype(np.int64) * w[:, j]
    # ROUND
    y = integers.shift_round(total, s)
    # SATURATE
    return integers.saturate(y, 16).astype(np.int16), known[:, length:]


@op(
    inputs=tensors("B D"),
    outputs=(Tensor("y", "int16", "B D", meaning="the format of x"), STATE),
    parameters=(SHIFT,),
    clauses={"C1": "causal_conv1d of a sequence of length one"},
    widths=conv_widths,
    step_of="causal_conv1d",
)
def conv1d_step(
    x: Int16Array, w: Int8Array, bias: Int32Array, state: Int16Array, /, *, s: int
) -> tuple[Int16Array, Int16Array]:
    """Run one step of `causal_conv1d` (C1); return its output and the new state.

    Examples
    --------
    >>> x, w = np.array([[4]], np.int16), np.array([[0, 0, 1, 2]], np.int8)
    >>> y, state = conv1d_step(x, w, np.array([1], np.int32), np.array([[[0], [0], [2]]], np.int16), s=1)
    >>> y.ravel().tolist(), state.ravel().tolist()
    ([6], [0, 2, 4])
    """
    y, state = causal_conv1d.golden(x[:, None], w, bias, state, s=s)
    return y[:, 0], state


__all__ = ["causal_conv1d", "conv1d_step"]
