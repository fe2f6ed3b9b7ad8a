"""The chunked scan's layout on its grid: what no state changes, computed with every processor busy.

One kernel computes the factors of each position and turns x, so that time is contiguous; another computes the int8
factors inside a chunk, and lays b and c out. Both keep the open chunk that is left. Sums over time and over states have
the order in which one thread of a tensor core holds its part, so that a thread writes neighbours at once.
"""

import triton
import triton.language as tl

from .overlap import end_after_kernel_in_front, start_next, wait_for_inputs
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
    time_order,
)

# Rows of a chunk's factors: inside, before, of inputs, of the whole chunk, and what those inside are made of.
FACTORS = 8
ROWS = tl.constexpr(FACTORS)


@triton.jit
def mixed_words(scores, whole, column, weight):
    """Return the row exponents and the factors of a chunk, in int32, of scores that are 0 above the diagonal."""
    mixed = (scores * weight[None, :]) >> lags(whole, column)
    e = row_exponent(tl.max(tl.abs(mixed), 1))
    half = (tl.zeros_like(e) + 1) << (e - 1)
    return e, (mixed + half[:, None]) >> e[:, None]


@triton.jit
def mix(scores, whole, column, weight):
    """Return the row exponents and the int8 factors of a chunk, of scores that are 0 above the diagonal."""
    e, mixed = mixed_words(scores, whole, column, weight)
    return e, mixed.to(tl.int8)


