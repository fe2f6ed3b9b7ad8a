"""Docstrings and pages: written by hand where meaning is, generated where the contract knows."""

import ast
import inspect
import re
from pathlib import Path

import pytest

from mamba_integer import spec
from mamba_integer.spec.contract import Op, Tensor
from mamba_integer.spec.describe import MissingValuesError, describe, symbols
from mamba_integer.spec.pages import EVIDENCE, pages

FOLDER = Path(__file__).parents[2] / "spec" / "ops"
OPS = sorted(spec.OPS)
every_op = pytest.mark.parametrize("op", OPS)


def titles(text: str) -> list[str]:
    return re.findall(r"^(\w+)\n-+$", text, flags=re.MULTILINE)


def test_pages_are_up_to_date():
    """Else: mamba-integer ops --pages spec/ops."""
    texts = pages()
    committed = {str(p.relative_to(FOLDER)): p.read_text(encoding="utf-8") for p in FOLDER.rglob("*.md")}
    assert committed.keys() == texts.keys()
    assert [name for name, text in texts.items() if committed[name] != text] == []


def test_links_of_pages_lead_to_headings():
    texts = pages()
    for name, text in texts.items():
        for file, anchor in re.findall(r"\]\(([\w/]+\.md)(?:#(\w+))?\)", text):
            target = texts[file if name == "README.md" else f"reference/{file}"]
            assert not anchor or f"\n## {anchor}\n" in target, (name, file, anchor)


@every_op
def test_docstring_has_what_the_contract_says(op):
    entry = spec.OPS[op]
    text = inspect.getdoc(entry)
    first = text.split("\n", 1)[0]
    assert first.endswith(".") and len(first) <= 116 and not first.startswith("Return")
    want = ["Parameters", "Returns", "Raises", "Clauses", "Notes", "Examples"]
    assert [title for title in want if title in titles(text)] == titles(text)
    assert {"Parameters", "Returns", "Raises", "Examples"} <= set(titles(text))
    for tensor in (*entry.inputs, *entry.outputs):
        assert re.search(rf"^{tensor.name} : {' or '.join(tensor.dtypes)} array, shape ", text, re.MULTILINE)
    for parameter in entry.parameters:
        assert re.search(rf"^{parameter.name} : int", text, re.MULTILINE)
    said = " ".join(text.split())
    assert all(f" {label}: {' '.join(clause.split())} " in f"{said} " for label, clause in entry.clauses.items())
    assert set(re.findall(r"\bC[0-9]+\b", text)) <= set(entry.clauses)
    assert entry.golden.__doc__ == entry.__doc__


def test_no_docstring_types_what_the_contract_says():
    for path in FOLDER.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef) and node.name in spec.OPS:
                assert not {"Parameters", "Returns", "Raises"} & set(titles(ast.get_docstring(node))), node.name


@every_op
def test_every_bound_is_text(op):
    """A bound is a number or a formula: a function alone could not be shown."""
    entry = spec.OPS[op]
    for argument in (*entry.inputs, *entry.outputs, *entry.parameters):
        assert "computed by" not in argument.domain, argument.name
        assert argument.meaning or entry.family == "primitives", f"{argument.name} has no meaning"


def test_numbers_of_a_contract():
    values = {"N": 16, "k": 8, "n_max": 255, "s_v": 8, "s_h": 0, "s_y": 0, "convex": 0}
    contract = describe(spec.selective_scan, values)
    (state,) = (argument for argument in contract["inputs"] if argument["name"] == "h")
    # |v| <= 127 * 32767 / 256 = 16255.504, rounded to 16256; with a decay of 255/256 the state has up to 256 of them.
    assert state["bounds"] == {"int32": [-16256 * 256, 16255 * 256 + 1]}
    assert contract["intermediates"]["v"] == {"low": -16256, "high": 16256, "dtype": "int32", "attained": True}
    assert contract["parameters"][1]["bounds"] == [0, 255]
    assert "v_max" in state["where"] and state["range"].startswith("[v_min if convex")
    assert "intermediates" not in describe(spec.selective_scan)


def test_numbers_that_depend_on_more_are_asked_for():
    with pytest.raises(MissingValuesError, match="no value for N, n_max, s_v, s_h, s_y, convex") as error:
        describe(spec.selective_scan, {"k": 8})
    assert "k," not in str(error.value)
    with pytest.raises(MissingValuesError, match="no value for leading; leading is the number of rows"):
        describe(spec.embedding_backward, {"V": 3})
    sums = describe(spec.embedding_backward, {"V": 3, "leading": 5})["intermediates"]
    assert sums["dtable"]["high"] == 5 * (2**31 - 1)
    with pytest.raises(ValueError, match="saturate: no size or parameter is called q; it has: leading, bits"):
        describe(spec.saturate, {"q": 3})


def test_numbers_outside_the_domain_are_refused():
    with pytest.raises(spec.DomainError, match=r"argument bits: found 33, allowed \[2, 32\]"):
        describe(spec.saturate, {"bits": 33})
    with pytest.raises(spec.DomainError, match="size K"):
        describe(spec.ternary_linear, {"K": 2**21, "num": 1, "shift": 0})
    sums = {"bits": 16, "leading": 2**42}
    with pytest.raises(spec.DomainError, match="intermediate dw"):
        describe(spec.ternary_linear_backward_weight, sums)


@every_op
def test_symbols_are_those_of_the_contract(op):
    entry = spec.OPS[op]
    assert {p.name for p in entry.parameters} | set(entry.sizes) <= set(symbols(entry))


def test_a_function_as_a_bound_still_computes():
    """An op that is being designed may state a bound by a function; its text names the function."""

    def least(at):
        return -at.k

    tensor = Tensor("x", "int16", "B", least, "2**k")
    entry = Op("trial", lambda x, /, *, k: x, (tensor,), (), ())
    assert tensor.domain == "[computed by least, 2**k]"
    assert str(entry.inputs[0].range(type("At", (), {"k": 3}))) == "[-3, 8]"


def test_pages_lead_to_the_evidence_for_each_clause():
    evidence, written = (FOLDER / "reference" / EVIDENCE).resolve().read_text(), pages()
    for name, text in written.items():
        for anchor in re.findall(rf"\({EVIDENCE}#(\w+)\)", text):
            assert f"\n## {anchor}\n" in evidence, name
    assert all(f"({EVIDENCE}#{op})" in written[f"reference/{spec.OPS[op].family}.md"] for op in spec.OPS)
