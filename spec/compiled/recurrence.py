"""The step of the scans, shared by the forward and the backward kernels.

Numba computes in 64 bits; what is narrowed at once runs on twice the lanes. The product of a state and a decay needs
more than 32 bits, but its floor doesn't: ``(h n) >> k`` is ``(h >> k) n + ((low n) >> k)``, low the last k bits of h.
"""

import numpy as np
from numba import njit, types
from numba.extending import intrinsic


@intrinsic
def shift(typingctx, x, s):
    """x >> s for an int32 x and 0 <= s < 32, in 32 bits: Numba's own operator widens, and the compiler leaves it so."""

    def emit(context, builder, signature, arguments):
        count = context.cast(builder, arguments[1], signature.args[1], types.int32)
        return builder.ashr(arguments[0], count)

    return types.int32(types.int32, s), emit


@njit(inline="always")
def clamp(x, low, high):
    return min(max(x, np.int32(low)), np.int32(high))


@njit(inline="always")
def input_of(x, b, s_v):
    up, down = max(0, -s_v), max(0, s_v)
    # A product instead of a shift to the left, which Numba widens; what lanes share is multiplied once.
    factor = np.int32(np.int32(b) * np.int32(1 << up))
    return shift(np.int32(np.int32(x * factor) + np.int32((1 << down) >> 1)), down)


@njit(inline="always")
def advance(h, base, mod, x, b, k, n_max, s_v, convex):
    n = clamp(np.int32(base + mod), 0, n_max)
    v = input_of(x, b, s_v)
    # (h n + v (2**k - n)) >> k is v more than ((h - v) n) >> k.
    decaying = np.int32(h - v) if convex else h
    low = np.int32(np.int32(decaying & np.int32((1 << k) - 1)) * n)
    return np.int32(np.int32(np.int32(shift(decaying, k) * n) + shift(low, k)) + v)
