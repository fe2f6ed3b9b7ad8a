"""A step in place leaves the state that the op returns."""

from random import Random

import numpy as np
import pytest

from mamba_integer.backends import load
from mamba_integer.backends.triton.ssd_chunk_step import step_in_place
from mamba_integer.conformance.engine.cases import draw_case


@pytest.mark.parametrize("fill", [1, 3], ids=["inside a chunk", "at its end"])
def test_a_step_in_place_is_the_op(fill):
    backend = load("triton")
    case = draw_case("ssd_chunk_scan_step", Random(3), {"B": 2, "H": 2, "P": 5, "S": 4, "q": 2})
    *arrays, fills = case.arrays
    fills = np.array([fill, 0], np.int32)
    y, h, *opened, rest = load("golden").run(case.op, [*arrays, fills], case.parameters)
    held = [backend.load(array) for array in (*arrays, fills)]
    outputs, after = step_in_place(*held, **case.parameters)
    assert np.array_equal(backend.store(outputs), y) and np.array_equal(backend.store(after), rest)
    assert np.array_equal(backend.store(held[5]), h) and np.array_equal(backend.store(held[9]), fills)
    for array, want in zip(held[6:9], opened, strict=True):
        for row, count in enumerate(rest):
            assert np.array_equal(backend.store(array)[row, :count], want[row, :count])
