"""The chunked form of the multi-head recurrence: rounded on a fixed grid of positions, exact between its boundaries.

Chunk n of a sequence is its positions n Q to n Q + Q - 1. Inside a chunk every sum over positions is exact, so the
chunk's work is matrix products of int8. Each rounding depends on a position's own chunk alone, so a sequence cut
anywhere gives the same integers.
"""

import numpy as np

from .. import integers
from ..arrays import Int8Array, Int16Array, Int32Array
from ..bounds import Interval, Width
from ..contract import Parameter, Tensor, op

FRACTION_BITS = 12  # of a decay exponent
ONE = 1 << FRACTION_BITS
LARGEST_EXPONENT = 31 << FRACTION_BITS
POWER_BITS, DECAY_BITS, STATE_BITS = 30, 15, 17
# 2**-f for 0 <= f < 1 in Q.30: the polynomial of degree 6 through seven Chebyshev points and f = 0.
POWER = (1 << POWER_BITS, -744261112, 257940802, -59591844, 10304738, -1386885, 123394)
SCORE_BITS, MOST_WEIGHT_BITS, LARGEST_ROW_EXPONENT = 30, 12, 24
LARGEST_TWO_LIMBS = 127 * 256 + 127
BYTE = Interval.signed(8)


def weight_bits(states: int) -> int:
    """Return the bits of a weight: as many, up to 12, as keep its product with a score below 2**30."""
    return min(MOST_WEIGHT_BITS, SCORE_BITS - (127 * 127 * states).bit_length())


def sum_bits(states: int) -> int:
    """Return the fraction bits of an output's sum, in units of c b x."""
    return weight_bits(states) + 5


def carried_bits(states: int, s_h: int) -> int:
    """Return the fraction bits of the factor of a state's output, which brings it to the unit of the sum."""
    return sum_bits(states) + s_h - STATE_BITS


# `state_limit` of 2**q positions, as the contract states it.
STATE_LIMIT = "4 * 127 * (127 * 256 + 2**q) * 2**7 + 2**14"


def state_limit(chunk: int) -> int:
    """Return a magnitude that no state exceeds, whatever the length of the sequence.

    The weights of a chunk, W_j >= 0, add up to ``V = 2**15 - E``, E the decay of the whole chunk. The rounding of
    x_j W_j to 2**r units adds 2**(r-1) at most; where r > 0 some weight is 2**(7+r) at least, so V is too, and all
    roundings of a chunk add ``Q 2**(r-1) <= Q V / 2**8`` at most. From ``|h| <= L`` the next state is then at most
    ``L E / 2**15 + 1/2 + 4 * 127 V (127 + Q/256)``, which is at most L for every V >= 1 just if
    ``L >= 2**15 (4 * 127 (127 + Q/256) + 1/2)``. With V = 0 the state stays as it is.
    """
    inputs = 4 * 127 * (127 * 256 + chunk)
    return (inputs << (DECAY_BITS - 8)) + (1 << (DECAY_BITS - 1))


def power(z, bits):
    """Return ``2**(-z / 4096)`` in Q.bits, for z >= 0: a polynomial of the fraction, one rounding, no table."""
    f = z & (ONE - 1)
    p = POWER[-1]
    for coefficient in reversed(POWER[:-1]):
        p = coefficient + ((p * f) >> FRACTION_BITS)
    return integers.shift_round(p, POWER_BITS - bits + np.minimum(z >> FRACTION_BITS, 32))


def exponent_sums(d):
    """Return the running sums D of a chunk's decay exponents, (n, H); the largest exponent zeroes the fraction."""
    sums, total = np.empty_like(d), np.zeros_like(d[0])
    for j in range(len(d)):
        # ACCUMULATE
        total = total + d[j]
        # ROUND
        total = np.where(d[j] == LARGEST_EXPONENT, total & -ONE, total)
        sums[j] = total
    return sums


def row_exponent(largest):
    """Return the least e >= 1 with ``shift_round(largest, e) <= 127``."""
    e = np.maximum(integers.bit_length(largest) - 7, 1)
    return e + (integers.shift_round(largest, e) > 127)


