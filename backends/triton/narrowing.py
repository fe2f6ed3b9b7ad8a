"""Copies of many int64 arrays into narrower ones, for the exchange of ranks."""

import torch
import triton
import triton.language as tl

from .gradient import TYPES, pointer_at
from .launch import BLOCK, aligned, ceil_div, launch, table

MOST_PROGRAMS = 1024  # for each of the arrays


def moved_at_once(tensors, targets):
    """Copy int64 tensors to the targets, all of one dtype, in one launch, a sum of which is meant to fit there.

    Returns the largest distance of an element of each tensor from 0 or -1, int64.
    """
    sources = [aligned(tensor) for tensor in tensors]
    ends = torch.zeros(len(sources), dtype=torch.int64, device=sources[0].device)
    rows = [(a.data_ptr(), b.data_ptr(), a.numel()) for a, b in zip(sources, targets, strict=True)]
    blocks = ceil_div(max(source.numel() for source in sources), BLOCK)
    programs = min(MOST_PROGRAMS, triton.next_power_of_2(max(1, blocks)))
    shape = dict(TYPE=TYPES[targets[0].dtype], PROGRAMS=programs, BLOCK=BLOCK)
    launch(move_kernel, programs * len(rows), (ends,), (table(rows, ends.device),), **shape)
    return ends


@triton.jit
def move_kernel(ends_pointer, table_pointer, TYPE: tl.constexpr, PROGRAMS: tl.constexpr, BLOCK: tl.constexpr):
    member, part = tl.program_id(0) // PROGRAMS, (tl.program_id(0) % PROGRAMS).to(tl.int64)
    source_pointer = pointer_at(table_pointer + 3 * member, tl.int64)
    target_pointer = pointer_at(table_pointer + 3 * member + 1, TYPE)
    size = tl.load(table_pointer + 3 * member + 2)
    end = tl.zeros([BLOCK], tl.int64)
    block = tl.arange(0, BLOCK)
    # Whole blocks have no mask, so that a thread loads and stores many elements at once.
    whole = size // BLOCK
    for number in range(part, whole, PROGRAMS):
        offset = tl.multiple_of(number * BLOCK, BLOCK)
        x = tl.load(source_pointer + offset + block)
        tl.store(target_pointer + offset + block, x.to(TYPE))
        end = tl.maximum(end, x ^ (x >> 63))
    if part == whole % PROGRAMS:
        rest = whole * BLOCK + block
        x = tl.load(source_pointer + rest, mask=rest < size, other=0)
        tl.store(target_pointer + rest, x.to(TYPE), mask=rest < size)
        end = tl.maximum(end, x ^ (x >> 63))
    if part * BLOCK < size:
        tl.atomic_max(ends_pointer + member, tl.max(end), sem="relaxed")
