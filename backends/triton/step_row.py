"""A step of the network as one kernel: programs stay for all layers and hand their results to one another.

A group of programs has a few rows of the batch to itself, so that groups never wait for one another. Each program of a
group holds the same channels in every layer, in blocks of a head's. A layer has four phases, and each needs what all
programs of the group handed over in the phase before: the projection to x and z with the convolution, the projection of
x to the mixtures, the scan with its gate, and the projection to the residual stream. A program loads the weights and
the state of a phase before it waits for its rows.

Where programs can't be sure to run at the same time, each phase is a launch.
"""
# ruff: noqa: RUF005 -- Triton compiles no unpacking inside a tuple

import triton
import triton.language as tl

from . import integers
from .activation import squareplus_of
from .norm import scaled_row
from .step_exchange import hand_over, handed, wait_for
from .step_products import elements, planes_of, quantised, sums_of_planes, weights_of
from .step_row_scans import scan_channels, scan_heads
from .step_shape import (
    BIAS,
    CONV,
    IN_PROJ,
    KIND,
    MAMBA1_KIND,
    NORM,
    OUT_PROJ,
    PITCH,
    TAPS,
    X_PROJ,
    array,
    block_of,
    if_there,
)
from .ternary_product import scale_sum

# What a launch does with its layers.
WHOLE, ENTER, PROJECT, SCAN, LEAVE, HEAD, COUNT = (tl.constexpr(i) for i in range(7))


@triton.jit
def scaled(w, planes, e, num: tl.constexpr, shift: tl.constexpr):
    """Return a row times weights, scaled."""
    return scale_sum(sums_of_planes(w, planes), e, num, shift, (1 << shift) >> 1)


@triton.jit
def normalised(x, gamma, SHAPE: tl.constexpr, WORDS: tl.constexpr):
    """Return a row of `bitshift_norm` in int32."""
    factors, k, _ = scaled_row(x, elements(WORDS) < SHAPE.depth, SHAPE.depth, SHAPE.norm_b)
    rounded = integers.shift_round(factors.to(tl.int64) * gamma, k + SHAPE.norm_b + SHAPE.norm_s)
    return integers.saturate(rounded.to(tl.int32), 16)


@triton.jit
def residual_rows(group, layer, norm_pointer, SHAPE: tl.constexpr, WORDS: tl.constexpr):
    """Return exponents and planes of the rows of the residual stream before a layer, normalised and quantised."""
    ROWS: tl.constexpr = SHAPE.rows
    entries, words, number = group
    place = elements(WORDS)
    inside = place < SHAPE.depth
    gamma = tl.load(norm_pointer + place, mask=inside, other=0)
    exponents, planes = (), ()
    for i in tl.static_range(ROWS):
        if layer == 0:
            x = tl.load(entries[i] + place, mask=inside, other=0).to(tl.int32)
        else:
            before = words[i] + (layer - 1) * SHAPE.pitch + SHAPE.residual_at
            x = wait_for(before, place, inside, number, SHAPE.warps)
        e, q = quantised(normalised(x, gamma, SHAPE, WORDS))
        exponents, planes = exponents + (e,), planes + (planes_of(q, WORDS),)
    return exponents, planes


@triton.jit
def rows_of(group, layer, START: tl.constexpr, SHAPE: tl.constexpr, WORDS: tl.constexpr):
    """Return exponents and planes of the rows of x or y, quantised."""
    ROWS: tl.constexpr = SHAPE.rows
    _, words, number = group
    place = elements(WORDS)
    exponents, planes = (), ()
    for i in tl.static_range(ROWS):
        row = words[i] + layer * SHAPE.pitch + START
        e, q = quantised(wait_for(row, place, place < SHAPE.inner, number, SHAPE.warps))
        exponents, planes = exponents + (e,), planes + (planes_of(q, WORDS),)
    return exponents, planes