def chunk_outputs(x, d, b, c, skip, h, s_h, s_y):
    """Return y of a chunk's last len(c) positions: x (n, H, P), d (n, H), b (n, S), c (len(c), S), h (H, P, S)."""
    n, states = b.shape
    total_d = exponent_sums(d)
    exponent, fraction = total_d >> FRACTION_BITS, total_d & (ONE - 1)
    # ROUND
    gain = power(ONE - fraction, POWER_BITS) - power(ONE - fraction + d, POWER_BITS)
    length = integers.bit_length(gain)
    weight = integers.shift_round(gain, np.maximum(length - weight_bits(states), 0))
    # SATURATE
    limit = LARGEST_TWO_LIMBS
    seen = np.clip(integers.shift_round(h, s_h), -limit, limit)
    # ACCUMULATE
    scores = c @ b.T
    y = np.empty((len(c), *x.shape[1:]), np.int16)
    for row in range(len(c)):
        i = n - len(c) + row
        upto = slice(0, i + 1)
        # ROUND
        lag = np.minimum(exponent[i] - exponent[upto] + POWER_BITS - length[upto], 31)
        mixed = (scores[row, upto, None] * weight[upto]) >> lag
        e = row_exponent(np.abs(mixed).max(axis=0))
        mixed = integers.shift_round(mixed, e)
        inside_factor = integers.shift_round(power(fraction[i], POWER_BITS), LARGEST_ROW_EXPONENT - e)
        before_factor = power(total_d[i], carried_bits(states, s_h))
        # ACCUMULATE
        inside = (mixed[:, :, None] * x[upto]).sum(axis=0) * inside_factor[:, None]
        before = (seen @ c[row]) * before_factor[:, None]
        total = inside + before + ((x[i] * skip[:, None]) << sum_bits(states))
        # SATURATE
        y[row] = integers.saturate(integers.shift_round(total, sum_bits(states) + s_y), 16)
    return y


def next_boundary(x, d, b, h):
    """Return the state after a whole chunk: x (Q, H, P), d (Q, H), b (Q, S), h (H, P, S)."""
    total_d = exponent_sums(d)
    left = total_d[-1] - total_d
    # ROUND
    weight = power(left, DECAY_BITS) - power(left + d, DECAY_BITS)
    r = np.maximum(integers.bit_length(weight.max(axis=0)) - 8, 0)
    weighed = integers.shift_round(x * weight[:, :, None], r[:, None])
    kept = integers.shift_round(h * power(total_d[-1], DECAY_BITS)[:, None, None], DECAY_BITS)
    # ACCUMULATE
    added = np.einsum("qhp,qs->hps", weighed, b)
    return kept + (added << (r[:, None, None] + 2))


def state_range(at) -> Interval:
    return Interval.symmetric(state_limit(1 << at.q))


def seen_range(chunk: int, s_h: int) -> Interval:
    seen = Interval.symmetric(state_limit(chunk)).shift_round(s_h)
    return Interval(max(seen.low, -LARGEST_TWO_LIMBS), min(seen.high, LARGEST_TWO_LIMBS))


def sum_range(states: int, chunk: int, s_h: int, s_y: int) -> Interval:
    """Return the range of an output's sum with its half added."""
    inside = (BYTE * BYTE).sum(chunk) * Interval(0, 1 << POWER_BITS)
    before = (BYTE * seen_range(chunk, s_h)).sum(states) * Interval(0, 1 << carried_bits(states, s_h))
    past = (BYTE * Interval.signed(16)) << sum_bits(states)
    return inside + before + past + ((1 << (sum_bits(states) + s_y)) >> 1)


def rounded_sum(states: int, chunk: int, s_h: int, s_y: int) -> Interval:
    """Return the range of an output before it is saturated."""
    return sum_range(states, chunk, s_h, s_y) >> (sum_bits(states) + s_y)


