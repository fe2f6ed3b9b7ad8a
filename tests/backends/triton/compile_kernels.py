"""Compile the kernels that ops launch to a target's machine code, on a machine without a GPU; prints JSON.

Run as ``TRITON_INTERPRET=0 python compile_kernels.py TARGETS OP...``, with ``hashes`` as the op of transcripts,
``steps`` as that of decoding and ``fused`` as that of what training and prefill fuse.
Triton's driver is replaced by one that only names its target, and each launch stops after compilation. A kernel is
compiled once for each choice of its tile: of several targets, separated by commas, for the first that launches it so;
for Hopper and for AMD always.

Generations of NVIDIA's GPUs differ for our kernels in their tensor cores and in the instructions that we name
ourselves; so a kernel that uses neither is compiled for Hopper, and for AMD, alone. Later generations have each named
instruction that an earlier one has: a launch of a kernel without tensor cores is compiled for the earliest.
"""

import functools
import json
import random
import sys
from types import ModuleType

import torch
import triton
from inline_assembly import calls_of
from triton.backends.compiler import GPUTarget
from triton.experimental.gluon._runtime import GluonJITFunction
from triton.runtime.driver import driver
from triton.runtime.jit import JITFunction

from mamba_integer.backends import load
from mamba_integer.backends.torch.decoding import Decoder
from mamba_integer.backends.triton import compiled_for
from mamba_integer.backends.triton.narrowing import moved_at_once
from mamba_integer.backends.triton.sha256 import byte_roots
from mamba_integer.conformance.engine.calls import variant_of, variants
from mamba_integer.conformance.engine.cases import draw_case
from mamba_integer.conformance.paths import chosen
from mamba_integer.spec import OPS, trusted_values
from mamba_integer.spec.model import CONFIGS, LanguageModel, initial_parameters
from mamba_integer.spec.model.generation import Options

TARGETS = {
    "sm_80": GPUTarget("cuda", 80, 32),
    "sm_89": GPUTarget("cuda", 89, 32),
    "sm_90": GPUTarget("cuda", 90, 32),
    "sm_100": GPUTarget("cuda", 100, 32),
    "gfx942": GPUTarget("hip", "gfx942", 64),
}
EVERY_KERNEL = ("sm_90", "gfx942")
DOT, INSTRUCTION = "tl.dot(", "inline_asm"  # in the source of a kernel, or of a function that it calls
AMPERE = {"sm_80": "sm_80", "sm_89": "sm_80"}  # whose tensor cores are the same
CASES = 1
HASHES, STEPS, FUSED = "hashes", "steps", "fused"  # of transcripts, of decoding and of training, which are no ops
# Rows of a step, for which its kernels are those of few rows or of many, and what launches of a kernel differ by.
ROWS, KINDS = (1, 40), ("CONVOLVES", "ADDS")
# Sizes whose rows can be copied in pieces, as the kernels in Gluon need.
ALIGNED = {
    "ternary_linear": [{"...": (rows,), "K": 64, "N": 40} for rows in (2, 200)],
    "ternary_linear_requant": [{"...": (200,), "K": 4096, "N": 40}],
    "ternary_linear_backward": [{"...": (200,), "K": 40, "N": 64}],
    "ternary_linear_backward_weight": [{"...": (200,), "K": 40, "N": 64, "bits": 16}],
    "selective_scan": [{"B": 2, "L": 40, "D": 16, "N": 16}],
    "selective_scan_backward": [{"B": 2, "L": 40, "D": 16, "N": 16}],
}


class NoDevice:
    def __init__(self, target: GPUTarget):
        self.target = target

    def get_current_target(self):
        return self.target

    def get_current_device(self):
        return list(TARGETS.values()).index(self.target)  # Triton keeps the target of a device

    def get_current_stream(self, device):
        return 0


def called(function: JITFunction) -> set[JITFunction]:
    """Return a compiled function and all those that it calls."""
    functions, waiting = {function}, [function]
    while waiting:
        code = waiting.pop().fn
        names, scope = code.__code__.co_names, code.__globals__
        values = [scope.get(name) for name in names]
        values += [vars(value).get(name) for value in values if isinstance(value, ModuleType) for name in names]
        new = {value for value in values if isinstance(value, JITFunction)} - functions
        functions |= new
        waiting += new
    return functions


@functools.cache
def has_tensor_cores(kernel: JITFunction) -> bool:
    return isinstance(kernel, GluonJITFunction) or any(DOT in function.src for function in called(kernel))


@functools.cache
def differs_by_generation(kernel: JITFunction) -> bool:
    """Return whether a kernel uses tensor cores, or instructions of a generation that it names itself."""
    return has_tensor_cores(kernel) or any(INSTRUCTION in function.src for function in called(kernel))


