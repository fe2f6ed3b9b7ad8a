"""Calls before all others: of small integers, then up to the ends, so that nothing of a first call may be kept."""

from types import SimpleNamespace

import numpy as np
import pytest

from mamba_integer import spec
from mamba_integer.backends import Backend
from mamba_integer.conformance.engine.cases import Case
from mamba_integer.conformance.engine.first import FIRST, drawn, shown
from mamba_integer.conformance.engine.generated import first_cases, listed_cases
from mamba_integer.conformance.engine.judge import conform_op
from mamba_integer.conformance.engine.sensitivity import in_domain
from mamba_integer.conformance.presets import PRESETS
from mamba_integer.conformance.report import Result

# Inputs of which a call of small integers has all there are.
FULL = {"pack_ternary": {"w"}, "pack_trits": {"w"}, "rope": {"quadrant"}, "rope_inverse": {"quadrant"}}


def calls(op: str) -> list[Case]:
    return [case for _, case in first_cases(op, PRESETS["minimal"]) if case]


@pytest.mark.parametrize("op", spec.OPS)
def test_each_input_goes_beyond_its_range_at_the_first_call_and_a_result_tells(op):
    first, *later = calls(op) or (None,)
    told = set().union(*(shown(first, case) for case in later))
    assert {spec.OPS[op].inputs[i].name for i in drawn(op) - told} == FULL.get(op, set())
    for case in later:
        assert in_domain(case) and case.parameters == first.parameters
        assert [a.shape for a in case.arrays] == [a.shape for a in first.arrays]
        assert [a.dtype for a in case.arrays] == [a.dtype for a in first.arrays]


class Asked(SimpleNamespace):
    """The golden op, which notes the integers that it is asked for."""

    def __init__(self, op: str):
        self.calls: list[tuple[np.ndarray, ...]] = []
        super().__init__(**{op: lambda *arrays, **parameters: self.noting(op, arrays, parameters)})

    def noting(self, op, arrays, parameters):
        self.calls.append(tuple(array.copy() for array in arrays))
        return spec.OPS[op].golden(*arrays, **parameters)


@pytest.mark.parametrize("op", ["isqrt", "silu_gate", "ssd_scan_step"])
@pytest.mark.parametrize("shares", [1, 3])
def test_they_are_the_first_that_a_backend_is_asked_and_no_others(op, shares):
    groups = Result(op, "asked", "cpu")
    backend = Asked(op)
    for share in range(shares):
        groups.add(conform_op(Backend("asked", backend), op, "smoke", share=share, shares=shares))
    assert groups.groups[FIRST] == len(calls(op))
    large = [max((abs(int(array.min())) for array in arrays if array.size), default=0) for arrays in backend.calls]
    assert large[0] <= 4 < max(large[1:])
    assert all(map(np.array_equal, backend.calls[0], calls(op)[0].arrays))
    assert FIRST not in {listed.group for listed, _ in listed_cases(op, PRESETS["smoke"])}
