"""SHA-256 of many pieces of device memory at once, one lane for each: the hashes of a transcript.

An array's bytes are cut in pieces whose hashes are joined and hashed again, as `transcripts.leaf.bytes_root` does. So
large arrays keep a device busy, and only the last hashes leave it.
"""

from collections.abc import Iterator, Sequence
from math import isqrt

import numpy as np
import torch
import triton
import triton.language as tl

from ..transcripts.leaf import PIECE
from .instructions import has_ptx
from .launch import launch

LANES = 64
DIGEST = 32  # bytes
WORDS = tl.constexpr(8)
ROUNDS = tl.constexpr(64)
SCHEDULE = tl.constexpr(16)  # words of a block, and rounds after which each has moved once around


def primes(count: int) -> list[int]:
    result: list[int] = []
    number = 2
    while len(result) < count:
        if all(number % prime for prime in result):
            result.append(number)
        number += 1
    return result


def cube_root(value: int) -> int:
    low, high = 0, 1 << (value.bit_length() // 3 + 1)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if middle**3 <= value else (low, middle - 1)
    return low


MASK = (1 << 32) - 1
# As the standard defines them: fractions of the square and cube roots of primes.
INITIAL = [isqrt(prime << 64) & MASK for prime in primes(8)]
CONSTANTS = [cube_root(prime << 96) & MASK for prime in primes(64)]


@triton.jit
def turned(x, n: tl.constexpr):
    return (x >> n) | (x << (32 - n))


@triton.jit
def swapped(x):
    """Return a word with its bytes in the other order."""
    if has_ptx():  # the compiler would find the swap of two words at once, which sm_100 has no instruction for
        x = tl.inline_asm_elementwise("prmt.b32 $0, $1, 0, 0x0123;", "=r,r", [x], dtype=tl.uint32, is_pure=True, pack=1)
    else:
        x = ((x & 0xFF) << 24) | ((x & 0xFF00) << 8) | ((x >> 8) & 0xFF00) | (x >> 24)
    return x


@triton.jit
def message_word(address, length, start, last, number: tl.constexpr):
    """Return a word of a padded message: bytes, then one bit, zeros, and in the last block the length in bits."""
    place = start + 4 * number
    pointer = (address + place).to(tl.pointer_type(tl.int32))
    raw = tl.load(pointer, place < length, other=0).to(tl.uint32, bitcast=True)
    left = length - place  # bytes of the message from this word on
    shift = (tl.minimum(tl.maximum(left, 0), 3) * 8).to(tl.uint32)
    whole = left >= 4
    one = tl.full(raw.shape, 1, tl.uint32)
    end = tl.where(left < 0, tl.zeros_like(raw), (one * 0x80) << shift)
    word = tl.where(whole, raw, (raw & ((one << shift) - 1)) | end)
    word = swapped(word)
    if number == 15:
        word = tl.where(last, (length * 8).to(tl.uint32), word)
    return word


@triton.jit(do_not_specialize=["first", "count"])
def sha256_pieces(out, addresses, lengths, constants, first, count, LANES: tl.constexpr):
    """Write the hash of each piece: DIGEST bytes at its number in ``out``."""
    lane = tl.program_id(0) * LANES + tl.arange(0, LANES)
    inside = lane < count
    address = tl.load(addresses + first + lane, inside, other=0)
    length = tl.load(lengths + first + lane, inside, other=0)
    blocks = (length + 72) // 64
    zero = tl.zeros([LANES], tl.uint32)
    s0 = zero + tl.load(constants + 64).to(tl.uint32, bitcast=True)
    s1 = zero + tl.load(constants + 65).to(tl.uint32, bitcast=True)
    s2 = zero + tl.load(constants + 66).to(tl.uint32, bitcast=True)
    s3 = zero + tl.load(constants + 67).to(tl.uint32, bitcast=True)
    s4 = zero + tl.load(constants + 68).to(tl.uint32, bitcast=True)
    s5 = zero + tl.load(constants + 69).to(tl.uint32, bitcast=True)
    s6 = zero + tl.load(constants + 70).to(tl.uint32, bitcast=True)
    s7 = zero + tl.load(constants + 71).to(tl.uint32, bitcast=True)
    for block in range(tl.max(blocks, 0)):
        start, last = block * 64, block == blocks - 1
        w0 = message_word(address, length, start, last, 0)
        w1 = message_word(address, length, start, last, 1)
        w2 = message_word(address, length, start, last, 2)
        w3 = message_word(address, length, start, last, 3)
        w4 = message_word(address, length, start, last, 4)
        w5 = message_word(address, length, start, last, 5)
        w6 = message_word(address, length, start, last, 6)
        w7 = message_word(address, length, start, last, 7)
        w8 = message_word(address, length, start, last, 8)
        w9 = message_word(address, length, start, last, 9)
        w10 = message_word(address, length, start, last, 10)
        w11 = message_word(address, length, start, last, 11)
        w12 = message_word(address, length, start, last, 12)
        w13 = message_word(address, length, start, last, 13)
        w14 = message_word(address, length, start, last, 14)
        w15 = message_word(address, length, start, last, 15)
        a, b, c, d, e, f, g, h = s0, s1, s2, s3, s4, s5, s6, s7
        for group in range(0, ROUNDS, SCHEDULE):
            for turn in tl.static_range(SCHEDULE):
                k = tl.load(constants + group + turn).to(tl.uint32, bitcast=True)
                choice = (e & f) ^ (~e & g)
                majority = (a & b) ^ (a & c) ^ (b & c)
                t1 = h + (turned(e, 6) ^ turned(e, 11) ^ turned(e, 25)) + choice + k + w0
                t2 = (turned(a, 2) ^ turned(a, 13) ^ turned(a, 22)) + majority
                a, b, c, d, e, f, g, h = t1 + t2, a, b, c, d + t1, e, f, g
                near = turned(w1, 7) ^ turned(w1, 18) ^ (w1 >> 3)
                far = turned(w14, 17) ^ turned(w14, 19) ^ (w14 >> 10)
                w0, w1, w2, w3, w4, w5, w6, w7, w8, w9, w10, w11, w12, w13, w14, w15 = (
                    w1, w2, w3, w4, w5, w6, w7, w8, w9, w10, w11, w12, w13, w14, w15, w0 + near + w9 + far,
                )  # fmt: skip
        more = block < blocks
        s0 = tl.where(more, s0 + a, s0)
        s1 = tl.where(more, s1 + b, s1)
        s2 = tl.where(more, s2 + c, s2)
        s3 = tl.where(more, s3 + d, s3)
        s4 = tl.where(more, s4 + e, s4)
        s5 = tl.where(more, s5 + f, s5)
        s6 = tl.where(more, s6 + g, s6)
        s7 = tl.where(more, s7 + h, s7)
    place = out + (first + lane) * WORDS
    tl.store(place, swapped(s0).to(tl.int32, bitcast=True), inside)
    tl.store(place + 1, swapped(s1).to(tl.int32, bitcast=True), inside)
    tl.store(place + 2, swapped(s2).to(tl.int32, bitcast=True), inside)
    tl.store(place + 3, swapped(s3).to(tl.int32, bitcast=True), inside)
    tl.store(place + 4, swapped(s4).to(tl.int32, bitcast=True), inside)
    tl.store(place + 5, swapped(s5).to(tl.int32, bitcast=True), inside)
    tl.store(place + 6, swapped(s6).to(tl.int32, bitcast=True), inside)
    tl.store(place + 7, swapped(s7).to(tl.int32, bitcast=True), inside)


_tables: dict[torch.device, torch.Tensor] = {}


def table(device: torch.device) -> torch.Tensor:
    if device not in _tables:
        words = np.array([*CONSTANTS, *INITIAL], np.uint32).view(np.int32)
        _tables[device] = torch.from_numpy(words).to(device)
    return _tables[device]


def aligned(array: torch.Tensor) -> torch.Tensor:
    """Return an array in C order that starts at a word."""
    array = array.contiguous()
    return array.clone() if array.data_ptr() % 4 else array


def byte_roots(arrays: Sequence[torch.Tensor]) -> torch.Tensor:
    """Return `transcripts.leaf.bytes_root` of each array of one device: int32, shape (arrays, 8); it doesn't wait."""
    arrays = [aligned(array) for array in arrays]
    device = arrays[0].device
    starts = np.array([array.data_ptr() for array in arrays], np.int64)
    sizes = np.array([array.numel() * array.element_size() for array in arrays], np.int64)
    counts = list(pieces_of(sizes))
    hashes = torch.empty((sum(int(pieces.sum()) for pieces in counts), 8), dtype=torch.int32, device=device)
    roots = np.zeros(len(arrays), np.int64)  # the number of the last hash of each array
    held, first, levels = np.arange(len(arrays)), 0, []
    for pieces in counts:
        ends = np.cumsum(pieces)
        piece = np.arange(ends[-1]) - np.repeat(ends - pieces, pieces)
        lengths = np.minimum(np.repeat(sizes, pieces) - piece * PIECE, PIECE)
        levels.append(np.stack([np.repeat(starts, pieces) + piece * PIECE, lengths]))
        numbers, more = first + ends - pieces, pieces > 1
        roots[held] = numbers
        held, starts, sizes = held[more], hashes.data_ptr() + numbers[more] * DIGEST, pieces[more] * DIGEST
        first += int(ends[-1])
    numbers_, *places = (
        torch.from_numpy(np.concatenate([roots, *np.concatenate(levels, 1)]))
        .to(device)
        .split([len(arrays), first, first])
    )
    first = 0
    for level in levels:
        count = level.shape[1]
        inputs = (*places, table(device))
        launch(sha256_pieces, triton.cdiv(count, LANES), (hashes,), inputs, first, count, LANES=LANES)
        first += count
    return hashes[numbers_]


def pieces_of(sizes: np.ndarray) -> Iterator[np.ndarray]:
    """Yield, level by level, in how many pieces each array is cut that isn't one hash yet."""
    while sizes.size:
        pieces = np.maximum(1, -(-sizes // PIECE))
        yield pieces
        sizes = pieces[pieces > 1] * DIGEST
