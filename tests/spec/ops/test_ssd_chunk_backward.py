"""The chunked scan's backward: its direction, its pieces, and what saturates."""

import numpy as np
import pytest
import torch

from mamba_integer import spec
from mamba_integer.conformance.engine.patterns import draw
from mamba_integer.spec.ops.ssd_chunk_backward import gradient_bits

NAMES = ("dx", "dd", "db", "dc", "dskip", "dh")
HEADS, WIDTH, STATES, Q = 3, 8, 16, 16
FORMAT = {"q": 4, "s_h": 16, "s_g": 8}
SHIFTS = {"s_x": 8, "s_d": 3, "s_b": 8, "s_c": 8}


def inputs(length, slowest, fastest, error):
    """Return arrays of the backward op, as training has them: sums of three uniform values, and errors of any size."""

    def bell(stream, shape, limit):
        return sum(draw("uniform", 3, 10 * stream + i, shape, -limit // 3, limit // 3) for i in range(3))

    state = (1, HEADS, WIDTH, STATES)
    return (
        bell(0, (1, length, HEADS, WIDTH), error).astype(np.int16),
        bell(1, (1, length, HEADS, WIDTH), 127).astype(np.int8),
        draw("uniform", 3, 50, (1, length, HEADS), slowest, fastest).astype(np.int32),
        bell(2, (1, length, STATES), 127).astype(np.int8),
        bell(3, (1, length, STATES), 127).astype(np.int8),
        bell(4, (HEADS,), 900).astype(np.int16),
        (bell(6, state, 300) << 17).astype(np.int32),
        (bell(7, state, 8 * error) << 7).astype(np.int32),
    )


def smooth(x, d, b, c, skip, h):
    """The recurrence in floats, and the state at its last boundary."""
    y, boundary = [], h
    for t in range(x.shape[1]):
        decay = torch.exp2(-d[:, t, :, None, None] / 4096)
        h = h * decay + (1 - decay) * x[:, t, :, :, None] * b[:, t, None, None]
        y.append((h * c[:, t, None, None]).sum(-1) + skip[:, None] * x[:, t])
        if (t + 1) % Q == 0:
            boundary = h
    return torch.stack(y, 1), boundary


@pytest.mark.parametrize("error", [127, 32000])
@pytest.mark.parametrize(("slowest", "fastest"), [(1, 9), (20, 60), (300, 500), (2000, 6000)])
def test_the_direction_is_that_of_the_smooth_gradient(slowest, fastest, error):
    """Every gradient, in its own unit, against automatic differentiation: cosine, signs, size and mean."""
    dy, *arrays, dh = inputs(3 * Q + 5, slowest, fastest, error)
    floats = [torch.tensor(a.astype(float), requires_grad=True) for a in (*arrays[:5], arrays[5] / 2**17)]
    y, boundary = smooth(*floats)
    along = (y * torch.tensor(dy.astype(float))).sum() + (
        boundary * torch.tensor(dh * 2.0 ** (FORMAT["s_g"] - 15))
    ).sum()
    want = dict(zip(NAMES, torch.autograd.grad(along, floats), strict=True))
    got = dict(zip(NAMES, spec.ssd_chunk_scan_backward(dy, *arrays, dh, **FORMAT, **SHIFTS), strict=True))
    g = gradient_bits(STATES)
    bits = {"dx": g - 8, "dd": -3, "db": g - 8, "dc": g - 8, "dskip": 0, "dh": 15 - FORMAT["s_g"]}
    for name in NAMES:
        gradient, exact = got[name].ravel() / 2.0 ** bits[name], want[name].numpy().ravel()
        assert np.abs(got[name]).max() < 2**31 - 1, name
        cosine = gradient @ exact / np.sqrt((gradient @ gradient) * (exact @ exact))
        assert cosine > 0.999, (name, cosine)
        assert (np.sign(gradient) == np.sign(exact)).mean() > 0.97, name
        assert 0.98 < np.linalg.norm(gradient) / np.linalg.norm(exact) < 1.02, name
        assert abs((gradient - exact).mean()) < 0.01 * exact.std(), name


def test_a_forgotten_past_gets_no_gradient():
    """Positions before the largest exponent get no gradient from those after it."""
    dy, x, d, b, c, skip, h, dh = inputs(Q + 6, 20, 60, 127)
    d[:, 9] = 31 * 4096
    dy[:, :9] = 0
    dx, dd, db, dc, _, start = spec.ssd_chunk_scan_backward(dy, x, d, b, c, skip, h, dh, **FORMAT, **SHIFTS)
    assert not dx[:, :9].any() and not dd[:, :9].any() and not db[:, :9].any() and not dc[:, :9].any()
    assert not start.any() and dx[:, 9:].any()


def test_gradients_of_states_saturate():
    dy, x, d, b, c, skip, h, dh = inputs(2 * Q, 1, 2, 32000)
    dy[:], c[:], dh[:] = 32767, 127, 2**31 - 1
    *_, start = spec.ssd_chunk_scan_backward(dy, x, d, b, c, skip, h, dh, **FORMAT | {"s_g": 0}, **SHIFTS)
    assert (start == 2**31 - 1).all()
