"""The chunked recurrence: its powers of two, its grid, what it forgets, and how near it is to exact arithmetic."""

from decimal import ROUND_HALF_EVEN, Decimal, localcontext
from types import SimpleNamespace

import numpy as np
import pytest

from mamba_integer import spec
from mamba_integer.backends import load
from mamba_integer.conformance.engine.patterns import draw
from mamba_integer.spec.ops import ssd_chunk
from mamba_integer.spec.ops.ssd_chunk import LARGEST_EXPONENT, chunk_widths, power, state_limit


def inputs(length, chunk, heads=2, width=3, states=4, rows=2, largest=400, fill=None):
    """Return arrays of `ssd_chunk_scan`, the state of ordinary size."""

    def array(stream, shape, low, high, dtype):
        return draw("uniform", 5, stream, shape, low, high).astype(dtype)

    limit = state_limit(chunk) // 3
    return (
        array(0, (rows, length, heads, width), -127, 127, np.int8),
        array(1, (rows, length, heads), 0, largest, np.int32),
        array(2, (rows, length, states), -127, 127, np.int8),
        array(3, (rows, length, states), -127, 127, np.int8),
        array(4, (heads,), -300, 300, np.int16),
        array(5, (rows, heads, width, states), -limit, limit, np.int32),
        array(6, (rows, chunk, heads, width), -127, 127, np.int8),
        array(7, (rows, chunk, heads), 0, largest, np.int32),
        array(8, (rows, chunk, states), -127, 127, np.int8),
        array(9, (rows,), 0, chunk - 1, np.int32) if fill is None else np.full(rows, fill, np.int32),
    )


def at_start(length, chunk, **sizes):
    """Return arrays of a sequence's start: no state, nothing in the open chunk."""
    arrays = inputs(length, chunk, fill=0, **sizes)
    return *arrays[:5], *(np.zeros_like(array) for array in arrays[5:])


def equal(got, want):
    return all(g.dtype == w.dtype and np.array_equal(g, w) for g, w in zip(got, want, strict=True))


FORMAT = dict(s_h=16, s_y=8)


def test_the_power_is_within_ten_units_and_correctly_rounded_where_decays_are():
    """`ssd_chunk_scan.C2`, every fraction: 10 units of 2**-30; to Q.15 the integer nearest to the power itself."""
    with localcontext() as context:
        context.prec = 40
        exact = [Decimal(2) ** (-Decimal(f) / 4096) for f in range(4096)]
        nearest = [int((value * 2**15).to_integral_value(ROUND_HALF_EVEN)) for value in exact]
        errors = [abs(int(power(np.int64(f), 30)) - value * 2**30) for f, value in enumerate(exact)]
    assert max(errors) < 10
    assert power(np.arange(4096), 15).tolist() == nearest


def test_the_power_falls_and_ends_at_zero():
    z = np.arange(0, 34 * 4096)
    for bits in (30, 15):
        values = power(z, bits)
        assert values[0] == 1 << bits and (np.diff(values) <= 0).all()
        assert values[LARGEST_EXPONENT] <= 1 << max(0, bits - 31) and values[-1] == 0
    assert (np.diff(power(np.arange(4097), 30)) < 0).all()


@pytest.mark.parametrize("chunk", [4, 8])
def test_cut_anywhere_and_step_by_step(chunk):
    """`ssd_chunk_scan.C1`, `C8` and `C11`, each row with a fill of its own."""
    length = 2 * chunk + 3
    *arrays, skip, h, open_x, open_d, open_b, fill = inputs(length, chunk, rows=3)
    fill[:] = (0, 1, chunk - 1)
    state = h, open_x, open_d, open_b, fill
    y, *end = spec.ssd_chunk_scan(*arrays, skip, *state, **FORMAT)
    for cut in (0, 1, chunk - 1, chunk, chunk + 1, length):
        first, *between = spec.ssd_chunk_scan(*(a[:, :cut] for a in arrays), skip, *state, **FORMAT)
        second, *after = spec.ssd_chunk_scan(*(a[:, cut:] for a in arrays), skip, *between, **FORMAT)
        assert equal((np.concatenate([first, second], 1), *after), (y, *end))
    for t in range(length):
        step, *state = spec.ssd_chunk_scan_step(*(a[:, t] for a in arrays), skip, *state, **FORMAT)
        assert np.array_equal(step, y[:, t])
    assert equal(state, end)


