"""JSON that others wrote has one meaning, or is refused with a reason; all that is read goes through this one rule."""

import ast
import json
from pathlib import Path

import pytest

from mamba_integer import backends, conformance
from mamba_integer.backends.files.strict_json import DEEPEST, parse_json

# Files that the package or the very run has written, and that nobody else hands over.
OWN = {
    "backends/files/container.py": "the header that the library has just made",
    "conformance/circuits/models.py": "counts of the package",
    "conformance/circuits/pages.py": "counts of the package",
    "conformance/diagnosis/trial.py": "the pipe of a child process",
    "conformance/engine/case_cache.py": "a file whose hash was compared",
    "conformance/engine/journal.py": "the journal of a worker",
    "conformance/mutants/memory.py": "verdicts of this checkout",
    "conformance/mutants/mutation.py": "verdicts of this checkout",
    "conformance/reports/badge.py": "the manifest of the package",
    "conformance/sanitizer.py": "counts of the very run",
}

REFUSED = [
    ('{"a":1,"a":1}', "key 'a' stands twice"),
    ('[{"a":{"b":1,"c":2,"b":3}}]', "key 'b' stands twice"),
    ("[" * 100_000 + "]" * 100_000, f"nested too deep, allowed {DEEPEST}"),
    ('{"a":' * 100_000 + "1" + "}" * 100_000, f"nested too deep, allowed {DEEPEST}"),
    ("[" * (DEEPEST + 1) + "]" * (DEEPEST + 1), f"nested too deep, allowed {DEEPEST}"),
    ("NaN", "NaN is no JSON number"),
    ("[-Infinity]", "-Infinity is no JSON number"),
    ("[1e999]", "1e999 is too large for a number"),
    ("9" * 5000, "an integer of 5000 digits is too long"),
    ('["\\ud800"]', "half of a surrogate pair"),
    ('{"\\udc00a": 1}', "half of a surrogate pair"),
    ('["\ud800"]', "half of a surrogate pair"),
    (b'["\xff"]', "not UTF-8 at byte 2"),
    (b'["\xed\xa0\x80"]', "not UTF-8 at byte 2"),
    ('{"a":1}'.encode("utf-16"), "not UTF-8 at byte 0"),
    ('{"a":1}'.encode("utf-32-be"), "Expecting value"),
    ("", "Expecting value"),
    ("{'a':1}", "Expecting property name"),
    ("1 2", "Extra data"),
]


@pytest.mark.parametrize(("text", "says"), REFUSED)
def test_text_of_no_or_two_meanings_is_refused(text, says):
    with pytest.raises(ValueError) as raised:
        parse_json(text)
    assert says in str(raised.value) and len(str(raised.value)) < 200 and str(raised.value).isprintable()


def test_an_object_of_many_keys_is_refused_at_once():
    keys = ",".join(f'"{i}":0' for i in range(200_000))
    with pytest.raises(ValueError, match="key '7' stands twice"):
        parse_json(f'{{{keys},"7":0}}')


def test_floats_are_refused_where_all_are_integers():
    for text in ("[1.5]", "[1e5]", "[-0.0]"):
        parse_json(text)
        with pytest.raises(ValueError, match="is no integer"):
            parse_json(text, floats=False)


def test_what_is_json_keeps_its_value():
    for value in (None, True, 2**200, -1.5, "\U0001f43e é", {"a": [{"b": {}}, []]}, "[" * 200, "\\ud800"):
        assert parse_json(json.dumps(value)) == value
        assert parse_json(json.dumps(value, ensure_ascii=False).encode()) == value
    assert parse_json(b'\xef\xbb\xbf{"a": 1}') == {"a": 1}, "Windows writes a mark in front"
    deepest: list = []
    for _ in range(DEEPEST - 1):
        deepest = [deepest, 1]
    assert parse_json(json.dumps(deepest)) == deepest


def test_no_module_reads_json_of_others_by_itself():
    found = set()
    for package in (backends, conformance):
        root = Path(package.__file__).resolve().parent
        for path in root.rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                if isinstance(node, ast.Call) and ast.unparse(node.func) in ("json.loads", "json.load"):
                    found.add(str(path.relative_to(root.parent)))
    assert found - {"backends/files/strict_json.py"} == set(OWN)
