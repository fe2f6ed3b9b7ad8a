"""Backward of the convolution: the taps backwards in time, and exact sums for the weights."""

from __future__ import annotations

import numpy as np

from .. import integers
from ..arrays import Int8Array, Int16Array, Int32Array, Int64Array
from ..bounds import Interval, Width
from ..contract import Tensor, op
from .activation_backward import GRADIENT, gradient
from .conv import SHIFT, TAPS, conv_widths, tensors


def causal_conv1d_backward_widths(at):
    half = (1 << at.s) >> 1
    total = conv_widths(at)["sum"]
    back = (GRADIENT * Interval.signed(8)).sum(min(TAPS, at.L))
    return {
        "sum": total,
        "rounded": Width(total.range >> at.s, "int32"),
        "back": Width(back + half, "int64"),
        "dx": Width(back.shift_round(at.s).saturate(32), "int32"),
        "dw": Width((GRADIENT * Interval.signed(16)).sum(at.B * at.L), "int64"),
        "dbias": Width(GRADIENT.sum(at.B * at.L), "int64"),
    }


@op(
    inputs=(gradient("dy", "B L D"), *tensors("B L D")),
    outputs=(
        Tensor("dx", "int32", "B L D", meaning="the unit of dy"),
        Tensor("dw", "int64", "D 4", meaning="the unit of dy over 2**s"),
        Tensor("dbias", "int64", "D", meaning="the unit of dy over 2**s"),
    ),
    parameters=(SHIFT,),
    clauses={
        "C1": "g = dy, but 0 where causal_conv1d saturates; g is 0 after the end of the sequence",
        "C2": "dx at t is saturate(floor((sum over j of w[:, j] * g at t + 3 - j) / 2**s + 1/2), 32)",
        "C3": "dw[:, j] is the exact sum over batch and time of g at t times x at t - 3 + j, before 0 from the state",
        "C4": "dbias is the exact sum of g over batch and time",
    },
    widths=causal_conv1d_backward_widths,
    backward_of="causal_conv1d",
)
def causal_conv1d_backward(
    dy: Int32Array | Int16Array, x: Int16Array, w: Int8Array, bias: Int32Array, state: Int16Array, /, *, s: int
) -> tuple[Int32Array, Int64Array, Int64Array]:
    """Compute the gradients of `causal_conv1d` with respect to x, w and bias.

    A saturated result passes no gradient, and gradients pass straight through rounding (C1). With g the dy that is
    left, ``dx_t = saturate(shift_round(sum_j w_j g_{t+3-j}, s), 32)`` (C2), ``dw_j = sum g_t x_{t-3+j}`` (C3) and
    ``dbias = sum g_t`` (C4), the sums exact: those of micro-batches add up to the batch's. The state is a constant
    here: no gradient flows to the inputs before x.

    Examples
    --------
    >>> x, w = np.array([[[4], [8], [-6]]], np.int16), np.array([[0, 0, 1, 2]], np.int8)
    >>> bias, state = np.array([1], np.int32), np.array([[[0], [0], [2]]], np.int16)
    >>> dx, dw, dbias = causal_conv1d_backward(np.array([[[10], [20], [31]]], np.int32), x, w, bias, state, s=1)
    >>> dx.ravel().tolist(), dw.tolist(), dbias.tolist()
    ([20, 36, 31], [[62, 164, 348, 14]], [61])
    """
    length = x.shape[1]
    known = np.concatenate([state, x], axis=1).astype(np.int64)
    # ACCUMULATE
    total = np.broadcast_to(bias.astype(np.int64), x.shape)
    for j in range(TAPS):
        total = total + known[:, j : j + length] * w[:, j]
    # SATURATE
    y = integers.shift_round(total, s)
    g = np.where(integers.saturate(y, 16) == y, dy.astype(np.int64), 0)
    # ACCUMULATE
    later: Int64Array = np.concatenate([g, np.zeros(state.shape, np.int64)], axis=1)
    back = np.zeros(x.shape, np.int64)
    dw = np.zeros(w.shape, np.int64)
    for j in range(TAPS):
        back = back + later[:, TAPS - 1 - j : TAPS - 1 - j + length] * w[:, j]
        dw[:, j] = (g * known[:, j : j + length]).sum(axis=(0, 1))
    # ROUND
    dx = integers.shift_round(back, s)
    # SATURATE
    return integers.saturate(dx, 32).astype(np.int32), dw, g.sum(axis=(0, 1))


__all__ = ["causal_conv1d_backward"]
