"""Workloads: one call of an op at a size that matters, with the work it can't avoid, and sizes that grow."""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial

import numpy as np

from mamba_integer.conformance.engine.cases import Case
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
    patterns: Mapping[str, str] = field(default_factory=dict)  # of inputs that aren't uniform

    @property
    def name(self) -> str:
        sizes = [*map(str, self.leading), *(f"{k}{v}" for k, v in self.sizes.items())]
        return self.label or f"{self.op} {' '.join(sizes)}"

    @cached_property
    def arrays(self) -> tuple[np.ndarray, ...]:
        patterns = tuple(self.patterns.get(tensor.name, "uniform") for tensor in find_op(self.op).inputs)
        return Case(self.op, self.sizes, self.leading, self.parameters, patterns, seed=0).arrays


SCAN = {"k": 15, "n_max": 2**15 - 2**5, "s_v": 3, "s_h": 0, "s_y": 17, "convex": 0}
# A step of one state element: decay add and clamp, three products, a shift, two sums.
SCAN_INSTRUCTIONS = 8

# As `base` is trained. A step back: the state again, its gradient's step, and five products with their sums.
SCAN_BACKWARD = {"k": 15, "n_max": 2**15 - 2**5, "s_v": -8, "s_h": 8, "convex": 1, "s_g": 2}
SCAN_BACKWARD |= {"s_w": 15, "s_n": 16, "s_x": 10, "s_b": 11, "s_c": 13}
SCAN_BACKWARD_INSTRUCTIONS = 24


def scan(op: str, everywhere: bool, **sizes: int) -> Workload:
    backward = op.endswith("_backward")
    instructions = SCAN_BACKWARD_INSTRUCTIONS if backward else SCAN_INSTRUCTIONS
    work = math.prod(sizes.values()) * instructions
    return Workload(op, sizes, SCAN_BACKWARD if backward else SCAN, (), 0, work, everywhere)


def chunk_scan(everywhere: bool, **sizes: int) -> Workload:
    """The products inside a chunk, before it (two limbs) and of its state (two limbs); from the grid, slow decays."""
    chunk, name = 1 << sizes["q"], " ".join(f"{k}{v}" for k, v in sizes.items() if k != "q")
    work = sizes["B"] * sizes["L"] * sizes["H"] * (chunk * (sizes["S"] + sizes["P"]) + 4 * sizes["P"] * sizes["S"])
    patterns = {"d": "small", "fill": "lowest"}
    label = f"ssd_chunk_scan {name} Q{chunk}"
    return Workload("ssd_chunk_scan", sizes, {"s_h": 16, "s_y": 10}, (), work, 0, everywhere, label, patterns)


def ternary_linear(rows: int, k: int, n: int, everywhere: bool) -> Workload:
    return Workload("ternary_linear", {"K": k, "N": n}, {"num": 181, "shift": 15}, (rows,), rows * k * n, 0, everywhere)


def requant(rows: int, k: int, n: int) -> Workload:
    sizes, parameters = {"K": k, "N": n}, {"num": 181, "shift": 15}
    return Workload("ternary_linear_requant", sizes, parameters, (rows,), rows * k * n, 0, False)


def ternary_linear_backward(rows: int, k: int, n: int) -> Workload:
    limbs = 2 * rows * k * n  # gradients of 16 bits are two products of int8
    sizes, parameters = {"N": n}, {"K": k, "num": 23170, "shift": 20}
    name = f"ternary_linear_backward {rows} K{k} N{n}"
    return Workload("ternary_linear_backward", sizes, parameters, (rows,), limbs, 0, False, name)


def ternary_linear_backward_weight(rows: int, k: int, n: int) -> Workload:
    limbs = 2 * rows * k * n
    return Workload("ternary_linear_backward_weight", {"K": k, "N": n}, {"bits": 16}, (rows,), limbs, 0, False)


def rows(op: str, count: int, size: str, width: int, everywhere: bool = True, **parameters: int) -> Workload:
    return Workload(op, {size: width}, parameters, (count,), everywhere=everywhere)


LION = {"lr": 1 << 16, "m_shift": 32, "g_up": 4, "g_down": 0, "low": -(1 << 27), "high": 1 << 27, "decay": 1 << 15}