@triton.jit
def entering(table, layer, member, j, SHAPE: tl.constexpr, WORDS: tl.constexpr):
    """Return the channels of a program's tile, which there are, and the weights of their x and z in turns."""
    CHANNELS: tl.constexpr = SHAPE.channels // SHAPE.split
    head, p, known = block_of(member, j // SHAPE.split, j % SHAPE.split, CHANNELS, SHAPE)
    channel = head * SHAPE.headdim + p
    x_column = tl.where(known, channel, 2 * SHAPE.inner)
    column = tl.reshape(tl.join(x_column, x_column + SHAPE.inner), [2 * CHANNELS])
    words: tl.constexpr = (SHAPE.depth + 15) // 16
    return channel, known, weights_of(array(table, layer, IN_PROJ, tl.int32), column, 2 * SHAPE.inner, words, WORDS)


@triton.jit
def enter(group, table, layer, member, first_row, rows, SHAPE: tl.constexpr):
    """Norm, quantise, project to x and z; convolve x with the state, which moves on in place, and squareplus."""
    ROWS: tl.constexpr = SHAPE.rows
    _, words, number = group
    CHANNELS: tl.constexpr = SHAPE.channels // SHAPE.split
    WORDS: tl.constexpr = triton.next_power_of_2((SHAPE.depth + 15) // 16)
    channel, known, w = entering(table, layer, member, 0, SHAPE, WORDS)
    exponents, planes = residual_rows(group, layer, array(table, layer, NORM, tl.int16), SHAPE, WORDS)
    for j in range(SHAPE.blocks * SHAPE.split):
        next_channel, next_known, next_w = channel, known, w
        if SHAPE.blocks * SHAPE.split > 1:
            next_channel, next_known, next_w = entering(table, layer, member, j + 1, SHAPE, WORDS)
        taps = array(table, layer, TAPS, tl.int8) + 4 * channel
        w0 = tl.load(taps, mask=known, other=0).to(tl.int32)
        w1 = tl.load(taps + 1, mask=known, other=0).to(tl.int32)
        w2 = tl.load(taps + 2, mask=known, other=0).to(tl.int32)
        w3 = tl.load(taps + 3, mask=known, other=0).to(tl.int32)
        bias = tl.load(array(table, layer, BIAS, tl.int32) + channel, mask=known, other=0)
        for i in tl.static_range(ROWS):
            there = if_there(known, first_row + i < rows)
            past = array(table, layer, CONV, tl.int16) + (first_row + i).to(tl.int64) * 3 * SHAPE.inner + channel
            x0 = tl.load(past, mask=there, other=0)
            x1 = tl.load(past + SHAPE.inner, mask=there, other=0)
            x2 = tl.load(past + 2 * SHAPE.inner, mask=there, other=0)
            xz = scaled(w, planes[i], exponents[i], SHAPE.in_num, SHAPE.in_shift)
            x, z = tl.split(tl.reshape(xz, [CHANNELS, 2]))
            total = bias + w0 * x0 + w1 * x1 + w2 * x2 + w3 * x
            tl.debug_barrier()  # what is written in place, every thread has read
            tl.store(past, x1, mask=there)
            tl.store(past + SHAPE.inner, x2, mask=there)
            tl.store(past + 2 * SHAPE.inner, x, mask=there)
            x = squareplus_of(integers.saturate(integers.shift_round(total, SHAPE.conv_s), 16), SHAPE.f, SHAPE.offset)
            row = words[i] + layer * SHAPE.pitch
            hand_over(row + SHAPE.x_at, channel, x, known, number)
            hand_over(row + SHAPE.z_at, channel, z, known, number)
        channel, known, w = next_channel, next_known, next_w
    tl.debug_barrier()


@triton.jit
def project(group, table, layer, member, columns, SHAPE: tl.constexpr):
    """Quantise x and project it."""
    ROWS: tl.constexpr = SHAPE.rows
    _, words, number = group
    depth_words: tl.constexpr = (SHAPE.inner + 15) // 16
    WORDS: tl.constexpr = triton.next_power_of_2(depth_words)
    COLUMNS: tl.constexpr = triton.next_power_of_2((SHAPE.most_projected + SHAPE.members - 1) // SHAPE.members)
    if member * COLUMNS < columns:
        column = member * COLUMNS + tl.arange(0, COLUMNS)
        w = weights_of(array(table, layer, X_PROJ, tl.int32), column, columns, depth_words, WORDS)
        exponents, planes = rows_of(group, layer, SHAPE.x_at, SHAPE, WORDS)
        for i in tl.static_range(ROWS):
            y = scaled(w, planes[i], exponents[i], SHAPE.x_num, SHAPE.x_shift)
            row = words[i] + layer * SHAPE.pitch + SHAPE.projected_at
            hand_over(row, column, y, column < columns, number)
        tl.debug_barrier()


@triton.jit
def leave(group, table, layer, member, SHAPE: tl.constexpr):
    """Quantise y, project it, and add it to the residual stream."""
    ROWS: tl.constexpr = SHAPE.rows
    entries, words, number = group
    depth_words: tl.constexpr = (SHAPE.inner + 15) // 16
    WORDS: tl.constexpr = triton.next_power_of_2(depth_words)
    COLUMNS: tl.constexpr = SHAPE.out_columns
    column = member * COLUMNS + tl.arange(0, COLUMNS)
    if member * COLUMNS < SHAPE.depth:
        w = weights_of(array(table, layer, OUT_PROJ, tl.int32), column, SHAPE.depth, depth_words, WORDS)
        exponents, planes = rows_of(group, layer, SHAPE.y_at, SHAPE, WORDS)
        for start in range(member * COLUMNS, SHAPE.depth, COLUMNS * SHAPE.members):
            column = start + tl.arange(0, COLUMNS)
            known = column < SHAPE.depth
            next_w = w
            if COLUMNS * SHAPE.members < SHAPE.depth:
                after = column + COLUMNS * SHAPE.members
                next_w = weights_of(array(table, layer, OUT_PROJ, tl.int32), after, SHAPE.depth, depth_words, WORDS)
            for i in tl.static_range(ROWS):
                row = words[i] + layer * SHAPE.pitch + SHAPE.residual_at
                if layer == 0:
                    r = tl.load(entries[i] + column, mask=known, other=0).to(tl.int32)
                else:
                    r = handed(row - SHAPE.pitch, column, known)
                o = scaled(w, planes[i], exponents[i], SHAPE.out_num, SHAPE.out_shift)
                total = r + integers.shift_round(o.to(tl.int32) * SHAPE.gate_num, SHAPE.gate_shift)
                hand_over(row, column, integers.saturate(total, SHAPE.residual_bits), known, number)
            w = next_w
        tl.debug_barrier()


@triton.jit
def choose_from(group, logits, norm, weights, member, first_row, rows, SHAPE: tl.constexpr):
    """Norm, quantise and project to the vocabulary."""
    ROWS: tl.constexpr = SHAPE.rows
    depth_words: tl.constexpr = (SHAPE.depth + 15) // 16
    WORDS: tl.constexpr = triton.next_power_of_2(depth_words)
    COLUMNS: tl.constexpr = SHAPE.head_columns
    column = member * COLUMNS + tl.arange(0, COLUMNS)
    w = weights_of(weights, column, SHAPE.vocab, depth_words, WORDS)
    exponents, planes = residual_rows(group, SHAPE.layers, norm, SHAPE, WORDS)
    for start in range(member * COLUMNS, SHAPE.vocab, COLUMNS * SHAPE.members):
        column = start + tl.arange(0, COLUMNS)
        next_w = weights_of(weights, column + COLUMNS * SHAPE.members, SHAPE.vocab, depth_words, WORDS)
        for i in tl.static_range(ROWS):
            y = scaled(w, planes[i], exponents[i], SHAPE.head_num, SHAPE.head_shift)
            place = logits + (first_row + i).to(tl.int64) * SHAPE.vocab + column
            tl.store(place, y, mask=if_there(column < SHAPE.vocab, first_row + i < rows))
        w = next_w


@triton.jit
def step_kernel(
    logits,
    words,
    numbers,
    table,
    text,
    turns,
    ends,
    rows,
    first_layer,
    last_layer,
    SHAPE: tl.constexpr,
    PHASE: tl.constexpr,
):
    """Run one phase of a layer, or all phases of the layers, the head, and the count of steps."""
    ROWS: tl.constexpr = SHAPE.rows
    token, position, count = text
    embedding, norm, head = ends
    member, number_of_group = tl.program_id(0) % SHAPE.members, tl.program_id(0) // SHAPE.members
    first_row = number_of_group * SHAPE.rows
    number = tl.load(numbers + number_of_group) + 1
    entries, slots = (), ()
    for i in tl.static_range(ROWS):
        row = tl.minimum(first_row + i, rows - 1)
        entries = entries + (embedding + tl.load(token + row).to(tl.int64) * SHAPE.depth,)
        slots = slots + (words + (first_row + i).to(tl.int64) * SHAPE.layers * SHAPE.pitch,)
    group = entries, slots, number
    for layer in range(first_layer, last_layer):
        kind = tl.load(table + layer * PITCH + KIND).to(tl.int32)
        if PHASE == WHOLE or PHASE == ENTER:
            enter(group, table, layer, member, first_row, rows, SHAPE)
        if PHASE == WHOLE or PHASE == PROJECT:
            columns = tl.where(kind == MAMBA1_KIND, SHAPE.projected1, SHAPE.projected2)
            project(group, table, layer, member, columns, SHAPE)
        if PHASE == WHOLE or PHASE == SCAN:
            if kind == MAMBA1_KIND:
                scan_channels(words, number, table, layer, member, first_row, rows, SHAPE)
            else:
                scan_heads(words, number, table, layer, member, first_row, rows, position, count, turns, SHAPE)
        if PHASE == WHOLE or PHASE == LEAVE:
            leave(group, table, layer, member, SHAPE)
    if PHASE == WHOLE or PHASE == HEAD:
        choose_from(group, logits, norm, head, member, first_row, rows, SHAPE)
    if PHASE == WHOLE or PHASE == COUNT:
        if member == 0:
            tl.store(numbers + number_of_group, number)