@triton.jit
def state_order(s, STATES: tl.constexpr):
    """Return where the walk has state s in a sum over states: those of one thread of a tensor core side by side."""
    if STATES >= 64:
        s = (((s // 16) % 4 * 8 + s % 8) * (STATES // 64) + s // 64) * 2 + s // 8 % 2
    return s


@triton.jit
def chunk_factors(
    program,
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
        tl.store(first[None, :] + (2 * TILE + time_order(q, TILE))[:, None], weights << (16 - r)[None, :], mask=known)
        tl.store(first + 3 * TILE, kept, mask=head < heads)
        tl.store(first + 3 * TILE + 1, r, mask=head < heads)
        tl.store(factors + 4 * TILE, whole, mask=known)
        tl.store(factors + 5 * TILE, column, mask=known)
        tl.store(factors + 6 * TILE, gain, mask=known)
        tl.store(factors + 7 * TILE, power_of_fraction, mask=known)


@triton.jit
def bytes_together(w0, w1, w2, w3, shift: tl.constexpr):
    """Return the words of one byte of each of four words."""
    low = ((w0 >> shift) & 255) | (((w1 >> shift) & 255) << 8)
    return low | (((w2 >> shift) & 255) << 16) | ((w3 >> shift) << 24)


@triton.jit
def words_on_grid(
    x_pointer, open_pointer, rest_pointer, row, n, q, column, columns, length, fill, Q, TILE: tl.constexpr
):
    """Return words of four channels at positions q of a chunk, and keep those of the open chunk."""
    position, stop = n * Q + q, fill + length
    inside = (q < Q) & (position < stop) & (column < columns)
    time, slot = row * length + (position - fill), (row * Q + q) * columns + column
    x = tl.load(x_pointer + time * columns + column, mask=inside & (position >= fill), other=0)
    if n * Q < fill:
        x += tl.load(open_pointer + slot, mask=inside & (position < fill), other=0)
    if n == stop // Q:
        tl.store(rest_pointer + slot, x, mask=(q < Q) & (column < columns))
    return x


@triton.jit
def turned_inputs(
    program,
    inputs_pointer,
    rest_x_pointer,
    x_pointer,
    open_x_pointer,
    fill_pointer,
    length,
    heads,
    words,
    chunks,
    Q,
    TILE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Turn a chunk of x of some words of channels, so that time is contiguous: four words at once, in registers."""
    columns = heads * words
    blocks = tl.cdiv(columns, BLOCK)
    block, n, row = program % blocks, program // blocks % chunks, (program // blocks // chunks).to(tl.int64)
    fill = tl.load(fill_pointer + row)
    if n * Q <= fill + length:
        # Lanes of a warp: eight words of times by four of channels, so that loads and stores are whole sectors.
        item = tl.arange(0, BLOCK * TILE // 4)
        times = item % 2 * 4 + item // 2 % 4 + item // 32 % (TILE // 32) * 8
        column = block * BLOCK + item // 8 % 4 + item // TILE * 4
        # The inverse of `time_order`: a word has positions q, q + 1, q + 8 and q + 9.
        q = times // (TILE // 16) * 2 + times % (TILE // 16) * 16
        arrays = x_pointer, open_x_pointer, rest_x_pointer, row, n
        sizes = column, columns, length, fill, Q
        w0 = words_on_grid(*arrays, q, *sizes, TILE)
        w1 = words_on_grid(*arrays, q + 1, *sizes, TILE)
        w2 = words_on_grid(*arrays, q + 8, *sizes, TILE)
        w3 = words_on_grid(*arrays, q + 9, *sizes, TILE)
        head, word = column // words, column % words
        tile = ((row * heads + head) * chunks + n) * (words * TILE)
        for i in tl.static_range(4):
            channel = bytes_together(w0, w1, w2, w3, 8 * i)
            tl.store(inputs_pointer + tile + (4 * word + i) * (TILE // 4) + times, channel, mask=column < columns)


@triton.jit(do_not_specialize=[*SIZES, "words", "weight_bits", "carried_bits", "factoring", *POSITIONS])
def positions_kernel(
    factors_pointer,
    rest_d_pointer,
    inputs_pointer,
    rest_x_pointer,
    d_pointer,
    open_d_pointer,
    x_pointer,
    open_x_pointer,
    fill_pointer,
    length,
    heads,
    words,
    chunks,
    Q,
    weight_bits,
    carried_bits,
    factoring,
    TILE: tl.constexpr,
    HEADS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Compute factors of a chunk, or turn x of one: neither needs the other, and the few factors fill no device."""
    start_next()
    program = tl.program_id(0)
    chunk = fill_pointer, length, heads
    of_factors = factors_pointer, rest_d_pointer, d_pointer, open_d_pointer
    of_inputs = inputs_pointer, rest_x_pointer, x_pointer, open_x_pointer
    if program < factoring:
        chunk_factors(program, *of_factors, *chunk, chunks, Q, weight_bits, carried_bits, TILE, HEADS)
    else:
        turned_inputs(program - factoring, *of_inputs, *chunk, words, chunks, Q, TILE, BLOCK)
        end_after_kernel_in_front()


@triton.jit
def in_time_order(tile, ROWS: tl.constexpr, TILE: tl.constexpr):
    """Return a tile (anything, time) in `time_order`."""
    parts = tl.reshape(tile, [ROWS, TILE // 8, 4, 2])
    return tl.reshape(tl.permute(parts, [0, 2, 1, 3]), [ROWS, TILE])


@triton.jit
def queries_in_order(queries, TILE: tl.constexpr, STATES: tl.constexpr):
    """Return a tile (time, state) in `state_order`."""
    if STATES >= 64:
        parts = tl.reshape(queries, [TILE, STATES // 64, 4, 2, 8])
        queries = tl.reshape(tl.permute(parts, [0, 2, 4, 1, 3]), [TILE, STATES])
    return queries


@triton.jit
def keys_and_queries(
    b_pointer, c_pointer, open_b_pointer, row, n, fill, length, states, Q, TILE: tl.constexpr, STATES: tl.constexpr
):
    """Return b and c of a chunk (time, state), on the chunk's grid."""
    q, s = tl.arange(0, TILE), tl.arange(0, STATES)
    position = n * Q + q
    inside = (q < Q) & (position < fill + length)
    new = (inside & (position >= fill))[:, None]
    known = (s < states)[None, :]
    place = (row * length + (position - fill))[:, None] * states + s[None, :]
    keys = tl.load(b_pointer + place, mask=new & known, other=0)
    queries = tl.load(c_pointer + place, mask=new & known, other=0)
    if n * Q < fill:
        opened = (row * Q + q)[:, None] * states + s[None, :]
        keys += tl.load(open_b_pointer + opened, mask=(inside & (position < fill))[:, None] & known, other=0)
    return keys, queries


@triton.jit
def lay_keys_and_queries_out(
    turned_pointer,
    queries_pointer,
    rest_b_pointer,
    rest_pointer,
    keys,
    queries,
    row,
    n,
    stop,
    chunks,
    states,
    Q,
    TILE: tl.constexpr,
    STATES: tl.constexpr,
):
    """Store b with time contiguous and c with states contiguous; keep the open chunk's b, and how full it is."""
    q, s = tl.arange(0, TILE), tl.arange(0, STATES)
    tile = (row * chunks + n) * TILE * STATES
    ordered = queries_in_order(queries, TILE, STATES)
    tl.store(queries_pointer + tile + q[:, None] * STATES + s[None, :], ordered)
    ordered = in_time_order(tl.trans(keys), STATES, TILE)
    tl.store(turned_pointer + tile + s[:, None] * TILE + q[None, :], ordered)
    if n == stop // Q:
        opened = (row * Q + q)[:, None] * states + s[None, :]
        tl.store(rest_b_pointer + opened, keys, mask=(q < Q)[:, None] & (s < states)[None, :])
    if n == 0:
        tl.store(rest_pointer + row, stop % Q)


@triton.jit
def mix_heads(
    mixed_pointer,
    factors_pointer,
    keys,
    queries,
    row,
    n,
    group,
    heads,
    chunks,
    TILE: tl.constexpr,
    GROUP: tl.constexpr,
    WAITS: tl.constexpr,
):
    """Compute a chunk's factors inside for a few heads."""
    q = tl.arange(0, TILE)
    scores = tl.dot(queries, tl.trans(keys), out_dtype=tl.int32)
    scores = tl.where(q[:, None] >= q[None, :], scores, 0)
    if WAITS:
        wait_for_inputs()  # for the factors of positions
    # Rows go where one store of a warp has them, eight at once.
    stored = q % (TILE // 2) // 8 * 16 + q // (TILE // 2) * 8 + q % 8
    for head in range(group * GROUP, tl.minimum(group * GROUP + GROUP, heads)):
        at = (row * heads + head) * chunks + n
        factors = factors_pointer + at * (ROWS * TILE) + q
        whole, column = tl.load(factors + 4 * TILE), tl.load(factors + 5 * TILE)
        gain, power_of_fraction = tl.load(factors + 6 * TILE), tl.load(factors + 7 * TILE)
        e, mixed = mix(scores, whole, column, gain)
        parts = tl.reshape(mixed, [TILE // 16, 2, 8, TILE // 8, 4, 2])
        mixed = tl.reshape(tl.permute(parts, [1, 0, 2, 4, 3, 5]), [TILE, TILE])
        tl.store(mixed_pointer + at * (TILE * TILE) + stored[:, None] * TILE + q[None, :], mixed)
        tl.store(factors, round_by(power_of_fraction, -e + LARGEST_ROW_EXPONENT))


@triton.jit(do_not_specialize=[*SIZES, *POSITIONS])
def grid_kernel(
    mixed_pointer,
    turned_pointer,
    queries_pointer,
    factors_pointer,
    rest_b_pointer,
    rest_pointer,
    b_pointer,
    c_pointer,
    open_b_pointer,
    fill_pointer,
    length,
    heads,
    states,
    chunks,
    Q,
    TILE: tl.constexpr,
    GROUP: tl.constexpr,
    STATES: tl.constexpr,
):
    """Lay b and c of a chunk out, and compute its factors inside for a few heads, or leave them with a group of 0."""
    start_next()
    program = tl.program_id(0)
    groups = tl.maximum(tl.cdiv(heads, GROUP), 1) if GROUP else 1
    group, n, row = program % groups, program // groups % chunks, (program // groups // chunks).to(tl.int64)
    fill = tl.load(fill_pointer + row)
    stop = fill + length
    if n * Q <= stop:
        inputs = b_pointer, c_pointer, open_b_pointer
        keys, queries = keys_and_queries(*inputs, row, n, fill, length, states, Q, TILE, STATES)
        if group == 0:
            laid_out = turned_pointer, queries_pointer, rest_b_pointer, rest_pointer
            lay_keys_and_queries_out(*laid_out, keys, queries, row, n, stop, chunks, states, Q, TILE, STATES)
        if GROUP:
            mix_heads(mixed_pointer, factors_pointer, keys, queries, row, n, group, heads, chunks, TILE, GROUP, True)
