"""Sums at the end of what float32 adds exactly: each mistake about that end is found by the one case that is for it."""

import numpy as np
import pytest

from mamba_integer import spec
from mamba_integer.backends import Backend
from mamba_integer.conformance.engine import replay
from mamba_integer.conformance.engine.calls import Caller
from mamba_integer.conformance.engine.comparison import Failure
from mamba_integer.conformance.engine.judge import conform_op
from mamba_integer.conformance.engine.listed import listed
from mamba_integer.conformance.mutants import slips
from mamba_integer.conformance.plans.linear import FLOAT_END, LONGEST_IN_FLOATS, OF_A_DIGIT, float_edges

MOST = {"ternary_linear": 32767, "ternary_linear_requant": 127}
MISTAKES = {
    f"{mistake}_{op}": (op, i)
    for op in MOST
    for i, mistake in enumerate(("sums_of_23_bits", "a_digit_too_many", "bound_of_the_sum"))
}


def sums_of(edge) -> list[int]:
    (q, _, w), *_ = edge.calls
    return (q.astype(np.int64) @ spec.unpack_ternary(w, K=q.shape[1])[0]).tolist()


@pytest.mark.parametrize("most", MOST.values())
def test_the_sums_are_those_about_the_end(most):
    about, beyond, parts = float_edges(most)
    depths = [edge.calls[0][0].shape[1] for edge in (about, beyond, parts)]
    assert depths[:2] == [LONGEST_IN_FLOATS, LONGEST_IN_FLOATS + 1] and depths[2] > LONGEST_IN_FLOATS
    assert sums_of(about)[-1] == OF_A_DIGIT * LONGEST_IN_FLOATS < FLOAT_END
    assert sums_of(beyond) == [FLOAT_END, FLOAT_END + 1, OF_A_DIGIT * (LONGEST_IN_FLOATS + 1)]
    assert sums_of(parts) == sums_of(about)[:2] and max(sums_of(parts)) < FLOAT_END
    assert {total % 2 for total in sums_of(about)[:2]} == {0, 1}


@pytest.mark.parametrize("name", MISTAKES)
def test_one_listed_case_finds_it(name):
    op, edge = MISTAKES[name]
    caller, purposes = Caller(Backend(name, getattr(slips, name))), []
    for case in listed(op):
        try:
            replay.check(caller, case)
        except Failure:
            purposes.append(case.written_purpose)
    assert purposes == [list(float_edges(MOST[op]))[edge].purpose]


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("name", MISTAKES)
def test_a_run_of_any_seed_finds_it(name, seed):
    op, edge = MISTAKES[name]
    result = conform_op(Backend(name, getattr(slips, name)), op, run_seed=seed)
    assert result.status == "failed" and result.failure.purpose == list(float_edges(MOST[op]))[edge].purpose
