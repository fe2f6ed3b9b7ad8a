"""Triton versions of ``spec.ops.packing``."""

import torch
import triton
import triton.language as tl

from mamba_integer.spec import ops
from mamba_integer.spec.contract import implements

from .launch import elementwise, words


@implements(ops.pack_ternary)
def pack_ternary(w):
    if w.shape[-1] % 4 == 0:  # no byte holds digits of two rows
        packed = torch.empty((*w.shape[:-1], w.shape[-1] // 4), dtype=torch.uint8, device=w.device)
        return elementwise(pack_words_kernel, packed, words(w))
    return pack(w, width=4, base=4)


@triton.jit
def pack_words_kernel(packed_pointer, w_pointer, size, BLOCK: tl.constexpr):
    """Pack four digits, the int8 of a word, per byte."""
    offset = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    codes = tl.load(w_pointer + offset, mask=offset < size, other=0) & 0x03030303
    pairs = codes | (codes >> 6)
    tl.store(packed_pointer + offset, (pairs | (pairs >> 12)).to(tl.uint8), mask=offset < size)


@implements(ops.pack_trits)
def pack_trits(w):
    return pack(w, width=5, base=3)


def pack(w, width, base):
    digits = w.shape[-1]
    bytes_a_row = -(-digits // width)
    packed = torch.empty((*w.shape[:-1], bytes_a_row), dtype=torch.uint8, device=w.device)
    return elementwise(pack_kernel, packed, w, digits=digits, bytes_a_row=bytes_a_row, WIDTH=width, BASE=base)


@triton.jit
def pack_kernel(
    packed_pointer, w_pointer, size, digits, bytes_a_row, WIDTH: tl.constexpr, BASE: tl.constexpr, BLOCK: tl.constexpr
):
    start = tl.program_id(0).to(tl.int64) * BLOCK
    offset = start + tl.arange(0, BLOCK)
    # From a program's first row on, places are small numbers, which divide faster.
    row, byte_in_row = start // bytes_a_row, (start % bytes_a_row).to(tl.int32) + tl.arange(0, BLOCK)
    w_pointer += row * digits
    first = byte_in_row % bytes_a_row * WIDTH
    row_start = (byte_in_row // bytes_a_row).to(tl.int64) * digits
    byte = tl.zeros([BLOCK], tl.int32)
    for i in tl.static_range(WIDTH):
        k = first + (WIDTH - 1 - i)
        digit = tl.load(w_pointer + row_start + k, mask=(offset < size) & (k < digits), other=0).to(tl.int32)
        byte = byte * BASE + (digit + 1 if BASE == 3 else digit & 3)
    tl.store(packed_pointer + offset, byte.to(tl.uint8), mask=offset < size)


@implements(ops.unpack_ternary)
def unpack_ternary(packed, *, K):
    if K % 4 == 0:
        w = torch.empty((*packed.shape[:-1], K), dtype=torch.int8, device=packed.device)
        fours = packed.numel() % 4 == 0
        elementwise(unpack_fours_kernel if fours else unpack_words_kernel, words(w), words(packed) if fours else packed)
        return w
    return unpack(unpack_ternary_kernel, packed, K)


@triton.jit
def unpack_words_kernel(w_pointer, packed_pointer, size, BLOCK: tl.constexpr):
    """Unpack the four digits of each byte into the int8 of a word: a code, and six copies of its upper bit."""
    offset = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    byte = tl.load(packed_pointer + offset, mask=offset < size, other=0).to(tl.int32)
    tl.store(w_pointer + offset, digits_of(byte), mask=offset < size)


@triton.jit
def unpack_fours_kernel(w_pointer, packed_pointer, size, BLOCK: tl.constexpr):
    """Unpack four bytes into four words: a lane stores as many bytes at once as it can."""
    start = tl.program_id(0).to(tl.int64) * (BLOCK // 4)
    place = start + tl.arange(0, BLOCK // 4)
    packed = tl.load(packed_pointer + place, mask=place < size // 4, other=0)
    first, second, third, fourth = (
        digits_of(packed),
        digits_of(packed >> 8),
        digits_of(packed >> 16),
        digits_of(packed >> 24),
    )
    words = tl.reshape(tl.join(tl.join(first, third), tl.join(second, fourth)), [BLOCK])
    offset = start * 4 + tl.arange(0, BLOCK)
    tl.store(w_pointer + offset, words, mask=offset < size)


@triton.jit
def digits_of(word):
    """Return the int8 of the four digits of a word's lowest byte: a code, and six copies of its upper bit."""
    byte = word & 255
    twice = byte | (byte << 12)
    codes = (twice | (twice << 6)) & 0x03030303
    return codes | ((codes & 0x02020202) * 126)


@implements(ops.unpack_trits)
def unpack_trits(packed, *, K):
    if K % 5 == 0 and packed.numel() % 4 == 0:  # whole bytes, whole words of digits
        w = torch.empty((*packed.shape[:-1], K), dtype=torch.int8, device=packed.device)
        elementwise(unpack_whole_trits_kernel, words(w), packed)
        return w
    return unpack(unpack_trits_kernel, packed, K)


def unpack(kernel, packed, digits):
    w = torch.empty((*packed.shape[:-1], digits), dtype=torch.int8, device=packed.device)
    return elementwise(kernel, w, packed, digits=digits, bytes_a_row=packed.shape[-1])


@triton.jit
def unpack_ternary_kernel(w_pointer, packed_pointer, size, digits, bytes_a_row, BLOCK: tl.constexpr):
    start = tl.program_id(0).to(tl.int64) * BLOCK
    offset = start + tl.arange(0, BLOCK)
    row, digit = start // digits, (start % digits).to(tl.int32) + tl.arange(0, BLOCK)
    k = digit % digits
    place = (row + digit // digits) * bytes_a_row + k // 4
    byte = tl.load(packed_pointer + place, mask=offset < size, other=0).to(tl.int32)
    code = (byte >> (k % 4 * 2)) & 3
    tl.store(w_pointer + offset, ((code ^ 2) - 2).to(tl.int8), mask=offset < size)


@triton.jit
def third(x):
    """Floor of x / 3 for uint32 x below 2**16."""
    return (x * 43691) >> 17


@triton.jit
def unpack_whole_trits_kernel(w_pointer, packed_pointer, size, BLOCK: tl.constexpr):
    """Unpack the four digits of each word: those from some digit of a byte on, followed by the next byte's."""
    word = tl.arange(0, BLOCK)
    start = tl.program_id(0).to(tl.int64) * BLOCK
    offset = start + word
    digit = (start * 4 % 5).to(tl.int32) + 4 * word
    byte, after = digit // 5, digit % 5
    packed_pointer += start * 4 // 5
    low = tl.load(packed_pointer + byte, mask=offset < size, other=0).to(tl.uint32)
    high = tl.load(packed_pointer + byte + 1, mask=(offset < size) & (after > 1), other=0).to(tl.uint32)
    # Digits below ``after`` leave the first byte; those that stay are 5 - after.
    rest = tl.where(after == 4, low * 810 >> 16, low)
    rest = tl.where(after == 3, low * 2428 >> 16, rest)
    rest = tl.where(after == 2, low * 7282 >> 16, rest)
    rest = tl.where(after == 1, low * 21846 >> 16, rest)
    weight = tl.where(after == 4, 3, tl.where(after == 3, 9, 27)).to(tl.uint32)
    rest += high * weight
    one, two = third(rest), third(third(rest))
    three = third(two)
    four = third(three)
    digits = rest + one * 253 + two * 64768 + three * 16580608 - four * 50331648
    signed = (digits + 0x7F7F7F7F) ^ 0x80808080
    tl.store(w_pointer + offset, signed.to(tl.int32, bitcast=True), mask=offset < size)


@triton.jit
def unpack_trits_kernel(w_pointer, packed_pointer, size, digits, bytes_a_row, BLOCK: tl.constexpr):
    start = tl.program_id(0).to(tl.int64) * BLOCK
    offset = start + tl.arange(0, BLOCK)
    row, digit = start // digits, (start % digits).to(tl.int32) + tl.arange(0, BLOCK)
    k = digit % digits
    place = (row + digit // digits) * bytes_a_row + k // 5
    rest = tl.load(packed_pointer + place, mask=offset < size, other=0).to(tl.int32)
    for i in tl.static_range(4):
        rest = tl.where(k % 5 > i, rest // 3, rest)
    tl.store(w_pointer + offset, (rest % 3 - 1).to(tl.int8), mask=offset < size)


__all__ = ["pack_ternary", "pack_trits", "unpack_ternary", "unpack_trits"]
