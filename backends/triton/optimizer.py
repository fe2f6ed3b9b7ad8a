"""Triton versions of ``spec.ops.optimizer``."""

import numpy as np
import torch
import triton
import triton.language as tl

from mamba_integer.spec import ops
from mamba_integer.spec.contract import implements
from mamba_integer.spec.ops import optimizer as golden

from . import integers
from .gradient import TYPES, pointer_at, programs_per_array, reduce
from .launch import ALIGNMENT_BYTES, BLOCK, aligned, ceil_div, elementwise, launch, table

VOTES = tl.constexpr(golden.VOTES)
FEWEST_BITS = tl.constexpr(golden.FEWEST_BITS)
MOST_BITS = tl.constexpr(golden.MOST_BITS)
LEAST_GRADIENT_EXPONENT = tl.constexpr(golden.GRADIENT_EXPONENT.low)
GREATEST_GRADIENT_EXPONENT = tl.constexpr(golden.GRADIENT_EXPONENT.high)
LEAST_MOMENTUM_EXPONENT = tl.constexpr(golden.MOMENTUM_EXPONENT.low)
GREATEST_MOMENTUM_EXPONENT = tl.constexpr(golden.MOMENTUM_EXPONENT.high)


@implements(ops.ternary_project)
def ternary_project(w):
    N, K = w.shape
    packed = torch.empty((N, ceil_div(K, 4)), dtype=torch.uint8, device=w.device)
    return elementwise(ternary_project_kernel, packed, w, reduce(magnitude_sum_kernel, w), weights=w.numel(), K=K)


@triton.jit
def magnitude_sum_kernel(sum_pointer, w_pointer, size, SHARE: tl.constexpr, BLOCK: tl.constexpr):
    offset = tl.program_id(0).to(tl.int64) * SHARE + tl.arange(0, BLOCK)
    total = tl.zeros([BLOCK], tl.int64)
    for start in tl.static_range(0, SHARE, BLOCK):
        total += tl.abs(tl.load(w_pointer + start + offset, mask=start + offset < size, other=0))
    tl.atomic_add(sum_pointer, tl.sum(total), sem="relaxed")


