"""The products of a step with the ops around them, a kernel each: for few rows, where launches and latency decide.

A program takes one row and a few columns of the result. It quantises the whole row again, which takes less time than
to wait for another kernel that does it once. Sixteen digits of a column's weights are one word.
"""

import triton
import triton.language as tl

from . import integers
from .activation import squareplus_of
from .instructions import dot_bytes
from .launch import with_columns, words
from .overlap import early, wait_and_start_next
from .step_norm import normalised, quantised
from .ternary_product import DIGITS_A_WORD, scale_sum

PROGRAMS = 96  # that keep most processors busy: twice as many, which are uneven, took 7 % longer per step (H200)
COLUMNS = (4, 8, 16, 32, 64, 128)  # of a program: the most that leave enough programs and whose weights it holds
MOST_WORDS = 1 << 13  # of weights in a program's registers
CODES = tl.constexpr((0x03030303, 0x0C0C0C0C, 0x30303030, -0x3F3F3F40))  # of a word's digits
WARPS = 4


@triton.jit
def elements(WORDS: tl.constexpr):
    """Return the places of a row's elements as (byte of weights, digit of the byte)."""
    return tl.arange(0, 4 * WORDS)[:, None] * 4 + tl.arange(0, 4)[None, :]


@triton.jit
def loaded(x_pointer, DEPTH: tl.constexpr, WORDS: tl.constexpr):
    place = elements(WORDS)
    return tl.load(x_pointer + place, mask=place < DEPTH, other=0).to(tl.int32)


@triton.jit
def weights_of(w_pointer, column, known, words, WORDS: tl.constexpr):
    """Return the words of some columns' weights, zeros of those that aren't known."""
    word = tl.arange(0, WORDS)
    inside = known[:, None] & (word < words)[None, :]
    return tl.load(w_pointer + column[:, None] * words + word[None, :], mask=inside, other=0)


@triton.jit
def planes_of(q, WORDS: tl.constexpr):
    """Return a row's int8 as two words in one: each word has one digit's four bytes, digits 0 and 2, and 1 and 3.

    They are two and not four, because each crosses the threads of a program on its own.
    """
    row = tl.sum((tl.reshape(q, [WORDS, 4, 4]) & 255) << (8 * tl.arange(0, 4))[None, :, None], 1)
    even, odd = tl.split(tl.reshape(row, [WORDS, 2, 2]))
    return two_words(even), two_words(odd)


@triton.jit
def two_words(pair):
    low, high = tl.split(pair)
    return (high.to(tl.int64) << 32) | (low.to(tl.int64) & 0xFFFFFFFF)


