"""The fused products of a step for many rows are the compositions of golden ops, integer by integer."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mamba_integer.backends.triton import batch_products
from mamba_integer.spec import ops

SIZES = st.tuples(st.integers(1, 40), st.sampled_from([4, 36, 128, 260, 640]), st.integers(1, 70))
EDGE = st.booleans()


class Inputs:
    """Arrays of one draw: uniform, or at the ends of their ranges."""

    def __init__(self, seed: int, edge: bool, device: str):
        self.source, self.edge, self.device = np.random.default_rng(seed), edge, device
        self.golden: dict[str, np.ndarray] = {}

    def array(self, dtype, high, *shape, low=None):
        low = -high if low is None else low
        drawn = self.source.integers(low, high + 1, shape)
        return np.where(drawn * 2 > low + high, high, low).astype(dtype) if self.edge else drawn.astype(dtype)

    def weights(self, columns, depth):
        return ops.pack_ternary(self.array(np.int8, 1, columns, depth))

    def on_device(self, *arrays):
        return [torch.tensor(array, device=self.device) for array in arrays]


def assert_equal(result, want):
    got = result.cpu().numpy()
    assert got.dtype == want.dtype
    assert np.array_equal(got, want)


@pytest.fixture
def draw():
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return lambda seed, edge: Inputs(seed, edge, device)


def examples(count):
    return settings(max_examples=count, deadline=None)


def test_enter(draw):
    scale, squareplus = {"num": 181, "shift": 13}, {"f": 8, "offset": 256}

    @examples(8)
    @given(SIZES, st.integers(0, 99), EDGE, st.integers(0, 22))
    def check(sizes, seed, edge, s):
        rows, depth, channels = sizes
        inputs = draw(seed, edge)
        q, e = inputs.array(np.int8, 127, rows, depth), inputs.array(np.int32, 9, rows, low=0)
        w, taps = inputs.weights(2 * channels, depth), inputs.array(np.int8, 127, channels, 4)
        bias = inputs.array(np.int32, 1 << 24, channels)
        state = inputs.array(np.int16, 32767, rows, 3, channels)
        xz = ops.ternary_linear(q, e, w, **scale)
        x, after = ops.conv1d_step(xz[:, :channels], taps, bias, state, s=s)
        want = np.concatenate([ops.squareplus(x, **squareplus), xz[:, channels:]], axis=1)
        q, e, w, taps, bias, state = inputs.on_device(q, e, w, taps, bias, state)
        result = torch.empty((rows, 2 * channels), dtype=torch.int16, device=state.device)
        batch_products.enter(result, state, (q, e), w, taps, bias, scale=scale, s=s, squareplus=squareplus)
        assert_equal(result, want)
        assert_equal(state, after)

    check()


def test_project(draw):
    scale = {"num": 181, "shift": 15}

    @examples(8)
    @given(SIZES, st.integers(0, 99), EDGE)
    def check(sizes, seed, edge):
        rows, depth, columns = sizes
        inputs = draw(seed, edge)
        x = inputs.array(np.int16, 32767, rows, 2 * depth)
        w = inputs.weights(columns, depth)
        want = ops.ternary_linear(*ops.quantize_rows(x[:, :depth]), w, **scale)
        x, w = inputs.on_device(x, w)
        assert_equal(batch_products.project(batch_products.quantise(x, depth), w, scale=scale), want)

    check()


def test_leave(draw):
    scale, gate = {"num": 181, "shift": 15}, {"num": 724, "shift": 10}

    @examples(8)
    @given(SIZES, st.integers(0, 99), EDGE)
    def check(sizes, seed, edge):
        rows, depth, columns = sizes
        inputs = draw(seed, edge)
        r = inputs.array(np.int32, (1 << 23) - 1, rows, columns)
        q, e = inputs.array(np.int8, 127, rows, depth), inputs.array(np.int32, 9, rows, low=0)
        w = inputs.weights(columns, depth)
        want = ops.residual_add(r, ops.ternary_linear(q, e, w, **scale), **gate)
        r, q, e, w = inputs.on_device(r, q, e, w)
        batch_products.leave(r, (q, e), w, scale=scale, gate=gate)
        assert_equal(r, want)

    check()


def test_each_size_takes_its_tile(draw, monkeypatch):
    taken = set()
    plain = batch_products.launch
    monkeypatch.setattr(
        batch_products, "launch", lambda *a, **k: (taken.add((k.get("ROWS"), k.get("COLUMNS"))), plain(*a, **k))
    )
    monkeypatch.setattr(batch_products, "PROGRAMS", 4)
    for rows, columns in ((3, 129), (40, 129), (3, 20)):
        inputs = draw(rows, False)
        q, e = inputs.array(np.int8, 127, rows, 36), inputs.array(np.int32, 9, rows, low=0)
        w = inputs.weights(columns, 36)
        want = ops.ternary_linear(q, e, w, num=3, shift=4)
        q, e, w = inputs.on_device(q, e, w)
        assert_equal(batch_products.project((q, e), w, scale={"num": 3, "shift": 4}), want)
    assert taken == {(16, 32), (32, 64), (16, 16)}