@triton.jit(do_not_specialize=["weights"])
def ternary_project_kernel(packed_pointer, w_pointer, sum_pointer, size, weights, K: tl.constexpr, BLOCK: tl.constexpr):
    # An integer is above the half mean where it is above its floor.
    threshold = (tl.load(sum_pointer) // (2 * weights.to(tl.int64))).to(tl.int32)
    byte = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    i = tl.arange(0, 4)[None, :]
    inside = (byte < size)[:, None]
    offset = 4 * byte[:, None] + i
    if K % 4:
        bytes_a_row: tl.constexpr = (K + 3) // 4
        row = byte // bytes_a_row
        k = 4 * (byte - row * bytes_a_row)[:, None] + i
        inside = inside & (k < K)
        offset = row[:, None] * K + k
    w = tl.load(w_pointer + offset, mask=inside, other=0)
    code = tl.where(tl.abs(w) > threshold, tl.where(w > 0, 1, 3), 0)
    tl.store(packed_pointer + byte, tl.sum(code << (2 * i), 1).to(tl.uint8), mask=byte < size)


@implements(ops.lion_update)
def lion_update(w, m, g, *, lr, m_shift, g_up, g_down, low, high, decay):
    new_w, new_m = (torch.empty(a.shape, dtype=torch.int32, device=a.device) for a in (w, m))
    clipped = torch.zeros(1, dtype=torch.int64, device=w.device)
    m_down, m_up = golden.shifts(m_shift)
    rule = dict(lr=lr, m_down=m_down, m_up=m_up, g_up=g_up, g_down=g_down, low=low, high=high)
    rule |= dict(share=golden.decay_share(lr, decay), MOMENTUM_BITS=golden.MOMENTUM_BITS)
    rule |= dict(LAG_SHIFT=golden.LAG_SHIFT, SHARE_BITS=golden.SHARE_BITS)
    return elementwise(lion_update_kernel, (new_w, new_m, clipped), w, m, g, **rule)


def lion_updates(arrays):
    """Return what runs `lion_update` on many arrays in one launch per type of gradient, by arrays of parameters.

    It returns the lists of new masters and momenta, and pieces of the counts of clipped. Gradients are int64 or int32.
    Most of the host's work is done before the parameters are known.
    """
    device = arrays[0][0].device
    clipped = torch.zeros(len(arrays), dtype=torch.int64, device=device)
    results = list(zip(*(rooms([w for w, _, _ in arrays]) for _ in range(2)), strict=True))
    kinds = {}
    for place, (inputs, new) in enumerate(zip(arrays, results, strict=True)):
        w, m, g = map(aligned, inputs)
        held = (*new, w, m, g)
        line = place, w.numel(), *(a.data_ptr() for a in held)
        kinds.setdefault(g.dtype, []).append((line, held))
    lines = {dtype: np.array([line for line, _ in members], np.int64) for dtype, members in kinds.items()}
    constants = dict(MOMENTUM_BITS=golden.MOMENTUM_BITS, LAG_SHIFT=golden.LAG_SHIFT, SHARE_BITS=golden.SHARE_BITS)
    programs = {t: programs_per_array((held[0] for _, held in members), BLOCK) for t, members in kinds.items()}

    def updates(parameters):
        lr, m_shift, decay = (parameters[name] for name in ("lr", "m_shift", "decay"))
        shifts = np.array([golden.shifts(shift) for shift in m_shift.tolist()]).T
        others = (parameters[name] for name in ("g_up", "g_down", "low", "high"))
        rules = np.stack([lr, *shifts, *others, golden.decay_share(lr, decay)], 1).astype(np.int64)
        for dtype, members in lines.items():
            rows = table(np.concatenate([members, rules[members[:, 0]]], 1), device)
            shape = dict(TYPE=TYPES[dtype], COLUMNS=rows.shape[1], PROGRAMS=programs[dtype], BLOCK=BLOCK)
            launch(lion_updates_kernel, programs[dtype] * len(members), (clipped,), (rows,), **shape, **constants)
        return *(list(part) for part in zip(*results, strict=True)), [clipped]

    return updates


def rooms(arrays):
    """Return room for int32 arrays of these shapes, in one piece of memory: many would take long to get and to free."""
    sizes = [ceil_div(4 * array.numel(), ALIGNMENT_BYTES) * ALIGNMENT_BYTES // 4 for array in arrays]
    parts = torch.empty(sum(sizes), dtype=torch.int32, device=arrays[0].device).split(sizes)
    return [part[: array.numel()].view(array.shape) for part, array in zip(parts, arrays, strict=True)]


@triton.jit
def lion_updates_kernel(
    clipped_pointer,
    table_pointer,
    TYPE: tl.constexpr,
    COLUMNS: tl.constexpr,
    PROGRAMS: tl.constexpr,
    MOMENTUM_BITS: tl.constexpr,
    LAG_SHIFT: tl.constexpr,
    SHARE_BITS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    member, part = tl.program_id(0) // PROGRAMS, (tl.program_id(0) % PROGRAMS).to(tl.int64)
    table_pointer += member * COLUMNS
    place, size = tl.load(table_pointer), tl.load(table_pointer + 1)
    new_w_pointer = pointer_at(table_pointer + 2, tl.int32)
    new_m_pointer = pointer_at(table_pointer + 3, tl.int32)
    w_pointer = pointer_at(table_pointer + 4, tl.int32)
    m_pointer = pointer_at(table_pointer + 5, tl.int32)
    g_pointer = pointer_at(table_pointer + 6, TYPE)
    lr, m_down = tl.load(table_pointer + 7).to(tl.int32), tl.load(table_pointer + 8).to(tl.int32)
    m_up, g_up, g_down = tl.load(table_pointer + 9), tl.load(table_pointer + 10), tl.load(table_pointer + 11)
    low, high = tl.load(table_pointer + 12).to(tl.int32), tl.load(table_pointer + 13).to(tl.int32)
    share = tl.load(table_pointer + 14).to(tl.int32)
    for number in range(part, (size + BLOCK - 1) // BLOCK, PROGRAMS):
        offset = tl.multiple_of(number * BLOCK, BLOCK) + tl.arange(0, BLOCK)
        inside = offset < size
        w = tl.load(w_pointer + offset, mask=inside, other=0)
        m = tl.load(m_pointer + offset, mask=inside, other=0)
        g = tl.load(g_pointer + offset, mask=inside, other=0)
        rules = lr, m_down, m_up, g_up, g_down, low, high, share
        new_w, new_m, total = updated(w, m, g, rules, MOMENTUM_BITS, LAG_SHIFT, SHARE_BITS)
        tl.store(new_w_pointer + offset, new_w, mask=inside)
        tl.store(new_m_pointer + offset, new_m, mask=inside)
        clipped = tl.sum(tl.where(inside & (new_w != total), 1, 0))
        if clipped > 0:
            tl.atomic_add(clipped_pointer + place, clipped.to(tl.int64), sem="relaxed")


@triton.jit
def updated(w, m, g, rules, MOMENTUM_BITS: tl.constexpr, LAG_SHIFT: tl.constexpr, SHARE_BITS: tl.constexpr):
    """Return new masters and momenta, and the masters before they are held in their range."""
    lr, m_down, m_up, g_up, g_down, low, high, share = rules
    # A momentum is shifted one way: that it fits after the first keeps the sum of the rounding in int32.
    momentum = integers.saturate(integers.shift_round(m, m_down).to(tl.int64) << m_up, MOMENTUM_BITS).to(tl.int32)
    gradient = integers.saturate(integers.shift_round(g, g_down.to(tl.int64)), MOMENTUM_BITS)
    gradient = integers.saturate(gradient << g_up, MOMENTUM_BITS).to(tl.int32)
    vote = VOTES * momentum + gradient
    new_m = momentum + integers.shift_round(gradient - momentum, LAG_SHIFT)
    # The sum stays within 2**29 of zero: a weight loses less than itself.
    step = tl.where(vote > 0, lr, tl.where(vote < 0, -lr, 0))
    total = w - step - integers.shift_round(w.to(tl.int64) * share, SHARE_BITS).to(tl.int32)
    return tl.minimum(tl.maximum(total, low), high), new_m, total


@triton.jit(do_not_specialize=["lr", "m_down", "m_up", "g_up", "g_down", "low", "high", "share"])
def lion_update_kernel(
    new_w_pointer,
    new_m_pointer,
    clipped_pointer,
    w_pointer,
    m_pointer,
    g_pointer,
    size,
    lr,
    m_down,
    m_up,
    g_up,
    g_down,
    low,
    high,
    share,
    MOMENTUM_BITS: tl.constexpr,
    LAG_SHIFT: tl.constexpr,
    SHARE_BITS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    offset = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = offset < size
    w = tl.load(w_pointer + offset, mask=inside, other=0)
    m = tl.load(m_pointer + offset, mask=inside, other=0)
    g = tl.load(g_pointer + offset, mask=inside, other=0)
    rules = lr, m_down, m_up, g_up, g_down, low, high, share
    new_w, new_m, total = updated(w, m, g, rules, MOMENTUM_BITS, LAG_SHIFT, SHARE_BITS)
    tl.store(new_w_pointer + offset, new_w, mask=inside)
    tl.store(new_m_pointer + offset, new_m, mask=inside)
    clipped = tl.sum(tl.where(inside & (new_w != total), 1, 0))
    if clipped > 0:
        tl.atomic_add(clipped_pointer, clipped.to(tl.int64), sem="relaxed")


@implements(ops.learning_rate)
def learning_rate(step, *, peak, last, warmup, total):
    lr = torch.empty(step.shape, dtype=torch.int32, device=step.device)
    return elementwise(learning_rate_kernel, lr, step, peak=peak, last=last, rising=warmup, total=total)


@triton.jit
def learning_rate_kernel(
    lr_pointer,
    step_pointer,
    size,
    peak: tl.constexpr,
    last: tl.constexpr,
    rising: tl.constexpr,
    total: tl.constexpr,
    BLOCK: tl.constexpr,
):
    offset = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    step = tl.load(step_pointer + offset, mask=offset < size, other=0).to(tl.int64)
    lr = last + integers.round_div((peak - last) * tl.maximum(total - step, 0), total - rising)
    if rising > 0:
        lr = tl.where(step < rising, integers.round_div(peak * (step + 1), rising), lr)
    tl.store(lr_pointer + offset, lr.to(tl.int32), mask=offset < size)


@implements(ops.gradient_exponent)
def gradient_exponent(exponent, largest, *, bits):
    y = torch.empty(exponent.shape, dtype=torch.int32, device=exponent.device)
    return elementwise(gradient_exponent_kernel, y, exponent, largest, bits=bits)


@triton.jit
def gradient_exponent_kernel(
    y_pointer, exponent_pointer, largest_pointer, size, bits: tl.constexpr, BLOCK: tl.constexpr
):
    offset = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    exponent = tl.load(exponent_pointer + offset, mask=offset < size, other=0)
    largest = tl.load(largest_pointer + offset, mask=offset < size, other=0)
    rise = tl.maximum(bits - 1 - integers.bit_length(largest).to(tl.int32), 0) >> 1
    move = tl.where(largest > 0, rise, 1) - tl.where(largest >= (1 << (bits - 1)) - 1, 1, 0)
    y = tl.minimum(tl.maximum(exponent + move, LEAST_GRADIENT_EXPONENT), GREATEST_GRADIENT_EXPONENT)
    tl.store(y_pointer + offset, y, mask=offset < size)


@implements(ops.momentum_exponent)
def momentum_exponent(exponent, g_exponent, largest_g, largest_m):
    y = torch.empty(exponent.shape, dtype=torch.int32, device=exponent.device)
    return elementwise(momentum_exponent_kernel, y, exponent, g_exponent, largest_g, largest_m)


@triton.jit
def momentum_exponent_kernel(
    y_pointer, exponent_pointer, g_exponent_pointer, largest_g_pointer, largest_m_pointer, size, BLOCK: tl.constexpr
):
    offset = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    exponent = tl.load(exponent_pointer + offset, mask=offset < size, other=0)
    g_exponent = tl.load(g_exponent_pointer + offset, mask=offset < size, other=0)
    largest_g = tl.load(largest_g_pointer + offset, mask=offset < size, other=0)
    largest_m = tl.load(largest_m_pointer + offset, mask=offset < size, other=0)
    m_top = integers.bit_length(largest_m).to(tl.int32) - exponent
    g_top = integers.bit_length(largest_g).to(tl.int32) - g_exponent
    top = tl.where(largest_m == 0, g_top, tl.where(largest_g == 0, m_top, tl.maximum(m_top, g_top)))
    fitting = tl.minimum(tl.maximum(exponent, FEWEST_BITS - top), MOST_BITS - top)
    y = tl.where((largest_m == 0) & (largest_g == 0), exponent, fitting)
    y = tl.minimum(tl.maximum(y, LEAST_MOMENTUM_EXPONENT), GREATEST_MOMENTUM_EXPONENT)
    tl.store(y_pointer + offset, y, mask=offset < size)


__all__ = ["gradient_exponent", "learning_rate", "lion_update", "lion_updates", "momentum_exponent", "ternary_project"]
