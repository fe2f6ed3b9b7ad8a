"""``spec.ops.conv_backward`` on unbounded integers."""

import numpy as np

from .integers import saturate, shift_round
from .observe import see


def causal_conv1d_backward(dy, x, w, bias, state, *, s):
    batches, length, channels = x.shape
    dx = np.empty(x.shape, "int32")
    dw, dbias = np.empty(w.shape, "int64"), np.empty(bias.shape, "int64")
    for d in range(channels):
        taps, offset = w[d].tolist(), int(bias[d])
        # Each tap's products and the gradients that pass, over all sequences.
        sums, passed = [0, 0, 0, 0], 0
        for b in range(batches):
            known = state[b, :, d].tolist() + x[b, :, d].tolist()
            g = [
                gradient if passes(known[t : t + 4], taps, offset, s) else 0
                for t, gradient in enumerate(dy[b, :, d].tolist())
            ]
            passed += sum(g)
            for j in range(4):
                sums[j] += sum(a * v for a, v in zip(g, known[j:], strict=False))
            for t in range(length):
                back = sum(tap * a for tap, a in zip(reversed(taps), g[t : t + 4], strict=False))
                rounded = shift_round(see("back", back + 2**s // 2) - 2**s // 2, s)
                dx[b, t, d] = see("dx", saturate(rounded, 32))
        dw[d] = [see("dw", value) for value in sums]
        dbias[d] = see("dbias", passed)
    return dx, dw, dbias


def passes(inputs, taps, bias, s):
    """Return whether the convolution's result there was not saturated."""
    total = see("sum", bias + sum(tap * value for tap, value in zip(taps, inputs, strict=True)) + 2**s // 2)
    return abs(see("rounded", total // 2**s)) < 2**15


__all__ = ["causal_conv1d_backward"]
