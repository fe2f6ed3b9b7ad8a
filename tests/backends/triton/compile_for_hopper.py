"""Compile every kernel an op launches to sm_90 machine code, on a machine without a GPU; prints JSON.

Run as ``TRITON_INTERPRET=0 python compile_for_hopper.py OP...``, or with ``hashes`` for the kernel of transcripts:
Triton's driver is replaced by one that only names its target, and each launch stops after compilation.
"""

import json
import random
import sys
from collections.abc import Callable
from functools import partial

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.runtime.driver import driver
from triton.runtime.jit import JITFunction

from mamba_integer.backends import load
from mamba_integer.conformance.engine.cases import draw_case
from mamba_integer.spec import trusted_values

CASES = 6
HASHES = "hashes"


class HopperWithoutDevice:
    def get_current_target(self):
        return GPUTarget("cuda", 90, 32)

    def get_current_device(self):
        return 0

    def get_current_stream(self, device):
        return 0


def compiled_by(call: Callable[[], object]) -> dict[str, int]:
    """Return the PTX lines of each kernel that a call launches."""
    kernels: dict[str, int] = {}
    run = JITFunction.run

    def only_compile(self, *args, grid, warmup, **options):
        kernel = run(self, *args, grid=grid, warmup=True, **options)
        assert ".target sm_90" in kernel.asm["ptx"]
        assert kernel.asm["cubin"]
        kernels[self.fn.__name__] = kernel.asm["ptx"].count("\n")
        return kernel

    JITFunction.run = only_compile
    try:
        call()
    finally:
        JITFunction.run = run
    return kernels


def call_cases(op: str) -> None:
    """Call an op on a few drawn cases."""
    source, backend = random.Random(0), load("triton", "cpu")
    tried = 0
    while tried < CASES:
        case = draw_case(op, source)
        if all(array.size for array in case.arrays):
            backend.call(op, [torch.tensor(array) for array in case.arrays], case.parameters)
            tried += 1


def call_hashes() -> None:
    """Hash arrays as a transcript does, which is no op."""
    from mamba_integer.backends.triton.sha256 import byte_roots

    byte_roots([torch.zeros(size, dtype=torch.int8) for size in (3, 10_000)])


def compiled_kernels(name: str) -> dict[str, int]:
    return compiled_by(call_hashes if name == HASHES else partial(call_cases, name))


if __name__ == "__main__":
    driver.set_active(HopperWithoutDevice())
    with trusted_values():
        print(json.dumps({"triton": triton.__version__, "kernels": {op: compiled_kernels(op) for op in sys.argv[1:]}}))
