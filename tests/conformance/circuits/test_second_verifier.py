"""snarkjs, which is written independently of our prover, reads the same files, and proves and verifies them."""

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mamba_integer.conformance.circuits.files import r1cs_bytes, wtns_bytes
from mamba_integer.conformance.circuits.lowering import lower

from .scans import scan

CONFORMANCE = Path(__file__).parents[3] / "conformance"
SCRIPT = Path(__file__).with_name("snarkjs.mjs")
LIBRARY = Path(sys.prefix) / "node" / "node_modules" / "snarkjs" / "main.js"
ALLOWED_SECONDS = 300  # a few suffice; a test must not hang


@pytest.mark.skipif(not shutil.which("npm"), reason="npm is missing, so `make` could not install snarkjs")
def test_snarkjs_accepts_the_files_and_refuses_forged_ones(tmp_path):
    assert LIBRARY.exists(), "snarkjs is missing: run `make`, which installs it with npm"
    statement = lower("ssd_scan", *scan(1))
    witness = wtns_bytes(statement)
    forged = bytearray(witness)
    forged[76 + 32] ^= 1  # the lowest bit of the first output
    files = [tmp_path / name for name in ("circuit.r1cs", "witness.wtns", "forged.wtns")]
    for file, content in zip(files, (r1cs_bytes(statement), witness, bytes(forged)), strict=True):
        file.write_bytes(content)
    done = subprocess.run(
        ["node", SCRIPT, LIBRARY, *files], capture_output=True, text=True, timeout=ALLOWED_SECONDS, check=True
    )
    said = json.loads(done.stdout)
    outputs = len(statement.public) - statement.public_inputs
    assert (said["constraints"], said["wires"]) == (statement.counts["constraints"], statement.counts["wires"])
    assert (said["outputs"], said["inputs"]) == (outputs, statement.public_inputs)
    assert (said["checked"], said["forgedChecked"]) == (True, False)
    assert (said["verified"], said["forgedVerified"]) == (True, False)
    assert [int(value) for value in said["publicSignals"]] == statement.public_values


@pytest.mark.skipif(not shutil.which("npm"), reason="npm is missing, so `make` could not install snarkjs")
def test_the_shown_commands_prove_an_op(tmp_path, run_cli):
    block = re.search(r"```sh\n(.*?)```", (CONFORMANCE / "CLAIMS.md").read_text(), re.DOTALL)[1]
    circuit, commands = block.split("\n", 1)
    _, *arguments = shlex.split(circuit)
    counts = run_cli(*arguments, "--json", cwd=tmp_path).json()
    assert counts["constraints"] < 2**7
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv/node").symlink_to(Path(sys.prefix) / "node")
    done = subprocess.run(
        ["sh", "-ec", commands], cwd=tmp_path, capture_output=True, text=True, timeout=ALLOWED_SECONDS
    )
    assert done.returncode == 0 and "OK!" in done.stdout.splitlines()[-1], done.stdout + done.stderr
    assert len(json.loads((tmp_path / "public.json").read_text())) == counts["public"]
