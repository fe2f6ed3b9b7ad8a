"""Triton versions of ``spec.ops.linear_backward``.

The tensor cores multiply int8 whose sums run along contiguous rows, so operands are turned first: the packed weights,
or the errors and the rows of the layer. An error of 16 bits is two int8 limbs, ``256 * high + low + 128``; what the 128
adds is 128 times the sum of the other operand. On Hopper, `hopper_limbs` and `hopper_weight` make limbs on the way.
"""
# ruff: noqa: RUF005 -- Triton compiles no unpacking inside a tuple

import torch
import triton
import triton.language as tl

from mamba_integer.spec import ops
from mamba_integer.spec.contract import implements
from mamba_integer.spec.ops.linear_backward import ternary_linear_backward_widths
from mamba_integer.spec.philox import MASK

from . import hopper_limbs, hopper_product, hopper_weight, integers
from .gluon_names import processors
from .gradient import rounding_noise
from .instructions import has_little_room
from .launch import ceil_div, launch, with_columns, zeros
from .philox import key_pattern
from .planes import PLANE
from .ternary_product import product, scale_of, scale_sum, tile_of

LARGE_TILE = {"ROWS": 128, "COLUMNS": 128, "num_warps": 8, "num_stages": 3}
LITTLE_TILE = {"ROWS": 64, "COLUMNS": 64, "num_warps": 4, "num_stages": 2}
SMALL_TILE = {"ROWS": 64, "COLUMNS": 64, "num_warps": 4, "num_stages": 4}
BYTES, DEPTH = 32, 128
SPLIT = 1024  # elements that a program takes apart
TURNED_COLUMNS, ROUNDING_WARPS = 64, 8
# Sums of this many products of two int8 fit int32.
LONGEST_SUM = 1 << 16
# Steps along a weight gradient's depth that take as long as adding a tile to memory, and the most parts of a depth.
STEPS_OF_A_TILE, MOST_PARTS = 10, 16


@implements(ops.ternary_linear_backward)
def ternary_linear_backward(dy, w, *, K, num, shift):
    dx = torch.empty((*dy.shape[:-1], K), dtype=torch.int16, device=dy.device)
    rows, depth = dy.shape[:-1].numel(), dy.shape[-1]
    if not dx.numel():
        return dx
    in_memory = isinstance(shift, torch.Tensor)
    if dy.dtype == torch.int8 and not in_memory:
        none = torch.zeros(dy.shape[:-1], dtype=torch.int32, device=dy.device)
        return product(dy, none, turn_packed(w, K, in_planes=False)[0], num, shift)
    if rows >= LARGE_TILE["ROWS"] and hopper_product.suits(hopper_product.ROW_BYTES):
        scale = num, shift, 0  # sums are clamped first
        if not in_memory:
            scale = scale_of(ternary_linear_backward_widths, num, shift, N=depth)
        planes, sums = turn_packed(w, K, in_planes=True)
        padded = with_columns(dy.reshape(rows, depth).to(torch.int16), hopper_product.WORDS)
        hopper_limbs.product_of_limbs(dx, padded, sums, planes, *scale)
        return dx
    turned, sums = turn_packed(w, K, in_planes=False)
    limbs = torch.empty((2, rows, depth), dtype=torch.int8, device=dy.device)
    launch(split_kernel, ceil_div(rows * depth, SPLIT), (limbs,), (dy,), rows * depth, BLOCK=SPLIT)
    tile = LARGE_TILE if rows >= LARGE_TILE["ROWS"] and not has_little_room() else SMALL_TILE
    programs = triton.cdiv(rows, tile["ROWS"]) * triton.cdiv(K, tile["COLUMNS"])
    sizes = (rows * depth, rows, K, depth, turned.shape[1])
    launch(two_limbs_kernel, programs, (dx,), (limbs, turned, sums), *sizes, num, shift, BYTES=BYTES, **tile)
    return dx


