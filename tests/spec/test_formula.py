"""Formulas: the text that people read is the code that computes."""

from types import SimpleNamespace

import pytest

from mamba_integer.spec.formula import Formula

AT = SimpleNamespace(k=8, n_max=200, s=3, convex=1)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2**k - 1", 255),
        ("-(n_max // 3)", -66),
        ("-n_max // 3", -67),
        ("7 if convex else k", 7),
        ("max(0, -s) + min(s, 5)", 3),
        ("shift_round(5, 1) * 100 + shift_even(5, 1)", 302),
        ("ceil_div(-7, 2) + ceil_div(7, 2)", 1),
    ],
)
def test_value(text, value):
    formula = Formula(text)
    assert formula(AT) == value and formula.text == text


def test_definitions_stand_for_their_text():
    formula = Formula("lost - h", half="2**(k - 1)", h="half * 3", lost="2**k - n_max")
    assert formula(AT) == 56 - 384
    assert sorted(formula.names) == ["k", "n_max"]
    assert next(iter(formula.where.items())) == ("half", "2**(k - 1)")


def test_names_are_sizes_and_parameters_alone():
    assert Formula("max(V, 1) - 1").names == ("V",)


@pytest.mark.parametrize(
    "text",
    [
        "k.real",
        "k[0]",
        "1.5 * k",
        "abs(k)",
        "k < 3",
        "lambda: k",
        "'k'",
        "True",
        "max(k, default=1)",
        "[k]",
        "k @ k",
        "k / 2",
    ],
)
def test_anything_else_is_refused(text):
    with pytest.raises(ValueError, match="formula"):
        Formula(text)


def test_a_definition_is_checked_too():
    with pytest.raises(ValueError, match="open"):
        Formula("v + 1", v="open(k)")


def test_an_unknown_name_has_no_value():
    with pytest.raises(AttributeError, match="V"):
        Formula("V - 1")(AT)
