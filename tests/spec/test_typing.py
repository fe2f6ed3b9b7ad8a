"""Editors and type checkers see each op's signature: at run time, and without running anything."""

import inspect
import os
import pydoc
import re
import subprocess
import sys
import typing
from pathlib import Path

import pytest

from mamba_integer import spec

ROOT = Path(__file__).parents[2]
NAMES = {
    *("OPS", "SPEC_VERSION", "DomainError", "Interval", "Op", "UnknownOpError", "Width", "find_op", "implements"),
    *("bounds", "integers", "philox", "tables", "trusted_values"),
}
every_op = pytest.mark.parametrize("op", sorted(spec.OPS))


def test_public_names_are_the_ops_and_a_few_others():
    assert len(set(spec.__all__)) == len(spec.__all__)
    assert set(spec.__all__) == set(spec.OPS) | NAMES
    assert all(getattr(spec, name) is entry for name, entry in spec.OPS.items())


@every_op
def test_annotations_agree_with_the_contract(op):
    entry = spec.OPS[op]
    signature = inspect.signature(entry)
    kinds = [(p.name, p.kind) for p in signature.parameters.values()]
    assert kinds == [(t.name, inspect.Parameter.POSITIONAL_ONLY) for t in entry.inputs] + [
        (p.name, inspect.Parameter.KEYWORD_ONLY) for p in entry.parameters
    ]
    hints = typing.get_type_hints(entry.golden)
    for tensor in entry.inputs:
        assert dtypes(hints[tensor.name]) == list(tensor.dtypes)
    assert all(hints[parameter.name] is int for parameter in entry.parameters)
    results = typing.get_args(hints["return"]) if len(entry.outputs) > 1 else (hints["return"],)
    assert [dtypes(result) for result in results] == [list(tensor.dtypes) for tensor in entry.outputs]


def dtypes(hint) -> list[str]:
    """Return the dtypes of an array type, or of a union of array types."""
    return re.findall(r"numpy\.dtype\[numpy\.(\w+)\]", str(hint))


def test_help_shows_signature_and_docstring():
    text = pydoc.plain(pydoc.render_doc(spec.saturate))
    assert "<op saturate(x, /, *, bits)>" in text and "Clamp x to the symmetric range" in text
    assert "bits : int in [2, 32]" in text and "Op(" not in text


CALLS = """\
import numpy as np
from mamba_integer import spec
from mamba_integer.spec import saturate, selective_scan
x = np.zeros(3, np.int32)
wide = np.zeros(3, np.int64)
reveal_type(saturate(x, bits=8))
reveal_type(selective_scan)
saturate(x, bit=8)
saturate(x=x, bits=8)
saturate(x, 8)
saturate(wide, bits=8)
saturate(x)
spec.saturated
@spec.implements(spec.saturate)
def kernel(x: int, *, bits: int) -> str:
    return ""
reveal_type(kernel(3, bits=4))
"""


def test_a_type_checker_sees_signatures(tmp_path):
    path = tmp_path / "calls.py"
    path.write_text(CALLS)
    command = [sys.executable, "-m", "mypy", "--config-file", ROOT / "pyproject.toml", path]
    environment = os.environ | {"MYPYPATH": str(ROOT / ".ci/editable")}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    said = [line.partition("calls.py:")[2] for line in done.stdout.splitlines() if "calls.py:" in line]

    def at(line: int) -> str:
        return "\n".join(text for text in said if text.startswith(f"{line}: "))

    assert done.returncode == 1, done.stdout + done.stderr
    assert re.search(r"ndarray\[.*signedinteger\[.*_32Bit", at(6))
    assert re.search(r"Op\[\[.*_16Bit.*, \*, k: int, n_max: int, .*convex: int\], tuple\[", at(7))
    assert 'Unexpected keyword argument "bit"' in at(8) and 'Unexpected keyword argument "x"' in at(9)
    assert "Too many positional arguments" in at(10) and "_64Bit" in at(11) and "Missing named argument" in at(12)
    assert 'Module has no attribute "saturated"' in at(13) and "str" in at(17)
    assert {int(text.partition(":")[0]) for text in said if ": error:" in text} == set(range(8, 14))
