"""Backward of the chunked scan: the same chunks from the last to the first, their products transposed.

A chunk's factors are computed again as the forward op has them, and only the states at boundaries are kept. Each matrix
product has one operand of 8 bits and one of 8 or of two limbs, whose exponent is found where it is cut; sums are exact.
"""

from types import SimpleNamespace

import numpy as np

from .. import integers
from ..arrays import Int8Array, Int16Array, Int32Array, Int64Array
from ..bounds import Interval, Width
from ..contract import Parameter, Tensor, op
from . import ssd_chunk
from .scan_backward import gradient, put, shift, with_half
from .ssd_chunk import (
    BYTE,
    DECAY_BITS,
    FRACTION_BITS,
    LARGEST_TWO_LIMBS,
    ONE,
    POWER_BITS,
    exponent_sums,
    power,
    row_exponent,
    sum_bits,
    weight_bits,
)

ERROR, WORD = Interval.signed(16), Interval.signed(32)
LN2 = 22713  # of 2**15
ENERGY_BITS, GATED_BITS = 12, 35


def gradient_bits(states: int) -> int:
    """Return the fraction bits of the sums of dx, db and dc, in units of c b dy, x c dy and x b dy."""
    return sum_bits(states) - 8


def rescale(x, s):
    """Return x / 2**s, rounded, for an array s of either sign."""
    return integers.shift_round(x << np.maximum(-s, 0), np.maximum(s, 0))


def limb_exponent(largest):
    """Return the least e >= 0 with ``shift_round(largest, e)`` a number of two limbs."""
    e = np.maximum(integers.bit_length(largest) - 15, 0)
    return e + (integers.shift_round(largest, e) > LARGEST_TWO_LIMBS)


def largest_of(values):
    """Return the largest magnitude of each head: of all axes but the first."""
    return np.abs(values).reshape(len(values), -1).max(axis=1, initial=0)


def mix(scores, weight, lag):
    """Return the row exponents and the factors of a chunk, `ssd_chunk_scan.C4`: scores (1 or H, n, n)."""
    # ROUND
    mixed = np.tril((scores * weight[:, None, :]) >> lag)
    e = row_exponent(np.abs(mixed).max(axis=2))
    return e, integers.shift_round(mixed, e[:, :, None])


def before(steps):
    """Return the sums of what comes before each position: the last axis is time."""
    return np.cumsum(steps, axis=1) - steps


