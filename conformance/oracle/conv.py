"""``spec.ops.conv`` on unbounded integers."""

import numpy as np

from .integers import saturate, shift_round
from .observe import see


def causal_conv1d(x, w, bias, state, *, s):
    y = np.empty(x.shape, "int16")
    batches, length, channels = x.shape
    last = np.empty(state.shape, "int16")
    for b in range(batches):
        for d in range(channels):
            past = state[b, :, d].tolist()
            for t in range(length):
                past.append(int(x[b, t, d]))
                total = int(bias[d]) + sum(tap * value for tap, value in zip(w[d].tolist(), past[-4:], strict=True))
                rounded = shift_round(see("sum", total + 2**s // 2) - 2**s // 2, s)
                y[b, t, d] = see("y", saturate(rounded, 16))
            last[b, :, d] = past[-3:]
    return y, last


def conv1d_step(x, w, bias, state, *, s):
    y, state = causal_conv1d(x[:, None], w, bias, state, s=s)
    return y[:, 0], state


__all__ = ["causal_conv1d", "conv1d_step"]
