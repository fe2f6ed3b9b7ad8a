"""Maps of the places where two results differ: rows and columns of an array, several integers per character."""

import math
from collections.abc import Iterator, Sequence

import numpy as np

from mamba_integer.backends import Backend
from mamba_integer.spec.contract import find_op

from .engine.comparison import Failure

WIDTH, HEIGHT = 64, 16
MARKS = " ·+#"  # nothing is there, all are equal, some differ, all differ


def difference_map(got: np.ndarray, want: np.ndarray) -> list[str]:
    """Return lines of marks; the last axis goes across, all others go down."""
    columns = got.shape[-1] if got.ndim else 1
    wrong = np.asarray(got != want).reshape(math.prod(got.shape[:-1]), columns)
    down, across = (-(-size // most) for size, most in zip(wrong.shape, (HEIGHT, WIDTH), strict=True))
    return ["".join(mark(part) for part in blocks(rows, across, 1)) for rows in blocks(wrong, down, 0)]


def blocks(wrong: np.ndarray, size: int, axis: int) -> Iterator[np.ndarray]:
    for start in range(0, wrong.shape[axis], max(1, size)):
        yield wrong[(slice(None),) * axis + (slice(start, start + size),)]


def mark(part: np.ndarray) -> str:
    return MARKS[0] if not part.size else MARKS[1] if not part.any() else MARKS[3] if part.all() else MARKS[2]


def maps(failure: Failure, reference: Backend) -> Iterator[tuple[str, Sequence[str]]]:
    """Yield the name and the map of each result in which a backend differs from its reference."""
    case = failure.case
    runs = [backend.run(case.op, case.arrays, case.parameters) for backend in (failure.backend, reference)]
    for tensor, got, want in zip(find_op(case.op).outputs, *runs, strict=True):
        if np.shape(got) == np.shape(want) and not np.array_equal(got, want):
            shape = " x ".join(map(str, np.shape(got))) or "a single integer"
            yield f"{tensor.name}, {shape}", difference_map(np.asarray(got), np.asarray(want))
