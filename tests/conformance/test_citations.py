"""Every clause of every contract has evidence, and the evidence holds."""

import re
from pathlib import Path

import pytest

from mamba_integer.conformance import citations, evidence
from mamba_integer.spec import OPS

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("op", OPS)
def test_every_clause_has_evidence(op):
    assert list(citations.missing(op, ROOT)) == []


def test_a_mistake_names_the_clause_that_it_breaks():
    assert citations.clauses_broken("bitshift_norm", ["the floor division truncates toward zero"]) == ["C1"]
    assert citations.clauses_broken("bitshift_norm", ["the moon is made of cheese"]) == []


def test_evidence_is_for_ops_that_exist():
    assert set(citations.CITATIONS) <= set(OPS)


@pytest.mark.parametrize(
    ("cited", "says"),
    [
        ({}, "saturate C1: no evidence"),
        ({"C1": citations.EDGE, "C2": "x is taken as zero"}, "saturate C2: no such clause"),
        ({"C1": "the moon is made of cheese"}, "saturate C1: no listed vector shows 'the moon is made of cheese'"),
        ({"C1": "relation chunks"}, "saturate C1: no relation chunks"),
        ({"C1": "test tests/none.py::test_none"}, "saturate C1: no test tests/none.py::test_none"),
        ({"C1": "test tests/conformance/test_citations.py::test_none"}, "saturate C1: no test tests/conformance"),
    ],
)
def test_a_gap_is_told(cited, says, monkeypatch):
    monkeypatch.setitem(citations.CITATIONS, "saturate", cited)
    (missing,) = citations.missing("saturate", ROOT)
    assert missing.startswith(says)


def test_the_page_is_current():
    assert evidence.PAGE.read_text() == evidence.text(), "run python -m mamba_integer.conformance.evidence"
    for path in re.findall(r"\]\((\.\./[^)#]+)\)", evidence.PAGE.read_text()):
        assert (evidence.PAGE.parent.resolve() / path).is_file(), path
