"""Torch versions of ``spec.ops.ssd_chunk_backward``: as in the forward op, many chunks at once are rows of a batch.

Loops move the state forwards, which is kept at each boundary, and its gradient back. Matrix products are of bytes, or
of limbs that are, as in the forward op.
"""

import torch

from mamba_integer.spec import ops
from mamba_integer.spec.contract import implements
from mamba_integer.spec.ops import ssd_chunk as definition
from mamba_integer.spec.ops.ssd_chunk import DECAY_BITS, FRACTION_BITS, LARGEST_TWO_LIMBS, ONE, POWER_BITS, STATE_BITS
from mamba_integer.spec.ops.ssd_chunk_backward import ENERGY_BITS, GATED_BITS, LN2, gradient_bits

from . import integers
from .scan_backward import put
from .ssd_chunk import (
    as_positions,
    as_rows,
    boundary,
    by_chunk,
    decayed,
    exponent_sums,
    groups,
    power,
    product,
    product_of_limbs,
    row_exponent,
)


def rescale(x, s):
    """Return x / 2**s, rounded, for a tensor s of either sign."""
    return integers.shift_round(x << (-s).clamp(min=0), s.clamp(min=0))


def wide_product(a, b):
    """Return the exact product of matrices of 16 bits."""
    high = (b + 128) >> 8
    return (product_of_limbs(a, high) << 8) + product_of_limbs(a, b - (high << 8))


def limbs(values):
    """Return the exponents of heads (B, H) and their values as numbers of two limbs."""
    largest = values.abs().flatten(2).amax(-1) if values.numel() else values.new_zeros(values.shape[:2])
    e = (integers.bit_length(largest) - 15).clamp(min=0)
    e = e + (integers.shift_round(largest, e) > LARGEST_TWO_LIMBS).long()
    return e, integers.shift_round(values, e[..., None, None])


def mix(scores, weight, lag):
    mixed = ((scores * weight[..., None, :]) >> lag).tril()
    e = row_exponent(mixed.abs().amax(-1))
    return e, integers.shift_round(mixed, e[..., None])


def before(steps):
    return steps.cumsum(-1) - steps


def boundary_backward(dy, d, c, whole, s_g):
    """Return the share of the state's gradient that a chunk keeps, in Q.15, and what the chunk adds to it."""
    sums = exponent_sums(d)
    kept = power(sums[..., -1], DECAY_BITS) if whole else torch.full_like(sums[..., -1], 1 << DECAY_BITS)
    w, errors = limbs(dy * power(sums, DECAY_BITS)[..., None])
    added = product_of_limbs(errors.mT, c[:, None])
    return kept[..., None, None], rescale(added, s_g - w[..., None, None])


