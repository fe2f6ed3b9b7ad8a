"""One vector: a call of an op with every integer written out, and its right results."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from mamba_integer.backends.programs import WireError
from mamba_integer.backends.programs.wire import (
    format_line,
    format_parameters,
    format_tensor,
    parse_parameters,
    parse_tensor,
    result_forms,
    shown,
)
from mamba_integer.spec import OPS, DomainError
from mamba_integer.spec.contract import find_op

from ..presets import PRESETS
from .cases import draw_case, extreme_cases
from .comparison import AnyCase

MOST_INTEGERS = 1 << 24  # of a tensor that a stranger's case may ask for


class VectorError(ValueError):
    """A vector, or a file of vectors or answers, that is malformed or was changed."""


@dataclass(frozen=True)
class Vector:
    """A call with its inputs as numbers: a case like any other, which no plan or pattern is needed to rebuild."""

    op: str
    arrays: tuple[np.ndarray, ...]
    parameters: Mapping[str, int]

    @cached_property
    def results(self) -> tuple[np.ndarray, ...]:
        """The right results; the call must be in the op's domain."""
        results = find_op(self.op)(*self.arrays, **self.parameters)
        return tuple(map(np.asarray, results if isinstance(results, tuple) else (results,)))

    @property
    def inputs(self) -> dict[str, np.ndarray]:
        """The inputs by their names."""
        return {t.name: array for t, array in zip(find_op(self.op).inputs, self.arrays, strict=True)}

    def call(self, folder: Path | None = None, stem: str = "") -> dict[str, Any]:
        """Return the fields of the call; large inputs are written to files in ``folder``, if there is one."""
        inputs = [
            format_tensor(tensor.name, array, folder, f"{stem}{tensor.name}")
            for tensor, array in zip(find_op(self.op).inputs, self.arrays, strict=True)
        ]
        return {"op": self.op, "parameters": format_parameters(self.parameters), "inputs": inputs}

    def outputs(self, folder: Path | None = None, stem: str = "") -> list[dict[str, Any]]:
        """Return the fields of the right results."""
        return [
            format_tensor(tensor.name, array, folder, f"{stem}{tensor.name}")
            for tensor, array in zip(find_op(self.op).outputs, self.results, strict=True)
        ]

    def asks_the_same(self, other: "Vector") -> bool:
        """Return whether another vector is a call of the same op with the same parameters and inputs."""
        return (self.op, dict(self.parameters)) == (other.op, dict(other.parameters)) and all(
            one.dtype == two.dtype and np.array_equal(one, two)
            for one, two in zip(self.arrays, other.arrays, strict=True)
        )

    def to_json(self) -> str:
        return json.dumps(self.call(), separators=(",", ":"))

    @cached_property
    def line(self) -> bytes:
        """The canonical bytes: the call and its right results in one line."""
        return format_line(self.call() | {"outputs": self.outputs()})

    @cached_property
    def sha256(self) -> str:
        return hashlib.sha256(self.line.rstrip(b"\n")).hexdigest()


def parse_vector(fields: Mapping[str, Any], paths: Mapping[str, Path] | None = None) -> Vector:
    """Return the vector of a call's fields, which may come from a stranger.

    Raises
    ------
    VectorError
        The fields are no call of an op, or one outside its domain.
    """
    op = fields.get("op")
    if not isinstance(op, str) or op not in OPS:
        raise VectorError(f"unknown op {shown(repr(op))}")
    tensors, inputs = find_op(op).inputs, fields.get("inputs")
    try:
        if not isinstance(inputs, list) or len(inputs) != len(tensors):
            names = ", ".join(tensor.name for tensor in tensors)
            raise WireError(f"inputs are {shown(repr(inputs))}, want {len(tensors)}: {names}")
        arrays = tuple(parse_tensor(one, t.name, paths or {}) for one, t in zip(inputs, tensors, strict=True))
        vector = Vector(op, arrays, parse_parameters(fields.get("parameters")))
        find_op(op).check(vector.arrays, vector.parameters)
        largest = max(prod(form.shape) for form in result_forms(op, vector.arrays, vector.parameters))
        if largest > MOST_INTEGERS:
            raise WireError(f"a result has {largest} integers, at most {MOST_INTEGERS} are allowed")
    except (WireError, DomainError) as error:
        raise VectorError(f"{op}: {error}" if isinstance(error, WireError) else str(error)) from error
    return vector


def as_vector(case: AnyCase) -> Vector:
    """Return a case with its inputs as numbers."""
    return Vector(case.op, tuple(np.ascontiguousarray(a).reshape(a.shape) for a in case.arrays), dict(case.parameters))


def vectors_of(op: str, preset: str, seed: int) -> Iterator[Vector]:
    """Return the vectors of an op: those that its plan lists, then as many drawn ones as the preset has."""
    for listed in extreme_cases(op):
        yield as_vector(listed)
    for i in range(PRESETS[preset].drawn):
        yield as_vector(draw_case(op, Random(f"{seed} {op} {i}")))


def root_of(hashes: Sequence[str]) -> str:
    """Return the hash that stands for a whole set of vectors, whatever their order."""
    return hashlib.sha256("".join(f"{one}\n" for one in sorted(hashes)).encode()).hexdigest()
