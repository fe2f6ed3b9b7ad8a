"""Golden results that are remembered are those of the golden op that is asked, and nobody may write to them."""

import numpy as np
import pytest

from mamba_integer import spec
from mamba_integer.conformance.engine.cases import extreme_cases
from mamba_integer.conformance.engine.golden import golden_results


def test_results_are_those_of_the_op_as_it_is_now(monkeypatch):
    case = next(extreme_cases("isqrt"))
    (right,) = golden_results(case)
    assert golden_results(case)[0] is right
    with monkeypatch.context() as patched:
        patched.setattr(spec.OPS["isqrt"], "golden", lambda v: (v ^ 1).astype(np.int32))
        (wrong,) = golden_results(case)
        assert not np.array_equal(wrong, right)
    assert golden_results(case)[0] is right


def test_nobody_writes_to_them():
    (result,) = golden_results(next(extreme_cases("isqrt")))
    with pytest.raises(ValueError, match="read-only"):
        result[...] = 0
