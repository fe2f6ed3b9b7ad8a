"""The norm and the quantisation of a row inside the kernels of a step, where the latency of a row decides.

A row's sum and its sum of squares cross the threads together. The scale is what `norm` searches by comparisons, one
after the other; here floats say where to compare, and two comparisons at once decide. So no float decides anything.
"""

import triton
import triton.language as tl

from mamba_integer.spec.ops import norm as golden

from . import integers

HALF_MEAN_SQUARE_BITS = tl.constexpr(golden.MEAN_SQUARE_BITS // 2)


@triton.jit
def exponent_of(largest):
    """Return the exponent of a row by the largest of its magnitudes."""
    return tl.maximum(integers.bit_length(largest) - 7, 0)


@triton.jit
def quantised(y):
    """Return a row's exponent and its int8, still in int32."""
    e = exponent_of(tl.max(tl.abs(y)))
    return e, integers.saturate(integers.shift_round(y, e), 8)


@triton.constexpr_function
def whole_log2(D):
    return D.bit_length() - 1


@triton.jit
def scale_exponent(square_sum, D: tl.constexpr):
    """Return the smallest k >= 0 with square_sum <= D * 4**k: by the lengths of both it is one of two."""
    # The sum is above 2**(length - 1) and below 2**(length + 1), and D is below twice its power of two.
    length = (square_sum.to(tl.float32).to(tl.int32, bitcast=True) >> 23) - 127
    k = tl.maximum((length - whole_log2(D)) >> 1, 0)
    bound = tl.full([], D, tl.int64) << (2 * k).to(tl.int64)
    return k + (bound < square_sum).to(tl.int32)


@triton.jit
def scale_mantissa(square_sum, D: tl.constexpr, k, b: tl.constexpr):
    """Return half of the largest root below 2**(b + 2) with root**2 * mean_square <= target, rounded."""
    cut = tl.maximum(k - HALF_MEAN_SQUARE_BITS, 0)
    mean_square = square_sum >> (2 * cut).to(tl.int64)
    target = tl.full([], D, tl.int64) << (2 * (k - cut) + 2 * b + 2).to(tl.int64)
    top: tl.constexpr = (4 << b) - 1
    ratio = target.to(tl.float32) / tl.maximum(mean_square, 1).to(tl.float32)
    near = tl.minimum(tl.sqrt(ratio).to(tl.int32), top)  # the root, or one beside it
    root = tl.maximum(tl.where(mean_square == 0, top, near) - 1, 0)
    first, second = (root + 1).to(tl.int64), (root + 2).to(tl.int64)
    more = (first * first * mean_square <= target).to(tl.int32)
    more += ((second * second * mean_square <= target) & (second <= top)).to(tl.int32)
    return (root + more + 1) >> 1


@triton.jit
def normalised(x, gamma, D: tl.constexpr, b: tl.constexpr, s: tl.constexpr):
    """Return a row of `bitshift_norm` in int32, of any shape; x and gamma are 0 beyond the row's D elements."""
    wide = x.to(tl.int64)
    both = tl.join(tl.ravel(wide), tl.ravel(wide * wide))
    total, squares = tl.split(tl.sum(both, 0))
    mean = integers.floor_div(total, D)
    square_sum = squares + mean * (D * mean - 2 * total)
    k = scale_exponent(square_sum, D)
    centred = x - mean.to(tl.int32)
    if b > 0:
        centred *= scale_mantissa(square_sum, D, k, b)
    rounded = integers.shift_round(centred.to(tl.int64) * gamma, (k + b + s).to(tl.int64)).to(tl.int32)
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