# Of 64M elements, whose time is that of their bytes.
LARGE = (16384, 4096)
ELEMENTWISE: dict[str, dict[str, int]] = {
    "squareplus": {"f": 8, "offset": 256},
    "sigmoid_gate": {"f": 8},
    "silu_gate": {"f": 8},
    "residual_add": {"num": 1024, "shift": 10},
    "saturating_add": {},
    "requantize": {"shift": 5},
}

WORKLOADS = [
    scan("selective_scan", True, B=2, L=512, D=1536, N=16),
    ternary_linear(1024, 1536, 3072, True),
    scan("ssd_scan", True, B=1, L=64, H=24, P=64, S=64),
    chunk_scan(True, B=1, L=64, H=24, P=64, S=64, q=6),
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
    scan("selective_scan", False, B=8, L=2048, D=1536, N=16),
    scan("selective_scan", False, B=2, L=512, D=1536, N=64),
    scan("selective_scan", False, B=1, L=16384, D=1536, N=16),
    scan("ssd_scan", False, B=8, L=2048, H=24, P=64, S=128),
    chunk_scan(False, B=8, L=2048, H=24, P=64, S=128, q=6),
    chunk_scan(False, B=32, L=2048, H=24, P=64, S=128, q=6),
    ternary_linear(4096, 4096, 8192, False),
    requant(4096, 4096, 8192),
    ternary_linear(2048, 768, 3072, False),
    ternary_linear(8192, 3072, 768, False),
    ternary_linear(8192, 768, 1536, False),
    *(ternary_linear(rows, 4096, 8192, False) for rows in (1, 2, 4, 8, 16, 32, 64)),
    Workload("causal_conv1d", {"B": 8, "L": 2048, "D": 1536}, {"s": 6}, everywhere=False),
    rows("norm_quantize", 16384, "D", 2048, False, b=3, s=4),
    Workload("squareplus", {}, {"f": 8, "offset": 256}, (8, 2048, 1536), everywhere=False),
    Workload("sigmoid_gate", {}, {"f": 8}, (8, 2048, 1536), everywhere=False),
    Workload("silu_gate", {}, {"f": 8}, (8, 2048, 1536), everywhere=False),
    *(Workload(op, {}, parameters, LARGE, everywhere=False) for op, parameters in ELEMENTWISE.items()),
    rows("quantize_rows", 16384, "K", 4096, False),
    rows("norm_quantize", 16384, "D", 4096, False, b=3, s=4),
    scan("selective_scan_backward", False, B=8, L=2048, D=1536, N=16),
    scan("ssd_scan_backward", False, B=8, L=2048, H=24, P=64, S=64),
    ternary_linear_backward(16384, 768, 3072),
    ternary_linear_backward_weight(16384, 768, 3072),
    Workload("causal_conv1d_backward", {"B": 8, "L": 2048, "D": 1536}, {"s": 6}, everywhere=False),
    rows("bitshift_norm_backward", 16384, "D", 768, False, b=3, e=-10),
    Workload("silu_gate_backward", {}, {"f": 8}, (8, 2048, 1536), everywhere=False),
    rows("cross_entropy_pow2_backward", 16384, "V", 4096, False, f=8, seed=0, step=0, stream=0, first=0),
    Workload("lion_update", {}, LION, (3072, 1536), everywhere=False),
]


@dataclass(frozen=True)
class Growth:
    """One size of an op that grows while the others stay as they are: smaller on a CPU than on a GPU."""

    op: str
    size: str
    make: Callable[..., Workload]
    sizes: Mapping[str, int]
    factors: tuple[int, ...] = (1, 2, 4, 8)

    def workloads(self, gpu: bool) -> Iterator[tuple[int, Workload]]:
        """Yield each value of the size, and its workload."""
        for factor in self.factors:
            value = self.sizes[self.size] * factor * (4 if gpu and self.size in "BLR" else 1)
            yield value, self.make(**dict(self.sizes) | {self.size: value})


def growing(op: str, make: Callable[..., Workload], grown: str, **sizes: int) -> list[Growth]:
    return [Growth(op, size, make, sizes) for size in grown]


GROWTH = [
    *growing("selective_scan", partial(scan, "selective_scan", True), "LBDN", B=1, L=128, D=256, N=8),
    *growing("ssd_chunk_scan", partial(chunk_scan, True), "LB", B=1, L=128, H=8, P=64, S=64, q=6),
    *growing("ternary_linear", lambda R, K, N: ternary_linear(R, K, N, True), "RKN", R=16, K=512, N=512),
]
