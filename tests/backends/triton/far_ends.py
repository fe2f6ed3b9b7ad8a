"""Run Triton's ops at sizes that only a GPU has room and time for; prints one line per call, exits 1 if one differs.

``python tests/backends/triton/far_ends.py [OP...]``: each dimension in turn is 70,000 (or the most that the op allows),
against Numba; then the rows are so many that an array has more than 2**31 elements, against the golden result of three
rows, which the rows repeat. ``--length`` and ``--elements`` set other sizes, such as the interpreter's.
"""

import argparse
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from random import Random
from typing import Any

import numpy as np
import torch

from mamba_integer import spec
from mamba_integer.backends import load
from mamba_integer.conformance.engine.cases import Case, draw_case
from mamba_integer.conformance.plans import PLANS
from mamba_integer.spec.contract import DomainError, Tensor, trusted_values

ROWS = 3
TRITON, NUMBA = load("triton"), load("numba")


def uniform_case(op: str, sizes: dict[str, int]) -> Case:
    case = draw_case(op, Random(0), sizes)
    return replace(case, patterns=("uniform",) * len(case.patterns))


def row_dimension(op: str) -> str | None:
    """Return the name of the dimension along which an op's rows are independent of each other."""
    first = spec.OPS[op].inputs[0].shape.split()[0] if spec.OPS[op].inputs[0].shape else ""
    return first if first in ("...", "B", "R") else None


def long_dimensions(op: str, length: int) -> Iterator[tuple[str, Case]]:
    """Return a case for each dimension, that one long and the others small."""
    small = {name: min(n for n in plan if n > 0) for name, plan in PLANS[op].sizes.items()}
    rows = {"...": 1} if row_dimension(op) == "..." else {}
    for name in small | rows:
        highest = spec.OPS[op].sizes.get(name, (0, length))[1]
        yield name, uniform_case(op, small | rows | {name: min(length, highest)})


def check_long(op: str, case: Case) -> bool:
    got = TRITON.run(op, case.arrays, case.parameters)
    want = NUMBA.run(op, case.arrays, case.parameters)
    return all(map(np.array_equal, got, want))


def has_rows(tensor: Tensor, rows: str) -> bool:
    return tensor.shape.split()[:1] == [rows]


def check_rows(op: str, case: Case, rows: str, elements: int) -> bool:
    """Repeat the case's rows until its largest input or result has so many elements; compare what has rows."""
    contract = spec.OPS[op]
    golden = load("golden").call(op, case.arrays, case.parameters)
    results = zip(contract.outputs, golden, strict=True)
    inputs = zip(contract.inputs, case.arrays, strict=True)
    largest = max(array.size for tensor, array in (*inputs, *results) if has_rows(tensor, rows))
    count = elements // largest + 1

    def repeated(tensor: Tensor, array: np.ndarray) -> Any:
        loaded = TRITON.load(array)
        return loaded.repeat(count, *[1] * (array.ndim - 1)) if has_rows(tensor, rows) else loaded

    arrays = [repeated(tensor, array) for tensor, array in zip(contract.inputs, case.arrays, strict=True)]
    got = TRITON.call(op, arrays, case.parameters)
    del arrays
    equal = True
    for tensor, result, want in zip(contract.outputs, got, golden, strict=True):
        if has_rows(tensor, rows):
            pieces = result.view(count, *want.shape)
            expected = TRITON.load(want)
            for piece in pieces.split(max(1, (1 << 26) // want.size)):
                equal &= bool((piece == expected).all())
    return equal


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("ops", nargs="*", metavar="OP")
    parser.add_argument("--length", type=int, default=70_000)
    parser.add_argument("--elements", type=int, default=(1 << 31) + 1)
    options = parser.parse_args()
    wrong = 0

    def report(text: str, check: Any, *arguments: Any) -> None:
        nonlocal wrong
        start = time.perf_counter()
        try:
            verdict = "equal" if check(*arguments) else "DIFFERS"
        except (DomainError, torch.OutOfMemoryError, MemoryError) as error:
            verdict = f"not run: {type(error).__name__}: {str(error)[:100]}"
        except Exception as error:
            verdict = f"FAILED: {type(error).__name__}: {str(error)[:300]}"
        wrong += verdict.startswith(("DIFFERS", "FAILED"))
        print(f"{text}: {verdict} ({time.perf_counter() - start:.1f} s)", flush=True)

    with trusted_values():
        for op in options.ops or spec.OPS:
            for name, case in long_dimensions(op, options.length):
                report(f"{op} {name} = {options.length}", check_long, op, case)
            # Where a row's number draws its random words, rows that repeat have other results.
            rows = None if any(p.name == "first" for p in spec.OPS[op].parameters) else row_dimension(op)
            if rows:
                middle = {name: sorted(plan)[len(plan) // 2] for name, plan in PLANS[op].sizes.items()}
                case = uniform_case(op, {name: max(n, 1) for name, n in middle.items()} | {rows: ROWS})
                report(f"{op} of {options.elements} elements", check_rows, op, case, rows, options.elements)
    return wrong > 0


if __name__ == "__main__":
    sys.exit(main())
