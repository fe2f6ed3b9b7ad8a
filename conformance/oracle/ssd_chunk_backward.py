"""``spec.ops.ssd_chunk_backward`` on unbounded integers: matrices of Python integers, a head and chunk at a time."""

from itertools import accumulate
from typing import Any

import numpy as np

from mamba_integer.spec.ops import ssd_chunk as forward
from mamba_integer.spec.ops import ssd_chunk_backward as definition

from .integers import saturate, shift_round
from .observe import see
from .ssd_chunk import Gains, boundary, power, row_exponent

Matrix = Any  # of Python integers


def integers(array) -> Matrix:
    return np.array(array.tolist(), dtype=object).reshape(array.shape)


def rounded(values: Matrix, s: int) -> Matrix:
    return shift_round(values, s)


def over(values: Matrix, s: int) -> Matrix:
    """Return values / 2**s, rounded, for an s of either sign."""
    return values * 2**-s if s < 0 else rounded(values, s)


def seen_as(name: str, values: Matrix) -> Matrix:
    for value in values.ravel():
        see(name, value)
    return values


def largest(values: Matrix) -> int:
    return max((abs(value) for value in values.ravel()), default=0)


def limbs(values: Matrix) -> tuple[int, Matrix]:
    e = next(e for e in range(64) if shift_round(largest(values), e) <= forward.LARGEST_TWO_LIMBS)
    return e, over(values, e)


