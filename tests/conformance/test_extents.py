"""The proved range of each intermediate changes only on purpose."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from mamba_integer import spec
from mamba_integer.conformance.engine.extents import extents_hash, formats

WRITTEN = Path(__file__).with_name("extents.json")


@pytest.mark.parametrize("op", spec.OPS)
def test_proved_ranges_are_those_that_are_written_down(op):
    assert extents_hash(spec.OPS[op]) == json.loads(WRITTEN.read_text())[op], f"see {extents_hash.__module__}"


def test_no_range_of_an_op_that_is_gone_is_kept():
    assert json.loads(WRITTEN.read_text()).keys() == spec.OPS.keys()


def test_a_range_that_one_format_alone_has_counts():
    contract = spec.OPS["requantize"]
    last = list(formats(contract))[-1]

    def wider(at):
        widths = contract.widths(at)
        if vars(at) == vars(last):
            name = next(iter(widths))
            widths[name] = replace(widths[name], attained=not widths[name].attained)
        return widths

    assert extents_hash(replace(contract, widths=wider)) != extents_hash(contract)