def chunk_widths(at):
    chunk, t, h = 1 << at.q, weight_bits(at.S), state_range(at)
    exponent = Interval(0, chunk * LARGEST_EXPONENT)
    decay, weight = Interval(0, 1 << DECAY_BITS), Interval(0, 1 << t)
    score = (BYTE * BYTE).sum(at.S)
    product = score * weight
    seen, total = seen_range(chunk, at.s_h), sum_range(at.S, chunk, at.s_h, at.s_y)
    inside, before = (BYTE * BYTE).sum(chunk), (BYTE * seen).sum(at.S)
    inside_factor = Interval(0, 1 << POWER_BITS)
    before_factor = Interval(0, 1 << carried_bits(at.S, at.s_h))
    weighed = Interval.symmetric(127 * 256)
    return {
        "exponent": Width(exponent, "int32"),
        # Ends that would need weights of one size all along a chunk, or a weight that is rounded up to a power of two.
        "gain": Width(Interval(0, 1 << POWER_BITS), "int32", attained=False),
        "weight": Width(weight, "int32", attained=False),
        "score": Width(score, "int32"),
        "product": Width(product, "int32", attained=False),
        "mixed": Width(BYTE, "int8"),
        "inside": Width(inside, "int32", attained=False),
        "inside factor": Width(inside_factor, "int32", attained=False),
        "seen": Width(seen, "int16"),
        "before": Width(before, "int32"),
        "before factor": Width(before_factor, "int32"),
        "sum": Width(total, "int64", attained=False),
        "y": Width(rounded_sum(at.S, chunk, at.s_h, at.s_y).saturate(16), "int16", attained=False),
        "decay": Width(decay, "int32"),
        "weighed": Width(weighed, "int16", attained=False),
        "added": Width((weighed * BYTE).sum(chunk), "int32", attained=False),
        "h": Width(h, "int32"),
    }


PARAMETERS = (
    Parameter("s_h", 12, 16, "fraction bits of the state that the output leaves out"),
    Parameter("s_y", 0, 24, "by how many bits the unit of y is coarser than that of c b x"),
)
SIZES = {"S": (1, 512), "q": (2, 8)}


def exponents(name: str, dtype: str | tuple[str, ...], shape: str) -> Tensor:
    return Tensor(name, dtype, shape, 0, LARGEST_EXPONENT, "decay exponents, Q.12")


def sequence(time: str) -> tuple[Tensor, ...]:
    return (
        Tensor("x", "int8", f"B {time} H P", meaning="any Q format"),
        exponents("d", ("int32", "int16"), f"B {time} H"),
        Tensor("b", "int8", f"B {time} S", meaning="any Q format"),
        Tensor("c", "int8", f"B {time} S", meaning="any Q format"),
        Tensor("skip", "int16", "H", meaning="the format of c b"),
    )


STATE = (
    Tensor(
        "h", "int32", "B H P S", f"-({STATE_LIMIT})", STATE_LIMIT, "state at the last boundary, 17 bits finer than b x"
    ),
    Tensor("open_x", "int8", "B 2^q H P", meaning="x of the open chunk"),
    exponents("open_d", "int32", "B 2^q H"),
    Tensor("open_b", "int8", "B 2^q S", meaning="b of the open chunk"),
    Tensor("fill", "int32", "B", 0, "2**q - 1", "positions of the open chunk"),
)