def turn_packed(w, digits, in_planes):
    """Return packed weights transposed, packed along their new rows, and the sum of each of these rows.

    Their digits lie as the spec packs them, or ``in_planes``, as `planes.dealt` deals them.
    """
    depth, bytes_a_row = w.shape
    width = triton.cdiv(depth, 4 * PLANE) * PLANE if in_planes else triton.cdiv(depth, 4)
    turned = torch.empty((digits, width), dtype=torch.uint8, device=w.device)
    sums = zeros((digits,), torch.int32, w.device)
    programs = triton.cdiv(width, PLANE) * triton.cdiv(bytes_a_row, PLANE)
    sizes = (depth, digits, bytes_a_row, width)
    launch(turn_packed_kernel, programs, (turned, sums), (w,), *sizes, PLANES=in_planes, BYTES=PLANE)
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
    PLANES: tl.constexpr,
    BYTES: tl.constexpr,
):
    """Turn BYTES bytes of as many new bytes' rows: digit d of each byte goes to a new row, its code to one of 4."""
    program, blocks = tl.program_id(0), tl.cdiv(bytes_turned, BYTES)
    j = (program % blocks).to(tl.int64) * BYTES + tl.arange(0, BYTES)
    c = (program // blocks).to(tl.int64) * BYTES + tl.arange(0, BYTES)
    turned = (tl.zeros([BYTES, BYTES], tl.int32),) * 4
    total = turned
    for i in tl.static_range(4):
        n = j // BYTES * (3 * BYTES) + j + BYTES * i if PLANES else 4 * j + i
        inside = (n[:, None] < depth) & (c[None, :] < bytes_a_row)
        byte = tl.load(w_pointer + n[:, None] * bytes_a_row + c[None, :], mask=inside, other=0).to(tl.int32)
        more_turned, more_total = (), ()
        for d in tl.static_range(4):
            code = (byte >> (2 * d)) & 3
            more_turned = more_turned + (turned[d] | (code << (2 * i)),)
            more_total = more_total + (total[d] + ((code ^ 2) - 2),)
        turned, total = more_turned, more_total
    for d in tl.static_range(4):
        k = 4 * c + d
        place = turned_pointer + k[:, None] * bytes_turned + j[None, :]
        known = (k[:, None] < columns) & (j[None, :] < bytes_turned)
        tl.store(place, tl.trans(turned[d]).to(tl.uint8), mask=known)
        tl.atomic_add(sums_pointer + k, tl.sum(total[d], 0), mask=k < columns, sem="relaxed")


@triton.jit
def high_limb(x):
    return (x >> 8).to(tl.int8)


@triton.jit
def low_limb(x):
    return ((x & 255) - 128).to(tl.int8)


@triton.jit
def split_kernel(limbs_pointer, x_pointer, size, BLOCK: tl.constexpr):
    offset = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(x_pointer + offset, mask=offset < size, other=0).to(tl.int32)
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
    dy = dy.reshape(rows, columns)
    if in_registers(rows, columns, bits):
        return product_of_rows(dy, q)
    errors, _ = turn(dy, 1 if bits <= 8 else 2)
    return turned_product(errors, q)


def in_registers(rows: int, columns: int, bits: int) -> bool:
    """Return whether errors are turned on their way into registers, so that they stay as they lie in memory."""
    return bits > 8 and rows >= DEPTH and hopper_weight.suits(columns)


def product_of_rows(errors, q):
    """Return the gradient of weights: errors [rows, columns], turned, times the rows q of the layer."""
    return hopper_weight.product_of_errors(errors.to(torch.int16), q.reshape(len(errors), -1))


def rounded_weight_gradient(dy, q, e, *, shift, bits, seed, step, stream, first):
    """Return `ternary_linear_backward_weight` of rows dy after `stochastic_round_rows`, and their largest magnitude."""
    columns, rows, limbs = dy.shape[-1], e.numel(), 1 if bits <= 8 else 2
    depth = triton.cdiv(rows, DEPTH) * DEPTH
    turns = not in_registers(rows, columns, bits)
    shape, dtype = ((limbs, columns, depth), torch.int8) if turns else ((rows, columns), torch.int16)
    errors = torch.empty(shape, dtype=dtype, device=dy.device)
    largest = zeros((1,), torch.int64, dy.device)
    programs = depth // DEPTH * triton.cdiv(columns, TURNED_COLUMNS)
    words = (key_pattern(word) for word in (first, step, stream, seed & MASK, seed >> 32))
    sizes = (columns * depth, rows, columns, depth, *words, shift)
    tile = {"ROWS": DEPTH, "COLUMNS": TURNED_COLUMNS, "num_warps": ROUNDING_WARPS}
    options = {"LIMBS": limbs, "BITS": bits, "TURNS": turns, **tile}
    launch(turn_rounded_kernel, programs, (errors, largest), (dy, e), *sizes, **options)
    return turned_product(errors, q) if turns else product_of_rows(errors, q), largest


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
    whole, length = shared_out(programs, depth // DEPTH, processors(q.device))
    split = (programs - whole) * triton.cdiv(depth, length)
    make = torch.zeros if split > programs - whole else torch.empty
    dw = make((columns, width), dtype=torch.int64, device=q.device)
    sizes = (columns * depth, columns, width, depth, whole, length)
    options = {"LIMBS": limbs, "SPLIT": split > programs - whole, "DEPTH": DEPTH, **tile}
    launch(weight_kernel, whole + split, (dw,), (errors, values, sums), *sizes, **options)
    return dw


def shared_out(tiles: int, steps: int, programs: int) -> tuple[int, int]:
    """Return how many tiles are summed by one program each, and the length of a part of the others' depth.

    The whole tiles are as many as keep all programs busy for a while; the parts of the others are added in memory.
    """
    longest = LONGEST_SUM // DEPTH
    rounds_of_whole = range(tiles // programs + 1 if steps <= longest else 1)
    choices = [(rounds, parts_of(tiles - rounds * programs, steps, programs)) for rounds in rounds_of_whole]
    rounds, parts = min(
        choices, key=lambda choice: choice[0] * steps + cost(tiles - choice[0] * programs, choice[1], steps, programs)
    )
    return rounds * programs, min(triton.cdiv(steps, parts), longest) * DEPTH


def cost(tiles: int, parts: int, steps: int, programs: int) -> float:
    """Return the steps that programs take, one after the other, for tiles whose depth is cut into parts."""
    return triton.cdiv(tiles * parts, programs) * (steps / parts + STEPS_OF_A_TILE)


def parts_of(tiles: int, steps: int, programs: int) -> int:
    """Return into how many parts the depth of tiles is cut so that the device's programs have about equal work."""
    return min(range(1, min(MOST_PARTS, steps) + 1), key=lambda parts: (cost(tiles, parts, steps, programs), parts))


def turn(x, limbs, with_sums=False):
    """Return x transposed, as int8 limbs, its rows padded with zeros, and the sum of each column of x if wanted."""
    rows, columns = x.shape
    depth = triton.cdiv(rows, DEPTH) * DEPTH
    turned = torch.empty((limbs, columns, depth), dtype=torch.int8, device=x.device)
    sums = zeros((columns if with_sums else 1,), torch.int64, x.device)
    programs = depth // DEPTH * triton.cdiv(columns, TURNED_COLUMNS)
    sizes = (columns * depth, rows, columns, depth)
    options = {"LIMBS": limbs, "SUMS": with_sums, "ROWS": DEPTH, "COLUMNS": TURNED_COLUMNS}
    launch(turn_limbs_kernel, programs, (turned, sums), (x,), *sizes, **options)
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
    TURNS: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """Round a tile, as `stochastic_round_rows_kernel` does, find its largest magnitude, and turn it if wanted."""
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
    if TURNS:
        put_turned(turned_pointer, y, m, n, limb_size, columns, depth, LIMBS)
    else:
        tl.store(turned_pointer + m[:, None] * columns + n[None, :], y.to(tl.int16), mask=inside)
    largest = tl.max(tl.abs(y))
    if largest > tl.load(largest_pointer):
        tl.atomic_max(largest_pointer, largest.to(tl.int64), sem="relaxed")


@triton.jit
def turn_limbs_kernel(
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
    whole,
    length,
    LIMBS: tl.constexpr,
    SPLIT: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    DEPTH: tl.constexpr,
):
    """Sum a whole tile along its depth, or one of the ``SPLIT`` tiles after them along a part of it."""
    tile = tl.program_id(0)
    first, last = tl.zeros([], tl.int64), depth.to(tl.int64)
    if SPLIT:
        others = tl.cdiv(rows, ROWS) * tl.cdiv(columns, COLUMNS) - whole
        if tile >= whole:
            first = ((tile - whole) // others).to(tl.int64) * length
            last = tl.minimum(first + length, last)
            tile = whole + (tile - whole) % others
    m, n = tile_of(tile, rows, columns, ROWS, COLUMNS)
    k = tl.arange(0, DEPTH)
    high_tile = errors_pointer + m[:, None] * depth + k[None, :]
    low_tile = high_tile + limb_size
    value_tile = values_pointer + n[:, None] * depth + k[None, :]
    high_sum = tl.zeros([ROWS, COLUMNS], tl.int32)
    low_sum = tl.zeros([ROWS, COLUMNS], tl.int32)
    for start in range(first, last, DEPTH):
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
    if SPLIT:
        if tile < whole:
            tl.store(place, dw, mask=inside)
        else:
            tl.atomic_add(place, dw, mask=inside, sem="relaxed")
    else:
        tl.store(place, dw, mask=inside)


__all__ = ["rounded_weight_gradient", "ternary_linear_backward", "ternary_linear_backward_weight"]
