"""Triton versions of ``spec.ops.gradient``."""

import torch
import triton
import triton.language as tl

from mamba_integer.spec import ops, philox
from mamba_integer.spec.contract import implements

from . import integers
from .launch import ALIGNMENT_BYTES, aligned, ceil_div, elementwise, launch, replays, table, zeros
from .philox import key_pattern, philox_words

ALIGNMENT = tl.constexpr(ALIGNMENT_BYTES)
ROUNDING_DOMAIN = tl.constexpr(philox.ROUNDING_DOMAIN)
# A program's share of a reduction, and how much of it is loaded at a time.
SHARE, LOADED = 16384, 4096
COUNTERS_A_PROGRAM = 256
MOST_PROGRAMS = 128  # for each of many arrays
TYPES = {torch.int8: tl.int8, torch.int16: tl.int16, torch.int32: tl.int32, torch.int64: tl.int64}


@implements(ops.saturating_add)
def saturating_add(a, b):
    y = torch.empty(a.shape, dtype=a.dtype, device=a.device)
    if replays():  # `largest_magnitudes` finds there what the kernel measures on its way
        y.largest = zeros((1,), torch.int64, a.device)  # type: ignore[attr-defined]
    return elementwise(saturating_add_kernel, (y, getattr(y, "largest", y)), a, b, MEASURES=replays())[0]


@triton.jit
def saturating_add_kernel(
    y_pointer, largest_pointer, a_pointer, b_pointer, size, MEASURES: tl.constexpr, BLOCK: tl.constexpr
):
    offset = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    a = tl.load(a_pointer + offset, mask=offset < size, other=0).to(tl.int32)
    b = tl.load(b_pointer + offset, mask=offset < size, other=0).to(tl.int32)
    y = integers.saturate(a + b, 16)
    tl.store(y_pointer + offset, y.to(tl.int16), mask=offset < size)
    if MEASURES:
        largest = tl.max(tl.abs(y))
        if largest > tl.load(largest_pointer):
            tl.atomic_max(largest_pointer, largest.to(tl.int64), sem="relaxed")


@implements(ops.gradient_add)
def gradient_add(a, b):
    return elementwise(gradient_add_kernel, torch.empty(a.shape, dtype=a.dtype, device=a.device), a, b)


@triton.jit
def gradient_add_kernel(y_pointer, a_pointer, b_pointer, size, BLOCK: tl.constexpr):
    offset = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    a = tl.load(a_pointer + offset, mask=offset < size, other=0)
    b = tl.load(b_pointer + offset, mask=offset < size, other=0)
    tl.store(y_pointer + offset, a + b, mask=offset < size)


def reduce(kernel, x):
    """Return the int64 that ``kernel`` folds the elements of x into, from zero, by order-free atomics."""
    result = zeros((1,), torch.int64, x.device)
    launch(kernel, ceil_div(x.numel(), SHARE), (result,), (x,), x.numel(), SHARE=SHARE, BLOCK=LOADED)
    return result


@implements(ops.largest_magnitude)
def largest_magnitude(x):
    return reduce(largest_magnitude_kernel, x)


@triton.jit
def largest_magnitude_kernel(y_pointer, x_pointer, size, SHARE: tl.constexpr, BLOCK: tl.constexpr):
    offset = tl.program_id(0).to(tl.int64) * SHARE + tl.arange(0, BLOCK)
    largest = tl.abs(tl.load(x_pointer + offset, mask=offset < size, other=0))
    for start in tl.static_range(BLOCK, SHARE, BLOCK):
        x = tl.load(x_pointer + start + offset, mask=start + offset < size, other=0)
        largest = tl.maximum(largest, tl.abs(x))
    tl.atomic_max(y_pointer, tl.max(largest).to(tl.int64), sem="relaxed")