RULES = {
    "C1": "a chunk is the positions n Q to n Q + Q - 1 of a row's sequence, Q = 2**q; the first `fill` of them are in"
    " the open chunk, those of the call follow; D_j = 4096 I_j + f_j is the exact sum of d from the chunk's start to j;"
    " where d is 31 * 4096, the sum is floored to a multiple of 4096, and goes on from there",
    "C2": "2**-z in Q.k, z in Q.12 with integer part Z and fraction f, is floor(p(f) / 2**(30 - k + min(Z, 32)) + 1/2),"
    " p the polynomial `POWER`, each product with f floored",
    "C3": "the gain of j is 2**-(4096 - f_j) - 2**-(4096 - f_j + d_j) in Q.30; n_j is its bit length; weight_j is the"
    " gain over 2**max(0, n_j - t), rounded, t = `weight_bits(S)`",
    "C4": "for j <= i, mixed is floor(c_i . b_j weight_j / 2**min(I_i - I_j + 30 - n_j, 31)), over 2**e_i, rounded;"
    " e_i is the least e >= 1 with which the largest magnitude of row i is rounded to at most 127",
    "C5": "seen = floor(h / 2**s_h + 1/2), clamped to two limbs, [-32639, 32639]",
    "C6": "y = saturate(floor(a / 2**(u + s_y) + 1/2), 16), u = t + 5, a the sum of (sum over j of mixed x_j) times"
    " floor(p(f_i) / 2**(24 - e_i) + 1/2), of (c . seen) times 2**-D_i in Q.(u + s_h - 17), and of skip x 2**u",
    "C7": "after a chunk's last position h becomes floor(h E_0 / 2**15 + 1/2) + 2**(r + 2) times the sum over j of b_j"
    " floor(x_j W_j / 2**r + 1/2); W_j = E_j - E_(j-1), E_j = 2**-(D_Q - D_j) in Q.15 and E_0 that of all of D_Q;"
    " r = max(0, n - 8), n the bit length of the largest W_j",
    "C8": "the new open chunk holds the positions after the last boundary, and zeros at and beyond the new fill; what"
    " an open chunk holds at and beyond its fill is not read",
    "C9": "a position whose d is 31 * 4096, the largest, makes y and h from there on independent of what was before",
    "C10": "the domain of h holds every state that a sequence of any length reaches from 0",
}
WHOLE = {
    "C11": "a sequence cut anywhere, or run step by step, the state carried over, gives the same integers",
    "C12": "a state with a smaller fill is, with its h unchanged, the state of the shorter sequence",
}


@op(
    inputs=sequence("L") + STATE,
    outputs=(Tensor("y", "int16", "B L H P", meaning="outputs"), *STATE),
    parameters=PARAMETERS,
    sizes=SIZES,
    clauses=RULES | WHOLE,
    widths=chunk_widths,
)
def ssd_chunk_scan(
    x: Int8Array,
    d: Int32Array | Int16Array,
    b: Int8Array,
    c: Int8Array,
    skip: Int16Array,
    h: Int32Array,
    open_x: Int8Array,
    open_d: Int32Array,
    open_b: Int8Array,
    fill: Int32Array,
    /,
    *,
    s_h: int,
    s_y: int,
) -> tuple[Int16Array, Int32Array, Int8Array, Int32Array, Int8Array, Int32Array]:
    """Run the chunked Mamba-2 scan over a sequence; return its outputs and final state.

    In exact numbers, with ``D_i`` the sum of d in Q.12 from the chunk's start to position i, and h at its start,

    ``y_i = 2**-D_i (sum over j <= i of (c_i . b_j) (2**D_j - 2**D_(j-1)) x_j + c_i . h) + skip x_i``,

    which is the recurrence ``h = 2**-d h + (1 - 2**-d) x b``, ``y = c . h + skip x``, rounded as C2 to C7 say: the sum
    over j is a product of int8 matrices with an exponent per row, and h is rounded once per chunk.

    Notes
    -----
    The recurrence is that of Mamba-2 (Dao and Gu, 2024), with 1 less the decay as input gate; the chunked form is
    theirs. Rounding on a grid of positions makes it exact for every cut.

    The polynomial is within 10 units of 2**-30 of the power, and rounded to Q.15 it is the power correctly rounded, for
    all 4096 fractions. The weights W of a chunk are differences of one falling sequence: with the decay of the whole
    chunk they add up to 2**15 exactly, so a state is a weighted mean of its inputs but for the roundings of x W, and
    fits int32 for every length.

    Examples
    --------
    >>> x, d = np.array([[[[100]], [[0]]]], np.int8), np.full((1, 2, 1), 4096, np.int32)
    >>> b, c, skip = np.full((1, 2, 1), 64, np.int8), np.full((1, 2, 1), 64, np.int8), np.array([0], np.int16)
    >>> state = (
    ...     np.full((1, 1, 1, 1), 4000 << 17, np.int32),
    ...     np.zeros((1, 4, 1, 1), np.int8),
    ...     np.zeros((1, 4, 1), np.int32),
    ...     np.zeros((1, 4, 1), np.int8),
    ...     np.zeros(1, np.int32),
    ... )
    >>> y, h, open_x, open_d, open_b, fill = ssd_chunk_scan(x, d, b, c, skip, *state, s_h=16, s_y=4)
    >>> y.ravel().tolist(), h.ravel().tolist() == [4000 << 17], fill.tolist()
    ([20800, 10400], True, [2])
    >>> open_x.ravel().tolist(), open_d.ravel().tolist(), open_b.ravel().tolist()
    ([100, 0, 0, 0], [4096, 4096, 0, 0], [64, 64, 0, 0])
    """
    batch, length = x.shape[:2]
    chunk = open_x.shape[1]
    y, end = np.empty(x.shape, np.int16), h.copy()
    rest_x, rest_d, rest_b = np.zeros_like(open_x), np.zeros_like(open_d), np.zeros_like(open_b)
    for row in range(batch):
        filled = int(fill[row])
        positions = [
            np.concatenate([before[row, :filled], after[row]]).astype(np.int64)
            for before, after in ((open_x, x), (open_d, d), (open_b, b))
        ]
        state = h[row].astype(np.int64)
        for start in range(0, filled + length, chunk):
            stop = min(start + chunk, filled + length)
            inputs, exponents, keys = (array[start:stop] for array in positions)
            new = slice(max(start - filled, 0), stop - filled)
            queries, past = c[row, new].astype(np.int64), skip.astype(np.int64)
            y[row, new] = chunk_outputs(inputs, exponents, keys, queries, past, state, s_h, s_y)
            if stop - start == chunk:
                state = next_boundary(inputs, exponents, keys, state)
        left = (filled + length) % chunk
        rest_x[row, :left], rest_d[row, :left], rest_b[row, :left] = (a[filled + length - left :] for a in positions)
        end[row] = state
    return y, end, rest_x, rest_d, rest_b, ((fill + length) % chunk).astype(np.int32)


