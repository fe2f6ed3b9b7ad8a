"""Products of small matrices in the machine's instructions for dot products, of which every product here is made.

A word is 32 bits: four bytes, or two numbers of 16 bits. A block is ROWS rows of words times a panel, words of LANES
columns: each word of a row is multiplied with one of a column, part by part, and the products are added. A loop in
Numba wouldn't do: the compiler has no pattern from which it makes products of bytes, nor does it keep a block's sums in
registers.
"""

import functools

import numpy as np
from llvmlite import ir
from numba import njit, prange, types
from numba.core import cgutils
from numba.extending import intrinsic

from .threads import spread

ROWS, LANES = 4, 16
PLANES = 4  # digits of a byte
BYTE, HALF, WORD, SIZE = (ir.IntType(bits) for bits in (8, 16, 32, 64))
SUMS, HALVES = ir.VectorType(WORD, LANES), ir.VectorType(HALF, 2 * LANES)
# The instruction of x86 that multiplies unsigned by signed bytes and adds four products to each lane.
BYTE_FEATURE, BYTE_INSTRUCTION = "+avx512vnni", "llvm.x86.avx512.vpdpbusd.512"


def lanes_of(indices) -> ir.Constant:
    return ir.Constant(ir.VectorType(WORD, len(indices)), list(indices))


def add_pairs(builder, sums, panel, row):
    """Add the products of 16 bits: compilers know this form as an instruction of theirs, where they have one."""
    wide = ir.VectorType(WORD, 2 * LANES)
    left, right = (builder.sext(builder.bitcast(words, HALVES), wide) for words in (panel, row))
    product, empty = builder.mul(left, right), ir.Constant(wide, ir.Undefined)
    even, odd = (builder.shuffle_vector(product, empty, lanes_of(range(i, 2 * LANES, 2))) for i in (0, 1))
    return builder.add(sums, builder.add(even, odd))


def add_bytes(builder, sums, panel, row):
    """Add the products of unsigned bytes of the row and signed bytes of the panel, as two times two of 16 bits."""
    row, panel = (builder.bitcast(words, HALVES) for words in (row, panel))
    byte, low = (ir.Constant(HALVES, [value] * 2 * LANES) for value in (8, 255))
    sums = add_pairs(builder, sums, builder.ashr(builder.shl(panel, byte), byte), builder.and_(row, low))
    return add_pairs(builder, sums, builder.ashr(panel, byte), builder.lshr(row, byte))


def add_bytes_at_once(builder, sums, panel, row):
    kind = ir.FunctionType(SUMS, [SUMS, SUMS, SUMS])
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, BYTE_INSTRUCTION), [sums, row, panel])


def has_byte_instruction(context) -> bool:
    """Return whether the code is for a processor with the instruction; Numba's cache tells processors apart."""
    _, _, features = context.codegen().magic_tuple()
    return BYTE_FEATURE in features.split(",")


def add_of_bytes(context):
    return add_bytes_at_once if has_byte_instruction(context) else add_bytes


def require(context, builder, *spans) -> None:
    """Raise where a span (first, count, size) leaves its array, in code that is compiled with NUMBA_BOUNDSCHECK.

    Numba checks what it indexes itself; a function that is handed pointers it can't.
    """
    for first, count, size in spans if context.enable_boundscheck else ():
        before = builder.icmp_signed("<", first, SIZE(0))
        past = builder.icmp_signed(">", builder.add(first, count), size)
        with cgutils.if_unlikely(builder, builder.or_(before, past)):
            context.call_conv.return_user_exc(builder, IndexError, ("an array ends before the product does",))


POINTER = BYTE.as_pointer()
SIGNATURE = ir.FunctionType(ir.VoidType(), [POINTER, POINTER, SIZE, SIZE, POINTER, SIZE, SIZE])


