"""Every Triton kernel compiles to machine code of NVIDIA's and of AMD's GPUs, without a GPU."""

import json
import os
import sys
from pathlib import Path

import pytest

from mamba_integer import spec

from .inline_assembly import early_results

FAMILIES = sorted({op.family for op in spec.OPS.values()})
# Bytes of shared memory that a program may have.
SHARED = {"sm_80": 166_912, "sm_89": 101_376, "sm_90": 232_448, "sm_100": 232_448, "gfx942": 65_536}
LEAST = min(size for target, size in SHARED.items() if target.startswith("sm"))
TENSOR_FAMILIES = {"linear", "scan", "scan_backward"}  # some of those whose kernels differ by generation
# Kernels in Gluon with an op family that launches them, and which of them a target has the instructions for.
GLUON_KERNELS = {
    "staged_scan_kernel": "scan",
    "staged_walk_kernel": "scan_backward",
    "few_rows_kernel": "linear",
    "product_kernel": "linear",
    "quantised_kernel": "linear",
    "errors_kernel": "linear_backward",
}
STAGED = {"staged_scan_kernel", "staged_walk_kernel", "few_rows_kernel"}
GLUON = {"sm_80": STAGED, "sm_89": STAGED, "sm_90": set(GLUON_KERNELS), "sm_100": STAGED, "gfx942": set()}
SHARES = 2  # processes for the ops; several families and all targets to each, which takes seconds to start


@pytest.mark.parametrize("share", range(SHARES))
def test_kernels_compile_without_a_gpu(share, run_process):
    families = FAMILIES[share::SHARES]
    ops = [name for name, op in spec.OPS.items() if op.family in families]
    ops += (["hashes", "fused"] if share == 0 else []) + (["steps"] if share == SHARES - 1 else [])
    script = Path(__file__).with_name("compile_kernels.py")
    done = run_process([sys.executable, script, ",".join(SHARED), *ops], env=os.environ | {"TRITON_INTERPRET": "0"})
    assert done.code == 0, done.err[-3000:]
    constants = json.loads(done.out)["constants"]
    assert constants.get("saturate", ["bits"]) == ["bits"] and constants.get("saturating_add", []) == []
    assembly = json.loads(done.out)["assembly"]
    assert assembly and not [call for call in assembly if list(early_results(*call))]
    for one in SHARED:
        kernels = json.loads(done.out)["kernels"][one]
        assert set(kernels) == set(ops)
        assert all(kernels[op] for op in ops), f"ops that launch no kernel: {[op for op in ops if not kernels[op]]}"
        names = {name for op in ops for name in kernels[op]}
        assert {name for name in GLUON[one] if GLUON_KERNELS[name] in families} <= names
        assert not (set(GLUON_KERNELS) - GLUON[one]) & names
        for op in ops:
            for name, kernel in kernels[op].items():
                # A kernel that is the same for all generations is compiled for one, and must fit into each.
                limit = SHARED[one] if kernel["differs"] or one == "gfx942" else LEAST
                assert kernel["shared"] <= limit, f"{op}: {name}"
        differing = {
            spec.OPS[op].family for op in ops if op in spec.OPS and any(k["differs"] for k in kernels[op].values())
        }
        assert set(families) & TENSOR_FAMILIES <= differing and "residual" not in differing


@pytest.mark.parametrize(
    "code, constraints, results",
    [
        ("max.s16x2 $0, $2, $4; min.s16x2 $1, $3, $5;", "=r,=r,r,r,r,r", [0]),
        ("max.s16x2 $0, $2, $4; min.s16x2 $1, $3, $5;", "=&r,=r,r,r,r,r", []),
        ("{ .reg .b32 t; add.s32 t, $2, $3; mov.b32 $0, t; mov.b32 $1, t; }", "=r,=r,r,r", []),
        ("{ mul.lo.s32 $0, $1, $1; add.s32 $0, $0, $1; }", "=r,r", [0]),
        ("mov.b32 $0, {$1, $2};", "=r,h,h", []),
    ],
)
def test_a_result_that_may_take_the_register_of_an_input_is_found(code, constraints, results):
    assert list(early_results(code, constraints)) == results


def test_triton_imported_too_early_is_named(run_process):
    """Without a GPU the interpreter must be chosen before Triton is imported; else the first kernel fails obscurely."""
    code = "import triton, mamba_integer.backends as b; b.load('triton', 'cpu')"
    environment = {name: v for name, v in os.environ.items() if name != "TRITON_INTERPRET"} | {
        "CUDA_VISIBLE_DEVICES": ""
    }
    done = run_process([sys.executable, "-c", code], env=environment)
    assert done.code != 0 and "set TRITON_INTERPRET=1" in done.err.splitlines()[-1]
