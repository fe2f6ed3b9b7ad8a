"""The spectral transform undoes itself, stays in its bounds, and is the Fourier transform to within its error bound."""

import numpy as np
import pytest

from mamba_integer import spec
from mamba_integer.backends import load
from mamba_integer.conformance import oracle as unbounded
from mamba_integer.conformance.engine.patterns import PATTERNS, draw
from mamba_integer.conformance.oracle.observe import recording
from mamba_integer.conformance.plans import PLANS
from mamba_integer.spec.ops.transform import DOMAIN, ROUND_TRIP, magnitude_bound
from mamba_integer.spec.tables import twiddles

DIRECTIONS = ("dyadic_transform", "dyadic_transform_inverse")


def points(pattern: str, m: int, limit: int, rows: int = 2) -> np.ndarray:
    return draw(pattern, m, 0, (rows, 2**m, 2), -limit, limit).astype(np.int32)


@pytest.mark.parametrize("m", range(1, 13))
@pytest.mark.parametrize("s", [8, 15, 30])
def test_inverse_is_exact(m, s):
    """Both ways round, `dyadic_transform.C3`."""
    w = twiddles(2**m, s)
    x = np.stack([points(pattern, m, ROUND_TRIP) for pattern in PATTERNS])
    y = spec.dyadic_transform(x, *w, s=s)
    assert np.array_equal(spec.dyadic_transform_inverse(y, *w, s=s), x)
    assert np.array_equal(spec.dyadic_transform(spec.dyadic_transform_inverse(x, *w, s=s), *w, s=s), x)


@pytest.mark.parametrize("s", range(8, 31))
def test_results_of_the_round_trip_range_lie_in_the_domain(s):
    assert all(magnitude_bound(ROUND_TRIP, m, s) <= DOMAIN for m in range(1, 13))


@pytest.mark.parametrize("op", DIRECTIONS)
def test_extremes_come_near_the_proved_width(op):
    """The bound holds for every input and isn't vain: aligned points reach three fifths of it."""
    for extreme in PLANS[op].extremes():
        with recording() as record:
            (arrays,) = extreme.calls
            at = spec.OPS[op].check(arrays, extreme.parameters)
            getattr(unbounded, op)(*arrays, **extreme.parameters)
        low, high = record["coordinate"]
        proved = spec.OPS[op].widths(at)["coordinate"].range.high
        assert 0.6 * proved <= max(-low, high) <= proved


@pytest.mark.parametrize("op", DIRECTIONS)
@pytest.mark.parametrize("m", [1, 3, 6, 8])
@pytest.mark.parametrize("s", [8, 15, 30])
@pytest.mark.parametrize("limit", [100, ROUND_TRIP, DOMAIN])
def test_agrees_with_the_fourier_transform(op, m, s, limit):
    """Root mean square error at most ``m (6 + 2**(2-s) r)``: `dyadic_transform.C4`, held against 64-bit fixed point."""
    import mpmath

    n, bits, sign = 2**m, 64, 1 if op == "dyadic_transform" else -1
    with mpmath.workprec(128):
        roots = [mpmath.expjpi(mpmath.mpf(-2 * sign * k) / n) / mpmath.sqrt(n) * 2**bits for k in range(n)]
        cosine, sine = (
            np.array([int(mpmath.nint(v)) for v in vs], object)
            for vs in zip(*((r.real, r.imag) for r in roots), strict=True)
        )
    place = np.outer(np.arange(n), np.arange(n)) % n
    cosine, sine = cosine[place], sine[place]
    for pattern in ("uniform", "highest", "extremes"):
        x = points(pattern, m, limit, rows=1)
        y = spec.OPS[op](x, *twiddles(n, s), s=s)[0].astype(object)
        re, im = x[0].astype(object).T
        error_re = y[:, 0] * 2**bits - cosine @ re + sine @ im
        error_im = y[:, 1] * 2**bits - cosine @ im - sine @ re
        error = float(sum(error_re * error_re + error_im * error_im) >> (2 * bits)) / n
        r = (float(sum(re * re + im * im)) / n) ** 0.5
        assert error**0.5 <= m * (6 + 2.0 ** (2 - s) * r)


@pytest.mark.parametrize("backend", ["numba", "torch", "triton"])
@pytest.mark.parametrize("op", DIRECTIONS)
def test_longest_rows(backend, op):
    x, w = points("extremes", 12, DOMAIN, rows=1), twiddles(4096, 15)
    (got,) = load(backend).run(op, [x, *w], {"s": 15})
    assert np.array_equal(got, spec.OPS[op](x, *w, s=15))


@pytest.mark.parametrize("op", DIRECTIONS)
def test_other_lengths_and_other_coefficients_raise(op):
    for n in (0, 1, 6, 8192):
        half = (np.zeros(n // 2, np.int32), np.zeros(n // 2, np.int32), np.zeros(n // 2, np.int8))
        with pytest.raises(spec.DomainError, match=op):
            spec.OPS[op](np.zeros((1, n, 2), np.int32), *half, s=15)
    w = twiddles(8, 15)
    w.gam[1] += 1
    with pytest.raises(spec.DomainError, match="argument gam: found") as error:
        spec.OPS[op](np.zeros((1, 8, 2), np.int32), *w, s=15)
    assert error.value.index == (1,)
