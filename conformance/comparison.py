"""Comparison without tolerance: dtype, shape and every integer, or a failure that names the first difference."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from mamba_integer.backends import Backend
from mamba_integer.spec.contract import find_op

from .cases import Case, ExtremeCase

AnyCase = Case | ExtremeCase


@dataclass(eq=False)
class Failure(Exception):
    """What a backend did wrong in one case: a failure card."""

    backend: str
    case: AnyCase
    kind: str  # crash, result, dtype, shape, value, mutation
    message: str
    output: str = ""
    count: int = 0
    compared: int = 0
    index: tuple[int, ...] = ()
    got: int = 0
    want: int = 0

    def __str__(self) -> str:
        return f"{self.case.op} on {self.backend}: {self.kind}: {self.message}"

    @property
    def repeat(self) -> str:
        """The command that repeats this case."""
        return (
            f"mamba-integer compare --op {self.case.op} --backends golden,{self.backend} --case '{self.case.to_json()}'"
        )

    def to_dict(self) -> dict[str, Any]:
        clauses = dict(find_op(self.case.op).clauses)
        return asdict(self) | {
            "clauses": clauses,
            "got_hex": hex(self.got),
            "want_hex": hex(self.want),
            "repeat": self.repeat,
        }


def check_case(backend: Backend, case: AnyCase) -> int:
    """Run a case on a backend and on the golden op; return how many integers were compared.

    Raises
    ------
    Failure
        The backend crashed, changed an input, or returned anything but the golden result.
    """
    want = _as_tuple(find_op(case.op)(*case.arrays, **case.parameters))
    got = run_case(backend, case)
    return compare(backend.name, case, got, want)


def run_case(backend: Backend, case: AnyCase) -> tuple[Any, ...]:
    """Run a case on a backend; return its results as NumPy arrays (whatever it returned, where they are none)."""
    passed = [_spread(array) if case.strided else array for array in case.arrays]
    loaded = [backend.load(array.copy()) for array in passed]
    views = [array[..., ::2] if case.strided and array.shape else array for array in loaded]
    try:
        got = tuple(backend.store(result) for result in backend.call(case.op, views, case.parameters))
    except Exception as error:
        raise Failure(backend.name, case, "crash", f"{type(error).__name__}: {error}") from error
    for tensor, before, after in zip(find_op(case.op).inputs, passed, loaded, strict=True):
        if not np.array_equal(backend.store(after), before):
            raise Failure(backend.name, case, "mutation", f"the op changed its input {tensor.name}")
    return got


def compare(backend: str, case: AnyCase, got: Sequence[Any], want: Sequence[np.ndarray]) -> int:
    """Return the number of integers compared, or raise Failure at the first difference."""
    outputs = find_op(case.op).outputs
    if len(got) != len(want):
        raise Failure(backend, case, "result", f"{len(got)} results, want {len(want)}")
    compared = 0
    for tensor, g, w in zip(outputs, got, want, strict=True):
        if not isinstance(g, np.ndarray):
            raise Failure(backend, case, "result", f"a {type(g).__name__}, want an array", tensor.name)
        if g.dtype != w.dtype:
            raise Failure(backend, case, "dtype", f"{tensor.name} has dtype {g.dtype}, want {w.dtype}", tensor.name)
        if g.shape != w.shape:
            raise Failure(backend, case, "shape", f"{tensor.name} has shape {g.shape}, want {w.shape}", tensor.name)
        wrong = g != w
        if wrong.any():
            index = tuple(int(i) for i in np.argwhere(wrong)[0])
            a, b, count = int(g[index]), int(w[index]), int(wrong.sum())
            message = f"{tensor.name}: {count} of {w.size} integers differ; first at {index}: got {a}, want {b}"
            raise Failure(backend, case, "value", message, tensor.name, count, w.size, index, a, b)
        compared += w.size
    return compared


def _spread(array: np.ndarray) -> np.ndarray:
    """Return an array whose every second element along the last axis is ``array``."""
    if array.ndim == 0:
        return array.copy()
    spread = np.full((*array.shape[:-1], 2 * array.shape[-1]), 1, array.dtype)
    spread[..., ::2] = array
    return spread


def _as_tuple(result: Any) -> tuple[Any, ...]:
    return result if isinstance(result, tuple) else (result,)