def largest_magnitudes(arrays):
    """Return `largest_magnitude` of each array, joined: one launch for all arrays of a type."""
    if replays():  # a graph has no table from the host
        return torch.cat([a.largest if hasattr(a, "largest") else reduce(largest_magnitude_kernel, a) for a in arrays])
    result = torch.zeros(len(arrays), dtype=torch.int64, device=arrays[0].device)
    kinds: dict[torch.dtype, list[tuple[int, torch.Tensor]]] = {}
    for place, array in enumerate(arrays):
        kinds.setdefault(array.dtype, []).append((place, aligned(array)))
    for dtype, members in kinds.items():
        rows = table([(place, a.data_ptr(), a.numel()) for place, a in members], result.device)
        programs = programs_per_array((a for _, a in members), LOADED)
        shape = dict(TYPE=TYPES[dtype], PROGRAMS=programs, BLOCK=LOADED)
        launch(largest_magnitudes_kernel, programs * len(members), (result,), (rows,), **shape)
    return result


def programs_per_array(arrays, block):
    """Return enough programs for the largest of the arrays; a power of two, so that few kernels are compiled."""
    blocks = ceil_div(max(array.numel() for array in arrays), block)
    return min(MOST_PROGRAMS, triton.next_power_of_2(max(1, blocks)))


@triton.jit
def pointer_at(table_pointer, TYPE: tl.constexpr):
    """Load the address of an aligned array."""
    return tl.multiple_of(tl.load(table_pointer).to(tl.pointer_type(TYPE), bitcast=True), ALIGNMENT)


@triton.jit
def largest_magnitudes_kernel(
    y_pointer, table_pointer, TYPE: tl.constexpr, PROGRAMS: tl.constexpr, BLOCK: tl.constexpr
):
    member, part = tl.program_id(0) // PROGRAMS, (tl.program_id(0) % PROGRAMS).to(tl.int64)
    place, size = tl.load(table_pointer + 3 * member), tl.load(table_pointer + 3 * member + 2)
    x_pointer = pointer_at(table_pointer + 3 * member + 1, TYPE)
    largest = tl.zeros([BLOCK], TYPE)
    block = tl.arange(0, BLOCK)
    # Whole blocks have no mask, so that a thread loads many elements at once.
    whole = size // BLOCK
    for number in range(part, whole, PROGRAMS):
        offset = tl.multiple_of(number * BLOCK, BLOCK)
        largest = tl.maximum(largest, tl.abs(tl.load(x_pointer + offset + block)))
    if part == whole % PROGRAMS:
        rest = whole * BLOCK + block
        largest = tl.maximum(largest, tl.abs(tl.load(x_pointer + rest, mask=rest < size, other=0)))
    if part * BLOCK < size:
        tl.atomic_max(y_pointer + place, tl.max(largest).to(tl.int64), sem="relaxed")


@implements(ops.round_to_int16)
def round_to_int16(x, *, shift):
    y = torch.empty(x.shape, dtype=torch.int16, device=x.device)
    return elementwise(round_to_int16_kernel, y, x, integers=(shift,))


@triton.jit
def narrowed(x, s):
    """Round int32 x / 2**s, s at most 31, to nearest, ties to even, and saturate to 16 bits: no sum leaves 32 bits."""
    floor, rest = x >> s, x & ~(-1 << s)
    half = 1 << (tl.maximum(s, 1) - 1)  # without a rest, nothing is above it
    return integers.saturate(floor + (rest > half - (floor & 1)).to(tl.int32), 16)


@triton.jit(do_not_specialize=["shift"])
def round_to_int16_kernel(y_pointer, x_pointer, size, shift, BLOCK: tl.constexpr):
    offset = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(x_pointer + offset, mask=offset < size, other=0)
    tl.store(y_pointer + offset, narrowed(x, integers.scalar(shift)).to(tl.int16), mask=offset < size)


@triton.jit
def passed(e, y, limit: tl.constexpr):
    """Return gradients that a saturated y passes: at an end of its range, those that lead back."""
    return tl.where(y == limit, tl.maximum(e, 0), tl.where(y == -limit, tl.minimum(e, 0), e))


