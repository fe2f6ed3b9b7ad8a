"""The command that counts constraints and writes circuits."""

import re
import shlex
from pathlib import Path

import pytest

from mamba_integer.spec.contract import OPS

ROOT = Path(__file__).parents[3]


def test_a_circuit_is_counted_and_written(cli, tmp_path):
    r1cs, wtns = tmp_path / "step.r1cs", tmp_path / "step.wtns"
    sizes = [f"--size={name}=1" for name in "HPS"]
    counts = cli("circuit", "ssd_scan_step", *sizes, "--r1cs", r1cs, "--wtns", wtns, "--json").json()
    assert counts["constraints"] == counts["products"] + counts["bits"] + counts["equalities"]
    assert counts["public"] == 8  # two outputs, six inputs
    assert r1cs.read_bytes()[:4] == b"r1cs"
    # A header of 76 bytes, of 24 the two heads of sections, and an element of the field for each wire.
    assert len(wtns.read_bytes()) == 76 + 32 * counts["wires"]


def test_a_private_input_adds_constraints(cli):
    public = cli("circuit", "squareplus", "--json").json()
    private = cli("circuit", "squareplus", "--private", "x", "--json").json()
    assert private["bits"] == public["bits"] + 32
    assert private["public"] == public["public"] - 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("argmax",), "argmax has no circuit for this call"),
        (("squareplus", "--size", "f=--5"), "--size: found 'f=--5', allowed NAME=INTEGER"),
        (("squareplus", "--size", f"f={10**30}"), f"--size: squareplus: argument f: found {10**30}"),
        (("squareplus", "--size", "f=" + "9" * 5000), "--size: found 'f=9999"),
        (("squareplus", "--size", "f=\u0663"), "--size: found 'f=\u0663'"),
        (("squareplus", "--size", "g=1"), "--size: found 'g', allowed f, leading, offset"),
        (("squareplus", "--size", "f=99"), "found 99, allowed [0, 14]"),
        (("squareplus", "--private", "y"), "--private: found 'y', allowed x"),
        (("squareplus", "--private", "x", "--fixed", "x"), "--fixed: found 'x', which is private"),
        (("unpack_trits", "--private", "packed"), "argument packed: found private, allowed fixed"),
        (("dyadic_transform", "--private", "lam"), "argument lam: found private, allowed fixed"),
        (("ssd_scan_step", "--size", "S=--5"), "--size: found 'S=--5', allowed NAME=INTEGER"),
        (("ssd_scan_step", "--size", "Q=5"), "--size: found 'Q', allowed B, H, P, S, convex"),
        (("ssd_scan_step", "--size", f"S={10**30}"), "--size: "),
        (("isqrt", "--size", "leading=-1"), "--size: found 'leading=-1', allowed 0 to 2147483647 rows"),
        (("isqrt", "--size", f"leading={10**30}"), "allowed 0 to 2147483647 rows"),
        (("squareplus", "--r1cs", "/no/such/folder/file"), "--r1cs: found no folder"),
    ],
)
def test_errors_name_the_argument(cli, arguments, message):
    done = cli("circuit", *arguments)
    assert done.code == 2
    assert message in done.err and "internal" not in done.err


def test_each_claim_has_a_command_that_exists():
    page = (ROOT / "conformance" / "CLAIMS.md").read_text()
    rows = [line for line in page.splitlines() if line.startswith("| ") and "---" not in line][1:]
    assert len(rows) > 5
    commands = [command for row in rows for command in re.findall("`([^`]+)`", row.rsplit(" | ", 1)[1])]
    assert len(commands) >= len(rows)
    for command in map(shlex.split, commands):
        if command[0] == "pytest":
            text = (ROOT / command[1]).read_text()
            names = command[-1].split(" or ") if "-k" in command else ()
            assert all(re.search(rf"def test_\w*{name}", text) for name in names), command
        elif command[0] == "python":
            assert (ROOT / command[2].replace(".", "/")).with_suffix(".py").exists()
        else:
            assert command[:2] == ["mamba-integer", "circuit"]
            assert command[2] in OPS
