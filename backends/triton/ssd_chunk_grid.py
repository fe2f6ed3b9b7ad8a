"""The chunked scan's layout on its grid: what no state changes, computed with every processor busy.

One kernel computes the factors of each position, the other the int8 factors inside a chunk; it also puts x and b with
time contiguous, and keeps the open chunk that is left.
"""

import triton
import triton.language as tl

from .ssd_chunk_factors import (
    LARGEST_ROW_EXPONENT,
    POSITIONS,
    SIZES,
    exponent_sums,
    fraction_power,
    gains,
    input_weights,
    lags,
    round_by,
    rounded_power,
    row_exponent,
)

# Rows of a chunk's factors: inside, before, of inputs, of the whole chunk, and what those inside are made of.
FACTORS = 8
ROWS = tl.constexpr(FACTORS)


@triton.jit
def mix(scores, whole, column, weight):
    """Return the row exponents and the int8 factors of a chunk, of scores that are 0 above the diagonal."""
    mixed = (scores * weight[None, :]) >> lags(whole, column)
    e = row_exponent(tl.max(tl.abs(mixed), 1))
    half = (tl.zeros_like(e) + 1) << (e - 1)
    return e, ((mixed + half[:, None]) >> e[:, None]).to(tl.int8)


@triton.jit
def state_order(s, STATES: tl.constexpr):
    """Return where the walk has state s in a sum over states: those of one thread of a tensor core side by side."""
    if STATES >= 64:
        s = (((s // 16) % 4 * 8 + s % 8) * (STATES // 64) + s // 64) * 2 + s // 8 % 2
    return s


@triton.jit(do_not_specialize=[*SIZES, "weight_bits", "carried_bits", *POSITIONS])
def factors_kernel(
    factors_pointer,
    rest_d_pointer,
    d_pointer,
    open_d_pointer,
    fill_pointer,
    length,
    heads,
    chunks,
    Q,
    weight_bits,
    carried_bits,
    TILE: tl.constexpr,
    HEADS: tl.constexpr,
):
    """Compute the powers of two of a chunk of a few heads; the chunk after the last whole one is the open one."""
    program = tl.program_id(0)
    groups = tl.cdiv(heads, HEADS)
    group, n, row = program % groups, program // groups % chunks, (program // groups // chunks).to(tl.int64)
    fill = tl.load(fill_pointer + row)
    stop = fill + length
    if n * Q <= stop:
        q, head = tl.arange(0, TILE), group * HEADS + tl.arange(0, HEADS)
        position = n * Q + q
        inside = (q < Q) & (position < stop)
        known = (head < heads)[None, :]
        old, new = (inside & (position < fill))[:, None] & known, (inside & (position >= fill))[:, None] & known
        slot = (row * Q + q)[:, None] * heads + head[None, :]
        d = tl.load(open_d_pointer + slot, mask=old, other=0).to(tl.int32)
        d += tl.load(d_pointer + (row * length + (position - fill))[:, None] * heads + head[None, :], mask=new, other=0)
        tl.store(rest_d_pointer + slot, d, mask=(q < tl.where(n == stop // Q, Q, 0))[:, None] & known)
        sums = exponent_sums(d, q[:, None])
        power_of_fraction = fraction_power(sums)
        whole, column, gain = gains(sums, d, weight_bits)
        weights, r, kept = input_weights(sums, d, n * Q + Q <= stop)
        first = factors_pointer + ((row * heads + head) * chunks + n) * (ROWS * TILE)
        factors = first[None, :] + q[:, None]
        tl.store(factors + TILE, rounded_power(power_of_fraction, sums, carried_bits), mask=known)
        tl.store(factors + 2 * TILE, weights, mask=known)
        tl.store(first + 3 * TILE, kept, mask=head < heads)
        tl.store(first + 3 * TILE + 1, r, mask=head < heads)
        tl.store(factors + 4 * TILE, whole, mask=known)
        tl.store(factors + 5 * TILE, column, mask=known)
        tl.store(factors + 6 * TILE, gain, mask=known)
        tl.store(factors + 7 * TILE, power_of_fraction, mask=known)


@triton.jit
def words_on_grid(
    x_pointer,
    open_pointer,
    rest_pointer,
    word,
    words,
    row,
    n,
    head,
    heads,
    length,
    fill,
    first: tl.constexpr,
    Q,
    TILE: tl.constexpr,
):
    """Return words of four channels at each fourth position of a chunk, and keep those of the open chunk."""
    q = 4 * tl.arange(0, TILE // 4) + first
    position, stop = n * Q + q, fill + length
    inside = (q < Q) & (position < stop)
    known = (word < words)[None, :]
    old, new = (inside & (position < fill))[:, None] & known, (inside & (position >= fill))[:, None] & known
    slot = ((row * Q + q) * heads + head)[:, None] * words + word[None, :]
    time = row * length + (position - fill)
    x = tl.load(open_pointer + slot, mask=old, other=0)
    x += tl.load(x_pointer + (time * heads + head)[:, None] * words + word[None, :], mask=new, other=0)
    tl.store(rest_pointer + slot, x, mask=(q < tl.where(n == stop // Q, Q, 0))[:, None] & known)
    return x


@triton.jit
def bytes_together(w0, w1, w2, w3, shift: tl.constexpr):
    """Return the words of one byte of each of four words."""
    low = ((w0 >> shift) & 255) | (((w1 >> shift) & 255) << 8)
    return low | (((w2 >> shift) & 255) << 16) | ((w3 >> shift) << 24)


@triton.jit(do_not_specialize=[*SIZES, *POSITIONS])
def grid_kernel(
    mixed_pointer,
    inputs_pointer,
    turned_pointer,
    queries_pointer,
    factors_pointer,
    rest_x_pointer,
    rest_b_pointer,
    rest_pointer,
    x_pointer,
    b_pointer,
    c_pointer,
    open_x_pointer,
    open_b_pointer,
    fill_pointer,
    length,
    heads,
    words,
    states,
    chunks,
    Q,
    TILE: tl.constexpr,
    GROUP: tl.constexpr,
    WORDS: tl.constexpr,
    STATES: tl.constexpr,
):
    """Lay a chunk out and compute its factors inside for a few heads."""
    program = tl.program_id(0)
    groups = tl.maximum(tl.cdiv(heads, GROUP), 1)
    group, n, row = program % groups, program // groups % chunks, (program // groups // chunks).to(tl.int64)
    fill = tl.load(fill_pointer + row)
    stop = fill + length
    if n * Q <= stop:
        q, s = tl.arange(0, TILE), tl.arange(0, STATES)
        position = n * Q + q
        inside = (q < Q) & (position < stop)
        old, new = inside & (position < fill), inside & (position >= fill)
        left = q < tl.where(n == stop // Q, Q, 0)
        time, slot = row * length + (position - fill), row * Q + q
        known = (s < states)[None, :]
        place = time[:, None] * states + s[None, :]
        opened = slot[:, None] * states + s[None, :]
        keys = tl.load(open_b_pointer + opened, mask=old[:, None] & known, other=0)
        keys += tl.load(b_pointer + place, mask=new[:, None] & known, other=0)
        queries = tl.load(c_pointer + place, mask=new[:, None] & known, other=0)
        tile = (row * chunks + n) * TILE * STATES
        if group == 0:
            tl.store(queries_pointer + tile + q[:, None] * STATES + state_order(s, STATES)[None, :], queries)
            tl.store(turned_pointer + tile + s[:, None] * TILE + q[None, :], tl.trans(keys))
            tl.store(rest_b_pointer + opened, keys, mask=left[:, None] & known)
            if n == 0:
                tl.store(rest_pointer + row, stop % Q)
        scores = tl.dot(queries, tl.trans(keys), out_dtype=tl.int32)
        scores = tl.where(q[:, None] >= q[None, :], scores, 0)
        for head in range(group * GROUP, tl.minimum(group * GROUP + GROUP, heads)):
            at = (row * heads + head) * chunks + n
            factors = factors_pointer + at * (ROWS * TILE) + q
            whole, column = tl.load(factors + 4 * TILE), tl.load(factors + 5 * TILE)
            gain, power_of_fraction = tl.load(factors + 6 * TILE), tl.load(factors + 7 * TILE)
            e, mixed = mix(scores, whole, column, gain)
            tl.store(mixed_pointer + at * (TILE * TILE) + q[:, None] * TILE + q[None, :], mixed)
            tl.store(factors, round_by(power_of_fraction, -e + LARGEST_ROW_EXPONENT))
            turned = inputs_pointer + at * (words * TILE)
            for block in range(0, tl.cdiv(words, WORDS)):
                word = block * WORDS + tl.arange(0, WORDS)
                arrays = x_pointer, open_x_pointer, rest_x_pointer, word, words
                chunk = row, n, head, heads, length, fill
                w0 = words_on_grid(*arrays, *chunk, 0, Q, TILE)
                w1 = words_on_grid(*arrays, *chunk, 1, Q, TILE)
                w2 = words_on_grid(*arrays, *chunk, 2, Q, TILE)
                w3 = words_on_grid(*arrays, *chunk, 3, Q, TILE)
                columns = (4 * word)[None, :] * (TILE // 4) + tl.arange(0, TILE // 4)[:, None]
                for i in tl.static_range(4):
                    channel = bytes_together(w0, w1, w2, w3, 8 * i)
                    tl.store(turned + columns + i * (TILE // 4), channel, mask=(word < words)[None, :])