@implements(ops.saturate_backward)
def saturate_backward(dy, y, *, shift):
    dx = torch.empty(dy.shape, dtype=torch.int16, device=dy.device)
    return elementwise(saturate_backward_kernel, dx, dy, y, integers=(shift,), limit=torch.iinfo(y.dtype).max)


@triton.jit(do_not_specialize=["shift"])
def saturate_backward_kernel(dx_pointer, dy_pointer, y_pointer, size, shift, limit: tl.constexpr, BLOCK: tl.constexpr):
    offset = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    dy = tl.load(dy_pointer + offset, mask=offset < size, other=0).to(tl.int32)
    y = tl.load(y_pointer + offset, mask=offset < size, other=0).to(tl.int32)
    e = passed(narrowed(dy, integers.scalar(shift)), y, limit)
    tl.store(dx_pointer + offset, e.to(tl.int16), mask=offset < size)


@implements(ops.stochastic_round_rows)
def stochastic_round_rows(x, e, *, shift, bits, seed, step, stream, first):
    y = torch.empty(x.shape, dtype=torch.int8 if bits <= 8 else torch.int16, device=x.device)
    K = x.shape[-1]
    blocks = ceil_div(K, 4)
    counters = e.numel() * blocks
    programs = ceil_div(counters, COUNTERS_A_PROGRAM)
    words = (key_pattern(word) for word in (first, step, stream, seed & philox.MASK, seed >> 32))
    constants = {"K": K, "bits": bits, "BLOCK": COUNTERS_A_PROGRAM}
    launch(stochastic_round_rows_kernel, programs, (y,), (x, e), counters, *words, shift, **constants)
    return y


@triton.jit
def rounding_noise(counter, first, step, stream, key0, key1, blocks):
    """Return the four words of each counter, from row ``first`` of so many blocks on, as int32, along two new axes."""
    start = integers.scalar(first).to(tl.uint32) * tl.full([], blocks, tl.uint32)
    words, zero = start + counter.to(tl.uint32), tl.zeros_like(counter).to(tl.uint32)
    step, stream = zero + step.to(tl.uint32), zero + stream.to(tl.uint32)
    c0, c1, c2, c3 = philox_words(words, step, stream, zero + ROUNDING_DOMAIN, key0, key1)
    return tl.join(tl.join(c0, c2), tl.join(c1, c3)).to(tl.int32, bitcast=True)


@triton.jit(do_not_specialize=["first", "step", "stream", "key0", "key1", "shift"])
def stochastic_round_rows_kernel(
    y_pointer,
    x_pointer,
    e_pointer,
    counters,
    first,
    step,
    stream,
    key0,
    key1,
    shift,
    K: tl.constexpr,
    bits: tl.constexpr,
    BLOCK: tl.constexpr,
):
    # Element i of counter j is element 4 (j mod blocks) + i of row j // blocks.
    blocks: tl.constexpr = (K + 3) // 4
    counter = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    row = counter // blocks
    shift, step = integers.scalar(shift), integers.scalar(step)
    e = tl.load(e_pointer + row, mask=counter < counters, other=0)
    noise = rounding_noise(counter, first, step, stream, key0, key1, blocks)
    noise = tl.reshape(noise, [BLOCK, 4]) & ((1 << shift) - 1)
    i = tl.arange(0, 4)[None, :]
    inside = (counter < counters)[:, None]
    offset = 4 * counter[:, None] + i
    if K % 4:
        k = 4 * (counter - row * blocks)[:, None] + i
        inside = inside & (k < K)
        offset = row[:, None] * K + k
    x = tl.load(x_pointer + offset, mask=inside, other=0).to(tl.int32)
    y = integers.saturate(((x << e[:, None]) + noise) >> shift, bits)
    tl.store(y_pointer + offset, y.to(y_pointer.dtype.element_ty), mask=inside)


__all__ = [
    "gradient_add",
    "largest_magnitude",
    "largest_magnitudes",
    "round_to_int16",
    "saturate_backward",
    "saturating_add",
    "stochastic_round_rows",
]
