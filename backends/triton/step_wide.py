"""The products of a step for many rows, on the tensor cores.

A program loads its columns' weights, which no kernel writes, before it waits, as far as registers hold them. A norm is
made once per row, by a kernel of its own; `step_sliced` multiplies other rows.
"""
# ruff: noqa: RUF005 -- Triton compiles no unpacking inside a tuple

import triton
import triton.language as tl

from . import integers
from .activation import squareplus_of
from .instructions import raised_digits
from .norm import row_launch
from .overlap import early, start_next_and_wait, wait_and_start_next
from .step_norm import keep_largest, normalised, quantised
from .ternary_product import scale_sum, side_by_side

COLUMNS, ROWS = 64, 8  # of a program: 16 rows took 1 % longer per step of 64 (H200)
BYTES = 128, 64  # of a column's weights that are multiplied at once: the most that divide them, or the fewest
LOADED_EARLY = tl.constexpr(384)  # bytes of a column's weights
RAISED_BITS = tl.constexpr(6)
LARGEST_EXPONENT = 8  # of a row of int16
WARPS, NORM_WARPS = 4, 2


@triton.jit
def element_place(column, BYTES: tl.constexpr):
    """Return where an element of a quantised row lies: in its block, beside those that a byte's same digit multiplies.

    A thread loads elements that are far apart for it: stored so, neighbours would cross threads first.
    """
    inside = column % (4 * BYTES)
    return column - inside + inside % 4 * BYTES + inside // 4