def chunk_backward(dy, x, d, b, c, skip, h, lam, kept, whole, s_h, s_g):
    """Return the sums of dx, dd, db and dc of a chunk, all int64.

    dy and x are (B, H, n, P), d (B, H, n), b and c (B, n, S), h and lam (B, H, P, S); ``kept`` is of
    `boundary_backward`.
    """
    b, c, states = b[:, None], c[:, None], b.shape[-1]
    t, u, g = definition.weight_bits(states), definition.sum_bits(states), gradient_bits(states)
    sums = exponent_sums(d)
    exponent, fraction = sums >> FRACTION_BITS, sums & (ONE - 1)
    gain = power(ONE - fraction, POWER_BITS) - power(ONE - fraction + d, POWER_BITS)
    length = integers.bit_length(gain)
    weight = integers.shift_round(gain, (length - t).clamp(min=0))
    lag = (exponent[..., :, None] - exponent[..., None, :] + POWER_BITS - length[..., None, :]).clamp(0, 31)
    down = power(fraction, DECAY_BITS)
    before_factor = power(sums, definition.carried_bits(states, s_h))
    seen = integers.shift_round(h, s_h).clamp(-LARGEST_TWO_LIMBS, LARGEST_TWO_LIMBS)

    e, mixed = mix(product(c, b.mT), weight, lag)
    r, errors = limbs(dy * (down << e)[..., None])
    r = r[..., None]
    inside, through = product(mixed, x), product_of_limbs(errors.mT, mixed).mT
    leaving, arriving = (through * x).sum(-1), (inside * errors).sum(-1)
    e, slopes = mix(product_of_limbs(dy, x.mT), weight, lag)
    factor = down << e
    q = (integers.bit_length(factor.amax(-1)) - 8).clamp(min=0)[..., None]
    queries = integers.shift_round(c * factor[..., None], q[..., None])
    dc = rescale(product(slopes, b) * down[..., None], (17 - e)[..., None])
    db = rescale(product_of_limbs(queries.mT, slopes).mT, (17 - q)[..., None])

    dc = dc + integers.shift_round(wide_product(dy, seen) * before_factor[..., None], u - g)
    carried = integers.shift_round((dy * product_of_limbs(seen, c.mT).mT).sum(-1), DECAY_BITS)
    carried = integers.shift_round(carried * before_factor, u - DECAY_BITS + ENERGY_BITS)

    left = sums[..., -1:] - sums
    weights = (power(left, DECAY_BITS) - power(left + d, DECAY_BITS)) * whole
    k, slope = limbs(lam)
    k = k[..., None] + s_g
    into = product_of_limbs(slope, b.mT).mT * weights[..., None]
    stored = rescale((into * x).sum(-1), 2 * DECAY_BITS + ENERGY_BITS - k)
    past = integers.shift_round((slope * seen).sum((-1, -2)), DECAY_BITS) * kept[..., 0, 0] * whole
    past = rescale(past[..., None], STATE_BITS + DECAY_BITS + ENERGY_BITS - s_h - k)

    inner = t + 14 + ENERGY_BITS - r
    crossing = rescale(before(leaving - arriving), inner) + before(stored - carried)
    crossing = crossing + past + carried.sum(-1, keepdim=True)
    gate = power(d, POWER_BITS)
    ratio = torch.where(d > 0, (gate << DECAY_BITS) // ((1 << POWER_BITS) - gate).clamp(min=1), 0)
    gated = integers.saturate(rescale(leaving, inner) + stored, GATED_BITS)
    dd = integers.shift_round(gated * ratio, DECAY_BITS) - crossing

    dx = rescale(through, (17 - r)[..., None]) + rescale(into, (2 * DECAY_BITS - g - k)[..., None])
    dx = dx + ((dy * skip[:, None, None]) << g)
    db = db + rescale(product_of_limbs(slope.mT, x.mT).mT * weights[..., None], (2 * DECAY_BITS - g - k)[..., None])
    return dx.transpose(1, 2), dd.mT, db.sum(1), dc.sum(1)


@implements(ops.ssd_chunk_scan_backward)
def ssd_chunk_scan_backward(dy, x, d, b, c, skip, h, dh, *, q, s_h, s_g, s_x, s_d, s_b, s_c):
    length, chunk, skip = x.shape[1], 1 << q, skip.long()
    sequences = [a.long() for a in (dy, x, d, b, c)]
    end = length - length % chunk

    def inside(at, size):
        errors, values, exponents, keys, queries = (as_rows(a, at, size) for a in sequences)
        grid = len(x), (at.stop - at.start) // size
        return grid, errors.transpose(1, 2), values.transpose(1, 2), exponents.mT, keys, queries

    pieces, states = [(at, chunk) for at in groups(end, chunk, h)], [h.long()]
    for at, size in pieces:
        grid, _, values, exponents, keys, _ = inside(at, size)
        for kept, added in by_chunk(grid, *boundary(values, exponents, keys)):
            states.append(decayed(states[-1], kept) + added)
    if end < length:
        pieces.append((slice(end, length), length - end))
    gradients, lam = [torch.zeros(a.shape, dtype=torch.int64, device=a.device) for a in sequences[1:]], dh.long()
    for at, size in reversed(pieces):
        grid, errors, values, exponents, keys, queries = inside(at, size)
        whole, lams = size == chunk, []
        shares, additions = boundary_backward(errors, exponents, queries, whole, s_g)
        for kept, added in reversed(by_chunk(grid, shares, additions)):
            lams.append(lam)
            lam = integers.saturate(decayed(lam, kept) + added, 32)
        known = states[at.start // chunk :][: len(lams)], lams[::-1]
        before, after = (torch.stack(some, 1).flatten(0, 1) for some in known)
        parts = chunk_backward(errors, values, exponents, keys, queries, skip, before, after, shares, whole, s_h, s_g)
        for gradient, part in zip(gradients, parts, strict=True):
            gradient[:, at] = as_positions(part, grid)
    dx, dd, db, dc = gradients
    dd = integers.shift_round(put(dd, s_d).long() * LN2, DECAY_BITS).int()
    dskip = (sequences[0] * sequences[1]).sum((0, 1, 3))
    return put(dx, s_x), dd, put(db, s_b), put(dc, s_c), dskip, lam.int()


__all__ = ["ssd_chunk_scan_backward"]
