"""Every Triton kernel compiles to sm_90 machine code without a GPU."""

import json
import os
import sys
from pathlib import Path

import pytest

from mamba_integer import spec

FAMILIES = sorted({op.family for op in spec.OPS.values()})


@pytest.mark.parametrize("family", [*FAMILIES, "hashes"])
def test_kernels_compile_for_hopper(family, run_process):
    ops = [name for name, op in spec.OPS.items() if op.family == family] or [family]
    script = Path(__file__).with_name("compile_for_hopper.py")
    environment = os.environ | {"TRITON_INTERPRET": "0"}
    done = run_process([sys.executable, script, *ops], env=environment)
    assert done.code == 0, done.err[-3000:]
    kernels = json.loads(done.out)["kernels"]
    assert set(kernels) == set(ops)
    assert all(kernels[op] for op in ops), f"ops that launch no kernel: {[op for op in ops if not kernels[op]]}"


def test_triton_imported_too_early_is_named(run_process):
    """Without a GPU the interpreter must be chosen before Triton is imported; else the first kernel fails obscurely."""
    code = "import triton, mamba_integer.backends as b; b.load('triton', 'cpu')"
    environment = {name: v for name, v in os.environ.items() if name != "TRITON_INTERPRET"} | {
        "CUDA_VISIBLE_DEVICES": ""
    }
    done = run_process([sys.executable, "-c", code], env=environment)
    assert done.code != 0 and "set TRITON_INTERPRET=1" in done.err.splitlines()[-1]