def compile_all(
    target: str, ops: list[str], compiled: dict[tuple, int], assembly: set[tuple[str, str]]
) -> dict[str, dict[str, dict]]:
    """Return, by op and kernel, the most shared memory that it takes and whether it differs by generation.

    A launch that is among those ``compiled`` isn't compiled again. Code and constraints of the PTX that kernels name
    themselves are added to ``assembly``.
    """
    launched: dict[str, dict[str, dict]] = {op: {} for op in ops}
    run = JITFunction.run

    def only_compile(self, *args, grid, warmup, **options):
        name = self.fn.__name__
        kind = chosen(OPS[op], self, options) if op in OPS else tuple(options.get(name) for name in KINDS)
        generation = AMPERE.get(target, target) if has_tensor_cores(self) or target in EVERY_KERNEL else ""
        choice, differs = (name, kind, generation), differs_by_generation(self)
        if choice not in compiled and (differs or target in EVERY_KERNEL):
            kernel = run(self, *args, grid=grid, warmup=True, **options)
            assert kernel.asm["cubin" if target.startswith("sm") else "hsaco"]
            compiled[choice] = kernel.metadata.shared
            assembly.update(calls_of(kernel.asm["ttgir"]))
        kept = launched[op].setdefault(name, {"shared": 0, "differs": differs})
        kept["shared"] = max(kept["shared"], compiled.get(choice, 0))

    driver.set_active(NoDevice(TARGETS[target]))
    JITFunction.run = only_compile
    try:
        backend = load("triton", "cpu")
        for op in ops:
            if op == HASHES:
                byte_roots([torch.zeros(size, dtype=torch.int8) for size in (3, 10_000)])
                continue
            if op == STEPS:
                run_steps(backend)
                continue
            if op == FUSED:
                run_fused(backend.ops)
                continue
            source, cases = random.Random(0), []
            while len(cases) < CASES:
                case = draw_case(op, source)
                if all(array.size for array in case.arrays):
                    cases.append(case)
            cases += [draw_case(op, source, sizes) for sizes in ALIGNED.get(op, ())]
            for name in ("", *variants(backend, op)):
                with variant_of(backend, name):
                    for case in cases:
                        backend.call(op, [torch.tensor(array) for array in case.arrays], case.parameters)
    finally:
        JITFunction.run = run
    return launched


def run_steps(backend) -> None:
    """Run the kernels of a step of a small model, but for the choice of the token."""
    model = LanguageModel(CONFIGS["tiny"], initial_parameters(CONFIGS["tiny"], seed=0), backend)
    for rows in ROWS:
        parts = Decoder(model, rows, Options(1, greedy=True)).parts
        parts.prepare()
        parts.advance(parts.logits()[:, 0].to(torch.int32))


def run_fused(ops) -> None:
    """Run the kernels of training and of models that no op launches, their shifts in memory."""
    rows, channels = (2, 70), 64
    (shift,) = torch.zeros(1, 1, dtype=torch.int32)
    dy, z, narrow = torch.zeros(3, *rows, channels, dtype=torch.int16)
    w, bias = torch.zeros(channels, 4, dtype=torch.int8), torch.zeros(channels, dtype=torch.int32)
    state = torch.zeros(rows[0], 3, channels, dtype=torch.int16)
    ops.narrow_gate_gradients(dy, narrow, z, f=8, x_shift=shift, z_shift=shift)
    ops.narrow_conv_gradients(dy, narrow, w, bias, state, z, f=8, offset=0, s=6, shift=shift)
    rounding = {"bits": 16, "seed": 0, "stream": 0, "first": shift, "shift": shift, "step": shift}
    e = torch.zeros(rows, dtype=torch.int32)
    ops.rounded_weight_gradient(dy, torch.zeros(*rows, 48, dtype=torch.int8), e, **rounding)
    digits = torch.zeros(channels, 12, dtype=torch.uint8)
    ops.ternary_linear_backward.kernel(dy, digits, K=48, num=181, shift=shift)
    ops.stochastic_round_rows.kernel(dy, e, **rounding)
    del rounding["bits"], rounding["shift"]
    ops.cross_entropy_pow2_backward.kernel(dy, e, f=8, **rounding)
    ops.activated_conv(dy, w, bias, state, s=6, f=8, offset=0)
    moved_at_once([torch.zeros(9, dtype=torch.int64)], [bias[:9]])


if __name__ == "__main__":
    with trusted_values():
        constants = {op: sorted(compiled_for(op)) for op in sys.argv[2:] if op in OPS}
        compiled: dict[tuple, int] = {}
        assembly: set[tuple[str, str]] = set()
        kernels = {target: compile_all(target, sys.argv[2:], compiled, assembly) for target in sys.argv[1].split(",")}
        found = {"kernels": kernels, "constants": constants, "assembly": sorted(assembly)}
        print(json.dumps({"triton": triton.__version__} | found))
