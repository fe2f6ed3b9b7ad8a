"""Where two results differ, drawn."""

from random import Random

import numpy as np
import pytest

from mamba_integer import spec
from mamba_integer.backends import Backend
from mamba_integer.conformance.engine.cases import draw_case
from mamba_integer.conformance.engine.comparison import Failure
from mamba_integer.conformance.maps import HEIGHT, WIDTH, difference_map, maps


def test_each_integer_has_its_mark():
    want = np.zeros((2, 5), np.int8)
    got = want.copy()
    got[1, 3] = 1
    assert difference_map(got, want) == ["·····", "···#·"]
    assert difference_map(got[1, 3], want[1, 3]) == ["#"]


@pytest.mark.parametrize("shape", [(1000, 3), (3, 1000), (7, 11, 130), (0, 4), (4, 0), (1,)])
def test_large_and_empty_results_fit(shape):
    want = np.zeros(shape, np.int32)
    got = want.copy()
    got[..., -1:] = 1
    lines = difference_map(got, want)
    assert len(lines) <= HEIGHT and all(len(line) <= WIDTH for line in lines)
    if got.size:
        assert all(line[-1] in "+#" for line in lines)


def test_only_results_that_differ_are_drawn():
    class Wrong:
        @staticmethod
        def quantize_rows(x):
            q, e = spec.quantize_rows(x)
            return q, e + 1

    random = Random(4)
    case = next(case for case in iter(lambda: draw_case("quantize_rows", random), None) if case.arrays[0].size > 8)
    failure = Failure(Backend("wrong", Wrong), case, "value", "")
    ((name, lines),) = maps(failure, Backend("golden", spec))
    assert name.startswith("e, ") and set("".join(lines)) == {"#"}
