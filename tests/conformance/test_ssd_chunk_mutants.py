"""Listed cases alone find every bug that is planted in the chunked scan."""

import pytest

from mamba_integer.backends import load
from mamba_integer.conformance.engine.calls import check_case
from mamba_integer.conformance.engine.cases import extreme_cases
from mamba_integer.conformance.engine.comparison import Failure
from mamba_integer.conformance.mutants import ssd_chunk as broken


@pytest.mark.parametrize(("name", "op"), [(name, op) for name, ops in broken.BUGS.items() for op in ops])
def test_listed_cases_alone_find_every_bug(name, op):
    backend = load(f"mamba_integer.conformance.mutants.ssd_chunk:{name}")
    with pytest.raises(Failure) as failure:
        for case in extreme_cases(op):
            check_case(backend, case)
    assert failure.value.kind == "value"
