"""Backward of the scans: pieces, one recurrence under two names, bounds for every length, the smooth direction."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from mamba_integer import spec
from mamba_integer.backends import load
from mamba_integer.conformance.engine.patterns import draw
from mamba_integer.spec import integers
from mamba_integer.spec.ops.scan import state_range
from mamba_integer.spec.ops.scan_backward import adjoint_range, carried_range

FORWARD = dict(k=12, n_max=4090, s_v=4, s_h=2)
BACKWARD = dict(s_g=6, s_w=9, s_n=1, s_x=3, s_b=5, s_c=4)
NAMES = ("dx", "dmod", "dbase", "db", "dc", "dskip", "dh")
both = pytest.mark.parametrize("convex", [0, 1])


def selective(convex: int, length: int, batch=2, channels=5, states=3, moves=400, **formats):
    """Return the arrays and parameters of a call."""
    parameters = FORWARD | BACKWARD | {"convex": convex} | formats
    at, k = SimpleNamespace(**parameters), parameters["k"]
    h, dh = state_range(at), carried_range(at)

    def array(stream, shape, low, high, dtype):
        return draw("uniform", 7, stream, shape, low, high).astype(dtype)

    arrays = (
        array(8, (batch, length, channels), -32767, 32767, np.int16),
        array(0, (batch, length, channels), -32767, 32767, np.int16),
        array(1, (batch, length, channels), -moves, moves, np.int16),
        array(2, (channels, states), 0, 2**k - 1, np.int16),
        array(3, (batch, length, states), -127, 127, np.int8),
        array(4, (batch, length, states), -127, 127, np.int8),
        array(5, (channels,), -32767, 32767, np.int16),
        array(6, (batch, channels, states), h.low, h.high, np.int32),
        array(9, (batch, channels, states), dh.low, dh.high, np.int32),
    )
    return arrays, parameters


def equal(got, want):
    return all(g.dtype == w.dtype and np.array_equal(g, w) for g, w in zip(got, want, strict=True))


@both
@pytest.mark.parametrize("cut", [0, 1, 4, 9])
def test_pieces_from_the_last_to_the_first(convex, cut):
    """`selective_scan_backward.C10` and `C1`."""
    (dy, x, mod, base, b, c, skip, h, dh), parameters = selective(convex, 9)
    whole = spec.selective_scan_backward(dy, x, mod, base, b, c, skip, h, dh, **parameters)
    forward = {name: parameters[name] for name in ("k", "n_max", "s_v", "s_h", "convex")}
    early, late = slice(None, cut), slice(cut, None)
    _, between = spec.selective_scan(
        x[:, early], mod[:, early], base, b[:, early], c[:, early], skip, h, **forward, s_y=0
    )
    pieces = {}
    for part, state in ((late, between), (early, h)):
        timed = [a[:, part] for a in (dy, x, mod)], [a[:, part] for a in (b, c)]
        *pieces[part is late], dh = spec.selective_scan_backward(
            *timed[0], base, *timed[1], skip, state, dh, **parameters
        )
    for name, first, last, want in zip(NAMES, pieces[False], pieces[True], whole, strict=False):
        got = first + last if name in ("dbase", "dskip") else np.concatenate([first, last], axis=1)
        assert np.array_equal(got, want), name
    assert np.array_equal(dh, whole[-1])


@both
def test_heads_are_channels_without_a_base(convex):
    """`ssd_scan_backward` is `selective_scan_backward` of the channels (h, p), but for sums over a head."""
    heads, width = 3, 4
    (dy, x, mod, _, b, c, _, h, dh), parameters = selective(convex, 6, channels=heads * width, s_n=0, s_w=16)
    n = np.clip(mod[..., :heads], 0, parameters["n_max"])
    skip = np.array([3, -400, 20000], np.int16)
    rows, carried = [a.reshape(2, 6, heads, width) for a in (dy, x)], [a.reshape(2, heads, width, -1) for a in (h, dh)]
    dx, dn, db, dc, dskip, end = spec.ssd_scan_backward(*rows, n, b, c, skip, *carried, **parameters)
    base = np.zeros(h.shape[1:], np.int16)
    channels = (dy, x, np.repeat(n, width, 2), base, b, c, np.repeat(skip, width), h, dh)
    want = dict(zip(NAMES, spec.selective_scan_backward(*channels, **parameters), strict=True))
    assert equal((dx.reshape(x.shape), db, dc, end.reshape(h.shape)), (want["dx"], want["db"], want["dc"], want["dh"]))
    assert np.array_equal(dskip, want["dskip"].reshape(heads, width).sum(1))
    assert np.abs(want["dmod"]).max() < 2**31 - 1
    assert np.array_equal(dn, want["dmod"].reshape(2, 6, heads, width).sum(3, dtype=np.int64))


@both
def test_the_decays_gradient_goes_to_base_and_modulation(convex):
    """`selective_scan_backward.C12`, of heads of one channel and one state."""
    (dy, x, mod, base, b, c, skip, h, dh), parameters = selective(convex, 7, states=1, moves=3000, s_n=0, s_w=22)
    n = spec.decay_modulate(base, mod, k=12, n_max=4090)[..., 0]
    rows = dy[..., None], x[..., None]
    _, dn, *_ = spec.ssd_scan_backward(*rows, n, b, c, skip, h[:, :, None], dh[:, :, None], **parameters)
    dbase, dmod = spec.decay_modulate_backward(dn[..., None], base, mod, k=12, n_max=4090, s_n=0)
    clamped = (base[:, 0] + mod < 0) | (base[:, 0] + mod > 4090)
    assert clamped.any() and not clamped.all() and not dmod[clamped].any()
    want = dict(
        zip(NAMES, spec.selective_scan_backward(dy, x, mod, base, b, c, skip, h, dh, **parameters), strict=True)
    )
    assert equal((dbase, dmod), (want["dbase"], want["dmod"]))


@pytest.mark.parametrize("k", range(1, 7))
def test_the_bound_is_the_least(k):
    """`selective_scan_backward.C9`: the closed form against a search, and the worst sequence reaches it from 0."""
    for n_max in range(2**k):
        for s_g in (16, 18, 22):
            at = SimpleNamespace(k=k, n_max=n_max, s_g=s_g)
            bound, ends = adjoint_range(at), []
            for u in (-127 * 32767, 127 * 32767):
                u, lam = integers.shift_even(u, s_g), 0
                while (after := integers.shift_round(lam * n_max, k) + u) != lam:
                    lam = after
                ends.append(lam)
            assert (bound.low, bound.high) == tuple(ends)


def smooth(x, mod, base, b, c, skip, h, k, s_v, s_h, convex, s_y=0):
    """The forward scan in floats, without a rounding or a saturation."""
    y = []
    for t in range(x.shape[1]):
        n = (base + mod[:, t, :, None]).clamp(0, FORWARD["n_max"]) / 2**k
        v = x[:, t, :, None] * b[:, t, None] / 2**s_v
        h = h * n + v * ((1 - n) if convex else 1)
        y.append(((h / 2**s_h * c[:, t, None]).sum(-1) + x[:, t] * skip) / 2**s_y)
    return torch.stack(y, 1), h


@both
@pytest.mark.parametrize("s_g", [2, 9])
def test_the_direction_is_that_of_the_smooth_gradient(convex, s_g):
    """Every gradient, in its own unit, against automatic differentiation; cosine above 0.999, and 98 % of the signs."""
    formats = dict(s_g=s_g, s_w=6, s_n=0, s_x=2, s_b=2, s_c=2)
    (dy, x, mod, base, b, c, skip, h, dh), p = selective(convex, 60, channels=6, states=4, **formats)
    dy, x, skip, h, dh = dy // 64, x // 8, skip // 64, np.zeros_like(h), np.zeros_like(dh)
    base = np.maximum(base, 3500)
    inputs = (x, mod, base, b, c, skip, h)
    forward = {name: p[name] for name in ("k", "s_v", "s_h", "convex")}
    floats = [torch.tensor(a, dtype=torch.float64, requires_grad=True) for a in inputs]
    y, _ = smooth(*floats, **forward)
    want = torch.autograd.grad((y * torch.tensor(dy, dtype=torch.float64)).sum(), floats)
    gradients = dict(zip(NAMES, spec.selective_scan_backward(dy, *inputs, dh, **p), strict=True))
    fine = p["s_v"] + p["s_h"] - s_g
    bits = {
        "dx": max(0, fine) - p["s_x"],
        "dmod": p["s_h"] + p["k"] - s_g - p["s_w"] - p["s_n"],
        "dbase": p["s_h"] + p["k"] - s_g - p["s_w"],
        "db": fine - p["s_b"],
        "dc": -p["s_c"],
        "dskip": 0,
        "dh": p["s_h"] - s_g,
    }
    for name, gradient in zip(NAMES, want, strict=True):
        got, exact = gradients[name].ravel() / 2.0 ** bits[name], gradient.numpy().ravel()
        cosine = got @ exact / np.sqrt((got @ got) * (exact @ exact))
        assert cosine > 0.999, (name, cosine)
        assert (np.sign(got) == np.sign(exact)).mean() > 0.98, name
        assert 0.99 < np.linalg.norm(got) / np.linalg.norm(exact) < 1.01, name


@both
@pytest.mark.parametrize("backend", ["numba", "torch"])
def test_chunks_and_tiles(backend, convex):
    """Sequences of several chunks, and more channels than a tile has."""
    arrays, parameters = selective(convex, 67, batch=2, channels=131, states=2)
    want = spec.selective_scan_backward(*arrays, **parameters)
    assert equal(load(backend, "cpu").run("selective_scan_backward", arrays, parameters), want)


@pytest.mark.parametrize("tile", [dict(STATES=4, CHANNELS=32, STEPS=2), dict(STATES=8, CHANNELS=128, STEPS=4)])
def test_triton_tiles(tile, monkeypatch):
    """However the states, channels and steps are shared out, the integers are the same."""
    from mamba_integer.backends.triton import scan_backward as kernels

    for name, value in tile.items():
        monkeypatch.setattr(kernels, name, value)
    arrays, parameters = selective(0, 7, batch=1, channels=33, states=5)
    want = spec.selective_scan_backward(*arrays, **parameters)
    assert equal([a.numpy() for a in kernels.selective_scan_backward(*map(torch.tensor, arrays), **parameters)], want)


def test_triton_a_head_of_whole_tiles(monkeypatch):
    """A program whose channels are of one head adds them before it writes."""
    from mamba_integer.backends.triton import scan_backward as kernels

    monkeypatch.setattr(kernels, "CHANNELS", 32)
    (dy, x, mod, _, b, c, skip, h, dh), parameters = selective(1, 5, batch=1, channels=64, states=3)
    n = np.clip(mod[..., :2], 0, parameters["n_max"])
    rows, carried = [a.reshape(1, 5, 2, 32) for a in (dy, x)], [a.reshape(1, 2, 32, 3) for a in (h, dh)]
    arrays = (*rows, n, b, c, skip[:2], *carried)
    want = spec.ssd_scan_backward(*arrays, **parameters)
    assert equal([a.numpy() for a in kernels.ssd_scan_backward(*map(torch.tensor, arrays), **parameters)], want)


def test_parameters_that_would_overflow_raise():
    arrays, parameters = selective(0, 2)
    with pytest.raises(spec.DomainError, match="intermediate lam"):
        spec.selective_scan_backward(*arrays, **parameters | {"k": 15, "n_max": 2**15 - 1, "s_v": 9, "s_g": 0})
