"""Backward of the cross-entropy."""

import numpy as np

from ..bounds import Interval, Width
from ..contract import Parameter, Tensor, op
from .loss import VOCABULARY, softmax_pow2, softmax_pow2_widths


def cross_entropy_pow2_backward_widths(at):
    # A lone token has all the probability, and is the target.
    gradient = Interval.symmetric(1 << at.q if at.V > 1 else 0)
    return softmax_pow2_widths(at) | {"dlogits": Width(gradient, "int32")}


@op(
    inputs=(
        Tensor("logits", "int16", "... V", meaning="logits, Q.f, to the base 2"),
        Tensor("target", "int32", "...", low=0, high=lambda at: at.V - 1, meaning="the right token"),
    ),
    outputs=(Tensor("dlogits", "int32", "... V", meaning="bits a bit, Q.q, in [-1, 1]"),),
    parameters=(
        Parameter("f", 0, 8, "fraction bits of logits"),
        Parameter("q", 1, 30, "fraction bits of the gradient"),
    ),
    sizes={"V": VOCABULARY},
    clauses={
        "C1": "p = softmax_pow2(logits) in Q.q, each to the nearest integer",
        "C2": "dlogits = p - 2**q at the target, p elsewhere",
    },
    widths=cross_entropy_pow2_backward_widths,
)
def cross_entropy_pow2_backward(logits, target, *, f, q):
    """Return the gradient of each row's loss in bits by its logits, themselves in bits: ``p - onehot``, in Q.q.

    ``p = softmax_pow2(logits, f=f, q=q)`` (C1), less ``2**q`` at the target (C2). Loss and logits have the base 2, so
    no logarithm of 2 enters. A row's gradients sum to 0 within V/2. For large vocabularies take q so large that
    ``2**q / V`` keeps bits enough: what p loses here no later rounding brings back.

    Parameters
    ----------
    logits : int16 array, shape (..., V), Q.f, in [-32767, 32767], V in [1, 65536]
    target : int32 array, shape (...), in [0, V - 1]
    f : int in [0, 8]
    q : int in [1, 30]

    Returns
    -------
    int32 array, shape (..., V), Q.q, in [-2**q, 2**q].

    Raises
    ------
    DomainError
        logits holds -32768 or is not int16; a target is no token; their leading shapes differ; V is 0 or above 65536;
        f or q outside its range.

    Notes
    -----
    The gradient of the true base-2 cross-entropy, with the probabilities of `softmax_pow2`: straight through the steps
    of the weights' quadratic and the saturation of the loss.

    Examples
    --------
    >>> logits = np.array([256, 0, 0, -32767], np.int16)
    >>> cross_entropy_pow2_backward(logits, np.array(1, np.int32), f=8, q=8).tolist()
    [128, -192, 64, 0]
    """
    # ROUND
    dlogits = softmax_pow2.golden(logits, f=f, q=q)
    # ACCUMULATE
    index = target[..., None].astype(np.int64)
    at_target = np.take_along_axis(dlogits, index, axis=-1) - (1 << q)
    np.put_along_axis(dlogits, index, at_target.astype(np.int32), axis=-1)
    return dlogits


__all__ = ["cross_entropy_pow2_backward"]
