"""A failure card says what the listed case that failed is for."""

from types import SimpleNamespace

import pytest

from mamba_integer import spec
from mamba_integer.backends import Backend
from mamba_integer.conformance.engine.cases import PLANS, extreme_cases, large_cases
from mamba_integer.conformance.engine.exhaustive import exhaustive_cases
from mamba_integer.conformance.engine.far_ends import long_cases
from mamba_integer.conformance.engine.judge import conform_op
from mamba_integer.conformance.engine.purposes import purpose_of
from mamba_integer.conformance.render import card_text


def wrong_where(condition):
    """Return a backend that saturates one too low where the condition holds of its input."""

    def saturate(x, *, bits):
        return spec.saturate(x, bits=bits) - condition(x).astype("int32")

    return Backend("wrong", SimpleNamespace(saturate=saturate))


@pytest.mark.parametrize(
    "condition, purpose",
    [
        (lambda x: x == x, "first call 0: small integers"),
        (lambda x: (x == x) & (x.size == 3), "the ends of proved widths: the greatest y, 1; the least y, -1"),
        (lambda x: (x == x) & (x.size == 640), "size ...=640"),
        (lambda x: (x == x) & (not x.flags.c_contiguous), "all arguments: columns of a wider array"),
    ],
)
def test_the_card_names_the_purpose(condition, purpose):
    result = conform_op(wrong_where(condition), "saturate")
    assert result.status == "failed" and purpose in result.failure.purpose
    assert result.failure.to_dict()["purpose"] == result.failure.purpose
    assert f"purpose     {result.failure.purpose[:60]}" in card_text(result)


@pytest.mark.parametrize("op", spec.OPS)
def test_every_case_that_is_not_drawn_has_a_purpose(op):
    """A call that a plan lists has one in words, or attains an end of a width; the others are told by their sizes."""
    edges = len(list(PLANS[op].extremes()))
    for case in extreme_cases(op):
        purpose = purpose_of(case)
        assert 0 < len(case.written_purpose) <= 100 or (case.entry < edges and purpose[-1].isdigit()), case.to_json()
    golden = Backend("golden", spec)
    for case in (*large_cases(op, 0), *long_cases(op), *exhaustive_cases(op, golden)):
        assert purpose_of(case)
