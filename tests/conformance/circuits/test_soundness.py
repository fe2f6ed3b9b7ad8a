"""No assignment of a circuit's wires proves a wrong result."""

import math

import numpy as np
import pytest

from mamba_integer.conformance.circuits import rules
from mamba_integer.conformance.circuits.constraints import (
    MODULUS,
    Circuit,
    CircuitError,
    FieldOverflowError,
    Integer,
    add,
    multiply,
    value_of,
)
from mamba_integer.conformance.circuits.counts import usual_case
from mamba_integer.conformance.circuits.lowering import PRIVATE, Builder, lower
from mamba_integer.spec import integers
from mamba_integer.spec.bounds import Interval
from mamba_integer.spec.contract import find_op

from .solver import assignments
from .uniqueness import determined

UNARY = {
    "floor shift": (lambda x: rules.right_shift(x, 2), lambda x: x >> 2),
    "rounded shift": (lambda x: rules.right_shift(add(x, 2), 2), lambda x: (x + 2) >> 2),
    "shift beyond its width": (lambda x: rules.right_shift(x, 9), lambda x: x >> 9),
    "mask": (lambda x: rules.bitwise_and(x, 5), lambda x: x & 5),
    "negative mask": (lambda x: rules.bitwise_and(x, -4), lambda x: x & -4),
    "inclusive or": (lambda x: rules.bitwise_or(x, 5), lambda x: x | 5),
    "exclusive or": (lambda x: rules.bitwise_xor(x, 2), lambda x: x ^ 2),
    "clamp": (lambda x: rules.minimum(rules.maximum(x, -3), 3), lambda x: min(max(x, -3), 3)),
    "magnitude": (rules.absolute, abs),
    "sign": (rules.sign, lambda x: (x > 0) - (x < 0)),
    "quotient by 3": (lambda x: rules.floor_divide(x, 3), lambda x: x // 3),
    "equality": (lambda x: rules.equal(x, 3), lambda x: int(x == 3)),
    "comparison with a power of two": (lambda x: rules.greater_equal(rules.absolute(x), 4), lambda x: int(abs(x) >= 4)),
    "square": (lambda x: multiply(x, x), lambda x: x * x),
    "root": (lambda x: rules.isqrt(multiply(x, x)), abs),
    "length": (rules.bit_length, lambda x: abs(x).bit_length()),
    "length of 5 to 19": (lambda x: rules.bit_length(add(x, 12)), lambda x: (x + 12).bit_length()),
    "length that is always 4": (lambda x: rules.bit_length(add(rules.sign(x), 9)), lambda x: 4),
    "root that is always 7": (lambda x: rules.isqrt(add(x, 56)), lambda x: 7),
    "quotient that is always 1": (lambda x: rules.floor_divide(add(x, 22), 15), lambda x: 1),
    "choice by a number": (lambda x: rules.where(x, 5, 3), lambda x: 5 if x else 3),
}


def outputs(circuit: Circuit, result, known: dict[int, int]) -> set[int]:
    """Return every value that the result may have in an assignment that satisfies all constraints."""
    if not isinstance(result, Integer):
        return {result}
    wires = list(result.terms)
    reached = set()
    for assignment in assignments(circuit, known):
        total = (sum(result.terms[w] * assignment[w] for w in wires) + result.constant) % MODULUS
        reached.add(total if total < MODULUS // 2 else total - MODULUS)
    return reached


@pytest.mark.parametrize("name", UNARY)
def test_every_assignment_gives_the_right_result(name):
    rule, right = UNARY[name]
    for value in range(-7, 8):
        circuit = Circuit()
        x = circuit.wire(value, -7, 7)
        assert outputs(circuit, rule(x), {1: value}) == {right(value)}


BINARY = {
    "shift by an input": (lambda x, s: rules.right_shift(x, s), lambda x, s: x >> s),
    "shift left by an input": (lambda x, s: rules.left_shift(x, s), lambda x, s: x << s),
    "quotient by an input": (lambda x, s: rules.floor_divide(x, add(s, 1)), lambda x, s: x // (s + 1)),
    "greater of two": (rules.maximum, max),
    "one of three": (lambda x, s: rules.choose(s, x, 4, multiply(x, x)), lambda x, s: (x, 4, x * x)[s]),
    "both of two": (
        lambda x, s: rules.bitwise_and(rules.less(x, 0), rules.equal(s, 2)),
        lambda x, s: int(x < 0 and s == 2),
    ),
    "one of two": (
        lambda x, s: rules.bitwise_or(rules.less(x, 0), rules.equal(s, 2)),
        lambda x, s: int(x < 0 or s == 2),
    ),
    "choice": (lambda x, s: rules.where(rules.less(x, s), s, x), max),
}


@pytest.mark.parametrize("name", BINARY)
@pytest.mark.parametrize("value", [-5, -1, 0, 3])
@pytest.mark.parametrize("other", [0, 2])
def test_every_assignment_gives_the_right_result_of_two(name, value, other):
    rule, right = BINARY[name]
    circuit = Circuit()
    x, s = circuit.wire(value, -5, 3), circuit.wire(other, 0, 2)
    assert outputs(circuit, rule(x, s), {1: value, 2: other}) == {right(value, other)}


# One value alone, two, a power of two of them, and others.
@pytest.mark.parametrize(
    "bounds", [(0, 0), (3, 3), (-2, -2), (0, 1), (-1, 0), (3, 4), (-5, 4), (0, 7), (-4, 3), (2, 7)]
)
def test_a_private_input_is_held_in_its_range(bounds):
    low, high = bounds
    for forged in range(-12, 13):
        builder = Builder()
        builder.input("x", np.array([low]), Interval(low, high), PRIVATE)
        possible = any(True for _ in assignments(builder.circuit, {builder.private[0]: forged % MODULUS}))
        assert possible == (low <= forged <= high)


def forged(statement, wire, value):
    values = list(statement.circuit.values)
    values[wire] = value
    return statement.circuit.unsatisfied(values)


def test_a_private_input_of_one_value_has_it():
    arrays = scan_arrays()
    arrays[2] = np.zeros_like(arrays[2])  # base, at most n_max
    statement = lower("selective_scan_step", arrays, dict(k=8, n_max=0, s_v=4, s_h=2, s_y=3, convex=1), {"base"})
    assert forged(statement, statement.private[0], 0) == []
    assert forged(statement, statement.private[0], 5)


def test_a_private_input_without_weight_is_held_in_its_range():
    packed = find_op("pack_ternary")(np.zeros((2, 4), np.int8))
    arrays = [np.array([[10, -3, 5, 127]], np.int8), np.array([0], np.int32), packed]
    statement = lower("ternary_linear", arrays, dict(num=1, shift=0), private={"u"}, fixed={"e"})
    for wire in statement.private:
        assert forged(statement, wire, 128)


def test_an_output_that_no_input_changes_is_public():
    packed = find_op("pack_ternary")(np.zeros((2, 4), np.int8))
    arrays = [np.array([[10, -3, 5, 127]], np.int8), np.array([0], np.int32), packed]
    statement = lower("ternary_linear", arrays, dict(num=1, shift=0), fixed={"e"})
    assert statement.public_values == [0, 0, 10, MODULUS - 3, 5, 127]
    for wire in statement.public[:2]:
        assert forged(statement, wire, 1)


def test_a_private_table_is_refused():
    case = usual_case("dyadic_transform")
    with pytest.raises(CircuitError, match="argument lam: found private, allowed fixed: the sizes and parameters"):
        lower(case.op, case.arrays, case.parameters, {"lam"})


def test_products_that_the_field_does_not_hold_are_refused():
    circuit = Circuit()
    x = circuit.wire(1, 0, 1 << 126)
    with pytest.raises(FieldOverflowError, match="253 bits, allowed 251"):
        multiply(x, x)


def test_a_root_whose_bits_may_wrap_is_refused():
    # Bits allow a root of twice its range, so a square of four times its own.
    with pytest.raises(FieldOverflowError, match="252 bits, allowed 251"):
        rules.isqrt(Circuit().wire(0, 0, (1 << 250) - 1))


def test_wires_of_one_value_are_refused():
    with pytest.raises(CircuitError, match="found wires whose one value is 3, allowed that number itself"):
        Circuit().wire(3, 3, 3)


def test_an_input_outside_its_range_has_no_witness():
    with pytest.raises(CircuitError, match=r"found 8, allowed \[-7, 7\]"):
        Circuit().wire(8, -7, 7)


def scan_arrays():
    int8, int16 = np.int8, np.int16
    arrays = [np.array([[-12800]], int16), np.array([[-7]], int16), np.array([[128]], int16)]
    arrays += [np.array([[3]], int8), np.array([[-5]], int8), np.array([2], int16), np.array([[[-77]]], np.int32)]
    return arrays


def scan_step():
    return lower("selective_scan_step", scan_arrays(), dict(k=8, n_max=250, s_v=4, s_h=2, s_y=3, convex=1))


def test_no_wire_of_a_step_may_change_alone():
    statement = scan_step()
    circuit = statement.circuit
    assert circuit.unsatisfied() == []
    for wire in range(1, len(circuit.values)):
        for change in (-1, 1, 1 << 40):
            values = list(circuit.values)
            values[wire] += change
            assert circuit.unsatisfied(values), f"wire {wire}"


def test_a_quotient_and_its_remainder_may_not_change_together():
    # One more of the quotient, 2**s less of the remainder: their sum is the same, so the bits alone refuse it.
    circuit = Circuit()
    x = circuit.wire(-3, -8, 7)
    quotient = rules.floor_divide(x, 3)
    wire, remainder = next(iter(quotient.terms)), value_of(x) - 3 * quotient.value
    other = next(w for w in range(wire + 1, len(circuit.values)) if circuit.values[w] == remainder)
    values = list(circuit.values)
    values[wire], values[other] = quotient.value + 1, remainder - 3
    assert circuit.unsatisfied(values)


@pytest.mark.parametrize(
    "name", ["floor shift", "clamp", "quotient by 3", "root", "length", "comparison with a power of two"]
)
def test_each_constraint_is_needed_for_one_possible_result(name):
    """The derivation of uniqueness notices every constraint that is left out."""
    circuit = Circuit()
    x = circuit.wire(-5, -7, 7)
    UNARY[name][0](x)
    whole, constraints = set(range(len(circuit.values))), list(circuit.constraints)
    assert determined(circuit, {1}).keys() == whole
    for i in range(len(constraints)):
        circuit.constraints[:] = constraints[:i] + constraints[i + 1 :]
        assert determined(circuit, {1}).keys() < whole, constraints[i]


def test_a_shift_by_an_input_has_one_possible_result():
    circuit = Circuit()
    x, s = circuit.wire(-5, -5, 3), circuit.wire(2, 0, 2)
    rules.right_shift(x, s)
    assert determined(circuit, {1, 2}).keys() == set(range(len(circuit.values)))


def test_constraints_do_not_depend_on_values():
    first = lower("quantize_rows", [np.array([[1, -2, 3]], np.int16)], {})
    second = lower("quantize_rows", [np.array([[-32767, 0, 900]], np.int16)], {})
    assert first.circuit.constraints == second.circuit.constraints


def test_the_root_is_the_specifications():
    for value in (0, 1, 2, 3, 4, 8, 9, 1 << 30, (1 << 31) - 1):
        assert int(integers.isqrt(np.int64(value))) == math.isqrt(value)
