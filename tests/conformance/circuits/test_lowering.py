"""The circuit of an op gives the golden integers, satisfies its constraints, and costs what the table says."""

import json
from itertools import pairwise

import numpy as np
import pytest

from mamba_integer.conformance.circuits import counts, pages
from mamba_integer.conformance.circuits.constraints import MODULUS, Circuit, Integer
from mamba_integer.conformance.circuits.lowering import lower, require_codes
from mamba_integer.conformance.circuits.networks import BLOCK_KINDS, block_statement, small_config
from mamba_integer.spec.contract import OPS, find_op

from .uniqueness import determined

RECORDED = json.loads(counts.COUNTS.read_text())
LOWERED = [row for row in RECORDED["ops"] if "counts" in row]


def values(array):
    flat = [x.value if isinstance(x, Integer) else x for x in np.asarray(array).ravel()]
    return np.array(flat, object).reshape(array.shape)


@pytest.mark.parametrize("row", LOWERED, ids=lambda row: row["op"])
def test_a_circuit_gives_the_golden_integers_at_the_recorded_cost(row):
    case = counts.recorded_case(row)
    statement = lower(case.op, case.arrays, case.parameters)
    assert statement.counts == row["counts"]
    assert counts.encrypted(case, statement) == row["encrypted"]
    assert statement.circuit.unsatisfied() == []
    results = find_op(case.op)(*case.arrays, **case.parameters)
    whole = results if isinstance(results, tuple) else (results,)
    for tensor, golden in zip(find_op(case.op).outputs, whole, strict=True):
        assert np.array_equal(values(statement.outputs[tensor.name]), golden)
    assert_determined(statement)


def assert_determined(statement):
    """The inputs, which a verifier compares, determine every wire but inverses, whatever else a prover changes."""
    inputs = statement.public[len(statement.public) - statement.public_inputs :]
    open_wires = set(range(len(statement.circuit.values))) - determined(statement.circuit, set(inputs)).keys()
    assert open_wires <= inverses(statement.circuit)


def inverses(circuit):
    """Return the w of each ``x * w = result``: with x = 0 it may be anything, and ``x * (1 - result) = 0`` follows."""
    return {w for first, then in pairwise(circuit.constraints) if first.a == then.a and not then.c for w in first.b}


def free_wires(circuit):
    """Return the wires that may change alone, by one up or down, in an assignment that satisfies all constraints."""
    every = set(range(1, len(circuit.values)))
    free = inverses(circuit)
    unheld = {1: every - free, -1: every - free}
    for constraint in circuit.constraints:
        totals = [sum(factor * circuit.values[w] for w, factor in terms.items()) for terms in constraint]
        for wire in {wire for terms in constraint for wire in terms}:
            factors = [terms.get(wire, 0) for terms in constraint]
            for change, wires in unheld.items():
                a, b, c = (total + factor * change for total, factor in zip(totals, factors, strict=True))
                if (a * b - c) % MODULUS:
                    wires.discard(wire)
    return unheld[1] | unheld[-1]


@pytest.mark.parametrize(
    "row", [row for row in LOWERED if row["counts"]["constraints"] < 1500], ids=lambda row: row["op"]
)
def test_no_private_input_is_free(row):
    case = counts.recorded_case(row)
    names = lower(case.op, case.arrays, case.parameters).inputs
    private = lower(case.op, case.arrays, case.parameters, names)
    assert private.circuit.unsatisfied() == []
    assert free_wires(private.circuit) == set()


def test_the_table_has_every_op_and_is_of_this_specification():
    assert [row["op"] for row in RECORDED["ops"]] == list(OPS)
    assert pages.PAGE.read_text() == pages.page(RECORDED)
    assert pages.FHE_PAGE.read_text() == pages.fhe_page(RECORDED)
    for row in RECORDED["ops"]:
        if "reason" in row:
            assert counts.op_row(counts.recorded_case(row)) == row


@pytest.mark.parametrize("kind", BLOCK_KINDS)
def test_a_block_costs_what_the_table_says(kind):
    sizes = counts.BLOCK_SIZES[0]
    row = next(r for r in RECORDED["blocks"] if r["block"] == kind and r["sizes"] == list(sizes))
    statement, by_op = block_statement(small_config(kind, *sizes))
    assert statement.circuit.unsatisfied() == []
    assert statement.counts == row["counts"]
    assert dict(by_op) == row["by_op"]
    assert_determined(statement)


def test_fixed_ternary_weights_cost_no_product_and_no_bit():
    packed = find_op("pack_ternary")(np.array([[1, -1, 0, 1], [0, 1, 1, -1]], np.int8))
    arrays = [np.array([[10, -3, 5, 127]], np.int8), np.array([0], np.int32), packed]
    statement = lower("ternary_linear", arrays, dict(num=1, shift=0), fixed={"e"})
    # One equality per output makes the sum public; nothing else is left.
    assert statement.counts["products"] == statement.counts["bits"] == 0
    assert statement.counts["equalities"] == 2


def test_private_ternary_weights_cost_bits_and_products():
    digits = np.array([[1, -1, 0, 1], [0, 1, 1, -1]], np.int8)
    arrays = [np.array([[10, -3, 5, 127]], np.int8), np.array([0], np.int32), find_op("pack_ternary")(digits)]
    fixed = lower("ternary_linear", arrays, dict(num=1, shift=0), fixed={"e"}).counts
    private = lower("ternary_linear", arrays, dict(num=1, shift=0), fixed={"e"}, private={"w"}).counts
    # For each weight two bits, a check of its code and a product; for each byte that its bits add up to it.
    assert private["bits"] - fixed["bits"] == 2 * digits.size
    assert private["products"] - fixed["products"] == 2 * digits.size
    assert private["equalities"] - fixed["equalities"] == 2


def test_a_private_byte_of_weights_holds_valid_codes():
    circuit = Circuit()
    packed = np.array([circuit.wire(0, 0, 255)], object)
    require_codes(packed, 3)
    bits = next(iter(circuit.decompositions.values()))[0]
    for byte in range(256):
        values = list(circuit.values)
        values[1] = byte
        for i, bit in enumerate(bits):
            values[next(iter(bit.terms))] = (byte >> i) & 1
        codes = [(byte >> 2 * i) & 3 for i in range(4)]
        assert (circuit.unsatisfied(values) == []) == (2 not in codes and codes[3] == 0), byte


def test_depth_counts_products_and_lookups_in_a_row():
    statement = lower("residual_add", [np.array([5], np.int32), np.array([3], np.int16)], dict(num=3, shift=2))
    # The rounding, two comparisons, and a choice after each.
    assert statement.circuit.lookups == 3
    assert max(statement.circuit.depths) == 5


def test_a_private_input_costs_its_range():
    arrays = [np.array([5], np.int16)]
    public = lower("requantize", arrays, dict(shift=2)).counts
    private = lower("requantize", arrays, dict(shift=2), private={"x"}).counts
    # A number of 16 bits, from below and from above, since the range is symmetric.
    assert private["bits"] - public["bits"] == 32
    assert private["equalities"] - public["equalities"] == 2


@pytest.mark.parametrize("kind", BLOCK_KINDS)
def test_a_block_is_lowered_beyond_the_end_of_a_chunk(kind):
    config = small_config(kind, 2, 4, 2)
    statement, _ = block_statement(config, tokens=config.chunk_size + 1)
    assert statement.circuit.unsatisfied() == []
