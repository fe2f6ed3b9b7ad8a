"""Inputs that are all zero at once: any two, and all but one that an op could return as it is."""

from itertools import combinations

import pytest

from mamba_integer import spec
from mamba_integer.conformance.engine.cases import Case
from mamba_integer.conformance.engine.decisive import returned
from mamba_integer.conformance.engine.generated import listing_of
from mamba_integer.conformance.engine.patterns import ZERO
from mamba_integer.conformance.presets import PRESETS
from mamba_integer.spec.contract import Constant


def zeros_of(op: str) -> dict[frozenset[int], Case]:
    """Return the cases by the inputs that are zero in them."""
    cases = {}
    plans = listing_of(op, PRESETS["minimal"].line).plans  # which an earlier process may have made
    for listed in plans:
        if not listed.points[0].endswith("all zero"):
            continue
        case = listed.make()
        assert case and listed.cost == 0
        spec.OPS[op].check(case.arrays, case.parameters)
        cases.setdefault(frozenset(i for i, pattern in enumerate(case.patterns) if pattern == ZERO), case)
    return cases


@pytest.mark.parametrize("op", spec.OPS)
def test_any_two_inputs_are_zero_at_once_and_a_lone_one_has_the_dtype_of_a_result(op):
    contract, cases = spec.OPS[op], zeros_of(op)
    inputs = {i for i, tensor in enumerate(contract.inputs) if not isinstance(tensor, Constant)}
    for pair in combinations(inputs, 2):
        assert any(zeros >= set(pair) for zeros in cases), [contract.inputs[i].name for i in pair]
    for i in returned(op) if len(inputs) > 1 else ():
        case = cases[frozenset(inputs - {i})]
        shapes = [tensor.shape for tensor in contract.outputs if str(case.arrays[i].dtype) in tensor.dtypes]
        assert contract.inputs[i].shape in shapes and case.arrays[i].any()


@pytest.mark.parametrize("op", ["dyadic_rotate", "dyadic_rotate_inverse", "rope", "rope_inverse"])
def test_a_rotation_by_nothing_could_return_its_input(op):
    case = zeros_of(op)[frozenset((1, 2, 3))]
    result = spec.OPS[op].golden(*case.arrays, **case.parameters)
    assert result.dtype == case.arrays[0].dtype and (result == case.arrays[0]).all() and result.any()
