"""The scans: bounds that hold for every length, the floor's drift, pieces and steps, one recurrence under two names."""

from fractions import Fraction
from itertools import product
from types import SimpleNamespace

import numpy as np
import pytest

from mamba_integer import spec
from mamba_integer.conformance.engine.patterns import draw
from mamba_integer.spec.ops.scan import state_range

FORMATS = dict(k=8, n_max=250, s_v=9, s_h=2, s_y=9)
both = pytest.mark.parametrize("convex", [0, 1])


def selective(convex: int, length: int, batch=2, channels=5, states=3, pattern="uniform", **formats):
    """Return the arrays and parameters of a call."""
    parameters = FORMATS | {"convex": convex} | formats
    at, k = state_range(SimpleNamespace(**parameters)), parameters["k"]

    def array(stream, shape, low, high, dtype):
        return draw(pattern, 7, stream, shape, low, high).astype(dtype)

    arrays = (
        array(0, (batch, length, channels), -32767, 32767, np.int16),
        array(1, (batch, length, channels), -200, 200, np.int16),
        array(2, (channels, states), 0, 2**k - 1, np.int16),
        array(3, (batch, length, states), -127, 127, np.int8),
        array(4, (batch, length, states), -127, 127, np.int8),
        array(5, (channels,), -32767, 32767, np.int16),
        array(6, (batch, channels, states), at.low, at.high, np.int32),
    )
    return arrays, parameters


@both
@pytest.mark.parametrize("length", [1, 2, 9])
def test_whole_pieces_and_steps(convex, length):
    """`selective_scan.C7`."""
    (x, mod, base, b, c, skip, start), parameters = selective(convex, length)
    whole, end = spec.selective_scan(x, mod, base, b, c, skip, start, **parameters)
    for cut in range(length + 1):
        pieces, h = [], start
        for part in (slice(None, cut), slice(cut, None)):
            y, h = spec.selective_scan(x[:, part], mod[:, part], base, b[:, part], c[:, part], skip, h, **parameters)
            pieces.append(y)
        assert np.array_equal(np.concatenate(pieces, axis=1), whole)
        assert np.array_equal(h, end)
    h = start
    for t in range(length):
        y, h = spec.selective_scan_step(x[:, t], mod[:, t], base, b[:, t], c[:, t], skip, h, **parameters)
        assert np.array_equal(y, whole[:, t])
    assert np.array_equal(h, end)


@both
def test_heads_are_channels_without_a_base(convex):
    """`ssd_scan` is `selective_scan` of the channels (h, p), `ssd_scan.C7` and `selective_scan.C8` with it."""
    heads, width = 3, 4
    (x, mod, _, b, c, _, h), parameters = selective(convex, 6, channels=heads * width)
    n = np.clip(mod[..., :heads], 0, parameters["n_max"])
    skip = np.array([3, -400, 20000], np.int16)
    y, end = spec.ssd_scan(x.reshape(2, 6, heads, width), n, b, c, skip, h.reshape(2, heads, width, -1), **parameters)
    channels = (np.repeat(n, width, 2), np.zeros(h.shape[1:], np.int16), b, c, np.repeat(skip, width))
    want, want_end = spec.selective_scan(x, *channels, h, **parameters)
    assert np.array_equal(y.reshape(want.shape), want)
    assert np.array_equal(end.reshape(want_end.shape), want_end)
    step, h1 = spec.ssd_scan_step(
        x[:, 0].reshape(2, heads, width), n[:, 0], b[:, 0], c[:, 0], skip, h.reshape(2, heads, width, -1), **parameters
    )
    assert np.array_equal(step, y[:, 0])
    assert h1.dtype == np.int32


@pytest.mark.parametrize("k", range(1, 7))
def test_the_bound_is_the_least(k):
    """`selective_scan.C5`: the closed form against a search."""
    for n_max, s_v in product(range(2**k), (16, 18, 22)):
        v = state_range(SimpleNamespace(k=k, n_max=n_max, s_v=s_v, convex=1))
        bound = state_range(SimpleNamespace(k=k, n_max=n_max, s_v=s_v, convex=0))
        high = next(h for h in range(v.high << k) if ((h * n_max) >> k) + v.high <= h)
        low = next(h for h in range(0, (v.low << k) - 1, -1) if ((h * n_max) >> k) + v.low >= h)
        assert (bound.low, bound.high) == (low, high)


