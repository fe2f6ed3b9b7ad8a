"""Chunks that are computed at once give the golden integers, however many they are."""

import numpy as np
import pytest
import torch

from mamba_integer.backends import load
from mamba_integer.backends.torch import ssd_chunk
from mamba_integer.conformance.plans.ssd_chunk import varied
from mamba_integer.spec import ops

SIZES = {"B": 2, "H": 3, "P": 5, "S": 2, "q": 2}
ELEMENTS = 2 * 3 * 5 * 4  # of a chunk's largest array: rows, heads, channels and positions
SCAN = ops.ssd_chunk_scan, {"s_h": 15, "s_y": 8}
BACKWARD = ops.ssd_chunk_scan_backward, {"q": 2, "s_h": 15, "s_g": 4, "s_x": 6, "s_d": 5, "s_b": 8, "s_c": 8}


@pytest.mark.parametrize("at_once", [1, 2, 3, 100])
@pytest.mark.parametrize("length", [21, 28])
@pytest.mark.parametrize(("op", "parameters"), [SCAN, BACKWARD], ids=["forward", "backward"])
def test_any_number_of_chunks_at_once(op, parameters, length, at_once, device, monkeypatch):
    backend, sizes = load("torch", device), SIZES | {"L": length}
    monkeypatch.setattr(ssd_chunk, "AT_ONCE", at_once * ELEMENTS)
    arrays = varied(op.__name__, sizes, d=3000, h=1 << 20, dh=1 << 20)
    if op is ops.ssd_chunk_scan:
        arrays[-1][:] = 0, 3  # fills
    got = backend.call(op.__name__, [backend.load(array) for array in arrays], parameters)
    for result, want in zip(got, op(*arrays, **parameters), strict=True):
        np.testing.assert_array_equal(backend.store(result), want)


def test_groups_are_as_many_chunks_as_fit(monkeypatch):
    state = torch.zeros(2, 3, 5, 2)
    monkeypatch.setattr(ssd_chunk, "AT_ONCE", 3 * ELEMENTS - 1)
    assert ssd_chunk.groups(20, 4, state) == [slice(0, 8), slice(8, 16), slice(16, 20)]
    monkeypatch.setattr(ssd_chunk, "AT_ONCE", 1)
    assert [at.stop for at in ssd_chunk.groups(8, 4, state)] == [4, 8]
