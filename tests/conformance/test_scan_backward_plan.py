"""The shifts that the plan of a scan's backward offers are all that fit."""

from random import Random
from types import SimpleNamespace

import pytest

from mamba_integer.conformance.engine.cases import draw_case
from mamba_integer.conformance.plans.scan_backward import UNDRAWN, fitting
from mamba_integer.spec.contract import find_op


@pytest.mark.parametrize("op", ["selective_scan_backward", "ssd_scan_backward"])
def test_shifts_that_fit_are_found(op):
    contract, cut = find_op(op), set()
    for number in range(8):
        case = draw_case(op, Random(f"fitting {op} {number}"))
        drawn = vars(contract.check(case.arrays, case.parameters))
        at = {name: value for name, value in drawn.items() if name not in UNDRAWN}
        for name, known in UNDRAWN.items():
            beside = SimpleNamespace(**at)
            (allowed,) = (p.range(beside) for p in contract.parameters if p.name == name)
            right = []
            for value in range(allowed.low, allowed.high + 1):
                widths = contract.widths(SimpleNamespace(**UNDRAWN | at | {name: value}))
                right += [value] * all(width.fits for width in widths.values())
            assert fitting(op, name, beside) == tuple(right) and known in right
            cut |= {name} if len(right) <= allowed.high - allowed.low else set()
            at[name] = drawn[name]
    assert "s_h" in cut