def define_block(function, add) -> None:
    """Write the function that multiplies rows by a panel: a loop along words that keeps all sums in registers."""
    builder = ir.IRBuilder(function.append_basic_block())
    block, row, row_step, word_step, start, panel_step, depth = function.args
    pointers = [builder.gep(row, [builder.mul(row_step, SIZE(i))]) for i in range(ROWS)]
    sums = [cgutils.alloca_once_value(builder, ir.Constant(SUMS, None)) for _ in range(ROWS)]
    with cgutils.for_range(builder, depth) as loop:
        at = builder.gep(start, [builder.mul(loop.index, panel_step)])
        words = builder.load(builder.bitcast(at, SUMS.as_pointer()), align=4)
        for total, pointer in zip(sums, pointers, strict=True):
            at = builder.gep(pointer, [builder.mul(loop.index, word_step)])
            word = builder.load(builder.bitcast(at, WORD.as_pointer()), align=4)
            alone = builder.insert_element(ir.Constant(SUMS, ir.Undefined), word, WORD(0))
            repeated = builder.shuffle_vector(alone, ir.Constant(SUMS, ir.Undefined), lanes_of([0] * LANES))
            builder.store(add(builder, builder.load(total), words, repeated), total)
    for i, total in enumerate(sums):
        at = builder.bitcast(builder.gep(block, [SIZE(4 * LANES * i)]), SUMS.as_pointer())
        builder.store(builder.load(total), at, align=4)
    builder.ret_void()


def emit_block(choose):
    """Return the emitter of ``block = rows @ panel``: block (ROWS, LANES), rows (ROWS, depth), panel (depth, LANES)."""

    def emit(context, builder, signature, arguments):
        block, rows, panel = (
            context.make_array(kind)(context, builder, value)
            for kind, value in zip(signature.args, arguments, strict=True)
        )
        add = choose(context)
        # One function that is called, for copies of it wherever it is used would take long to compile.
        function = cgutils.get_or_insert_function(builder.module, SIGNATURE, f"mamba_integer.{add.__name__}")
        if function.is_declaration:
            function.linkage = "linkonce_odr"
            function.attributes.add("noinline")
            define_block(function, add)
        depth, lanes = cgutils.unpack_tuple(builder, panel.shape)
        count, words = cgutils.unpack_tuple(builder, rows.shape)
        spans = ((SIZE(ROWS), count), (depth, words), (SIZE(LANES), lanes), (SIZE(ROWS * LANES), block.nitems))
        require(context, builder, *((SIZE(0), *span) for span in spans))
        panel_step, _ = cgutils.unpack_tuple(builder, panel.strides)
        steps = cgutils.unpack_tuple(builder, rows.strides)
        to, row, start = (builder.bitcast(array.data, POINTER) for array in (block, rows, panel))
        builder.call(function, [to, row, *steps, start, panel_step, depth])
        return context.get_dummy_value()

    return emit


@intrinsic
def multiply_pairs(typingctx, block, rows, panel):
    """Block = rows @ panel, words being two numbers of 16 bits; the sums wrap at 32 bits."""
    return types.void(block, rows, panel), emit_block(lambda context: add_pairs)


@intrinsic
def multiply_bytes(typingctx, block, rows, panel):
    """Block = rows @ panel, words being four bytes: those of rows unsigned, those of the panel signed."""
    return types.void(block, rows, panel), emit_block(add_of_bytes)


