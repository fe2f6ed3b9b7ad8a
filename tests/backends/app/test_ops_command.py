"""The command ops: formulas, numbers at given sizes and parameters, and pages."""

import json
import sys

import pytest

from mamba_integer import spec
from mamba_integer.backends.app.main import main
from mamba_integer.spec.pages import pages

SCAN = ("--at", "N=16", "--at", "k=8", "--at", "n_max=255", "--at", "s_v=8", "--at", "s_h=0", "--at", "s_y=0")


@pytest.fixture
def run(monkeypatch, capsys):
    def command(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["mamba-integer", "ops", *arguments])
        with pytest.raises(SystemExit) as done:
            main()
        return done.value.code, *capsys.readouterr()

    return command


def test_formulas_of_every_op(run):
    code, out, _ = run("--json")
    ops = json.loads(out)["ops"]
    assert code == 0 and list(ops) == list(spec.OPS)
    assert ops["selective_scan"]["step"] == ["selective_scan_step"]
    assert ops["embedding"]["inputs"][0]["range"] == "[0, V - 1]"
    assert all("intermediates" not in contract for contract in ops.values())
    code, out, _ = run()
    assert code == 0 and "bound by" not in out and "computed by" not in out
    assert "n_max in [0, 2**k - 1]" in out and "where u = shift_even(32767 * 127, s_g)" in out


def test_numbers(run):
    code, out, _ = run("--op", "selective_scan", *SCAN, "--at", "convex=0", "--json")
    contract = json.loads(out)["ops"]["selective_scan"]
    assert code == 0 and contract["intermediates"]["n"]["high"] == 255
    code, out, _ = run("--op", "selective_scan", "--op", "quantize_rows", *SCAN, "--at", "convex=0", "--at", "K=3")
    assert code == 0 and "intermediate n in [0, 255], int16" in out and "intermediate q in [-127, 127], int8" in out
    assert "2**k" not in out.split("C1")[0] and "size         K in [1, 2**20]" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--op", "selective_scan", *SCAN), "selective_scan: no value for convex"),
        (("--op", "selective_scan", *SCAN, "--at", "convex=2"), "argument convex: found 2, allowed [0, 1]"),
        (
            ("--op", "selective_scan", "--at", "d_state=16"),
            "no size or parameter is called 'd_state'; selective_scan has",
        ),
        (("--op", "saturate", "--at", "bits=8", "--at", "leading=-1"), "--at: found 'leading=-1', allowed 0 to "),
        (("--op", "saturate", "--at", "bits=eight"), "found 'bits=eight', allowed NAME=INTEGER"),
        (("--at", "bits=8"), "name them with --op"),
        (("--op", "saturated"), "unknown op 'saturated'"),
    ],
)
def test_errors_are_one_line(run, arguments, message):
    code, out, err = run(*arguments)
    assert code == 2 and not out
    assert message in err and err.count("\n") == 1 and "internal" not in err


def test_widths_of_a_named_op_are_shown_or_told_how_to_get(run):
    _, out, _ = run("--op", "isqrt")
    assert "intermediate r in [0, 46340], int32" in out
    _, out, _ = run("--op", "ternary_linear")
    assert "for the width of each intermediate, add --at NAME=INTEGER for K, num, shift" in out
    assert "--at" not in run()[1]


def test_pages_are_written(run, tmp_path):
    assert run("--pages", str(tmp_path))[0] == 0
    written = {str(path.relative_to(tmp_path)): path.read_text() for path in tmp_path.rglob("*.md")}
    assert written == pages()
