"""Torch versions of ``spec.ops.ssd_chunk``: all rows, heads and many chunks at once; a loop moves the state alone.

Rows have fills of their own, so positions are first laid out on the grid, without asking the device what the fills are:
a row then has as many chunks as the fullest open chunk would need. Chunks that are computed at once are rows too.

Matrix products are of integers of 8 bits, in float32: exact even where a device rounds operands to 8 bits, for no sum
reaches 2**24.
"""

import torch

from mamba_integer.spec import ops
from mamba_integer.spec.contract import implements
from mamba_integer.spec.ops.ssd_chunk import (
    DECAY_BITS,
    FRACTION_BITS,
    LARGEST_EXPONENT,
    LARGEST_ROW_EXPONENT,
    LARGEST_TWO_LIMBS,
    ONE,
    POWER,
    POWER_BITS,
    carried_bits,
    sum_bits,
    weight_bits,
)

from . import integers

AT_ONCE = 1 << 22  # the most elements of an array of several chunks


def product(a, b):
    """Return the exact product of matrices of bytes."""
    return (a.float() @ b.float()).long()


def product_of_limbs(wide, b):
    """Return the exact product of a matrix of two signed limbs with one of bytes."""
    high = (wide + 128) >> 8
    return (product(high, b) << 8) + product(wide - (high << 8), b)


def power(z, bits):
    f = z & (ONE - 1)
    p = torch.full_like(f, POWER[-1])
    for coefficient in reversed(POWER[:-1]):
        p = coefficient + ((p * f) >> FRACTION_BITS)
    return integers.shift_round(p, POWER_BITS - bits + (z >> FRACTION_BITS).clamp(max=32))


def exponent_sums(d):
    """Return the running sums of exponents in chunks, (..., Q); one that forgets restarts the fraction at 0."""
    sums = d.cumsum(-1)
    order = torch.arange(1, d.shape[-1] + 1, device=d.device) << FRACTION_BITS
    forgot = torch.where(d == LARGEST_EXPONENT, order + (sums & (ONE - 1)), 0)
    return sums - (forgot.cummax(-1).values & (ONE - 1))


def row_exponent(largest):
    e = (integers.bit_length(largest) - 7).clamp(min=1)
    return e + (integers.shift_round(largest, e) > 127).long()


def chunk_outputs(x, d, b, c, skip, h, s_h, s_y):
    """Return y of all positions of a chunk: x (B, H, Q, P), d (B, H, Q), b and c (B, Q, S), h (B, H, P, S); int64."""
    states = b.shape[-1]
    sums = exponent_sums(d)
    whole, fraction = sums >> FRACTION_BITS, sums & (ONE - 1)
    gain = power(ONE - fraction, POWER_BITS) - power(ONE - fraction + d, POWER_BITS)
    length = integers.bit_length(gain)
    weight = integers.shift_round(gain, (length - weight_bits(states)).clamp(min=0))
    scores = product(c, b.mT)[:, None]
    lag = (whole[..., :, None] - whole[..., None, :] + POWER_BITS - length[..., None, :]).clamp(0, 31)
    mixed = ((scores * weight[..., None, :]) >> lag).tril()
    e = row_exponent(mixed.abs().amax(-1))
    inside = product(integers.shift_round(mixed, e[..., None]), x)
    inside_factor = integers.shift_round(power(fraction, POWER_BITS), LARGEST_ROW_EXPONENT - e)
    seen = integers.shift_round(h, s_h).clamp(-LARGEST_TWO_LIMBS, LARGEST_TWO_LIMBS)
    before = product_of_limbs(seen, c[:, None].mT).mT
    before_factor = power(sums, carried_bits(states, s_h))
    u = sum_bits(states)
    total = inside * inside_factor[..., None] + before * before_factor[..., None]
    total = total + ((x * skip[:, None, None]) << u)
    return integers.saturate(integers.shift_round(total, u + s_y), 16)


def boundary(x, d, b):
    """Return the share of the state that a chunk keeps, in Q.15, and what the chunk adds to it."""
    sums = exponent_sums(d)
    left = sums[..., -1:] - sums
    weight = power(left, DECAY_BITS) - power(left + d, DECAY_BITS)
    r = (integers.bit_length(weight.amax(-1)) - 8).clamp(min=0)[..., None, None]
    weighed = integers.shift_round(x * weight[..., None], r)
    return power(sums[..., -1], DECAY_BITS)[..., None, None], product_of_limbs(weighed.mT, b[:, None]) << (r + 2)


def decayed(state, kept):
    return integers.shift_round(state * kept, DECAY_BITS)


