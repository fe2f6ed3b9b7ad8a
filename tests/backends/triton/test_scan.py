"""The scans' kernels for rows of a batch so long that int32 doesn't tell where an element lies."""

from random import Random

import numpy as np
import pytest

from mamba_integer.backends import load
from mamba_integer.backends.triton import scan, scan_backward
from mamba_integer.backends.triton.recurrence import is_far
from mamba_integer.conformance.engine.cases import draw_case


def test_steps_are_far_where_an_offset_passes_int32():
    assert not is_far((1 << 31) - 1, 5)
    assert is_far(5, 1 << 31)


@pytest.mark.parametrize("op", ["selective_scan", "ssd_scan", "selective_scan_backward", "ssd_scan_backward"])
def test_far_steps_give_the_same_integers(op, monkeypatch):
    for module in (scan, scan_backward):
        monkeypatch.setattr(module, "is_far", lambda *row: True)
    case = draw_case(op, Random(0), {"B": 1, "L": 9 if "backward" not in op else 5})
    got, want = (load(name).run(op, case.arrays, case.parameters) for name in ("triton", "golden"))
    assert all(map(np.array_equal, got, want))
