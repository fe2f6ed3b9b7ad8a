"""The products of a step for many rows: rows are quantised once, and multiplied on the tensor cores."""

import triton
import triton.language as tl

from . import integers
from .activation import squareplus_of
from .instructions import has_little_room, ternary_digits
from .norm import row_launch
from .overlap import early, fetch, wait_and_start_next
from .step_norm import normalised, plane_place, quantised
from .ternary_product import scale_sum, tile_of

PLAIN, CONVOLVED, ADDED = 0, 1, 2  # what follows a product
CONVOLUTION, ADDITION = tl.constexpr(CONVOLVED), tl.constexpr(ADDED)
PROGRAMS = 96  # that keep most processors busy
TILES = (16, 64), (16, 32), (16, 16)  # columns and rows of a program: the first tile with enough programs is taken
ROW_WARPS = 8
FETCHED_BYTES = 16  # of which what is asked for is a multiple, and its address
# Measured on an H200 with 64 rows of ``base``: half as many bytes took 11 % longer per step.
TILE = {"BYTES": 128, "num_warps": 4, "num_stages": 3}
LITTLE_ROOM = {"BYTES": 64, "num_stages": 4}  # where a program has less shared memory


@triton.jit
def norm_kernel(
    q_pointer,
    e_pointer,
    x_pointer,
    gamma_pointer,
    ahead_pointer,
    pitch,
    ahead,
    D: tl.constexpr,
    b: tl.constexpr,
    s: tl.constexpr,
    AHEAD: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Norm and quantise a row, in planes; zeros follow up to ``pitch`` elements.

    With AHEAD, as many bytes of the state per row are asked for, which the scan will read.
    """
    if AHEAD:
        fetch(ahead_pointer + tl.program_id(0).to(tl.int64) * (ahead // 4), ahead)
    row, column = tl.program_id(0), tl.arange(0, BLOCK)
    gamma = tl.load(tl.max_contiguous(gamma_pointer + column, 1), mask=column < D, other=0)
    wait_and_start_next()
    x = tl.load(tl.max_contiguous(x_pointer + row * D + column, 1), mask=column < D, other=0)
    e, q = quantised(normalised(x, gamma, D, b, s))
    tl.store(q_pointer + row * pitch + plane_place(column, pitch), q.to(tl.int8), mask=column < pitch)
    tl.store(e_pointer + row, e)


@triton.jit
def wide_kernel(
    y_pointer,
    state_pointer,
    q_pointer,
    e_pointer,
    w_pointer,
    taps_pointer,
    bias_pointer,
    rows: tl.constexpr,
    columns: tl.constexpr,
    bytes_a_row: tl.constexpr,
    num: tl.constexpr,
    shift: tl.constexpr,
    AFTER: tl.constexpr,
    s_conv: tl.constexpr,
    f: tl.constexpr,
    offset: tl.constexpr,
    gate_num: tl.constexpr,
    gate_shift: tl.constexpr,
    bits: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    BYTES: tl.constexpr,
    FETCHES: tl.constexpr,
):
    """Multiply a tile of rows, which lie in a plane for each digit of the weights' bytes; do what follows."""
    m, n = tile_of(tl.program_id(0), rows, columns, ROWS, COLUMNS)
    first = tl.min(n, 0)
    if FETCHES:
        fetch(w_pointer + first * bytes_a_row, tl.minimum(COLUMNS, columns - first).to(tl.int32) * bytes_a_row)
    j = tl.arange(0, BYTES)
    q_tile = q_pointer + tl.minimum(m, rows - 1)[:, None] * 4 * bytes_a_row + j[None, :]
    w_tile = w_pointer + tl.minimum(n, columns - 1)[:, None] * bytes_a_row + j[None, :]
    place, inside = m[None, :] * columns + n[:, None], (m < rows)[None, :] & (n < columns)[:, None]
    accumulator = tl.zeros([COLUMNS, ROWS], tl.int32)
    if AFTER == CONVOLUTION:
        channels = columns // 2
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
    e = tl.load(e_pointer + m, mask=m < rows, other=0)
    if AFTER == ADDITION:
        r = tl.load(y_pointer + place, mask=inside, other=0)
    for start in range(0, bytes_a_row, BYTES):
        known_bytes = (start + j < bytes_a_row)[None, :]
        byte = tl.load(w_tile + start, mask=known_bytes, other=0)
        for i in tl.static_range(4):
            q = tl.load(q_tile + (i * bytes_a_row + start), mask=known_bytes, other=0)
            accumulator = tl.dot(ternary_digits(byte, i), tl.trans(q), accumulator, out_dtype=tl.int32)
    y = scale_sum(accumulator, e[None, :], num, shift, (1 << shift) >> 1)
    tl.debug_barrier()  # what is written in place, every thread has read
    if AFTER == CONVOLUTION:  # noqa: SIM102 - a kernel without a convolution has no channels
        if first < channels:
            total = bias[:, None] + w0[:, None] * x0 + w1[:, None] * x1 + w2[:, None] * x2 + w3[:, None] * y
            tl.store(past, x1, mask=convolved)
            tl.store(past + channels, x2, mask=convolved)
            tl.store(past + 2 * channels, y, mask=convolved)
            x = squareplus_of(integers.saturate(integers.shift_round(total, s_conv), 16), f, offset)
            y = tl.where(known[:, None], x.to(tl.int16), y)
    if AFTER == ADDITION:
        total = r + integers.shift_round(y.to(tl.int32) * gate_num, gate_shift)
        tl.store(y_pointer + place, integers.saturate(total, bits), mask=inside)
    else:
        tl.store(y_pointer + place, y, mask=inside)


def wide_launch(rows: int, w, after: int, **constants):
    """Return the number of programs of a product and its constants, its sizes among them."""
    sizes = {"rows": rows, "columns": w.shape[0], "bytes_a_row": w.shape[1]}
    counts = [triton.cdiv(w.shape[0], n) * triton.cdiv(rows, m) for n, m in TILES]
    best = next((i for i, count in enumerate(counts) if count >= PROGRAMS), -1)
    unused = dict.fromkeys(("s_conv", "f", "offset", "gate_num", "gate_shift", "bits"), 0)
    tile = TILE | (LITTLE_ROOM if has_little_room() else {})
    tile |= dict(zip(("COLUMNS", "ROWS"), TILES[best], strict=True))
    constants = {**sizes, **unused, **constants, **tile, "AFTER": after, "FETCHES": can_be_fetched(w), **early()}
    return counts[best], constants


def can_be_fetched(array) -> bool:
    """Return whether every row of an array, and all of them together, may be asked for ahead."""
    return array[0].nbytes % FETCHED_BYTES == 0 and array.data_ptr() % FETCHED_BYTES == 0


def row_block(width: int, pitch: int):
    """Return the tile and the number of warps for rows of ``width`` elements that are stored as ``pitch``."""
    return row_launch(max(width, pitch)) | {"num_warps": ROW_WARPS} | early()