def cut(scores: Matrix, gains: Gains, name: str = "") -> tuple[list[int], Matrix]:
    """Return the exponents of rows and their int8 factors, 0 above the diagonal."""
    factors, exponents = np.full(scores.shape, 0, object), []
    for i in range(len(scores)):
        row = []
        for j in range(i + 1):
            product = scores[i, j] * gains.weights[j]
            product = see(name, product) if name else product
            lag = gains.sums[i] // 4096 - gains.sums[j] // 4096 + 30 - gains.lengths[j]
            row.append(product // 2 ** min(lag, 31))
        exponents.append(row_exponent(largest(np.array(row, object))))
        factors[i, : i + 1] = [shift_round(value, exponents[-1]) for value in row]
    return exponents, factors


def column(values) -> Matrix:
    return np.array(list(values), object)[:, None]


def crossings(steps: Matrix) -> list[int]:
    """Return the sums of what comes before each step."""
    return [0, *accumulate(steps.tolist())][: len(steps)]


def chunk(dy, x, d, b, c, skip, h, lam, whole, s_h, s_g):
    """Return the sums of dx, dd, db and dc of one head's chunk, and lam before it."""
    gains, states = Gains(d, forward.weight_bits(b.shape[1])), b.shape[1]
    t, u, g = forward.weight_bits(states), forward.sum_bits(states), definition.gradient_bits(states)
    fractions = [power(total % 4096, 15) for total in gains.sums]
    decays = column(power(total, u + s_h - 17) for total in gains.sums)
    bound = forward.LARGEST_TWO_LIMBS
    seen = np.clip(shift_round(h, s_h), -bound, bound)

    exponents, mixed = cut(c @ b.T, gains)
    factors = column(down * 2**e for down, e in zip(fractions, exponents, strict=True))
    r, errors = limbs(seen_as("errors", dy * factors))
    through, inside = seen_as("through", mixed.T @ errors), mixed @ x
    leaving, arriving = (through * x).sum(1), (inside * errors).sum(1)

    exponents, slopes = cut(dy @ x.T, gains, "slopes")
    factors = column(down * 2**e for down, e in zip(fractions, exponents, strict=True))
    q = max(0, largest(factors).bit_length() - 8)
    dc = np.stack([over(row * f, 17 - e) for row, f, e in zip(slopes @ b, fractions, exponents, strict=True)])
    db = over(slopes.T @ shift_round(c * factors, q), 17 - q)
    dc = dc + shift_round((dy @ seen) * decays, 8)
    carried = seen_as("carried", (dy * (c @ seen.T)).sum(1, keepdims=True))
    carried = rounded(seen_as("moved", rounded(carried, 15) * decays), u - 3)[:, 0]

    weights, kept = column(0 for _ in d), 2**15
    if whole:
        left = [gains.sums[-1] - total for total in (0, *gains.sums)]
        weights = column(power(left[j + 1], 15) - power(left[j], 15) for j in range(len(d)))
        kept = power(left[0], 15)
    k, slope = limbs(lam)
    k += s_g
    into = seen_as("into", (b @ slope.T) * weights)
    stored = rounded(seen_as("stored", (into * x).sum(1)), 42 - k)
    past = shift_round((slope * seen).sum(), 15) * kept * whole
    past = see("past", over(past, 44 - s_h - k))

    inner = np.array(crossings(leaving - arriving), object)
    crossing = over(seen_as("energy", inner), t + 26 - r) + crossings(stored - carried) + past + carried.sum()
    dd = -crossing
    for j, exponent in enumerate(d):
        through_gate = saturate(over(leaving[j], t + 26 - r) + stored[j], 35)
        p = power(exponent, 30)
        ratio = 2**15 * p // (2**30 - p) if exponent else 0
        dd[j] += shift_round(see("gated", through_gate * ratio), 15)

    dx = over(through, 17 - r) + over(into, 30 - g - k) + dy * skip * 2**g
    db = db + over((x @ slope) * weights, 30 - g - k)
    w, arrived = limbs(dy * column(power(total, 15) for total in gains.sums))
    added = seen_as("added", arrived.T @ c)
    lam = seen_as("lam", shift_round(lam * kept, 15) + over(added, s_g - w))
    return dx, dd, db, dc, np.clip(lam, -(2**31) + 1, 2**31 - 1)


def put(name: str, totals: Matrix, s: int) -> np.ndarray:
    result = np.empty(totals.shape, "int32")
    for place in np.ndindex(totals.shape):
        total = see(f"{name} sum", totals[place] + 2**s // 2)
        result[place] = see(name, saturate(total // 2**s, 32))
    return result


def ssd_chunk_scan_backward(dy, x, d, b, c, skip, h, dh, *, q, s_h, s_g, s_x, s_d, s_b, s_c):
    size, start = 2**q, np.array(dh)
    dx, dd = np.full(x.shape, 0, object), np.full(d.shape, 0, object)
    db, dc, dskip = np.full(b.shape, 0, object), np.full(c.shape, 0, object), np.full(skip.shape, 0, object)
    for row, head in np.ndindex(d.shape[0], d.shape[2]):
        errors, inputs = integers(dy[row, :, head]), integers(x[row, :, head])
        exponents, keys, queries = d[row, :, head].tolist(), integers(b[row]), integers(c[row])
        states = [integers(h[row, head])]
        places = [slice(first, min(first + size, len(exponents))) for first in range(0, len(exponents), size)]
        for at in places[: len(exponents) // size]:
            across = zip(inputs[at].T.tolist(), states[-1].tolist(), strict=True)
            new = [boundary(values, exponents[at], keys[at].tolist(), state) for values, state in across]
            states.append(np.array(new, object).reshape(states[-1].shape))
        lam = integers(dh[row, head])
        for number in range(len(places) - 1, -1, -1):
            at, state = places[number], seen_as("h", states[number])
            whole = at.stop - at.start == size
            scale = int(skip[head])
            parts = chunk(
                errors[at], inputs[at], exponents[at], keys[at], queries[at], scale, state, lam, whole, s_h, s_g
            )
            dx[row, at, head], dd[row, at, head] = parts[0], parts[1]
            db[row, at] += parts[2]
            dc[row, at] += parts[3]
            lam = parts[4]
        start[row, head] = lam
        dskip[head] += (errors * inputs).sum()
    seen_as("dskip", dskip)
    dd = rounded(put("dd", dd, s_d).astype(object) * 22713, 15).astype("int32")
    return put("dx", dx, s_x), dd, put("db", db, s_b), put("dc", dc, s_c), dskip.astype("int64"), start


__all__ = ["ssd_chunk_scan_backward"]
