"""Triton versions of ``spec.ops.linear_backward``.

The tensor cores multiply int8 whose sums run along contiguous rows, so operands are turned first: the packed weights,
or the errors and the rows of the layer. An error of 16 bits is two int8 limbs, ``256 * high + low + 128``; what the 128
adds is 128 times the sum of the other operand.
"""

import torch
import triton
import triton.language as tl

from mamba_integer.spec import ops
from mamba_integer.spec.contract import implements
from mamba_integer.spec.ops.linear_backward import ternary_linear_backward_widths
from mamba_integer.spec.philox import MASK

from . import hopper_product, integers
from .gluon_names import processors
from .gradient import rounding_noise
from .instructions import has_little_room
from .launch import ceil_div, launch, zeros
from .philox import key_pattern
from .ternary_product import product, scale_of, scale_sum, tile_of

HOPPER_TILE = {"rows": 64, "columns": 128, "stages": 5}
LARGE_TILE = {"ROWS": 128, "COLUMNS": 128, "num_warps": 8, "num_stages": 3}
LITTLE_TILE = {"ROWS": 64, "COLUMNS": 64, "num_warps": 4, "num_stages": 2}
SMALL_TILE = {"ROWS": 64, "COLUMNS": 64, "num_warps": 4, "num_stages": 4}
BYTES, DEPTH = 32, 128
TURNED_COLUMNS, ROUNDING_WARPS = 64, 8
# Sums of this many products of two int8 fit int32.
LONGEST_SUM = 1 << 16
# Steps along a weight gradient's depth that take as long as putting a tile into memory, and the most parts of a depth.
STEPS_OF_A_TILE, MOST_PARTS = 10, 8


@implements(ops.ternary_linear_backward)
def ternary_linear_backward(dy, w, *, K, num, shift):
    dx = torch.empty((*dy.shape[:-1], K), dtype=torch.int16, device=dy.device)
    rows, depth = dy.shape[:-1].numel(), dy.shape[-1]
    if not dx.numel():
        return dx
    turned, sums = turn_packed(w, K)
    in_memory = isinstance(shift, torch.Tensor)
    if dy.dtype == torch.int8 and not in_memory:
        none = torch.zeros(dy.shape[:-1], dtype=torch.int32, device=dy.device)
        return product(dy, none, turned, num, shift)
    wide = ceil_div(depth, hopper_product.ROW_BYTES) * hopper_product.ROW_BYTES
    on_hopper = rows >= LARGE_TILE["ROWS"] and hopper_product.suits(wide)
    limbs = torch.empty((2, rows, wide if on_hopper else depth), dtype=torch.int8, device=dy.device)
    size = limbs[0].numel()
    padding = {"DEPTH": depth, "PADDED": limbs.shape[-1]}
    launch(split_kernel, ceil_div(size, 1024), (limbs,), (dy,), size, **padding, BLOCK=1024)
    if on_hopper:
        scale = num, shift, 0  # sums are clamped first
        if not in_memory:
            scale = scale_of(ternary_linear_backward_widths, num, shift, N=depth)
        hopper_product.product_of_limbs(dx, limbs, sums, turned, *scale, **HOPPER_TILE)
        return dx
    tile = LARGE_TILE if rows >= LARGE_TILE["ROWS"] and not has_little_room() else SMALL_TILE
    programs = triton.cdiv(rows, tile["ROWS"]) * triton.cdiv(K, tile["COLUMNS"])
    sizes = (rows * depth, rows, K, depth, turned.shape[1])
    launch(two_limbs_kernel, programs, (dx,), (limbs, turned, sums), *sizes, num, shift, BYTES=BYTES, **tile)
    return dx


def turn_packed(w, digits):
    """Return packed weights transposed, packed along their new rows, and the sum of each of these rows."""
    depth, bytes_a_row = w.shape
    turned = torch.empty((digits, triton.cdiv(depth, 4)), dtype=torch.uint8, device=w.device)
    sums = zeros((digits,), torch.int32, w.device)
    programs = triton.cdiv(turned.shape[1], 64) * triton.cdiv(digits, 64)
    sizes = (depth, digits, bytes_a_row, turned.shape[1])
    launch(turn_packed_kernel, programs, (turned, sums), (w,), *sizes, COLUMNS=64, BYTES=64)
    return turned, sums


