"""The product of int8 rows and packed ternary weights, scaled: the weights are unpacked in registers, never in memory.

Five schedules, by the number of rows. One row: the bytes of the weights are the floor, and a lane multiplies sixteen
digits of a word by four four-term dots. Where NVIDIA's tensor cores take rows that can be loaded so, `few_rows`
multiplies one and few. Few and some rows: tensor cores, with the weights as the operand that they take
from registers; so the product is computed transposed, a tile of rows is as narrow as eight, and a row's words are taken
apart in registers as the weights are. Many rows: the weights' digits are dealt into planes first, so that a plane meets
int8 that lie side by side and go to the tensor cores as they are. On Hopper, `hopper_product` multiplies many rows, and
deals the weights of large products alone.

Devices that cut their int8 units multiply in bfloat16, which holds every int8, with sums in float32, which are exact
while no sum can reach 2**24: longer rows stay with the int8 units.
"""
# ruff: noqa: RUF005 -- Triton compiles no unpacking inside a tuple

from functools import lru_cache
from types import SimpleNamespace

import torch
import triton
import triton.language as tl

from mamba_integer.spec.ops.linear import EXPONENT, ternary_linear_widths

from . import few_rows, hopper_product, integers
from .instructions import dot_signed, four_planes, is_interpreted, target_name, ternary_digits
from .launch import launch, with_columns, words
from .planes import PLANE, dealt
from .room import at_most

DIGITS_A_WORD = 16
DOT_COLUMNS, MOST_BLOCKS = 4, 8
PROGRAMS = 1024  # of one warp each; where there are fewer, more warps share a column
MOST_WARPS = 8
DOT_REGISTERS = 128  # of a lane: all of its loads are then under way at once
UPPER_BITS = tl.constexpr(0xC0C0C0C0 - (1 << 32))  # of each byte, as int32
RAISED = tl.constexpr(6)  # bits: sums of 64 times the digits fit int32 up to MOST_DEPTH of few_rows
# The most rows that a tile takes, and the tile: ROWS of the activations, COLUMNS of the result, BYTES of the weights.
# Measured at 4096 x 8192.
TILES = (
    (8, {"ROWS": 8, "COLUMNS": 64, "BYTES": 128, "num_warps": 4, "num_stages": 4}),
    (16, {"ROWS": 16, "COLUMNS": 64, "BYTES": 128, "num_warps": 4, "num_stages": 4}),
    (64, {"ROWS": 32, "COLUMNS": 64, "BYTES": 128, "num_warps": 4, "num_stages": 3}),
    (128, {"ROWS": 64, "COLUMNS": 128, "BYTES": 64, "num_warps": 4, "num_stages": 4}),
)
PLANES_TILE = {"ROWS": 128, "COLUMNS": 128, "BYTES": PLANE, "num_warps": 4, "num_stages": 4}
FEWEST_ON_HOPPER = 65  # rows
FEWER_STAGES = {"num_stages": 2}  # where a program has 64 KiB of shared memory
FLOAT_UNITS: bool | None = None  # whether bfloat16 multiplies where it is exact; None: where the device prefers it
WITHOUT_INT8 = ((10, 3),)  # compute capabilities whose int8 units are a small part of their bfloat16 units
FLOAT_SUMS = 1 << 24  # a float32 holds every integer below


@lru_cache
def exact_in_floats(depth: int) -> bool:
    """Return whether no row of int8 times ternary digits has a sum, or a part of it, that float32 would round."""
    sums = ternary_linear_widths(SimpleNamespace(K=depth, num=1, shift=0))["accumulator"].range
    return max(-sums.low, sums.high) < FLOAT_SUMS


def float_units(device, depth: int) -> bool:
    """Return whether the product of rows of that depth goes to the float units."""
    wanted = FLOAT_UNITS
    if wanted is None:
        wanted = device.type == "cuda" and torch.cuda.get_device_capability(device) in WITHOUT_INT8
    return wanted and exact_in_floats(depth)