@pytest.mark.parametrize("backend", ["golden", "numba", "torch", "triton"])
def test_a_smaller_fill_takes_positions_back(backend):
    """`ssd_chunk_scan.C12`, and `C8`: what is beyond the fill is not read."""

    def scan(*arrays):
        return load(backend, "cpu").run("ssd_chunk_scan", arrays, FORMAT)

    *arrays, skip, h, open_x, open_d, open_b, fill = at_start(11, 8, rows=2)
    fresh = h, open_x, open_d, open_b, fill
    _, *long = scan(*(a[:, :11] for a in arrays), skip, *fresh)
    _, *short = scan(*(a[:, :9] for a in arrays), skip, *fresh)
    assert long[-1].tolist() == [3, 3] and short[-1].tolist() == [1, 1]
    taken_back = *long[:-1], long[-1] - 2
    more = *(a[:, 2:9] for a in arrays), skip
    assert equal(scan(*more, *taken_back), scan(*more, *short))


@pytest.mark.parametrize("place", [0, 3, 7, 8, 12])
@pytest.mark.parametrize("scale", [1, 127])
def test_the_largest_exponent_forgets(place, scale):
    """`ssd_chunk_scan.C9`, at every kind of place in a chunk; small scores, too, whose floors are -1 rather than 0."""
    x, d, b, c, skip, *state = inputs(20, 8, fill=0)
    x, b, c = (np.clip(a, -scale, scale) for a in (x, b, c))
    d[:, place] = LARGEST_EXPONENT
    y, *end = spec.ssd_chunk_scan(x, d, b, c, skip, *state, s_h=16, s_y=0)
    other = [a.copy() for a in (x, d, b)]
    for array, sign in zip(other, (-1, 1, -1), strict=True):
        array[:, :place] = sign * array[:, :place][:, ::-1]
    state[0] = -state[0]
    z, *after = spec.ssd_chunk_scan(*other, c, skip, *state, s_h=16, s_y=0)
    assert np.array_equal(y[:, place:], z[:, place:]) and equal(end, after)


@pytest.mark.parametrize("chunk", [4, 64, 256])
@pytest.mark.parametrize("d", [0, 1, 7, 600, 5000, LARGEST_EXPONENT])
def test_the_worst_sequence_stays_within_the_bound(chunk, d):
    """`ssd_chunk_scan.C10`: from the bound, with all inputs at their ends, whatever the decay."""
    shape = (1, 3 * chunk, 1)
    ends = [np.full((*shape, 1), 127, np.int8), np.full(shape, d, np.int32)]
    ends += [np.full(shape, 127, np.int8), np.zeros(shape, np.int8), np.zeros(1, np.int16)]
    state = at_start(1, chunk, rows=1, heads=1, width=1, states=1)[6:]
    limit = state_limit(chunk)
    _, h, *_ = spec.ssd_chunk_scan(*ends, np.full((1, 1, 1, 1), limit, np.int32), *state, **FORMAT)
    assert 0 < h.item() <= limit
    assert (h.item() == limit) == (d == 0)


def test_every_size_fits():
    """The proved widths fit their types for every S, Q, s_h and s_y of the domain."""
    for states in range(1, 513):
        for q in range(2, 9):
            for s_h, s_y in ((12, 0), (12, 24), (16, 0), (16, 24)):
                at = SimpleNamespace(S=states, q=q, s_h=s_h, s_y=s_y, B=1, L=1, H=1, P=1)
                assert all(width.fits for width in chunk_widths(at).values()), (states, q, s_h, s_y)


def smooth(x, d, b, c, skip, h):
    """The recurrence in floats, without a rounding."""
    y, h = [], h / 2**ssd_chunk.STATE_BITS
    for t in range(x.shape[1]):
        decay = 2.0 ** (-d[:, t, :, None, None] / 4096)
        h = h * decay + (1 - decay) * x[:, t, :, :, None].astype(float) * b[:, t, None, None]
        y.append((h * c[:, t, None, None]).sum(-1) + skip[:, None].astype(float) * x[:, t])
    return np.stack(y, 1), h


@pytest.mark.parametrize("largest", [5, 400, 5000, LARGEST_EXPONENT])
def test_it_is_near_the_exact_recurrence(largest):
    """Error below 1.5 % of the result's size, without bias; the state within a thousandth."""
    arrays = inputs(256, 64, width=8, states=64, rows=1, largest=largest, fill=0)
    y, h, *_ = spec.ssd_chunk_scan(*arrays, s_h=16, s_y=11)
    want, state = smooth(*arrays[:6])
    error, size = y - want / 2**11, (want / 2**11).std()
    assert np.abs(y).max() < 32767
    assert error.std() < 0.015 * size and abs(error.mean()) < 0.001 * size + 0.05
    assert np.std(h / 2**ssd_chunk.STATE_BITS - state) < 1e-3 * state.std()


def test_chunks_of_other_lengths_raise():
    arrays = inputs(1, 4)
    for chunk in (2, 3, 48, 512):
        opened = [np.zeros((2, chunk, *a.shape[2:]), a.dtype) for a in arrays[6:9]]
        with pytest.raises(spec.DomainError):
            spec.ssd_chunk_scan(*arrays[:6], *opened, np.zeros(2, np.int32), **FORMAT)
