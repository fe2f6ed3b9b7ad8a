"""The norm and the quantisation of a row inside the kernels of a step, where the latency of a row decides.

A row may have any shape here, so that it is shared out among threads as a product left it or takes it.
"""

import triton
import triton.language as tl

from . import integers
from .norm import about_mean, row_scale, two_sums


@triton.jit
def exponent_of(largest):
    """Return the exponent of a row by the largest of its magnitudes."""
    return tl.maximum(integers.bit_length(largest) - 7, 0)


@triton.jit
def quantised(y):
    """Return a row's exponent and its int8, still in int32."""
    e = exponent_of(tl.max(tl.abs(y)))
    return e, integers.saturate(integers.shift_round(y, e), 8)


@triton.jit
def normalised(x, gamma, D: tl.constexpr, b: tl.constexpr, s: tl.constexpr):
    """Return a row of `bitshift_norm` in int32, of any shape; x and gamma are 0 beyond the row's D elements."""
    wide = x.to(tl.int64)
    total, squares = two_sums(tl.ravel(wide), tl.ravel(wide * wide))
    mean, square_sum = about_mean(total, squares, D)
    k, m = row_scale(square_sum, D, b)
    scaled = (x - mean) * m
    rounded = integers.shift_round(scaled.to(tl.int64) * gamma, (k + b + s).to(tl.int64)).to(tl.int32)
    return integers.saturate(rounded, 16)


@triton.jit
def keep_largest(largest_pointer, row, y):
    """Keep the largest magnitudes of y along its first axis, and those that were kept, where there is room for them."""
    if largest_pointer is not None:
        tl.atomic_max(largest_pointer + row, tl.max(tl.abs(y), 0), sem="relaxed")


@triton.jit
def arrives_last(arrived_pointer, parts):
    """Return whether a program is the last of its parts: it sees what all of them stored, and counts from 0 again.

    Nobody waits: whichever program is the last, nothing is missing.
    """
    tl.debug_barrier()  # every thread has stored
    last = tl.atomic_add(arrived_pointer, 1, sem="acq_rel", scope="gpu") == parts - 1
    tl.store(arrived_pointer, 0, mask=last)
    return last
