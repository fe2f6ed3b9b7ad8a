"""Gradients are copied to int32 for the exchange of ranks, and the update takes the int32 sums."""

import numpy as np
import pytest
import torch

from mamba_integer.backends import load
from mamba_integer.backends.triton.narrowing import moved_at_once
from mamba_integer.spec import ops

SIZES = 1, 0, 5, 1024, 2050, 3


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
def test_many_arrays_are_copied_at_once(dtype):
    random = np.random.default_rng(0)
    arrays = [torch.tensor(random.integers(-(2**31), 2**31, size)) for size in SIZES]
    arrays[4][-1], arrays[5] = 2**31, torch.tensor([[-(2**62), 7, 2**40]]).t()[::1]
    total = torch.zeros(4096, dtype=dtype)
    targets = [
        part[: a.numel()].view(a.shape) for part, a in zip(total.split([4, 4, 8, 1024, 3052, 4]), arrays, strict=True)
    ]
    ends = moved_at_once(arrays, targets)
    want = [max((max(x, -1 - x) for x in array.flatten().tolist()), default=0) for array in arrays]
    assert ends.tolist() == want
    assert all(torch.equal(target, array.to(dtype)) for target, array in zip(targets, arrays, strict=True))
    assert not total[4:8].any() and not total[-1:].any()


def test_gradients_of_both_widths_are_updated_at_once():
    random, backend = np.random.default_rng(1), load("triton")
    arrays = [
        (
            random.integers(-(2**20), 2**20, size).astype("i4"),
            random.integers(-(2**27) + 1, 2**27, size).astype("i4"),
            g,
        )
        for size in SIZES
        for g in (random.integers(-(2**31), 2**31, size).astype("i4"), random.integers(-(2**40), 2**40, size))
    ]
    count = len(arrays)
    parameters = {
        "lr": random.integers(0, 2**20, count),
        "m_shift": random.integers(-30, 40, count),
        "g_up": random.integers(0, 8, count),
        "g_down": random.integers(0, 20, count),
        "low": np.full(count, -(2**20)),
        "high": np.full(count, 2**20),
        "decay": random.integers(0, 2**16, count),
    }
    loaded = [tuple(map(backend.load, tuple_of)) for tuple_of in arrays]
    masters, momenta, clipped = backend.ops.lion_updates(loaded)(parameters)
    counts = torch.cat(clipped).tolist()
    for i, (w, m, g) in enumerate(arrays):
        want = ops.lion_update(w, m, g.astype(np.int64), **{name: int(p[i]) for name, p in parameters.items()})
        assert (masters[i].tolist(), momenta[i].tolist(), counts[i]) == (want[0].tolist(), want[1].tolist(), want[2][0])
    assert any(counts)