def define_digits(function, add) -> None:
    """Write the function that adds up numbers times the digits of ROWS rows: 4 * LANES bytes of each at a time."""
    builder = ir.IRBuilder(function.append_basic_block())
    block, row, row_step, values, plane_step, depth = function.args
    sums = [[cgutils.alloca_once_value(builder, ir.Constant(SUMS, None)) for _ in range(2)] for _ in range(ROWS)]
    low, high = (ir.Constant(SUMS, [bit * 0x01010101] * LANES) for bit in (3, 2))
    vector = functools.partial(builder.bitcast, typ=SUMS.as_pointer())
    with cgutils.for_range(builder, depth) as loop:
        offset = builder.mul(loop.index, SIZE(4 * LANES))
        at = (builder.add(offset, builder.mul(row_step, SIZE(i))) for i in range(ROWS))
        packed = [builder.load(vector(builder.gep(row, [start])), align=1) for start in at]
        for plane in range(PLANES):
            start = builder.add(offset, builder.mul(plane_step, SIZE(plane)))
            words = builder.load(vector(builder.gep(values, [start])), align=1)
            for codes, totals in zip(packed, sums, strict=True):
                digits = builder.and_(builder.lshr(codes, ir.Constant(SUMS, [2 * plane] * LANES)), low)
                total = totals[plane % 2]  # two chains of sums, of which neither waits for the other
                builder.store(add(builder, builder.load(total), words, builder.xor(digits, high)), total)
    for i, totals in enumerate(sums):
        lanes = builder.add(*map(builder.load, totals))
        while lanes.type.count > 1:
            half, empty = lanes.type.count // 2, ir.Constant(lanes.type, ir.Undefined)
            lanes = builder.add(
                *(builder.shuffle_vector(lanes, empty, lanes_of(range(k, k + half))) for k in (0, half))
            )
        at = builder.bitcast(builder.gep(block, [SIZE(4 * i)]), WORD.as_pointer())
        builder.store(builder.extract_element(lanes, WORD(0)), at, align=4)
    builder.ret_void()


@intrinsic
def sum_digits(typingctx, block, codes, first, values):
    """Fill a block (ROWS) with the sums of values (4, depth), int8, times two more than the digits of rows of codes.

    The rows are those from ``first`` on. Plane i of the values meets bits 2i of the bytes; depth is a multiple of
    4 * LANES, to which each row is read: past its end in the rows that follow, which lie next to it.
    """

    def emit(context, builder, signature, arguments):
        totals, matrix, planes = (
            context.make_array(signature.args[i])(context, builder, arguments[i]) for i in (0, 1, 3)
        )
        start = context.cast(builder, arguments[2], signature.args[2], types.int64)
        add = add_of_bytes(context)
        kind = ir.FunctionType(ir.VoidType(), [POINTER, POINTER, SIZE, POINTER, SIZE, SIZE])
        function = cgutils.get_or_insert_function(builder.module, kind, f"mamba_integer.digits.{add.__name__}")
        if function.is_declaration:
            function.linkage = "linkonce_odr"
            function.attributes.add("noinline")
            define_digits(function, add)
        count, depth = cgutils.unpack_tuple(builder, planes.shape)
        row_step, plane_step = (cgutils.unpack_tuple(builder, a.strides)[0] for a in (matrix, planes))
        at, read = builder.mul(start, row_step), builder.add(builder.mul(row_step, SIZE(ROWS - 1)), depth)
        whole = ((SIZE(ROWS), totals.nitems), (SIZE(PLANES), count))
        require(context, builder, (at, read, matrix.nitems), *((SIZE(0), *span) for span in whole))
        to, row, plane = (builder.bitcast(array.data, POINTER) for array in (totals, matrix, planes))
        arguments = [to, builder.gep(row, [at]), row_step, plane, plane_step, builder.udiv(depth, SIZE(4 * LANES))]
        builder.call(function, arguments)
        return context.get_dummy_value()

    return types.void(block, codes, first, values), emit


