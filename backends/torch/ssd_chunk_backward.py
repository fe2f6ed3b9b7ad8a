"""Torch versions of ``spec.ops.ssd_chunk_backward``: a loop over chunks from the last to the first, all rows and heads.

Only the states at boundaries are kept. Matrix products are of bytes, or of limbs that are, as in the forward op.
"""

import torch

from mamba_integer.spec import ops
from mamba_integer.spec.contract import implements
from mamba_integer.spec.ops import ssd_chunk as definition
from mamba_integer.spec.ops.ssd_chunk import DECAY_BITS, FRACTION_BITS, LARGEST_TWO_LIMBS, ONE, POWER_BITS, STATE_BITS
from mamba_integer.spec.ops.ssd_chunk_backward import ENERGY_BITS, GATED_BITS, LN2, gradient_bits

from . import integers
from .scan_backward import put
from .ssd_chunk import exponent_sums, next_boundary, power, product, product_of_limbs, row_exponent


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


def chunk_backward(dy, x, d, b, c, skip, h, lam, whole, s_h, s_g):
    """Return the sums of dx, dd, db and dc of a chunk and the gradient of the state at its start, all int64.

    dy and x are (B, H, n, P), d (B, H, n), b and c (B, n, S), h and lam (B, H, P, S).
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
    w, errors = limbs(dy * power(sums, DECAY_BITS)[..., None])
    added = product_of_limbs(errors.mT, c)

    left = sums[..., -1:] - sums
    kept = power(sums[..., -1], DECAY_BITS) if whole else torch.full_like(sums[..., -1], 1 << DECAY_BITS)
    weights = (power(left, DECAY_BITS) - power(left + d, DECAY_BITS)) * whole
    k, slope = limbs(lam)
    k = k[..., None] + s_g
    into = product_of_limbs(slope, b.mT).mT * weights[..., None]
    stored = rescale((into * x).sum(-1), 2 * DECAY_BITS + ENERGY_BITS - k)
    past = integers.shift_round((slope * seen).sum((-1, -2)), DECAY_BITS) * kept * whole
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
    lam = integers.shift_round(lam * kept[..., None, None], DECAY_BITS) + rescale(added, s_g - w[..., None, None])
    return dx, dd, db.sum(1), dc.sum(1), integers.saturate(lam, 32)


@implements(ops.ssd_chunk_scan_backward)
def ssd_chunk_scan_backward(dy, x, d, b, c, skip, h, dh, *, q, s_h, s_g, s_x, s_d, s_b, s_c):
    length, chunk = x.shape[1], 1 << q
    across = dy.long().transpose(1, 2), x.long().transpose(1, 2), d.long().mT, b.long(), c.long()
    skip, states, lam = skip.long(), [h.long()], dh.long()
    pieces = [slice(start, min(start + chunk, length)) for start in range(0, length, chunk)]

    def inside(at):
        errors, values, exponents, keys, queries = across
        return errors[:, :, at], values[:, :, at], exponents[:, :, at], keys[:, at], queries[:, at]

    for at in pieces[: length // chunk]:
        _, values, exponents, keys, _ = inside(at)
        states.append(next_boundary(values, exponents, keys, states[-1]))
    dx, dd = (torch.zeros(a.shape, dtype=torch.int64, device=x.device) for a in across[1:3])
    db, dc = torch.zeros_like(across[3]), torch.zeros_like(across[4])
    for number in reversed(range(len(pieces))):
        at = pieces[number]
        whole, (errors, values, exponents, keys, queries) = at.stop - at.start == chunk, inside(at)
        known = states[number], lam, whole, s_h, s_g
        parts = chunk_backward(errors, values, exponents, keys, queries, skip, *known)
        dx[:, :, at], dd[:, :, at], db[:, at], dc[:, at], lam = parts
    dd = integers.shift_round(put(dd.mT, s_d).long() * LN2, DECAY_BITS).int()
    dskip = (across[0] * across[1]).sum((0, 2, 3))
    return put(dx.transpose(1, 2), s_x), dd, put(db, s_b), put(dc, s_c), dskip, lam.int()


__all__ = ["ssd_chunk_scan_backward"]