@triton.jit
def turn_packed_kernel(
    turned_pointer,
    sums_pointer,
    w_pointer,
    depth,
    columns,
    bytes_a_row,
    bytes_turned,
    COLUMNS: tl.constexpr,
    BYTES: tl.constexpr,
):
    program, blocks = tl.program_id(0), tl.cdiv(bytes_turned, BYTES)
    j = (program % blocks).to(tl.int64) * BYTES + tl.arange(0, BYTES)
    k = (program // blocks).to(tl.int64) * COLUMNS + tl.arange(0, COLUMNS)
    turned = tl.zeros([BYTES, COLUMNS], tl.int32)
    total = tl.zeros([BYTES, COLUMNS], tl.int32)
    for i in tl.static_range(4):
        n = 4 * j + i
        inside = (n[:, None] < depth) & (k[None, :] < columns)
        byte = tl.load(w_pointer + n[:, None] * bytes_a_row + k[None, :] // 4, mask=inside, other=0)
        code = (byte.to(tl.int32) >> (k[None, :] % 4 * 2).to(tl.int32)) & 3
        turned |= code << (2 * i)
        total += (code ^ 2) - 2
    place = turned_pointer + k[:, None] * bytes_turned + j[None, :]
    tl.store(place, tl.trans(turned).to(tl.uint8), mask=(k[:, None] < columns) & (j[None, :] < bytes_turned))
    tl.atomic_add(sums_pointer + k, tl.sum(total, 0), mask=k < columns, sem="relaxed")


@triton.jit
def high_limb(x):
    return (x >> 8).to(tl.int8)


@triton.jit
def low_limb(x):
    return ((x & 255) - 128).to(tl.int8)


@triton.jit
def split_kernel(limbs_pointer, x_pointer, size, DEPTH: tl.constexpr, PADDED: tl.constexpr, BLOCK: tl.constexpr):
    """Split rows into limbs; rows that are padded go on with any number, since it meets digits of 0."""
    offset = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    place, inside = offset, offset < size
    if PADDED > DEPTH:
        row = offset // PADDED
        place -= row * (PADDED - DEPTH)
        inside = inside & (place < (row + 1) * DEPTH)
    x = tl.load(x_pointer + place, mask=inside, other=0).to(tl.int32)
    tl.store(limbs_pointer + offset, high_limb(x), mask=offset < size)
    tl.store(limbs_pointer + size + offset, low_limb(x), mask=offset < size)


@triton.jit
def digits_of(byte):
    """Return [N, B] bytes as the [N, 4 * B] int8 digits they hold.

    A word takes one code a byte, then copies each code's sign bit upward: four digits for the work of one.
    """
    code = byte.to(tl.int32)
    codes = (code | (code << 6) | (code << 12) | (code << 18)) & 0x03030303
    word = codes | ((codes & 0x02020202) * 126)
    even = tl.join(word.to(tl.int8), (word >> 16).to(tl.int8))
    odd = tl.join((word >> 8).to(tl.int8), (word >> 24).to(tl.int8))
    return tl.reshape(tl.join(even, odd), [byte.shape[0], 4 * byte.shape[1]])


@triton.jit(do_not_specialize=["num", "shift"])
def two_limbs_kernel(
    dx_pointer,
    limbs_pointer,
    w_pointer,
    sums_pointer,
    limb_size,
    rows,
    columns,
    depth,
    bytes_a_row,
    num,
    shift,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    BYTES: tl.constexpr,
):
    m, n = tile_of(tl.program_id(0), rows, columns, ROWS, COLUMNS)
    shift = integers.scalar(shift)
    j, k = tl.arange(0, BYTES), tl.arange(0, 4 * BYTES)
    high_tile = limbs_pointer + m[:, None] * depth + k[None, :]
    low_tile = high_tile + limb_size
    w_tile = w_pointer + n[:, None] * bytes_a_row + j[None, :]
    high_sum = tl.zeros([ROWS, COLUMNS], tl.int32)
    low_sum = tl.zeros([ROWS, COLUMNS], tl.int32)
    for start in range(0, bytes_a_row, BYTES):
        byte = tl.load(w_tile + start, mask=(n[:, None] < columns) & (start + j[None, :] < bytes_a_row), other=0)
        inside = (m[:, None] < rows) & (4 * start + k[None, :] < depth)
        digits = tl.trans(digits_of(byte))
        high_sum = tl.dot(tl.load(high_tile + 4 * start, mask=inside, other=0), digits, high_sum, out_dtype=tl.int32)
        low_sum = tl.dot(tl.load(low_tile + 4 * start, mask=inside, other=0), digits, low_sum, out_dtype=tl.int32)
    sums = tl.load(sums_pointer + n, mask=n < columns, other=0)
    # A part may wrap; the whole fits int32.
    accumulator = high_sum * 256 + (low_sum + 128 * sums[None, :])
    half = (tl.full([], 1, tl.int64) << shift) >> 1
    dx = scale_sum(accumulator, tl.zeros([ROWS, 1], tl.int32), num, shift, half)
    inside = (m[:, None] < rows) & (n[None, :] < columns)
    tl.store(dx_pointer + m[:, None] * columns + n[None, :], dx, mask=inside)


@implements(ops.ternary_linear_backward_weight)
def ternary_linear_backward_weight(dy, q, *, bits):
    columns, width = dy.shape[-1], q.shape[-1]
    rows = dy.shape[:-1].numel()
    if not rows or not columns or not width:
        return torch.zeros((columns, width), dtype=torch.int64, device=dy.device)
    errors, _ = turn(dy.reshape(rows, columns), 1 if bits <= 8 else 2)
    return turned_product(errors, q)


def rounded_weight_gradient(dy, q, e, *, shift, bits, seed, step, stream, first):
    """Return `ternary_linear_backward_weight` of rows dy after `stochastic_round_rows`, and their largest magnitude."""
    columns, rows, limbs = dy.shape[-1], e.numel(), 1 if bits <= 8 else 2
    depth = triton.cdiv(rows, DEPTH) * DEPTH
    errors = torch.empty((limbs, columns, depth), dtype=torch.int8, device=dy.device)
    largest = zeros((1,), torch.int64, dy.device)
    programs = depth // DEPTH * triton.cdiv(columns, TURNED_COLUMNS)
    words = (key_pattern(word) for word in (first, step, stream, seed & MASK, seed >> 32))
    sizes = (columns * depth, rows, columns, depth, *words, shift)
    options = {"LIMBS": limbs, "BITS": bits, "ROWS": DEPTH, "COLUMNS": TURNED_COLUMNS, "num_warps": ROUNDING_WARPS}
    launch(turn_rounded_kernel, programs, (errors, largest), (dy, e), *sizes, **options)
    return turned_product(errors, q), largest


def turned_product(errors, q):
    """Return the gradient of weights: turned errors [limbs, columns, depth] times the rows q of the layer."""
    (limbs, columns, _), width = errors.shape, q.shape[-1]
    rows = q.shape[:-1].numel()
    tiles = lambda tile: triton.cdiv(columns, tile["ROWS"]) * triton.cdiv(width, tile["COLUMNS"])  # noqa: E731
    tile = LARGE_TILE if min(columns, width) >= LARGE_TILE["ROWS"] else SMALL_TILE
    tile = LITTLE_TILE if has_little_room() else tile
    programs = tiles(tile)
    values, sums = turn(q.reshape(rows, width), 1, with_sums=limbs == 2)
    depth = values.shape[-1]
    parts = parts_of(programs, depth // DEPTH, processors(q.device))
    length = min(triton.cdiv(triton.cdiv(depth, parts), DEPTH) * DEPTH, LONGEST_SUM)
    parts = triton.cdiv(depth, length)
    make = torch.empty if parts == 1 else torch.zeros
    dw = make((columns, width), dtype=torch.int64, device=q.device)
    sizes = (columns * depth, columns, width, depth, length)
    options = {"LIMBS": limbs, "WHOLE": parts == 1, "DEPTH": DEPTH, **tile}
    launch(weight_kernel, programs * parts, (dw,), (errors, values, sums), *sizes, **options)
    return dw


def parts_of(tiles, steps, programs):
    """Return into how many parts the depth of tiles is cut so that the device's programs have about equal work."""
    choices = range(1, min(MOST_PARTS, steps) + 1)
    rounds = lambda parts: triton.cdiv(tiles * parts, programs)  # noqa: E731
    return min(choices, key=lambda parts: (rounds(parts) * (steps / parts + STEPS_OF_A_TILE), parts))


def turn(x, limbs, with_sums=False):
    """Return x transposed, as int8 limbs, its rows padded with zeros, and the sum of each column of x if wanted."""
    rows, columns = x.shape
    depth = triton.cdiv(rows, DEPTH) * DEPTH
    turned = torch.empty((limbs, columns, depth), dtype=torch.int8, device=x.device)
    sums = zeros((columns if with_sums else 1,), torch.int64, x.device)
    programs = depth // DEPTH * triton.cdiv(columns, TURNED_COLUMNS)
    sizes = (columns * depth, rows, columns, depth)
    options = {"LIMBS": limbs, "SUMS": with_sums, "ROWS": DEPTH, "COLUMNS": TURNED_COLUMNS}
    launch(turn_kernel, programs, (turned, sums), (x,), *sizes, **options)
    return turned, sums


@triton.jit
def put_turned(turned_pointer, x, m, n, limb_size, columns, depth, LIMBS: tl.constexpr):
    """Store a tile of int32 (row m, column n) transposed, as int8 limbs."""
    turned, there = turned_pointer + n[:, None] * depth + m[None, :], n[:, None] < columns
    if LIMBS == 1:
        tl.store(turned, tl.trans(x.to(tl.int8)), mask=there)
    else:
        tl.store(turned, tl.trans(high_limb(x)), mask=there)
        tl.store(turned + limb_size, tl.trans(low_limb(x)), mask=there)


@triton.jit(do_not_specialize=["first", "step", "stream", "key0", "key1", "shift"])
def turn_rounded_kernel(
    turned_pointer,
    largest_pointer,
    x_pointer,
    e_pointer,
    limb_size,
    rows,
    columns,
    depth,
    first,
    step,
    stream,
    key0,
    key1,
    shift,
    LIMBS: tl.constexpr,
    BITS: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """Round a tile, as `stochastic_round_rows_kernel` does, find its largest magnitude, and turn it."""
    program, blocks = tl.program_id(0), depth // ROWS
    m = (program % blocks).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    left = (program // blocks).to(tl.int64) * COLUMNS
    n = left + tl.arange(0, COLUMNS)
    shift, step = integers.scalar(shift), integers.scalar(step)
    counters_a_row = (columns + 3) // 4
    counter = m[:, None] * counters_a_row + (left // 4 + tl.arange(0, COLUMNS // 4))[None, :]
    noise = rounding_noise(counter, first, step, stream, key0, key1, counters_a_row)
    noise = tl.reshape(noise, [ROWS, COLUMNS]) & ((1 << shift) - 1)
    inside = (m[:, None] < rows) & (n[None, :] < columns)
    x = tl.load(x_pointer + m[:, None] * columns + n[None, :], mask=inside, other=0).to(tl.int32)
    e = tl.load(e_pointer + m, mask=m < rows, other=0)
    y = integers.saturate(((x << e[:, None]) + noise) >> shift, BITS)
    put_turned(turned_pointer, y, m, n, limb_size, columns, depth, LIMBS)
    largest = tl.max(tl.abs(y))
    if largest > tl.load(largest_pointer):
        tl.atomic_max(largest_pointer, largest.to(tl.int64), sem="relaxed")


@triton.jit
def turn_kernel(
    turned_pointer,
    sums_pointer,
    x_pointer,
    limb_size,
    rows,
    columns,
    depth,
    LIMBS: tl.constexpr,
    SUMS: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    program, blocks = tl.program_id(0), depth // ROWS
    m = (program % blocks).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    n = (program // blocks).to(tl.int64) * COLUMNS + tl.arange(0, COLUMNS)
    inside = (m[:, None] < rows) & (n[None, :] < columns)
    x = tl.load(x_pointer + m[:, None] * columns + n[None, :], mask=inside, other=0).to(tl.int32)
    put_turned(turned_pointer, x, m, n, limb_size, columns, depth, LIMBS)
    if SUMS:
        tl.atomic_add(sums_pointer + n, tl.sum(x, 0).to(tl.int64), mask=n < columns, sem="relaxed")


@triton.jit
def weight_kernel(
    dw_pointer,
    errors_pointer,
    values_pointer,
    sums_pointer,
    limb_size,
    rows,
    columns,
    depth,
    length,
    LIMBS: tl.constexpr,
    WHOLE: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    DEPTH: tl.constexpr,
):
    tiles = tl.cdiv(rows, ROWS) * tl.cdiv(columns, COLUMNS)
    m, n = tile_of(tl.program_id(0) % tiles, rows, columns, ROWS, COLUMNS)
    k = tl.arange(0, DEPTH)
    first = (tl.program_id(0) // tiles).to(tl.int64) * length
    high_tile = errors_pointer + m[:, None] * depth + k[None, :]
    low_tile = high_tile + limb_size
    value_tile = values_pointer + n[:, None] * depth + k[None, :]
    high_sum = tl.zeros([ROWS, COLUMNS], tl.int32)
    low_sum = tl.zeros([ROWS, COLUMNS], tl.int32)
    for start in range(first, tl.minimum(first + length, depth), DEPTH):
        values = tl.trans(tl.load(value_tile + start, mask=n[:, None] < columns, other=0))
        high = tl.load(high_tile + start, mask=m[:, None] < rows, other=0)
        high_sum = tl.dot(high, values, high_sum, out_dtype=tl.int32)
        if LIMBS == 2:
            low = tl.load(low_tile + start, mask=m[:, None] < rows, other=0)
            low_sum = tl.dot(low, values, low_sum, out_dtype=tl.int32)
    dw = high_sum.to(tl.int64)
    if LIMBS == 2:
        dw = dw * 256 + low_sum.to(tl.int64)
        if first == 0:
            dw += 128 * tl.load(sums_pointer + n, mask=n < columns, other=0)[None, :]
    place = dw_pointer + m[:, None] * columns + n[None, :]
    inside = (m[:, None] < rows) & (n[None, :] < columns)
    if WHOLE:
        tl.store(place, dw, mask=inside)
    else:
        tl.atomic_add(place, dw, mask=inside, sem="relaxed")


__all__ = ["rounded_weight_gradient", "ternary_linear_backward", "ternary_linear_backward_weight"]
