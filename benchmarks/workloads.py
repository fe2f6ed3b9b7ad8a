"""What is timed: one call of an op at a size that matters, with the work it can't avoid."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from mamba_integer.conformance.cases import Case
from mamba_integer.spec.contract import find_op


@dataclass(frozen=True)
class Workload:
    """``multiply_adds`` counts int8 products of a matrix product, ``instructions`` 32-bit integer instructions."""

    op: str
    sizes: Mapping[str, int]
    parameters: Mapping[str, int]
    leading: tuple[int, ...] = ()
    multiply_adds: int = 0
    instructions: int = 0
    everywhere: bool = True  # False: too long for the golden NumPy and the eager loops
    label: str = field(default="")

    @property
    def name(self) -> str:
        sizes = [*map(str, self.leading), *(f"{k}{v}" for k, v in self.sizes.items())]
        return self.label or f"{self.op} {' '.join(sizes)}"

    @cached_property
    def arrays(self) -> tuple[np.ndarray, ...]:
        patterns = ("uniform",) * len(find_op(self.op).inputs)
        return Case(self.op, self.sizes, self.leading, self.parameters, patterns, seed=0).arrays


SCAN = {"k": 15, "n_max": 2**15 - 2**5, "s_v": 3, "s_h": 0, "s_y": 17, "convex": 0}
# A step of one state element: decay add and clamp, three products, a shift, two sums.
SCAN_INSTRUCTIONS = 8


def selective_scan(b: int, length: int, d: int, n: int, everywhere: bool) -> Workload:
    work = b * length * d * n * SCAN_INSTRUCTIONS
    return Workload("selective_scan", {"B": b, "L": length, "D": d, "N": n}, SCAN, (), 0, work, everywhere)


def ssd_scan(b: int, length: int, h: int, p: int, s: int, everywhere: bool) -> Workload:
    work = b * length * h * p * s * SCAN_INSTRUCTIONS
    return Workload("ssd_scan", {"B": b, "L": length, "H": h, "P": p, "S": s}, SCAN, (), 0, work, everywhere)


def ternary_linear(rows: int, k: int, n: int, everywhere: bool) -> Workload:
    return Workload("ternary_linear", {"K": k, "N": n}, {"num": 181, "shift": 15}, (rows,), rows * k * n, 0, everywhere)


def rows(op: str, count: int, size: str, width: int, everywhere: bool = True, **parameters: int) -> Workload:
    return Workload(op, {size: width}, parameters, (count,), everywhere=everywhere)


WORKLOADS = [
    selective_scan(2, 512, 1536, 16, True),
    ternary_linear(1024, 1536, 3072, True),
    ssd_scan(1, 64, 24, 64, 64, True),
    Workload("causal_conv1d", {"B": 2, "L": 512, "D": 1536}, {"s": 6}),
    rows("norm_quantize", 1024, "D", 1536, b=3, s=4),
    Workload("squareplus", {}, {"f": 8, "offset": 256}, (2, 512, 1536)),
    Workload("sigmoid_gate", {}, {"f": 8}, (2, 512, 1536)),
    Workload("silu_gate", {}, {"f": 8}, (2, 512, 1536)),
    Workload("residual_add", {}, {"num": 1024, "shift": 10}, (2, 512, 1536)),
    Workload("rope", {"B": 2, "L": 512, "P": 32}, {"s": 15}),
    Workload("dyadic_transform", {"m": 10}, {"s": 15}, (512,)),
    rows("softmax_pow2", 1024, "V", 4096, f=8, q=15),
    rows("cross_entropy_pow2", 1024, "V", 4096, f=8),
    selective_scan(8, 2048, 1536, 16, False),
    ssd_scan(8, 2048, 24, 64, 128, False),
    ternary_linear(4096, 4096, 8192, False),
    ternary_linear(1, 4096, 8192, False),
    Workload("causal_conv1d", {"B": 8, "L": 2048, "D": 1536}, {"s": 6}, everywhere=False),
    rows("norm_quantize", 16384, "D", 2048, False, b=3, s=4),
    Workload("squareplus", {}, {"f": 8, "offset": 256}, (8, 2048, 1536), everywhere=False),
    Workload("sigmoid_gate", {}, {"f": 8}, (8, 2048, 1536), everywhere=False),
    Workload("silu_gate", {}, {"f": 8}, (8, 2048, 1536), everywhere=False),
]
