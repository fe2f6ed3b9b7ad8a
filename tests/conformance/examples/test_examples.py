"""The examples are run as their README says."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mamba_integer.conformance.vectors import folder
from mamba_integer.spec import OPS

ROOT = Path(__file__).parents[3]
EXAMPLES = ROOT / "conformance/examples"
README = EXAMPLES / "README.md"
STRICT = ["-std=c99", "-O1", "-Wall", "-Wextra", "-Werror"]
MAIN = """
from mamba_integer.backends.app.main import main

if __name__ == "__main__":
    main()
"""
C_OPS = {
    "bitshift_norm",
    "dyadic_rotate",
    "philox4x32",
    "selective_scan",
    "selective_scan_step",
    "sigmoid_gate",
    "softmax_pow2",
    "squareplus",
    "ternary_linear",
}


def command_of(language: str) -> str:
    """Return the command of one example, as the README shows it."""
    (command,) = re.findall(rf"# {language}: .*\n(.*)\n", README.read_text())
    return command


def run_shown(language: str, place: Path, more: str = "") -> subprocess.CompletedProcess:
    """Run a shown command, with more arguments, in a folder that has only a link to the sources."""
    if not (place / "conformance").exists():
        (place / "conformance").symlink_to(ROOT / "conformance")
    shim = place / "bin/mamba-integer"
    shim.parent.mkdir(exist_ok=True)
    shim.write_text(f"#!{sys.executable}\n{MAIN}")
    shim.chmod(0o755)
    command = command_of(language).replace("PYTHONPATH=", f"PYTHONPATH={os.environ.get('PYTHONPATH', '')}:")
    environment = os.environ | {"PATH": f"{shim.parent}:{os.environ['PATH']}"}
    return subprocess.run(
        ["sh", "-c", command + more], cwd=place, env=environment, capture_output=True, text=True, timeout=300
    )


def test_the_c_program_has_its_ops_right(tmp_path):
    done = run_shown("C99", tmp_path, " --preset smoke")  # the other presets take its pipe ten seconds
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(C_OPS)} passed" in done.stdout and all(op in done.stdout for op in C_OPS)


def test_the_c_program_is_strict_and_its_harness_short(tmp_path):
    sources = sorted(EXAMPLES.glob("c/*.c"))
    subprocess.run(["cc", *STRICT, "-pedantic", *sources, "-o", tmp_path / "mine"], check=True)
    assert len((EXAMPLES / "c/harness.c").read_text().splitlines()) <= 150
    assert set(OPS) > C_OPS


def test_thirty_lines_of_python_are_a_backend(tmp_path):
    done = run_shown("Python", tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "6 passed" in done.stdout
    assert len((EXAMPLES / "python/thirty_lines.py").read_text().splitlines()) <= 30


def test_a_triton_kernel_is_a_backend(tmp_path):
    done = run_shown("Triton", tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout


SIMULATORS = {"icarus": "iverilog", "verilator": "verilator"}


@pytest.mark.parametrize("simulator", SIMULATORS)
def test_the_verilog_step_has_its_vectors_right(simulator, tmp_path):
    """Where a simulator isn't installed, the test says so by its xfail; the vectors that it would read are checked."""
    if shutil.which(SIMULATORS[simulator]) is None:
        folder.export(tmp_path / "hex", ["selective_scan_step"], "minimal", 0, "hex")
        assert folder.check(tmp_path / "hex").vectors > 30
        pytest.xfail(f"{simulator} isn't installed: the vectors were checked, the module wasn't simulated")
    done = run_shown("Verilog", tmp_path, f" SIMULATOR={simulator}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "equal: " in done.stdout and "WARNING" not in done.stdout
    assert "equal: " in run_shown("Verilog", tmp_path, f" SIMULATOR={simulator}").stdout, "a second run"


def test_a_missing_simulator_is_named(tmp_path):
    make = ["make", "-f", EXAMPLES / "verilog/Makefile", "SIMULATOR="]
    done = subprocess.run(make, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2 and "neither Icarus Verilog (iverilog) nor Verilator" in done.stderr


GO_HEAD = """package main

import ("bufio"; "encoding/json"; "fmt"; "math/bits"; "os"; "strconv"; "strings")

type Tensor struct {
	Dtype string `json:"dtype"`
	Shape []int `json:"shape"`
	Data string `json:"data"`
	Path string `json:"-"`
}
type Request struct { Cmd, Op string; Seq int; Inputs []struct { Shape []int; Data, Path string } }

var ops = map[string]func(Request) []Tensor{"bit_length": func(r Request) []Tensor {
	x := r.Inputs[0]
	raw, _ := os.ReadFile(x.Path)
	words := strings.Fields(x.Data)
	for ; len(raw) >= 4; raw = raw[4:] {
		v := int32(uint32(raw[0]) | uint32(raw[1])<<8 | uint32(raw[2])<<16 | uint32(raw[3])<<24)
		words = append(words, strconv.Itoa(int(v)))
	}
	for i, word := range words {
		v, _ := strconv.Atoi(word)
		if v < 0 { v = -v }
		words[i] = strconv.Itoa(bits.Len(uint(v)))
	}
	return []Tensor{{Dtype: "int32", Shape: x.Shape, Data: strings.Join(words, " ")}}
}}

func main() {
"""


@pytest.mark.parametrize("length", ["bits.Len(uint(v))", "bits.Len(uint(v / 2))"])
def test_the_loop_in_go_is_a_backend(length, tmp_path, run_process):
    """Where Go isn't installed, the test says so by its xfail; the loop has the fields of the protocol all the same."""
    (loop,) = re.findall(r"```go\n(.*?)```", (ROOT / "conformance/PROTOCOL.md").read_text(), re.DOTALL)
    assert len(loop.splitlines()) == 12 and all(field in loop for field in ("r.Cmd", "r.Seq", '"outputs"', '"run"'))
    if shutil.which("go") is None:
        pytest.xfail("go isn't installed: the loop was not built")
    right = "bits.Len(uint(v))"
    (tmp_path / "main.go").write_text(GO_HEAD.replace(right, length) + loop + "}\n")
    environment = os.environ | {"GOCACHE": str(tmp_path / "cache"), "GO111MODULE": "off", "GOFLAGS": ""}
    built = run_process(["go", "build", "-o", str(tmp_path / "mine"), str(tmp_path / "main.go")], env=environment)
    assert built.code == 0, built.err
    run = [
        sys.executable,
        "-c",
        MAIN,
        "conform",
        "--command",
        str(tmp_path / "mine"),
        "--implemented",
        "--preset",
        "smoke",
    ]
    done = run_process([*run, "--no-explain"])
    assert done.code == (0 if length == right else 1), done.out + done.err
    assert ("equal: " if length == right else "FAILED: ") in done.out