@both
@pytest.mark.parametrize("sign", [1, -1])
def test_the_bound_is_reached_from_zero_and_not_passed(convex, sign):
    """`selective_scan.C5` and `ssd_scan.C5`, by the worst sequence."""
    parameters = dict(k=5, n_max=31, s_v=17, s_h=0, s_y=9, convex=convex)
    length = 400
    x, n = np.full((1, length, 1, 1), 32767, np.int16), np.full((1, length, 1), 31, np.int16)
    b, c = np.full((1, length, 1), sign * 127, np.int8), np.zeros((1, length, 1), np.int8)
    _, h = spec.ssd_scan(x, n, b, c, np.zeros(1, np.int16), np.zeros((1, 1, 1, 1), np.int32), **parameters)
    bound = state_range(SimpleNamespace(**parameters))
    if convex:  # the floor keeps a rising state from its bound unless the decay is 0
        n[:, -1] = 0
        _, h = spec.ssd_scan(x, n, b, c, np.zeros(1, np.int16), np.zeros((1, 1, 1, 1), np.int32), **parameters)
    assert h.item() == (bound.high if sign > 0 else bound.low)


@both
def test_the_floor_falls_short_by_less_than_its_bound(convex):
    """`selective_scan.C1`, `C2`, `C3` and `C6`, against the recurrence in exact rationals."""
    for pattern in ("uniform", "extremes", "small", "lowest", "highest"):
        (x, mod, base, b, c, skip, h), parameters = selective(
            convex, 40, batch=1, channels=2, states=2, pattern=pattern, n_max=255
        )
        n = spec.decay_modulate(base, mod, k=8, n_max=255)
        exact = {place: Fraction(int(h[place])) for place in np.ndindex(h.shape)}
        for t in range(40):
            _, h = spec.selective_scan_step(x[:, t], mod[:, t], base, b[:, t], c[:, t], skip, h, **parameters)
            for i, d, s in exact:
                v = (int(x[i, t, d]) * int(b[i, t, s]) + 256) // 512
                decay = Fraction(int(n[i, t, d, s]), 256)
                exact[i, d, s] = exact[i, d, s] * decay + v * (1 - decay if convex else 1)
                assert 0 <= exact[i, d, s] - int(h[i, d, s]) < 256


def test_parameters_that_would_overflow_raise():
    arrays, _ = selective(0, 1)
    wide = dict(k=15, n_max=32767, s_v=9, s_h=9, s_y=9, convex=0)
    spec.selective_scan(*arrays, **wide)
    with pytest.raises(spec.DomainError, match="intermediate"):
        spec.selective_scan(*arrays, **wide | {"s_v": 0})


DECAYS = {"0.5": 16384, "0.9": 29491, "0.99": 32440, "0.999": 32735}
SHIFTS = (0, 4, 8, 12)


def drift_table() -> list[str]:
    """Return the rows of the table on the page of `selective_scan`: the average drift of the floor and of a half added.

    The drift e is run beside the state: its own recurrence, in which the part that a step's shift took off is exact.
    """
    k, length, lanes = 15, 8192, 64
    x = draw("uniform", 1, 0, (length, lanes), -1023, 1023)
    b = draw("uniform", 1, 1, (length, lanes), -127, 127)
    n = np.array(list(DECAYS.values()))[:, None, None, None]
    half = np.array([0, 1 << (k - 1)])[:, None]
    s_v = np.array(SHIFTS)[:, None, None]
    h = np.zeros((len(DECAYS), len(SHIFTS), 2, lanes), np.int64)
    e, drift, power = (np.zeros(h.shape) for _ in range(3))
    for t in range(length):
        v = (x[t] * b[t] + ((1 << s_v) >> 1)) >> s_v
        product = h * n
        kept = (product + half) >> k
        e = e * (n / 2**k) + (product - (kept << k)) / 2**k
        h = kept + v
        if t >= length // 2:
            drift += e
            power += (h + e) ** 2
    thousandths = np.round(1000 * drift.mean(-1) / np.sqrt(power.mean(-1) * (length // 2)), 2) + 0.0
    return [
        f"{name:<11}  " + "  ".join(f"{f'{floor:.2f}, {rounded:.2f}':<14}" for floor, rounded in row).rstrip()
        for name, row in zip(DECAYS, thousandths, strict=True)
    ]


def test_the_drift_is_as_the_page_says():
    """The table was printed by `drift_table`."""
    page = spec.selective_scan.golden.__doc__
    for row in drift_table():
        assert row in page.splitlines()


def test_triton_states_shared_by_programs():
    """However many programs share a channel's states, the integers are the same."""
    import torch

    from mamba_integer.backends.triton import scan as kernels

    (*arrays, h), parameters = selective(0, 9, batch=1, channels=33, states=11)
    want = spec.selective_scan(*arrays, h, **parameters)
    tensors = [torch.tensor(array) for array in (*arrays, h)]
    tiles = set()
    for programs in (0, 2, 2**31):
        kernels.PROGRAMS, before = programs, kernels.PROGRAMS
        try:
            tiles.add(kernels.tile_of(11, 33))
            got = kernels.selective_scan(*tensors, **parameters)
        finally:
            kernels.PROGRAMS = before
        assert all(np.array_equal(g.numpy(), w) for g, w in zip(got, want, strict=True))
    assert len(tiles) > 1
