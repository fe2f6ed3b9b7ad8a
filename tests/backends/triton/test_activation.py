"""The places of elements in rows that lie apart."""

import os

import pytest
import torch

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")

import triton
import triton.language as tl

from mamba_integer.backends.triton.activation import in_rows

BLOCK, DEVICE = 8, "cuda" if torch.cuda.is_available() else "cpu"


@triton.jit
def places_kernel(place_pointer, start, distance, WIDTH: tl.constexpr, BLOCK: tl.constexpr):
    lane = tl.arange(0, BLOCK)
    tl.store(place_pointer + lane, in_rows(start.to(tl.int64), lane, WIDTH, distance))


@pytest.mark.parametrize("width, distance", [(1, 5), (3, 7), (1 << 30, 1 << 31), ((1 << 31) + 1, (1 << 32) + 3)])
@pytest.mark.parametrize("row", [0, 2])
def test_places_in_rows_of_any_width(width, distance, row):
    start, places = row * width + max(width - 5, 0), torch.zeros(BLOCK, dtype=torch.int64, device=DEVICE)
    places_kernel[(1,)](places, start, distance, WIDTH=width, BLOCK=BLOCK)
    elements = range(start, start + BLOCK)
    assert places.tolist() == [element // width * distance + element % width for element in elements]
