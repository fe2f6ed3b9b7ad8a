"""The products of a step for many rows that quantise their rows, on the tensor cores.

Each program quantises its rows again, which takes less time than to wait for another kernel that does it once; the
kernel in front has kept the largest magnitude of each row. A warp takes a slice of the rows' elements, so that it has
few instructions until the end, and loads weights and rows as the tensor cores take them: only sums cross the warps.
"""
# ruff: noqa: RUF005 -- Triton compiles no unpacking inside a tuple

import triton
import triton.language as tl

from . import halves, integers
from .norm import whole_log2
from .overlap import early, wait_and_start_next
from .planes import PLANE
from .step_norm import exponent_of
from .step_wide import RAISED_BITS, raised, scaled, tile
from .ternary_product import side_by_side

PROGRAMS = 90  # that keep most processors busy
ROWS, COLUMNS = 8, (64, 32, 16)  # of a program: the most columns that leave enough programs, or the fewest
SLICES = 8  # of a row's elements, the most
LOADED_EARLY = tl.constexpr(512)  # bytes of a column's weights
BYTES, WORDS = tl.constexpr(PLANE), tl.constexpr(PLANE // 2)  # of weights, and of the rows that a digit of them meets


@triton.jit
def bytes_in_turn(word):
    """Return [N, K] words as their [N, 4 K] int8, in the order of memory."""
    even = tl.join(word.to(tl.int8), (word >> 16).to(tl.int8))
    odd = tl.join((word >> 8).to(tl.int8), (word >> 24).to(tl.int8))
    return tl.reshape(tl.join(even, odd), [word.shape[0], 4 * word.shape[1]])


@triton.jit
def weights_of(w_pointer, column, bytes_a_row: tl.constexpr, block, SLICES: tl.constexpr):
    """Return a block of the weights of some columns, [N, SLICES, BYTES], zeros beyond a row's end."""
    place = (block * SLICES + tl.arange(0, SLICES))[None, :, None] * BYTES + tl.arange(0, BYTES)[None, None, :]
    # Eight bytes at once: a thread then has what the tensor cores take of it.
    place_of_all = tl.max_contiguous(w_pointer + column[:, None, None] * bytes_a_row + place, [1, 1, 8])
    return tl.load(place_of_all, mask=place < bytes_a_row, other=0)


@triton.jit
def values_of(x_rows, known, words, block, SLICES: tl.constexpr):
    """Return a block of some rows as [SLICES * M, WORDS] for each digit of a byte, zeros beyond a row's end."""
    digits, rows = (), x_rows.shape[0] // SLICES
    first = (block * SLICES + tl.arange(0, x_rows.shape[0]) // rows) * (4 * WORDS)
    for i in tl.static_range(4):
        place = (first + i * WORDS)[:, None] + tl.arange(0, WORDS)[None, :]
        digits = digits + (tl.load(x_rows[:, None] + place, mask=known[:, None] & (place < words), other=0),)
    return digits


@triton.jit
def quantised_digit(value, e):
    """Return [N, WORDS] words of int16 as [N, BYTES] int8."""
    even, odd = tl.split(tl.reshape(value, [value.shape[0], WORDS // 2, 2]))
    return bytes_in_turn(halves.quantised_words(even, odd, e))


@triton.jit
def quantised_digits(values, e):
    """Return [N, WORDS] words of int16 for each digit of a byte as [N, 4 BYTES] int8."""
    low = side_by_side(quantised_digit(values[0], e), quantised_digit(values[1], e))
    return side_by_side(low, side_by_side(quantised_digit(values[2], e), quantised_digit(values[3], e)))


@triton.jit
def multiplied(w, q, sums):
    """Add the products of [N, SLICES, BYTES] weights and [SLICES * M, 4 BYTES] int8 to [SLICES, N, M]."""
    columns: tl.constexpr = w.shape[0]
    slices: tl.constexpr = w.shape[1]
    digits = tl.reshape(raised(tl.reshape(w, [columns * slices, BYTES])), [columns, slices, 4 * BYTES])
    q = tl.reshape(q, [slices, q.shape[0] // slices, 4 * BYTES])
    return tl.dot(tl.permute(digits, (1, 0, 2)), tl.permute(q, (0, 2, 1)), sums, out_dtype=tl.int32)


@triton.jit
def sum_of_slices(sums):
    """Return the sums of [SLICES, N, M] over its first axis: a thread then holds all that it adds."""
    sums = tl.permute(sums, (1, 2, 0))
    for _ in tl.static_range(whole_log2(sums.shape[2])):
        even, odd = tl.split(tl.reshape(sums, [sums.shape[0], sums.shape[1], sums.shape[2] // 2, 2]))
        sums = even + odd
    return tl.reshape(sums, [sums.shape[0], sums.shape[1]])


@triton.constexpr_function
def least_of(a, b):
    return min(a, b)


@triton.jit
def sliced_kernel(
    y_pointer,
    cleared_pointer,
    x_pointer,
    largest_pointer,
    w_pointer,
    pitch,
    rows: tl.constexpr,
    columns: tl.constexpr,
    words: tl.constexpr,
    bytes_a_row: tl.constexpr,
    num: tl.constexpr,
    shift: tl.constexpr,
    ADDS: tl.constexpr,
    gate_num: tl.constexpr,
    gate_shift: tl.constexpr,
    bits: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    SLICES: tl.constexpr,
    BLOCKS: tl.constexpr,
):
    """Quantise and project the first ``words`` words of int16 rows, ``pitch`` words apart; write or add in place.

    The largest magnitudes that the kernels behind will keep of the rows of another product become 0.
    """
    m, n, row, first_column = tile(rows, ROWS, COLUMNS)
    again = row + tl.arange(0, SLICES * ROWS) % ROWS  # the rows once for each slice
    column, place = tl.minimum(n, columns - 1), m[None, :] * columns + n[:, None]
    inside = (m < rows)[None, :] & (n < columns)[:, None]
    early_blocks: tl.constexpr = least_of(BLOCKS, LOADED_EARLY // (SLICES * BYTES))
    weights, values = (), ()
    for block in tl.static_range(early_blocks):
        weights = weights + (weights_of(w_pointer, column, bytes_a_row, block, SLICES),)
    known, x_rows = again < rows, x_pointer + again * pitch
    wait_and_start_next()
    if first_column == 0:
        tl.store(cleared_pointer + m, tl.zeros([ROWS], tl.int32), mask=m < rows)
    for block in tl.static_range(early_blocks):
        values = values + (values_of(x_rows, known, words, block, SLICES),)
    if ADDS:
        r = tl.load(y_pointer + place, mask=inside, other=0)
    tl.debug_barrier()  # no product comes before this: else loads would follow one another, each behind a product
    e = exponent_of(tl.load(largest_pointer + again[:, None], mask=known[:, None], other=0))
    exponent = exponent_of(tl.load(largest_pointer + m, mask=m < rows, other=0))
    sums = tl.zeros([SLICES, COLUMNS, ROWS], tl.int32)
    for block in tl.static_range(BLOCKS):
        if block < early_blocks:
            w, x = weights[block], values[block]
        else:
            w = weights_of(w_pointer, column, bytes_a_row, block, SLICES)
            x = values_of(x_rows, known, words, block, SLICES)
        sums = multiplied(w, quantised_digits(x, e), sums)
    y = scaled(sum_of_slices(sums) >> RAISED_BITS, exponent[None, :], num, shift, 4 * bytes_a_row)
    if ADDS:
        total = integers.saturate(r + integers.shift_round(y.to(tl.int32) * gate_num, gate_shift), bits)
        tl.debug_barrier()  # what is written in place, every thread has read
        tl.store(y_pointer + place, total, mask=inside)
    else:
        tl.store(y_pointer + place, y, mask=inside)


def sliced_launch(rows: int, w, words: int, **constants):
    """Return the number of programs that multiply so many words of each row by dealt weights, and their constants."""
    counts = [triton.cdiv(w.shape[0], size) * triton.cdiv(rows, ROWS) for size in COLUMNS]
    best = next((i for i, count in enumerate(counts) if count >= PROGRAMS), -1)
    slices = min(SLICES, triton.next_power_of_2(triton.cdiv(w.shape[1], PLANE)))
    sizes = {"rows": rows, "columns": w.shape[0], "words": words, "bytes_a_row": w.shape[1], "ROWS": ROWS}
    parts = {"COLUMNS": COLUMNS[best], "SLICES": slices, "BLOCKS": triton.cdiv(w.shape[1], slices * PLANE)}
    unused = dict.fromkeys(("gate_num", "gate_shift", "bits"), 0)
    return counts[best], {**unused, **constants, **sizes, **parts, "num_warps": slices} | early()