def chunk_backward(dy, x, d, b, c, skip, h, lam, whole, s_h, s_g):
    """Return the sums of dx, dd, db and dc of a chunk, and the gradient of the state at its start.

    Heads first: dy and x are (H, n, P), d (H, n), b and c (n, S), h and lam (H, P, S).
    """
    states = b.shape[1]
    t, u, g = weight_bits(states), sum_bits(states), gradient_bits(states)
    sums = exponent_sums(d.T).T
    exponent, fraction = sums >> FRACTION_BITS, sums & (ONE - 1)
    # ROUND
    gain = power(ONE - fraction, POWER_BITS) - power(ONE - fraction + d, POWER_BITS)
    length = integers.bit_length(gain)
    weight = integers.shift_round(gain, np.maximum(length - t, 0))
    lag = np.clip(exponent[:, :, None] - exponent[:, None, :] + POWER_BITS - length[:, None, :], 0, 31)
    down = power(fraction, DECAY_BITS)
    before_factor = power(sums, ssd_chunk.carried_bits(states, s_h))
    # SATURATE
    seen = np.clip(integers.shift_round(h, s_h), -LARGEST_TWO_LIMBS, LARGEST_TWO_LIMBS)

    # Inside the chunk: errors, aligned along time, through the forward factors and back.
    e, mixed = mix((c @ b.T)[None], weight, lag)
    errors = dy * (down << e)[:, :, None]
    r = limb_exponent(largest_of(errors))[:, None]
    errors = integers.shift_round(errors, r[:, :, None])
    # ACCUMULATE
    inside, through = mixed @ x, mixed.transpose(0, 2, 1) @ errors
    leaving, arriving = (through * x).sum(axis=2), (inside * errors).sum(axis=2)
    # The gradient of scores, cut as the scores are.
    e, slopes = mix(dy @ x.transpose(0, 2, 1), weight, lag)
    factor = down << e
    # ROUND
    q = np.maximum(integers.bit_length(factor.max(axis=1)) - 8, 0)[:, None]
    queries = integers.shift_round(c * factor[:, :, None], q[:, :, None])
    dc = rescale((slopes @ b) * down[:, :, None], (17 - e)[:, :, None])
    db = rescale(slopes.transpose(0, 2, 1) @ queries, (17 - q)[:, :, None])

    # From the state before the chunk.
    dc = dc + integers.shift_round((dy @ seen) * before_factor[:, :, None], u - g)
    carried = integers.shift_round((dy * (c @ seen.transpose(0, 2, 1))).sum(axis=2), DECAY_BITS)
    carried = integers.shift_round(carried * before_factor, u - DECAY_BITS + ENERGY_BITS)
    errors = dy * power(sums, DECAY_BITS)[:, :, None]
    w = limb_exponent(largest_of(errors))[:, None, None]
    added = integers.shift_round(errors, w).transpose(0, 2, 1) @ c

    # Through the state after the chunk, which only a whole chunk has.
    left = sums[:, -1:] - sums
    kept = power(sums[:, -1], DECAY_BITS) if whole else np.full(len(d), 1 << DECAY_BITS)
    weights = (power(left, DECAY_BITS) - power(left + d, DECAY_BITS)) * whole
    k = limb_exponent(largest_of(lam))
    slope = integers.shift_round(lam, k[:, None, None])
    k = k[:, None] + s_g
    into = slope @ b.T
    into = into.transpose(0, 2, 1) * weights[:, :, None]
    stored = rescale((into * x).sum(axis=2), 2 * DECAY_BITS + ENERGY_BITS - k)
    past = integers.shift_round((slope * seen).sum(axis=(1, 2)), DECAY_BITS) * kept * whole
    past = rescale(past[:, None], ssd_chunk.STATE_BITS + DECAY_BITS + ENERGY_BITS - s_h - k)

    # The decay of a position is crossed by all that left before it and hasn't arrived.
    inner = t + 14 + ENERGY_BITS - r
    crossing = rescale(before(leaving - arriving), inner) + before(stored - carried)
    crossing = crossing + past + carried.sum(axis=1, keepdims=True)
    gate = power(d, POWER_BITS)
    ratio = np.where(d > 0, (gate << DECAY_BITS) // np.maximum((1 << POWER_BITS) - gate, 1), 0)
    gated = integers.saturate(rescale(leaving, inner) + stored, GATED_BITS)
    dd = integers.shift_round(gated * ratio, DECAY_BITS) - crossing

    dx = rescale(through, (17 - r)[:, :, None]) + rescale(into, (2 * DECAY_BITS - g - k)[:, :, None])
    dx = dx + ((dy * skip[:, None, None]) << g)
    db = db + rescale((x @ slope) * weights[:, :, None], (2 * DECAY_BITS - g - k)[:, :, None])
    # SATURATE
    lam = integers.shift_round(lam * kept[:, None, None], DECAY_BITS) + rescale(added, s_g - w)
    return dx, dd, db, dc, integers.saturate(lam, 32)


def backward_widths(at):
    chunk, t, u, g = 1 << at.q, weight_bits(at.S), sum_bits(at.S), gradient_bits(at.S)
    limbs = Interval.symmetric(LARGEST_TWO_LIMBS)
    decay, before_factor = 1 << DECAY_BITS, 1 << ssd_chunk.carried_bits(at.S, at.s_h)
    seen = ssd_chunk.seen_range(chunk, at.s_h)
    # The exponents at most: of the forward factors, of the slopes, and of what is cut to two limbs.
    errors = ERROR * (decay << 24)
    r = errors.high.bit_length() - 14
    product = (ERROR * BYTE).sum(at.P) * (1 << t)
    e = max(1, product.high.bit_length() - 6)
    q = (decay << e).bit_length() - 8
    k = 17 + at.s_g
    through = (BYTE * limbs).sum(chunk)
    energy = (through * BYTE).sum(at.P)
    inner = energy.sum(2 * chunk) << max(0, r - t - 14 - ENERGY_BITS)
    into = (limbs * BYTE).sum(at.S) * decay
    stored = (into * BYTE).sum(at.P)
    carried = (ERROR * (BYTE * seen).sum(at.S)).sum(at.P)
    moved = carried.shift_round(DECAY_BITS) * before_factor
    past = (limbs * seen).sum(at.P * at.S).shift_round(DECAY_BITS) * decay
    shift_in, shift_past = 2 * DECAY_BITS - g - k, ssd_chunk.STATE_BITS + DECAY_BITS + ENERGY_BITS - at.s_h - k
    crossing = inner + stored.shift_round(2 * DECAY_BITS + ENERGY_BITS - k).sum(chunk)
    crossing = crossing + moved.shift_round(u - DECAY_BITS + ENERGY_BITS).sum(2 * chunk)
    crossing = crossing + (past << max(0, -shift_past))
    gate = ((1 << POWER_BITS) << DECAY_BITS) // ((1 << POWER_BITS) - int(power(np.int64(1), POWER_BITS)))
    gated = Interval.signed(GATED_BITS) * gate
    from_slopes = ((BYTE * BYTE).sum(chunk) * decay) << max(0, e - 17)
    from_queries = (BYTE * Interval.symmetric(127 * 256)).sum(chunk) << max(0, q - 17)
    from_state = ((BYTE * limbs).sum(at.P) * decay) << max(0, -shift_in)
    added = (BYTE * limbs).sum(chunk)
    sums = {
        "dx": ((through << max(0, r - 17)) + (into << max(0, -shift_in)) + ((ERROR * ERROR) << g), at.s_x),
        "dd": (gated.shift_round(DECAY_BITS) - crossing, at.s_d),
        "db": ((from_queries + from_state).sum(at.H), at.s_b),
        "dc": ((from_slopes + ((ERROR * seen).sum(at.P) * before_factor).shift_round(u - g)).sum(at.H), at.s_c),
    }
    lam = WORD * decay + ((added << 16) + (1 << (DECAY_BITS - 1)))
    wide = {
        "errors": errors.union(with_half(errors, r)),
        "slopes": product,
        "through": through,
        "energy": inner,
        "into": into,
        "stored": stored.union(with_half(stored, 2 * DECAY_BITS + ENERGY_BITS - at.s_g)),
        "carried": carried,
        "moved": moved,
        "past": past << max(0, -shift_past),
        "gated": gated,
        "added": added,
        "lam": lam,
    }
    forward = ssd_chunk.chunk_widths(SimpleNamespace(**vars(at), s_y=0))
    widths = {name: forward[name] for name in ("exponent", "gain", "weight", "decay", "weighed", "h")}
    widths |= {name: Width(interval, "int64", attained=False) for name, interval in wide.items()}
    for name, (total, s) in sums.items():
        widths[f"{name} sum"] = Width(with_half(total, s), "int64", attained=False)
        widths[name] = Width(total.shift_round(s).saturate(32), "int32", attained=False)
    widths["dskip"] = Width((ERROR * BYTE).sum(at.B * at.L * at.P), "int64")
    return widths


RULES = {
    "C1": "chunks, sums D, gains, weights, lags, row exponents e_i, seen and W are those of the forward op, the first"
    " position on the grid; each chunk is whole but for a shorter last one, whose W are 0 and whose E_0 is 2**15",
    "C2": "two limbs of v: v over 2**r, rounded, r the least >= 0 with which the largest magnitude is at most 32639",
    "C3": "errors are the two limbs, over all of a head's chunk, of dy_i times 2**(15 + e_i - f_i / 4096), a power in"
    " Q.15 shifted by e_i; inside_i is the sum over j of mixed_ij x_j, through_j the sum over i of mixed_ij errors_i",
    "C4": "slopes are mixed and have the exponents e_i of `ssd_chunk_scan.C4` with dy_i . x_j in the place of"
    " c_i . b_j; queries are c_i times 2**(15 + e_i - f_i / 4096) over 2**q, rounded, q = max(0, n - 8), n the bit"
    " length of the chunk's largest factor",
    "C5": "lam is dh after the last chunk, slope its two limbs over a head, 2**k their unit; into_j = W_j (slope b_j);"
    " before a chunk lam is saturate(floor(lam E_0 / 2**15 + 1/2) + a, 32), a the sum over i of c_i and the two limbs"
    " of dy_i 2**-D_i in Q.15, their unit 2**w, over 2**(s_g - w), rounded",
    "C6": "with g = u - 8, dx = put(through over 2**(17 - r) + into over 2**(30 - g - k - s_g) + dy skip 2**g, s_x),"
    " each rounded; put(a, s) = saturate(floor(a / 2**s + 1/2), 32)",
    "C7": "db = put(the sum over heads of slopes' transposed product with queries over 2**(17 - q), and of"
    " W_j (x_j . slope) over 2**(30 - g - k - s_g), each rounded, s_b)",
    "C8": "dc = put(the sum over heads of (slopes b) 2**(-f_i / 4096) in Q.15 over 2**(17 - e_i), and of"
    " (dy_i . seen) 2**-D_i in Q.(u + s_h - 17) over 2**8, each rounded, s_c)",
    "C9": "in units of 2**12 c b x dy: leaving_j = x_j . through_j and arriving_i = inside_i . errors_i, over"
    " 2**(t + 26 - r); stored_j = x_j . into_j over 2**(42 - k - s_g); carried_i = dy_i . (c_i . seen) over 2**15,"
    " times 2**-D_i in Q.(u + s_h - 17), over 2**(u - 3); past = slope . seen over 2**15, times E_0, over"
    " 2**(44 - s_h - k - s_g), 0 in the chunk that isn't whole; each rounded where it is shifted",
    "C10": "crossing_l is the sum over j < l of leaving - arriving, shifted as one, and of stored - carried, and past"
    " and all of carried; through the gate goes floor(saturate(leaving_l + stored_l, 35) a_l / 2**15 + 1/2), a_l ="
    " floor(2**15 p / (2**30 - p)), p = 2**-d_l in Q.30, and 0 where d is 0",
    "C11": "dd = floor(put(gate - crossing, s_d) 22713 / 2**15 + 1/2): 22713 / 2**15 is ln 2",
    "C12": "dskip is the exact sum of dy x over rows, positions and the channels of a head",
    "C13": "a sequence cut at boundaries, its pieces run from the last to the first, dh carried over, gives the same"
    " integers, dskip as a sum",
    "C14": "roundings and saturations have derivative one; a decay exponent of 0 passes no gradient through the gate",
}


def word(name: str, shape: str) -> Tensor:
    return Tensor(name, "int32", shape, meaning="gradient of the state")


@op(
    inputs=(
        Tensor("dy", "int16", "B L H P", meaning="gradient of y, any unit"),
        *ssd_chunk.sequence("L"),
        ssd_chunk.STATE[0],
        word("dh", "B H P S"),
    ),
    outputs=(
        gradient("dx", "int32", "B L H P", "x"),
        gradient("dd", "int32", "B L H", "d"),
        gradient("db", "int32", "B L S", "b"),
        gradient("dc", "int32", "B L S", "c"),
        gradient("dskip", "int64", "H", "skip"),
        word("dh", "B H P S"),
    ),
    parameters=(
        Parameter("q", 2, 8, "a chunk has 2**q positions", sets_grid=True),
        ssd_chunk.PARAMETERS[0],
        Parameter("s_g", 0, 15, "by how many bits the unit of dh is coarser than 2**-15 of c dy"),
        shift("s_x", "fraction bits that the sum loses in dx"),
        shift("s_d", "fraction bits that the sum loses in dd"),
        shift("s_b", "fraction bits that the sum loses in db"),
        shift("s_c", "fraction bits that the sum loses in dc"),
    ),
    sizes={"S": (1, 512), "P": (0, 512)},
    clauses=RULES,
    widths=backward_widths,
    backward_of="ssd_chunk_scan",
)
def ssd_chunk_scan_backward(
    dy: Int16Array,
    x: Int8Array,
    d: Int32Array | Int16Array,
    b: Int8Array,
    c: Int8Array,
    skip: Int16Array,
    h: Int32Array,
    dh: Int32Array,
    /,
    *,
    q: int,
    s_h: int,
    s_g: int,
    s_x: int,
    s_d: int,
    s_b: int,
    s_c: int,
) -> tuple[Int32Array, Int32Array, Int32Array, Int32Array, Int64Array, Int32Array]:
    """Compute the gradients of all inputs of `ssd_chunk_scan` for a sequence that starts on the grid.

    In exact numbers, with the decays ``a_ij = 2**(D_j - D_i) - 2**(D_(j-1) - D_i)`` of the forward op and lam the
    gradient of the state after a chunk, ``dx_j = sum over i >= j of (c_i . b_j) a_ij dy_i + W_j lam b_j + skip dy_j``,
    and so on by the chain rule; the gradient of a decay exponent is what its gate lets through, less what crosses its
    decay: all that left earlier positions, or the state before, and reaches later ones (C9, C10).

    Notes
    -----
    With s_y as in the forward op and g = `gradient_bits(S)`, a result r is 2**f times the derivative with respect to an
    input, taken as an integer, that dy implies, where f is ``s_y + g - s_x`` for dx and likewise for db and dc,
    ``s_y - s_d`` for dd, ``s_y`` for dskip, and ``s_y + 15 - s_g`` for dh, whose derivative is that with respect to
    ``h / 2**17``.

    Against automatic differentiation of the recurrence in floats each gradient has a cosine above 0.999 and 99 % of the
    signs, with errors of 8 and of 16 bits, for decay exponents of 1 to 6000 (of 4096); the mean error is below 0.4 % of
    a gradient's size.

    Examples
    --------
    >>> dy, x = np.array([[[[100]], [[0]]]], np.int16), np.array([[[[100]], [[50]]]], np.int8)
    >>> d, skip = np.full((1, 2, 1), 4096, np.int32), np.array([3], np.int16)
    >>> b, c = np.full((1, 2, 1), 64, np.int8), np.full((1, 2, 1), 32, np.int8)
    >>> h, dh = np.zeros((1, 1, 1, 1), np.int32), np.zeros((1, 1, 1, 1), np.int32)
    >>> dx, dd, db, dc, dskip, dh = ssd_chunk_scan_backward(
    ...     dy, x, d, b, c, skip, h, dh, q=2, s_h=16, s_g=0, s_x=9, s_d=0, s_b=9, s_c=9
    ... )
    >>> dx.ravel().tolist(), dd.ravel().tolist(), db.ravel().tolist(), dc.ravel().tolist()
    ([102700, 0], [1733, 0], [159744, 0], [319488, 0])
    >>> dskip.tolist(), dh.ravel().tolist()
    ([10000], [52428800])
    """
    batch, steps, heads, _ = x.shape
    chunk, skip = 1 << q, skip.astype(np.int64)
    dx, dd = np.zeros(x.shape, np.int64), np.zeros(d.shape, np.int64)
    db, dc, start = np.zeros(b.shape, np.int64), np.zeros(c.shape, np.int64), dh.copy()
    for row in range(batch if heads else 0):
        wide = [a[row].astype(np.int64) for a in (dy, x, d, b, c)]
        pieces = [slice(first, min(first + chunk, steps)) for first in range(0, steps, chunk)]
        states = [h[row].astype(np.int64)]
        for at in pieces[: steps // chunk]:
            states.append(ssd_chunk.next_boundary(wide[1][at], wide[2][at], wide[3][at], states[-1]))
        lam = dh[row].astype(np.int64)
        for at, state in reversed(list(zip(pieces, states, strict=False))):
            errors, inputs, exponents, keys, queries = (a[at] for a in wide)
            across = errors.swapaxes(0, 1), inputs.swapaxes(0, 1), exponents.T, keys, queries
            parts = chunk_backward(*across, skip, state, lam, at.stop - at.start == chunk, s_h, s_g)
            dx[row, at], dd[row, at] = parts[0].swapaxes(0, 1), parts[1].T
            # ACCUMULATE
            db[row, at], dc[row, at] = parts[2].sum(axis=0), parts[3].sum(axis=0)
            lam = parts[4]
        start[row] = lam
    dd = integers.shift_round(put(dd, s_d).astype(np.int64) * LN2, DECAY_BITS).astype(np.int32)
    dskip = (dy.astype(np.int64) * x).sum(axis=(0, 1, 3))
    return put(dx, s_x), dd, put(db, s_b), put(dc, s_c), dskip, start


__all__ = ["ssd_chunk_scan_backward"]
