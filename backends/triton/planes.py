"""Packed ternary weights whose digits are dealt into planes, so that a plane meets int8 that lie side by side."""
# ruff: noqa: RUF005 -- Triton compiles no unpacking inside a tuple

import torch
import triton
import triton.language as tl

from .launch import launch, with_columns, words

PLANE = 32  # bytes of a block of weights whose digits are dealt into planes, so digits of a plane


def dealt(w):
    """Return packed weights with the digits of each block of 32 bytes dealt into planes.

    Byte p of a block then holds digits p, p + 32, p + 64 and p + 96, instead of 4 p to 4 p + 3.
    """
    rows, blocks = w.shape[0], triton.cdiv(w.shape[1], PLANE)
    planes = torch.empty((rows, blocks * PLANE), dtype=torch.uint8, device=w.device)
    w = with_columns(w, 4)
    tile = {"ROWS": 16, "HALVES": 32}
    programs = triton.cdiv(rows, tile["ROWS"]) * triton.cdiv(2 * blocks, tile["HALVES"])
    launch(deal_kernel, programs, (words(planes),), (words(w),), rows, w.shape[1] // 4, 2 * blocks, **tile)
    return planes


@triton.jit
def spread(byte):
    """Return a byte's four codes in the four bytes of a word."""
    twice = byte | (byte << 12)
    return (twice | (twice << 6)) & 0x03030303


@triton.jit
def deal_kernel(planes_pointer, w_pointer, rows, words_a_row, halves, ROWS: tl.constexpr, HALVES: tl.constexpr):
    """Deal half a block of a row per lane: of its words 0, 2, 4 and 6, or 1, 3, 5 and 7."""
    parts = tl.cdiv(halves, HALVES)
    row = (tl.program_id(0) // parts).to(tl.int64) * ROWS + tl.arange(0, ROWS)[:, None]
    half = tl.program_id(0) % parts * HALVES + tl.arange(0, HALVES)[None, :]
    inside = (row < rows) & (half < halves)
    dealt_words = (tl.zeros([ROWS, HALVES], tl.int32),) * 4
    for i in tl.static_range(4):
        place = half // 2 * 8 + 2 * i + half % 2
        word = tl.load(w_pointer + row * words_a_row + place, mask=inside & (place < words_a_row), other=0)
        more = ()
        for d in tl.static_range(4):
            more = more + (dealt_words[d] | (spread((word >> (8 * d)) & 255) << (2 * i)),)
        dealt_words = more
    even, odd = tl.join(dealt_words[0], dealt_words[2]), tl.join(dealt_words[1], dealt_words[3])
    four = tl.reshape(tl.join(even, odd), [ROWS, HALVES, 4])
    place = ((row * halves + half) * 4)[:, :, None] + tl.arange(0, 4)[None, None, :]
    tl.store(planes_pointer + place, four, mask=inside[:, :, None])


__all__ = ["PLANE", "dealt"]
