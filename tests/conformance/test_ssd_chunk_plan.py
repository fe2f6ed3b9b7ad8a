"""The listed calls of the chunked scan decide each unit of the polynomial that its decays come from."""

import numpy as np
import pytest

from mamba_integer import spec
from mamba_integer.conformance.plans.ssd_chunk import power_units
from mamba_integer.spec.ops import ssd_chunk

COEFFICIENTS = range(len(ssd_chunk.POWER))


@pytest.mark.parametrize("op", ["ssd_chunk_scan", "ssd_chunk_scan_step"])
def test_one_unit_of_each_coefficient_changes_an_output(op, monkeypatch):
    (extreme,) = power_units(op)
    (arrays,) = extreme.calls
    golden, right = spec.OPS[op], ssd_chunk.POWER
    want = golden(*arrays, **extreme.parameters)[0]
    undecided = []
    for changed in COEFFICIENTS:
        for unit in (1, -1):
            mutant = tuple(value + unit * (i == changed) for i, value in enumerate(right))
            monkeypatch.setattr(ssd_chunk, "POWER", mutant)
            if np.array_equal(golden(*arrays, **extreme.parameters)[0], want):
                undecided.append((changed, unit))
    assert not undecided
