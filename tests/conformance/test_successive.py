"""Calls that differ from the one before in one parameter alone, for each parameter that is more than a bound."""

import ast
import inspect
from itertools import pairwise
from textwrap import dedent

import numpy as np
import pytest

from mamba_integer import spec
from mamba_integer.conformance.engine.generated import listed_cases
from mamba_integer.conformance.engine.sensitivity import results_of
from mamba_integer.conformance.engine.successive import SUCCESSIVE, calls
from mamba_integer.conformance.presets import PRESETS

# Parameters that say which calls are allowed, and of whose value no result depends.
BOUNDS = {
    "ternary_linear_backward_weight": {"bits"},
    "decay_modulate": {"k"},
    "decay_modulate_backward": {"k"},
    "ssd_scan": {"n_max"},
    "ssd_scan_step": {"n_max"},
    "ssd_scan_backward": {"n_max"},
}


def names_used(op: str) -> set[str]:
    """Return the names that a golden op reads, but for parameters that it hands on to another op."""
    nodes = list(ast.walk(ast.parse(dedent(inspect.getsource(spec.OPS[op].golden)))))
    handed = {id(node.value) for node in nodes if isinstance(node, ast.keyword) and ast.unparse(node.value) == node.arg}
    return {node.id for node in nodes if isinstance(node, ast.Name) and id(node) not in handed}


@pytest.mark.parametrize("op", spec.OPS)
def test_each_parameter_changes_alone_from_one_call_to_the_next(op):
    names = {parameter.name for parameter in spec.OPS[op].parameters}
    changed = [call.changed for call in calls(op) if call.changed]
    assert names - set(changed) == BOUNDS.get(op, set())
    for before, call in pairwise(calls(op)):
        if call.changed:
            assert all(map(np.array_equal, before.case.arrays, call.case.arrays))
            differing = {n for n, value in call.case.parameters.items() if value != before.case.parameters[n]}
            assert differing == {call.changed}
            results = (results_of(one.case, one.case.arrays) for one in (before, call))
            assert any(a.shape != b.shape or (a != b).any() for a, b in zip(*results, strict=True))


@pytest.mark.parametrize("op", BOUNDS)
def test_a_parameter_without_such_a_call_is_no_part_of_the_computation(op):
    assert not BOUNDS[op] & names_used(op)


def test_one_process_takes_them_all_in_their_order():
    op, shares = "selective_scan", 3
    cases = [listed_cases(op, PRESETS["smoke"], share, shares) for share in range(shares)]
    kept = [[case for listed, case in share if listed.group == SUCCESSIVE] for share in cases]
    assert [share for share in kept if share] == [[call.case for call in calls(op)]]
