"""A step of the selective scan with the ops around it, one kernel; the state moves on in place.

It loads its state and the position before it waits, because no kernel in front of it writes them.
"""

import triton
import triton.language as tl

from . import integers
from .activation import silu_gated
from .overlap import wait_and_start_next
from .recurrence import advance, input_of, modulate
from .step_norm import keep_largest, quantised
from .step_products import columns_of, product, weights_of
from .ternary_product import scale_sum


@triton.jit
def requantised(x, shift: tl.constexpr):
    return integers.saturate(integers.shift_round(x.to(tl.int32), shift), 8)


@triton.jit
def selective_kernel(
    y_pointer,
    h_pointer,
    largest_pointer,
    xz_pointer,
    projected_pointer,
    w_pointer,
    base_pointer,
    skip_pointer,
    channels: tl.constexpr,
    words: tl.constexpr,
    states: tl.constexpr,
    DEPTH: tl.constexpr,
    num: tl.constexpr,
    shift: tl.constexpr,
    mixture_shift: tl.constexpr,
    k: tl.constexpr,
    n_max: tl.constexpr,
    s_v: tl.constexpr,
    s_h: tl.constexpr,
    s_y: tl.constexpr,
    convex: tl.constexpr,
    f: tl.constexpr,
    STATES: tl.constexpr,
    WORDS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """Quantise and project the modulation, requantise b and c, step `selective_scan`, gate."""
    row, channel = columns_of(channels, COLUMNS)
    state, known = tl.arange(0, STATES), channel < channels
    inside = known[:, None] & (state < states)[None, :]
    w = weights_of(w_pointer, channel, known, words, WORDS)
    base = tl.load(base_pointer + channel[:, None] * states + state[None, :], mask=inside, other=0).to(tl.int32)
    skip = tl.load(skip_pointer + channel, mask=known, other=0).to(tl.int32)
    place = h_pointer + (row.to(tl.int64) * channels + channel)[:, None] * states + state[None, :]
    h = tl.load(place, mask=inside, other=0)
    low_place = tl.arange(0, 16 * WORDS)
    is_low, is_state = low_place < DEPTH, state < states
    wait_and_start_next()
    x_row = xz_pointer + row * 2 * channels
    x = tl.load(x_row + channel, mask=known, other=0).to(tl.int32)
    z = tl.load(x_row + channels + channel, mask=known, other=0).to(tl.int32)
    projected_pointer += row * (DEPTH + 2 * states)
    low = tl.load(projected_pointer + low_place, mask=is_low, other=0).to(tl.int32)
    mixture_pointer = projected_pointer + DEPTH + state
    b = requantised(tl.load(mixture_pointer, mask=is_state, other=0), mixture_shift)
    c = requantised(tl.load(mixture_pointer + states, mask=is_state, other=0), mixture_shift)
    e, q = quantised(tl.reshape(low, [4 * WORDS, 4]))
    modulation = scale_sum(product(q, w, WORDS), e, num, shift, (1 << shift) >> 1).to(tl.int32)
    n = modulate(base, modulation[:, None], n_max)
    h = advance(h, n, input_of(x[:, None], b[None, :], s_v), k, convex)
    total = (x * skip).to(tl.int64) + tl.sum((h >> s_h).to(tl.int64) * c[None, :], 1)
    y = integers.saturate(integers.shift_round(total, s_y), 16).to(tl.int32)
    tl.debug_barrier()  # what is written in place, every thread has read
    tl.store(place, h, mask=inside)
    y = tl.where(known, silu_gated(y, z, f), 0)
    tl.store(y_pointer + row * channels + channel, y.to(tl.int16), mask=known)
    keep_largest(largest_pointer, row, y)