@triton.jit
def norm_kernel(
    q_pointer,
    e_pointer,
    x_pointer,
    gamma_pointer,
    pitch,
    D: tl.constexpr,
    b: tl.constexpr,
    s: tl.constexpr,
    BYTES: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Norm and quantise a row, as `element_place` says; zeros follow up to ``pitch`` elements."""
    row, column = tl.program_id(0), tl.arange(0, BLOCK)
    gamma = tl.load(tl.max_contiguous(gamma_pointer + column, 1), mask=column < D, other=0)
    start_next_and_wait()
    x = tl.load(tl.max_contiguous(x_pointer + row * D + column, 1), mask=column < D, other=0)
    e, q = quantised(normalised(x, gamma, D, b, s))
    tl.store(q_pointer + row * pitch + element_place(column, BYTES), q.to(tl.int8), mask=column < pitch)
    tl.store(e_pointer + row, e)


@triton.jit
def weights_of(w_tile, block, bytes_a_row: tl.constexpr, BYTES: tl.constexpr):
    """Return a block of the weights of some columns, zeros beyond a row's end."""
    start, j = block * BYTES, tl.arange(0, BYTES)
    return tl.load(w_tile + start + j[None, :], mask=(start + j < bytes_a_row)[None, :], other=0)


@triton.jit
def values_of(x_tile, known, block, BYTES: tl.constexpr):
    """Return a block of some rows."""
    k = block * 4 * BYTES + tl.arange(0, 4 * BYTES)
    return tl.load(x_tile[:, None] + k[None, :], mask=known[:, None], other=0)


@triton.jit
def raised(byte):
    """Return [N, K] bytes as 64 times their [N, 4 K] digits: first digit 0 of all of them, last digit 3."""
    low = side_by_side(raised_digits(byte, 0), raised_digits(byte, 1))
    return side_by_side(low, side_by_side(raised_digits(byte, 2), raised_digits(byte, 3)))


@triton.jit
def tile(rows, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """Return a program's rows and columns, and the first of each: programs that run together share columns."""
    tiles = (rows + ROWS - 1) // ROWS
    row, column = (tl.program_id(0) % tiles).to(tl.int64) * ROWS, tl.program_id(0) // tiles * COLUMNS
    return row + tl.arange(0, ROWS), column + tl.arange(0, COLUMNS), row, column


@triton.constexpr_function
def is_narrow(depth, num, shift):
    """Return whether each scaled sum of so many int8 times digits is below 2**31, with shifts above all exponents."""
    return shift > LARGEST_EXPONENT and (depth * 127 * num << LARGEST_EXPONENT) >> shift < (1 << 31) - 1


@triton.jit
def scaled(sums, e, num: tl.constexpr, shift: tl.constexpr, depth: tl.constexpr):
    """Return what `scale_sum` does, by fewer instructions where the results are small enough."""
    if is_narrow(depth, num, shift):
        half = tl.full([], (1 << shift) >> 1, tl.int64)
        rounded = (sums.to(tl.int64) * num + (half >> e)) >> (shift - e).to(tl.int64)
        return integers.saturate(rounded.to(tl.int32), 16).to(tl.int16)
    else:
        return scale_sum(sums, e, num, shift, (1 << shift) >> 1)


@triton.jit
def wide_kernel(
    y_pointer,
    state_pointer,
    largest_pointer,
    x_pointer,
    e_pointer,
    w_pointer,
    taps_pointer,
    bias_pointer,
    pitch,
    rows: tl.constexpr,
    columns: tl.constexpr,
    bytes_a_row: tl.constexpr,
    num: tl.constexpr,
    shift: tl.constexpr,
    CONVOLVES: tl.constexpr,
    s_conv: tl.constexpr,
    f: tl.constexpr,
    offset: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    BYTES: tl.constexpr,
    BLOCKS: tl.constexpr,
):
    """Multiply a tile of rows, int8 as `element_place` says and ``pitch`` elements apart; convolve x, squareplus."""
    m, n, _, column = tile(rows, ROWS, COLUMNS)
    known_rows = m < rows
    w_tile, x_tile = w_pointer + tl.minimum(n, columns - 1)[:, None] * bytes_a_row, x_pointer + m * pitch
    weights = ()
    for block in tl.static_range(BLOCKS):
        if block * BYTES < LOADED_EARLY:
            weights = weights + (weights_of(w_tile, block, bytes_a_row, BYTES),)
    place, inside = m[None, :] * columns + n[:, None], known_rows[None, :] & (n < columns)[:, None]
    if CONVOLVES:
        channels: tl.constexpr = columns // 2
        known = n < channels
        convolved = inside & known[:, None]
        past, taps = state_pointer + m[None, :] * 3 * channels + n[:, None], taps_pointer + 4 * n
        w0 = tl.load(taps, mask=known, other=0).to(tl.int32)
        w1 = tl.load(taps + 1, mask=known, other=0).to(tl.int32)
        w2 = tl.load(taps + 2, mask=known, other=0).to(tl.int32)
        w3 = tl.load(taps + 3, mask=known, other=0).to(tl.int32)
        bias = tl.load(bias_pointer + n, mask=known, other=0)
        x0 = tl.load(past, mask=convolved, other=0)
        x1 = tl.load(past + channels, mask=convolved, other=0)
        x2 = tl.load(past + 2 * channels, mask=convolved, other=0)
    wait_and_start_next()
    values = ()
    for block in tl.static_range(BLOCKS):
        if block * BYTES < LOADED_EARLY:
            values = values + (values_of(x_tile, known_rows, block, BYTES),)
    tl.debug_barrier()  # no product comes before this: else loads would follow one another, each behind a product
    e = tl.load(e_pointer + m, mask=known_rows, other=0)
    accumulator = tl.zeros([COLUMNS, ROWS], tl.int32)
    for block in tl.static_range(BLOCKS):
        if block * BYTES < LOADED_EARLY:
            byte, q = weights[block], values[block]
        else:
            byte = weights_of(w_tile, block, bytes_a_row, BYTES)
            q = values_of(x_tile, known_rows, block, BYTES)
        accumulator = tl.dot(raised(byte), tl.trans(q), accumulator, out_dtype=tl.int32)
    y = scaled(accumulator >> RAISED_BITS, e[None, :], num, shift, 4 * bytes_a_row)
    tl.debug_barrier()  # what is written in place, every thread has read
    if CONVOLVES:  # noqa: SIM102 - a kernel without a convolution has no channels
        if column < channels:
            total = bias[:, None] + w0[:, None] * x0 + w1[:, None] * x1 + w2[:, None] * x2 + w3[:, None] * y
            tl.store(past, x1, mask=convolved)
            tl.store(past + channels, x2, mask=convolved)
            tl.store(past + 2 * channels, y, mask=convolved)
            x = squareplus_of(integers.saturate(integers.shift_round(total, s_conv), 16), f, offset)
            keep_largest(largest_pointer, tl.minimum(m, rows - 1), tl.where(convolved, x, 0))  # 0 of unknown rows
            y = tl.where(known[:, None], x.to(tl.int16), y)
    tl.store(y_pointer + place, y, mask=inside)


def wide_launch(rows: int, w, convolves: bool, **constants):
    """Return the number of programs of a product and its constants."""
    unused = dict.fromkeys(("s_conv", "f", "offset"), 0)
    sizes = {"rows": rows, "columns": w.shape[0], "bytes_a_row": w.shape[1]}
    parts = {"ROWS": ROWS, "COLUMNS": COLUMNS, **block_of(w)}
    constants = {**sizes, **unused, **constants, **parts, "CONVOLVES": convolves, "num_warps": WARPS}
    return triton.cdiv(w.shape[0], COLUMNS) * triton.cdiv(rows, ROWS), constants | early()


def block_of(w) -> dict[str, int]:
    """Return how many bytes of a column's weights are multiplied at once, and how often."""
    size = next((size for size in BYTES if w.shape[1] % size == 0), BYTES[-1])
    return {"BYTES": size, "BLOCKS": triton.cdiv(w.shape[1], size)}


def quantised_pitch(w) -> int:
    """Return how many elements apart quantised rows lie that weights w multiply."""
    block = block_of(w)
    return 4 * block["BYTES"] * block["BLOCKS"]


def row_block(width: int, w):
    """Return the number of warps and the tile for rows of ``width`` elements that weights w multiply."""
    tile = row_launch(max(width, quantised_pitch(w))) | {"BYTES": block_of(w)["BYTES"]}
    return tile | {"num_warps": NORM_WARPS} | early()