@op(
    inputs=sequence("") + STATE,
    outputs=(Tensor("y", "int16", "B H P", meaning="output"), *STATE),
    parameters=PARAMETERS,
    sizes=SIZES,
    clauses=RULES,
    widths=chunk_widths,
    step_of="ssd_chunk_scan",
)
def ssd_chunk_scan_step(
    x: Int8Array,
    d: Int32Array | Int16Array,
    b: Int8Array,
    c: Int8Array,
    skip: Int16Array,
    h: Int32Array,
    open_x: Int8Array,
    open_d: Int32Array,
    open_b: Int8Array,
    fill: Int32Array,
    /,
    *,
    s_h: int,
    s_y: int,
) -> tuple[Int16Array, Int32Array, Int8Array, Int32Array, Int8Array, Int32Array]:
    """Run one step of `ssd_chunk_scan`; return its output and the new state.

    Examples
    --------
    >>> x, d = np.array([[[100]]], np.int8), np.array([[4096]], np.int32)
    >>> b, c, skip = np.array([[64]], np.int8), np.array([[64]], np.int8), np.array([0], np.int16)
    >>> state = (
    ...     np.full((1, 1, 1, 1), 4000 << 17, np.int32),
    ...     np.zeros((1, 4, 1, 1), np.int8),
    ...     np.zeros((1, 4, 1), np.int32),
    ...     np.zeros((1, 4, 1), np.int8),
    ...     np.array([3], np.int32),
    ... )
    >>> y, h, *_, fill = ssd_chunk_scan_step(x, d, b, c, skip, *state, s_h=16, s_y=4)
    >>> y.tolist(), (h >> 17).tolist(), fill.tolist()
    ([[[20800]]], [[[[5200]]]], [0])
    """
    y, h, open_x, open_d, open_b, fill = ssd_chunk_scan.golden(
        x[:, None], d[:, None], b[:, None], c[:, None], skip, h, open_x, open_d, open_b, fill, s_h=s_h, s_y=s_y
    )
    return y[:, 0], h, open_x, open_d, open_b, fill


__all__ = ["ssd_chunk_scan", "ssd_chunk_scan_step"]
