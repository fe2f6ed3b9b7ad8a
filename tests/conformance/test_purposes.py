"""A failure card says what the listed case that failed is for."""

from types import SimpleNamespace

import pytest

from mamba_integer import spec
from mamba_integer.backends import Backend
from mamba_integer.conformance.engine.judge import conform_op
from mamba_integer.conformance.render import card_text


def wrong_where(condition):
    """Return a backend that saturates one too low where the condition holds of its input."""

    def saturate(x, *, bits):
        return spec.saturate(x, bits=bits) - condition(x).astype("int32")

    return Backend("wrong", SimpleNamespace(saturate=saturate))


@pytest.mark.parametrize(
    "condition, purpose",
    [
        (lambda x: x == x, "the intermediates at the ends of their widths"),
        (lambda x: (x == x) & (x.size == 640), "size ...=640"),
        (lambda x: (x == x) & (not x.flags.c_contiguous), "all arguments: columns of a wider array"),
    ],
)
def test_the_card_names_the_purpose(condition, purpose):
    result = conform_op(wrong_where(condition), "saturate")
    assert result.status == "failed" and purpose in result.failure.purpose
    assert result.failure.to_dict()["purpose"] == result.failure.purpose
    assert f"purpose     {result.failure.purpose[:60]}" in card_text(result)