def product(q, e, w, num, shift, planes=None):
    """Return int8 rows q with exponents e times packed weights w, scaled by num / 2**shift: int16 [..., columns].

    The ``planes`` are those of w where they are known.
    """
    columns = w.shape[0]
    y = torch.empty((*q.shape[:-1], columns), dtype=torch.int16, device=q.device)
    if not y.numel():
        return y
    rows, depth = e.numel(), q.shape[-1]
    scale = (num, shift, (1 << shift) >> 1)
    units = {"FLOAT": float_units(q.device, depth)}
    if few_rows.suits(rows, depth, columns) and not units["FLOAT"]:
        few_rows.product(y, q, e, w, *scale)
        return y
    if rows == 1 and depth <= few_rows.MOST_DEPTH:
        w = with_columns(w, DIGITS_A_WORD // 4)
        q = with_columns(q, 4 * w.shape[1])
        sizes = (columns, w.shape[1] // 4)
        programs = triton.cdiv(columns, DOT_COLUMNS)
        warps = min(MOST_WARPS, triton.next_power_of_2(triton.cdiv(PROGRAMS, programs)))
        blocks = min(MOST_BLOCKS, triton.next_power_of_2(triton.cdiv(sizes[1], 32 * warps)))
        tile = {"COLUMNS": DOT_COLUMNS, "BLOCKS": blocks, "LANES": 32 * warps, "num_warps": warps}
        tile |= at_most(DOT_REGISTERS)
        launch(dot_kernel, programs, (y,), (words(q), e, words(w)), *sizes, *scale, **tile)
        return y
    fitting = fitting_tiles(rows)
    if on_hopper(q, rows):
        hopper_product.product(y, q, e, w, *scale_of(ternary_linear_widths, num, shift, K=depth))
        return y
    tile = fitting[0] if fitting else PLANES_TILE | (FEWER_STAGES if target_name() == "hip" else {})
    programs = triton.cdiv(rows, tile["ROWS"]) * triton.cdiv(columns, tile["COLUMNS"])
    if fitting:
        q = with_columns(q, 4 * w.shape[1])
        sizes = (rows, columns, w.shape[1])
        launch(words_kernel, programs, (y,), (words(q), e, w), *sizes, *scale, **tile, **units)
        return y
    planes = dealt(w) if planes is None else planes
    sizes = (rows, columns, depth, planes.shape[1])
    launch(planes_kernel, programs, (y,), (q, e, planes), *sizes, *scale, **tile, **units)
    return y


def fitting_tiles(rows: int) -> list[dict[str, int]]:
    """Return the tiles of the weights as they are packed that take that many rows, the smallest first."""
    return [tile for most, tile in TILES if rows <= most]


def on_hopper(q, rows: int) -> bool:
    """Return whether Hopper's own kernels multiply that many rows."""
    depth = q.shape[-1]
    return rows >= FEWEST_ON_HOPPER and not float_units(q.device, depth) and hopper_product.suits(depth)


def scale_of(widths, num, shift, **sizes):
    """Return a scale as another numerator and shift of the same ratio, and a form of the arithmetic that is exact.

    The shift is above every row's exponent. The form is 32 where a sum, times the numerator and plus the half that
    rounds it, fits as many bits; 64 where the rounded result is below 2**30; and 0 where sums are clamped first.
    """
    raised = max(EXPONENT.high + 1 - shift, 0)
    return num << raised, shift + raised, form_of(widths, num, shift, raised, **sizes)


@lru_cache
def form_of(widths, num, shift, raised, **sizes):
    bounds = widths(SimpleNamespace(**sizes, num=num, shift=shift))
    accumulator, rounded = (bounds[name].range for name in ("accumulator", "rounded_sum"))
    most = max(-accumulator.low, accumulator.high) * (num << raised)
    if most + (1 << (shift + raised) >> 1) < 1 << 31:
        return 32
    return 64 if max(-rounded.low, rounded.high) < 1 << 30 else 0


@triton.jit
def scale_sum(accumulator, e, num, shift, half):
    """Return the sum times ``2**e * num / 2**shift``, rounded once and saturated; half is ``2**shift / 2``."""
    aligned = (accumulator.to(tl.int64) * num) << e.to(tl.int64)
    return integers.saturate((aligned + half) >> shift, 16).to(tl.int16)


@triton.jit(do_not_specialize=["num", "shift", "half"])
def dot_kernel(
    y_pointer,
    q_pointer,
    e_pointer,
    w_pointer,
    columns,
    words,
    num,
    shift,
    half,
    COLUMNS: tl.constexpr,
    BLOCKS: tl.constexpr,
    LANES: tl.constexpr,
):
    """Multiply one row: a lane takes a word of each column's weights at a time, and four words of the row."""
    first = tl.program_id(0).to(tl.int64) * COLUMNS
    lane = tl.arange(0, LANES)
    w_pointer += first * words
    totals = ()
    for _ in tl.static_range(COLUMNS):
        totals = totals + (tl.zeros([LANES], tl.int32),)
    for start in range(0, words, LANES * BLOCKS):
        for block in tl.static_range(BLOCKS):
            j = start + block * LANES + lane
            inside = j < words
            q = ()
            for i in tl.static_range(4):
                q = q + (tl.load(q_pointer + 4 * j + i, mask=inside, other=0),)
            planes = four_planes(q)
            added = ()
            for c in tl.static_range(COLUMNS):
                row = tl.minimum(c, columns - 1 - first)  # beyond the last column, that one again
                word = tl.load(w_pointer + row * words + j, mask=inside, other=0)
                total = totals[c]
                for i in tl.static_range(4):
                    # A digit is its own two's complement of two bits: 64 times it, in the upper two of a byte.
                    total = dot_signed((word << (6 - 2 * i)) & UPPER_BITS, planes[i], total)
                added = added + (total,)
            totals = added
    sums = tl.zeros([LANES], tl.int32)
    for c in tl.static_range(COLUMNS):
        sums = tl.where(lane == c, tl.sum(totals[c], axis=0), sums)
    y = scale_sum(sums >> RAISED, tl.load(e_pointer), num, shift, half)
    tl.store(y_pointer + first + lane, y, mask=(lane < COLUMNS) & (first + lane < columns))


@triton.jit
def tile_of(program, rows, columns, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """Return the rows and the columns of a program's tile.

    Programs that run together share columns: eight tiles of rows before the next tile of columns.
    """
    group_size = 8 * tl.cdiv(columns, COLUMNS)
    group, inside_group = program // group_size, program % group_size
    height = tl.minimum(tl.cdiv(rows, ROWS) - group * 8, 8)
    m, n = group * 8 + inside_group % height, inside_group // height
    return m.to(tl.int64) * ROWS + tl.arange(0, ROWS), n.to(tl.int64) * COLUMNS + tl.arange(0, COLUMNS)


@triton.jit
def side_by_side(a, b):
    """Return [N, K] and [N, K] as [N, 2 K]: registers are renamed, nothing moves."""
    return tl.reshape(tl.permute(tl.join(a, b), (0, 2, 1)), [a.shape[0], 2 * a.shape[1]])


@triton.jit
def all_digits(byte):
    """Return [N, K] bytes as their [N, 4 K] digits: first digit 0 of all of them, last digit 3."""
    low = side_by_side(ternary_digits(byte, 0), ternary_digits(byte, 1))
    return side_by_side(low, side_by_side(ternary_digits(byte, 2), ternary_digits(byte, 3)))


@triton.jit
def all_bytes(word):
    """Return [N, K] words as their [N, 4 K] int8: first byte 0 of all of them, last byte 3."""
    low = side_by_side(word.to(tl.int8), (word >> 8).to(tl.int8))
    return side_by_side(low, side_by_side((word >> 16).to(tl.int8), (word >> 24).to(tl.int8)))


@triton.jit
def zero_sums(COLUMNS: tl.constexpr, ROWS: tl.constexpr, FLOAT: tl.constexpr):
    return tl.zeros([COLUMNS, ROWS], tl.float32 if FLOAT else tl.int32)


@triton.jit
def add_product(sums, digits, q, FLOAT: tl.constexpr):
    if FLOAT:
        # The interpreter would multiply the bits of bfloat16 as integers.
        operand: tl.constexpr = tl.float32 if is_interpreted() else tl.bfloat16
        return tl.dot(digits.to(operand), q.to(operand), sums, out_dtype=tl.float32)
    else:
        return tl.dot(digits, q, sums, out_dtype=tl.int32)


@triton.jit
def put_turned(y_pointer, sums, e_pointer, m, n, rows, columns, num, shift, half):
    """Scale and store a tile of the transposed product."""
    e = tl.load(e_pointer + m, mask=m < rows, other=0)
    y = scale_sum(sums.to(tl.int32), e[None, :], num, shift, half)
    inside = (m[None, :] < rows) & (n[:, None] < columns)
    tl.store(y_pointer + m[None, :] * columns + n[:, None], y, mask=inside)


@triton.jit(do_not_specialize=["num", "shift", "half"])
def words_kernel(
    y_pointer,
    q_pointer,
    e_pointer,
    w_pointer,
    rows,
    columns,
    bytes_a_row,
    num,
    shift,
    half,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    BYTES: tl.constexpr,
    FLOAT: tl.constexpr,
):
    """Multiply some rows: byte j of the weights has the digits of the row's word j."""
    m, n = tile_of(tl.program_id(0), rows, columns, ROWS, COLUMNS)
    j = tl.arange(0, BYTES)
    q_tile = q_pointer + tl.minimum(m, rows - 1)[:, None] * bytes_a_row + j[None, :]
    w_tile = w_pointer + tl.minimum(n, columns - 1)[:, None] * bytes_a_row + j[None, :]
    sums = zero_sums(COLUMNS, ROWS, FLOAT)
    for start in range(0, bytes_a_row, BYTES):
        inside = (start + j < bytes_a_row)[None, :]
        byte = tl.load(w_tile + start, mask=inside, other=0)
        word = tl.load(q_tile + start, mask=inside, other=0)
        sums = add_product(sums, all_digits(byte), tl.trans(all_bytes(word)), FLOAT)
    put_turned(y_pointer, sums, e_pointer, m, n, rows, columns, num, shift, half)


@triton.jit(do_not_specialize=["num", "shift", "half"])
def planes_kernel(
    y_pointer,
    q_pointer,
    e_pointer,
    w_pointer,
    rows,
    columns,
    depth,
    bytes_a_row,
    num,
    shift,
    half,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    BYTES: tl.constexpr,
    FLOAT: tl.constexpr,
):
    """Multiply many rows by weights that were dealt into planes of BYTES digits."""
    m, n = tile_of(tl.program_id(0), rows, columns, ROWS, COLUMNS)
    j, k = tl.arange(0, BYTES), tl.arange(0, 4 * BYTES)
    q_tile = q_pointer + tl.minimum(m, rows - 1)[:, None] * depth + k[None, :]
    w_tile = w_pointer + tl.minimum(n, columns - 1)[:, None] * bytes_a_row + j[None, :]
    sums = zero_sums(COLUMNS, ROWS, FLOAT)
    for start in range(0, bytes_a_row, BYTES):
        byte = tl.load(w_tile + start)
        q = tl.load(q_tile + 4 * start, mask=(4 * start + k < depth)[None, :], other=0)
        sums = add_product(sums, all_digits(byte), tl.trans(q), FLOAT)
    put_turned(y_pointer, sums, e_pointer, m, n, rows, columns, num, shift, half)