@triton.jit
def sums_of_planes(planes, w):
    """Return the sums of a row, in planes, times the digits of each column.

    A digit plus 2 stays where it is in its byte, so that its product is too large by a power of four. The four words
    that a thread has of a column share their sums, which are shifted once.
    """
    evens, odds, words = fours(planes[0][None, :]), fours(planes[1][None, :]), fours(w)
    total = tl.zeros_like(words[0])
    twice = tl.zeros_like(evens[0].to(tl.int32))
    for i in tl.static_range(3, -1, -1):
        total = total >> 2
        for j in tl.static_range(4):
            plane = ((odds[j] if i % 2 else evens[j]) >> (32 * (i // 2))).to(tl.int32)
            twice = dot_bytes(tl.zeros_like(plane) + 0x02020202, plane, twice)
            total = dot_bytes((words[j] ^ -0x55555556) & CODES[i], plane, total)
    return tl.sum(total - twice, 1)


@triton.jit
def fours(x):
    """Return the four elements of each four of a row, apart."""
    even, odd = tl.split(tl.reshape(x, [x.shape[0], x.shape[1] // 4, 2, 2]))
    a, b = tl.split(even)
    c, d = tl.split(odd)
    return a, c, b, d


@triton.jit
def product(q, w, WORDS: tl.constexpr):
    """Return the sums of a row's int8, as `elements` lays them out, times the digits of each column."""
    return sums_of_planes(planes_of(q, WORDS), w)


@triton.jit
def columns_of(columns, COLUMNS: tl.constexpr):
    """Return the row of a program and its columns of the result."""
    program, blocks = tl.program_id(0), (columns + COLUMNS - 1) // COLUMNS
    return program // blocks, program % blocks * COLUMNS + tl.arange(0, COLUMNS)


@triton.jit
def enter_kernel(
    xz_pointer,
    state_pointer,
    r_pointer,
    gamma_pointer,
    w_pointer,
    taps_pointer,
    bias_pointer,
    columns: tl.constexpr,
    words: tl.constexpr,
    DEPTH: tl.constexpr,
    b: tl.constexpr,
    s: tl.constexpr,
    num: tl.constexpr,
    shift: tl.constexpr,
    s_conv: tl.constexpr,
    f: tl.constexpr,
    offset: tl.constexpr,
    WORDS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """Norm, quantise, project to x and z; convolve x with the state, which moves on in place, and squareplus."""
    row, column = columns_of(columns, COLUMNS)
    channels = columns // 2
    convolved = column < channels
    w = weights_of(w_pointer, column, column < columns, words, WORDS)
    taps, past = taps_pointer + 4 * column, state_pointer + row * 3 * channels + column
    w0 = tl.load(taps, mask=convolved, other=0).to(tl.int32)
    w1 = tl.load(taps + 1, mask=convolved, other=0).to(tl.int32)
    w2 = tl.load(taps + 2, mask=convolved, other=0).to(tl.int32)
    w3 = tl.load(taps + 3, mask=convolved, other=0).to(tl.int32)
    bias = tl.load(bias_pointer + column, mask=convolved, other=0)
    gamma = loaded(gamma_pointer, DEPTH, WORDS)
    wait_and_start_next()
    x0 = tl.load(past, mask=convolved, other=0)
    x1 = tl.load(past + channels, mask=convolved, other=0)
    x2 = tl.load(past + 2 * channels, mask=convolved, other=0)
    e, q = quantised(normalised(loaded(r_pointer + row * DEPTH, DEPTH, WORDS), gamma, DEPTH, b, s))
    xz = scale_sum(product(q, w, WORDS), e, num, shift, (1 << shift) >> 1)
    tl.debug_barrier()  # what is written in place, every thread has read
    tl.store(past, x1, mask=convolved)
    tl.store(past + channels, x2, mask=convolved)
    tl.store(past + 2 * channels, xz, mask=convolved)
    total = bias + w0 * x0 + w1 * x1 + w2 * x2 + w3 * xz
    x = squareplus_of(integers.saturate(integers.shift_round(total, s_conv), 16), f, offset)
    tl.store(xz_pointer + row * columns + column, tl.where(convolved, x.to(tl.int16), xz), mask=column < columns)


@triton.jit
def head_kernel(
    y_pointer,
    r_pointer,
    gamma_pointer,
    w_pointer,
    columns: tl.constexpr,
    words: tl.constexpr,
    DEPTH: tl.constexpr,
    b: tl.constexpr,
    s: tl.constexpr,
    num: tl.constexpr,
    shift: tl.constexpr,
    WORDS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """Norm, quantise and project."""
    row, column = columns_of(columns, COLUMNS)
    w, gamma = weights_of(w_pointer, column, column < columns, words, WORDS), loaded(gamma_pointer, DEPTH, WORDS)
    wait_and_start_next()
    e, q = quantised(normalised(loaded(r_pointer + row * DEPTH, DEPTH, WORDS), gamma, DEPTH, b, s))
    y = scale_sum(product(q, w, WORDS), e, num, shift, (1 << shift) >> 1)
    tl.store(y_pointer + row * columns + column, y, mask=column < columns)


@triton.jit
def project_kernel(
    y_pointer,
    x_pointer,
    w_pointer,
    pitch,
    columns: tl.constexpr,
    words: tl.constexpr,
    DEPTH: tl.constexpr,
    num: tl.constexpr,
    shift: tl.constexpr,
    WORDS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """Quantise and project rows that are ``pitch`` elements apart."""
    row, column = columns_of(columns, COLUMNS)
    w = weights_of(w_pointer, column, column < columns, words, WORDS)
    wait_and_start_next()
    e, q = quantised(loaded(x_pointer + row * pitch, DEPTH, WORDS))
    y = scale_sum(product(q, w, WORDS), e, num, shift, (1 << shift) >> 1)
    tl.store(y_pointer + row * columns + column, y, mask=column < columns)


@triton.jit
def leave_kernel(
    r_pointer,
    x_pointer,
    w_pointer,
    columns: tl.constexpr,
    words: tl.constexpr,
    DEPTH: tl.constexpr,
    num: tl.constexpr,
    shift: tl.constexpr,
    gate_num: tl.constexpr,
    gate_shift: tl.constexpr,
    bits: tl.constexpr,
    WORDS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """Quantise and project, and add to the residual stream in place."""
    row, column = columns_of(columns, COLUMNS)
    w = weights_of(w_pointer, column, column < columns, words, WORDS)
    wait_and_start_next()
    place, inside = r_pointer + row * columns + column, column < columns
    r = tl.load(place, mask=inside, other=0)
    e, q = quantised(loaded(x_pointer + row * DEPTH, DEPTH, WORDS))
    o = scale_sum(product(q, w, WORDS), e, num, shift, (1 << shift) >> 1).to(tl.int32)
    tl.debug_barrier()  # what is written in place, every thread has read
    tl.store(place, integers.saturate(r + integers.shift_round(o * gate_num, gate_shift), bits), mask=inside)


def weight_words(w):
    """Return packed weights as words of sixteen digits, (columns, words); their rows are padded with zeros."""
    return words(with_columns(w, DIGITS_A_WORD // 4)).view(w.shape[0], -1)


def word_tile(words: int) -> int:
    """Return the tile of a column's words, which are summed in fours."""
    return max(triton.next_power_of_2(words), 4)


def product_launch(rows: int, columns: int, depth: int):
    """Return the number of programs of a product and its constants."""
    words = triton.cdiv(depth, DIGITS_A_WORD)
    tile = word_tile(words)
    held = [c for c in reversed(COLUMNS) if c * tile <= MOST_WORDS]
    size = next((c for c in held if rows * triton.cdiv(columns, c) >= PROGRAMS), COLUMNS[0])
    constants = {"columns": columns, "words": words, "DEPTH": depth, "WORDS": tile, "COLUMNS": size}
    return rows * triton.cdiv(columns, size), constants | {"num_warps": WARPS} | early()
