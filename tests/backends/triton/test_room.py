"""Shapes whose tiles no processor has room for run the Torch version."""

import numpy as np
import pytest

from mamba_integer.backends import load
from mamba_integer.backends.triton import ssd_chunk, ssd_chunk_backward
from mamba_integer.backends.triton.room import OutOfResources
from mamba_integer.conformance.plans.ssd_chunk import varied
from mamba_integer.spec import ops
from mamba_integer.spec.training.backward import chunk_gradients

FORWARD = ("ssd_chunk_scan", {"s_h": 16, "s_y": 9})
BACKWARD = ("ssd_chunk_scan_backward", {"s_h": 15, "s_g": 12, "s_x": 9, "s_d": 2, "s_b": 9, "s_c": 9})


def check(name, parameters, sizes):
    if "backward" in name:
        parameters = {"q": sizes["q"], **parameters}
    arrays = varied(name, sizes)
    backend = load("triton", "cpu")
    got = backend.call(name, [backend.load(array) for array in arrays], parameters)
    for result, want in zip(got, getattr(ops, name)(*arrays, **parameters), strict=True):
        np.testing.assert_array_equal(backend.store(result), want)


@pytest.mark.parametrize("op", [FORWARD, BACKWARD], ids=lambda op: op[0])
def test_a_device_without_room(op, monkeypatch):
    def launch(*arrays, **constants):
        raise OutOfResources(262_144, 232_448, "shared memory")

    for module in (ssd_chunk, ssd_chunk_backward):
        monkeypatch.setattr(module, "launch", launch)
    check(*op, {"B": 2, "L": 5, "H": 2, "P": 3, "S": 5, "q": 2})


@pytest.mark.parametrize(
    "op, sizes",
    [(FORWARD, {"S": 300, "q": 8}), (BACKWARD, {"S": 257}), (BACKWARD, {"P": 129}), (BACKWARD, {"q": 8})],
    ids=["forward", "states", "channels", "chunk"],
)
def test_tiles_that_fit_no_device(op, sizes, monkeypatch):
    for module in (ssd_chunk, ssd_chunk_backward):
        monkeypatch.setattr(module, "launch", None)
    check(*op, {"B": 1, "L": 5, "H": 1, "P": 2, "S": 3, "q": 2} | sizes)


@pytest.mark.parametrize("sizes", [{}, {"S": 257}], ids=["kernels", "torch"])
def test_narrow_gradients_are_the_op_and_its_saturation(sizes):
    name, parameters = BACKWARD
    arrays = varied(name, {"B": 1, "L": 9, "H": 2, "P": 5, "S": 3, "q": 2} | sizes)
    arrays[1][0, 0, 0, :2] = (127, -127)
    want = chunk_gradients(ops, None, *arrays, q=2, **parameters)
    backend = load("triton", "cpu")
    got = backend.ops.narrow_chunk_gradients(*map(backend.load, arrays), q=2, **parameters)
    for result, expected in zip(got, want, strict=True):
        assert backend.store(result).dtype == expected.dtype
        np.testing.assert_array_equal(backend.store(result), expected)
