"""``spec.ops.ssd_chunk`` on unbounded integers: one channel of one head at a time, position by position."""

from fractions import Fraction
from functools import cache
from itertools import pairwise
from math import floor

import numpy as np

from mamba_integer.spec.ops import ssd_chunk as definition

from .integers import saturate, shift_round
from .observe import see


def power(z: int, bits: int) -> int:
    """Return 2**(-z / 4096) in Q.bits."""
    return polynomial(z, bits, definition.POWER)


@cache
def polynomial(z: int, bits: int, coefficients: tuple[int, ...]) -> int:
    """Return the same of any coefficients, by Horner's rule in rationals, each product floored."""
    whole, f = divmod(z, 4096)
    p = 0
    for coefficient in reversed(coefficients):
        p = coefficient + floor(Fraction(p * f, 4096))
    return floor(Fraction(p * 2**bits, 2 ** (30 + min(whole, 32))) + Fraction(1, 2))


def exponent_sums(d: list[int]) -> list[int]:
    sums = [0]
    for exponent in d:
        total = see("exponent", sums[-1] + exponent)
        sums.append(total // 4096 * 4096 if exponent == definition.LARGEST_EXPONENT else total)
    return sums[1:]


class Gains:
    """Parts of the factor of each position of a chunk: the exponents' sums, and the weights of a head."""

    def __init__(self, d: list[int], t: int):
        self.sums, self.lengths, self.weights = exponent_sums(d), [], []
        for total, exponent in zip(self.sums, d, strict=True):
            fraction = total % 4096
            gain = see("gain", power(4096 - fraction, 30) - power(4096 - fraction + exponent, 30))
            length = gain.bit_length()
            self.lengths.append(length)
            self.weights.append(see("weight", shift_round(gain, max(0, length - t))))


def row_exponent(largest: int) -> int:
    return next(e for e in range(1, 64) if shift_round(largest, e) <= 127)


def mixed_row(i: int, gains: Gains, scores: list[int]) -> tuple[int, list[int]]:
    """Return the exponent of row i and its int8 factors of the positions up to i."""
    factors = []
    for j in range(i + 1):
        product = see("product", scores[j] * gains.weights[j])
        lag = gains.sums[i] // 4096 - gains.sums[j] // 4096 + 30 - gains.lengths[j]
        factors.append(product // 2 ** min(lag, 31))
    e = row_exponent(max(map(abs, factors)))
    return e, [see("mixed", shift_round(factor, e)) for factor in factors]


def dot(a, b) -> int:
    return sum(int(x) * int(y) for x, y in zip(a, b, strict=True))


def output(i, gains, e, mixed, x, c, skip, h, s_h, s_y):
    """Return y of position i of a chunk: x is one channel's, h that channel's states."""
    states = len(c)
    u, beyond = definition.sum_bits(states), 127 * 256 + 127
    inside = see("inside", dot(mixed, x[: i + 1]))
    seen = [see("seen", max(-beyond, min(beyond, shift_round(state, s_h)))) for state in h]
    before = see("before", dot(c, seen))
    fraction = gains.sums[i] % 4096
    inside_factor = see("inside factor", shift_round(power(fraction, 30), 24 - e))
    before_factor = see("before factor", power(gains.sums[i], u + s_h - 17))
    total = inside * inside_factor + before * before_factor + skip * x[i] * 2**u
    half = 2 ** (u + s_y) // 2
    return see("y", saturate((see("sum", total + half)) // 2 ** (u + s_y), 16))


def boundary(x, d, b, h):
    """Return one channel's states after a whole chunk."""
    sums = exponent_sums(d)
    decays = [see("decay", power(sums[-1] - total, 15)) for total in (0, *sums)]
    weights = [after - before for before, after in pairwise(decays)]
    r = max(0, max(weights).bit_length() - 8)
    weighed = [see("weighed", shift_round(value * weight, r)) for value, weight in zip(x, weights, strict=True)]
    new = []
    for s, state in enumerate(h):
        added = see("added", dot(weighed, [row[s] for row in b]))
        new.append(see("h", shift_round(state * decays[0], 15) + added * 2 ** (r + 2)))
    return new


def ssd_chunk_scan(x, d, b, c, skip, h, open_x, open_d, open_b, fill, *, s_h, s_y):
    y, end = np.empty(x.shape, "int16"), np.empty(h.shape, "int32")
    opened, filled = tuple(np.zeros_like(a) for a in (open_x, open_d, open_b)), np.empty(fill.shape, "int32")
    size, t = open_x.shape[1], definition.weight_bits(b.shape[-1])
    for row in range(len(x)):
        before = int(fill[row])
        known = [
            np.concatenate([o[row, :before], a[row]]) for o, a in zip((open_x, open_d, open_b), (x, d, b), strict=True)
        ]
        length = before + x.shape[1]
        filled[row] = length % size
        for array, into in zip(known, opened, strict=True):
            for place in range(filled[row]):
                into[row, place] = array[length - filled[row] + place]
        for head, start in np.ndindex(x.shape[2], -(-length // size)):
            first, last = start * size, min(start * size + size, length)
            exponents = known[1][first:last, head].tolist()
            inputs = known[2][first:last].tolist()
            gains = Gains(exponents, t)
            rows = {}
            for i in range(max(before - first, 0), last - first):
                mixture = c[row, first + i - before].tolist()
                scores = [see("score", dot(mixture, inputs[j])) for j in range(i + 1)]
                rows[i] = (*mixed_row(i, gains, scores), mixture)
            for p in range(x.shape[3]):
                state = [see("h", s) for s in (h if start == 0 else end)[row, head, p].tolist()]
                values = known[0][first:last, head, p].tolist()
                for i, (e, mixed, mixture) in rows.items():
                    into = (row, first + i - before, head, p)
                    y[into] = output(i, gains, e, mixed, values, mixture, int(skip[head]), state, s_h, s_y)
                if last - first == size:
                    state = boundary(values, exponents, inputs, state)
                end[row, head, p] = state
        if not length:
            end[row] = h[row]
    return y, end, *opened, filled


def ssd_chunk_scan_step(x, d, b, c, skip, *state, **parameters):
    y, *after = ssd_chunk_scan(x[:, None], d[:, None], b[:, None], c[:, None], skip, *state, **parameters)
    return y[:, 0], *after


__all__ = ["ssd_chunk_scan", "ssd_chunk_scan_step"]