def groups(size, chunk, state):
    """Return slices of whole chunks of ``size`` positions that are computed at once; state is (B, H, P, S)."""
    batch, heads, width, states = state.shape
    elements = batch * heads * max(chunk, width) * max(chunk, states)
    step = chunk * max(1, AT_ONCE // max(1, elements))
    return [slice(start, min(start + step, size)) for start in range(0, size, step)]


def as_rows(sequence, at, chunk):
    """Return positions (B, ...) of a sequence as C chunks that are rows, (B C, Q, ...)."""
    return sequence[:, at].unflatten(1, ((at.stop - at.start) // chunk, chunk)).flatten(0, 1)


def as_positions(rows, grid):
    """Return chunks that are rows, (B C, Q, ...), as positions (B, C Q, ...); ``grid`` is B and C."""
    return rows.unflatten(0, grid).flatten(1, 2)


def by_chunk(grid, *arrays):
    """Return what chunks that are rows have, each of (B C, ...): of one chunk after the other, each of (B, ...)."""
    return list(zip(*(rows.unflatten(0, grid).unbind(1) for rows in arrays), strict=True))


def places(fill, length):
    """Return the indices of a call's positions on the grid."""
    return torch.arange(len(fill), device=fill.device)[:, None], fill[:, None] + torch.arange(
        length, device=fill.device
    )


def on_grid(before, after, fill, size):
    """Return (B, size, ...) int64: each row the first ``fill`` of ``before``, then ``after``, then zeros."""
    grid = torch.zeros((len(after), size, *after.shape[2:]), dtype=torch.int64, device=after.device)
    chunk = before.shape[1]
    open_ = (torch.arange(chunk, device=fill.device) < fill[:, None]).reshape(-1, chunk, *[1] * (before.ndim - 2))
    grid[:, :chunk] = torch.where(open_, before, 0)
    grid[places(fill, after.shape[1])] = after.long()
    return grid


def open_chunk(grid, like, start, rest):
    """Return the open chunk that a call leaves: ``rest`` positions of each row from ``start`` on, then zeros."""
    chunk = like.shape[1]
    rows, place = places(start, chunk)
    kept = (torch.arange(chunk, device=rest.device) < rest[:, None]).reshape(-1, chunk, *[1] * (like.ndim - 2))
    return torch.where(kept, grid[rows, place.clamp(max=grid.shape[1] - 1)], 0).to(like.dtype)


@implements(ops.ssd_chunk_scan)
def ssd_chunk_scan(x, d, b, c, skip, h, open_x, open_d, open_b, fill, *, s_h, s_y):
    length, chunk = x.shape[1], open_x.shape[1]
    size = -(-(length + chunk - 1) // chunk) * chunk
    pairs = (open_x, x), (open_d, d), (open_b, b), (torch.zeros_like(open_b), c)
    x_grid, d_grid, b_grid, c_grid = (on_grid(before, after, fill, size) for before, after in pairs)
    stop, pieces, state, skip = fill + length, [], h.long(), skip.long()
    for at in groups(size, chunk, h):
        values, keys, queries = (as_rows(a, at, chunk) for a in (x_grid, b_grid, c_grid))
        inside, states = (values.transpose(1, 2), as_rows(d_grid, at, chunk).mT, keys), []
        grid = len(x), (at.stop - at.start) // chunk
        for number, (kept, added) in enumerate(by_chunk(grid, *boundary(*inside)), 1):
            states.append(state)
            passed = (stop >= at.start + number * chunk)[:, None, None, None]
            state = torch.where(passed, decayed(state, kept) + added, state)
        outputs = chunk_outputs(*inside, queries, skip, torch.stack(states, 1).flatten(0, 1), s_h, s_y)
        pieces.append(as_positions(outputs.transpose(1, 2).to(torch.int16), grid))
    rest = stop % chunk
    y = torch.cat(pieces, 1)[places(fill, length)]
    opened = (open_chunk(g, a, stop - rest, rest) for g, a in ((x_grid, open_x), (d_grid, open_d), (b_grid, open_b)))
    return y, state.int(), *opened, rest.int()


@implements(ops.ssd_chunk_scan_step)
def ssd_chunk_scan_step(x, d, b, c, skip, *state, s_h, s_y):
    sequence = (a[:, None] for a in (x, d, b, c))
    y, *after = ssd_chunk_scan.kernel(*sequence, skip, *state, s_h=s_h, s_y=s_y)
    return y[:, 0], *after


__all__ = ["ssd_chunk_scan", "ssd_chunk_scan_step"]