@intrinsic
def round_lanes(typingctx, y, row, column, block, line, excess, factor, half, shift):
    """Put (block[line] - excess) * factor + half, shifted right and saturated to 16 bits, into LANES columns of y."""

    def emit(context, builder, signature, arguments):
        target, sums, less = (context.make_array(signature.args[i])(context, builder, arguments[i]) for i in (0, 3, 5))
        row, column, line, *scale = (
            context.cast(builder, arguments[i], signature.args[i], types.int64) for i in (1, 2, 4, 6, 7, 8)
        )
        wide, narrow = ir.VectorType(SIZE, LANES), ir.VectorType(HALF, LANES)
        none, zeros = ir.Constant(wide, ir.Undefined), lanes_of([0] * LANES)
        factor, half, shift = (
            builder.shuffle_vector(builder.insert_element(none, number, WORD(0)), none, zeros) for number in scale
        )
        (count, columns), (lines, lanes) = (cgutils.unpack_tuple(builder, array.shape) for array in (target, sums))
        one, width, start = SIZE(1), SIZE(LANES), SIZE(0)
        require(context, builder, (row, one, count), (column, width, columns), (line, one, lines))
        require(context, builder, (start, width, lanes), (start, width, less.nitems))
        data = builder.bitcast(sums.data, SUMS.as_pointer())
        total = builder.load(builder.gep(data, [line]), align=4)
        total = builder.sub(total, builder.load(builder.bitcast(less.data, SUMS.as_pointer()), align=4))
        total = builder.ashr(builder.add(builder.mul(builder.sext(total, wide), factor), half), shift)
        for sign, limit in ((">", 32767), ("<", -32767)):
            end = ir.Constant(wide, [limit] * LANES)
            total = builder.select(builder.icmp_signed(sign, total, end), end, total)
        step, _ = cgutils.unpack_tuple(builder, target.strides)
        at = builder.add(builder.mul(row, step), builder.mul(column, SIZE(2)))
        place = builder.bitcast(builder.gep(builder.bitcast(target.data, POINTER), [at]), narrow.as_pointer())
        builder.store(builder.trunc(total, narrow), place, align=2)
        return context.get_dummy_value()

    return types.void(y, row, column, block, line, excess, factor, half, shift), emit


def paired(x):
    """Return the columns of int16 rows as panels of words: a word has those of two rows; zeros fill the last ones."""
    return _paired(np.ascontiguousarray(x, np.int16))


@functools.partial(spread, lightness=8)
def _paired(x):
    count, columns = x.shape
    whole = columns // LANES
    panels = np.zeros(((columns + LANES - 1) // LANES, (count + 1) // 2, LANES), np.int32)
    for pair in prange(panels.shape[1]):
        first, second = x[2 * pair], x[min(2 * pair + 1, count - 1)]
        mask = np.int32(-(2 * pair + 1 < count))
        for panel in range(whole):
            words, start = panels[panel, pair], panel * LANES
            for i in range(LANES):
                words[i] = word_of(first[start + i], second[start + i] & mask)
        for i in range(whole * LANES, columns):
            panels[whole, pair, i - whole * LANES] = word_of(first[i], second[i] & mask)
    return panels


@njit
def pair_rows(panel, x):
    """Fill a panel with words of two rows of x; its further columns and rows stay."""
    for pair in range((len(x) + 1) // 2):
        first, second, mask = x[2 * pair], x[min(2 * pair + 1, len(x) - 1)], np.int32(-(2 * pair + 1 < len(x)))
        for i in range(x.shape[1]):
            panel[pair, i] = word_of(first[i], second[i] & mask)


@njit
def pair_columns(panel, x):
    """Fill a panel with words of two columns of x, of which each row becomes a column of words."""
    for row in range(len(x)):
        for pair in range(x.shape[1] // 2):
            panel[pair, row] = word_of(x[row, 2 * pair], x[row, 2 * pair + 1])
        if x.shape[1] & 1:
            panel[x.shape[1] // 2, row] = word_of(x[row, x.shape[1] - 1], 0)


@njit(inline="always")
def word_of(low, high):
    return np.int32(np.int32(np.int32(low) & np.int32(0xFFFF)) | np.int32(np.int32(high) << 16))


__all__ = [
    "LANES",
    "ROWS",
    "multiply_bytes",
    "multiply_pairs",
    "pair_columns",
    "pair_rows",
    "paired",
    "round_lanes",
    "sum_digits",
    "word_of",
]
