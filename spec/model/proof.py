"""The proof that a model never leaves an op's domain, for all inputs, weights and lengths of text.

The model's own code runs on intervals in place of arrays: each parameter has the range that its format allows, each
state the range that holds at every step. An op takes intervals inside its domain, or the proof fails, and returns those
that its contract proves. The states that come out lie in the ranges that went in, so the next call is proved too.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from types import SimpleNamespace
from typing import Any

import numpy as np

from ..bounds import Interval
from ..contract import PackedTernary, find_op, known_size, trusted_values
from .blocks import Call, Network
from .config import MAMBA1, ModelConfig
from .formats import FORMATS, Format, Formats, parameter_formats, state_formats

ROWS, LENGTH = 1, 2


class ProofError(ValueError):
    """A value that may leave an op's domain: names the op and the argument, what may come and what is allowed."""


@dataclass(frozen=True)
class Abstract:
    """Every array of one shape and dtype whose elements lie in one interval. ``ternary``: its codes are digits."""

    shape: tuple[int, ...]
    dtype: str
    range: Interval
    ternary: bool = False

    @classmethod
    def of(cls, format: Format) -> "Abstract":
        return cls(format.shape, format.dtype, Interval(format.low, format.high), format.digits > 0)

    def __getitem__(self, index: Any) -> "Abstract":
        return self._shaped(self._blank()[index].shape)

    def reshape(self, *shape: int) -> "Abstract":
        return self._shaped(self._blank().reshape(shape).shape)

    def _blank(self) -> np.ndarray:
        return np.broadcast_to(np.int8(0), self.shape)

    def _shaped(self, shape: tuple[int, ...]) -> "Abstract":
        return Abstract(shape, self.dtype, self.range, self.ternary)


class AbstractOps:
    """Every op of the specification, on Abstract arrays."""

    def __getattr__(self, name: str) -> Callable:
        contract = find_op(name)

        def run(*arrays: Abstract, **parameters: int):
            with trusted_values():
                at = contract.check(arrays, parameters)
            for tensor, array in zip(contract.inputs, arrays, strict=True):
                allowed = tensor.range(at, array.dtype)
                if isinstance(tensor, PackedTernary) and not array.ternary:
                    raise ProofError(f"{name}: argument {tensor.name} may hold invalid codes")
                if array.range.low < allowed.low or array.range.high > allowed.high:
                    raise ProofError(f"{name}: argument {tensor.name} may be in {array.range}, allowed {allowed}")
            widths = contract.widths(at)
            results = []
            for tensor in contract.outputs:
                proved = widths[tensor.name].range if tensor.name in widths else tensor.range(at)
                names = tensor.shape.split()
                leading = at.leading if names[0] == "..." else ()
                sizes = (known_size(n, at) for n in names if n != "...")
                results.append(Abstract((*leading, *sizes), tensor.result_dtype(at), proved))
            return tuple(results) if len(results) > 1 else results[0]

        return run


@dataclass(frozen=True)
class Row:
    """One tensor of a model: where it is, what it is, and its proved bound."""

    layer: str
    tensor: str
    shape: tuple[int, ...]
    dtype: str
    q: str
    bound: Interval


def prove(config: ModelConfig, formats: Formats = FORMATS) -> list[Row]:
    """Prove the bounds of every tensor of a model and return them in the order of computation.

    Sequences and single steps are proved apart; no bound of an op depends on the batch or the length. The rows show
    sequences of ``ROWS`` by ``LENGTH``.

    Raises
    ------
    ProofError
        A value may leave an op's domain, or a state its range.
    DomainError
        The formats ask an op for a parameter that it doesn't have, or for an intermediate that no dtype holds.
    """
    rows: list[Row] = []
    kinds = {f"layers.{i}": kind for i, kind in enumerate(config.kinds)}

    def note(layer: str, tensor: str, array: Abstract) -> None:
        rows.append(
            Row(layer, tensor, array.shape, array.dtype, q_format(kinds.get(layer), tensor, formats), array.range)
        )

    weights = {name: Abstract.of(format) for name, format in parameter_formats(config, formats).items()}
    before = {name: Abstract.of(format) for name, format in state_formats(config, ROWS, formats).items()}
    network = Network(config, formats, AbstractOps(), weights)
    token = Interval(0, config.vocab_size - 1)
    for sequence, shape, observe in ((True, (ROWS, LENGTH), note), (False, (ROWS,), None)):
        call = Call(sequence, abstract_rotation(config, formats, shape), abstract_fill(config, ROWS), observe)
        _, after = network(call, Abstract(shape, "int32", token), before)
        for name, array in after.items():
            allowed = before[name].range
            if any(value not in allowed for value in (0, array.range.low, array.range.high)):
                raise ProofError(f"{name}: the state may be 0 or in {array.range}, allowed {allowed}")
    return rows


def abstract_rotation(config: ModelConfig, formats: Formats, shape: tuple[int, ...]):
    """Return the ranges of what `language_model.rotations` returns: those that the op allows."""
    if not config.rotate:
        return None
    at = SimpleNamespace(s=formats.rotation)
    return tuple(
        Abstract((prod(shape), config.mamba2_d_state // 2), tensor.dtypes[0], tensor.range(at))
        for tensor in find_op("rope").inputs
        if tensor.name != "x"
    )


def abstract_fill(config: ModelConfig, rows: int) -> Abstract:
    """Return the range of what `language_model.fills` returns."""
    return Abstract((rows,), "int32", Interval(0, config.chunk_size - 1))


def q_format(kind: str | None, tensor: str, formats: Formats) -> str:
    """Return the Q format of an observed tensor in a block of that kind."""
    special = {
        "residual": formats.residual,
        "b": formats.mixture,
        "c": formats.mixture,
        "decay": formats.exponent,
        "modulation": formats.decay,
        "scan_input": formats.scan_input,
        "scan_state": formats.state if kind == MAMBA1 else formats.chunk_state,
    }
    return f"Q.{special.get(tensor, formats.activation)}"


def formats_table(config: ModelConfig, formats: Formats = FORMATS) -> list[Row]:
    """Return every array of a model: parameters with the ranges they may have, then the tensors with proved bounds."""
    stored = []
    for name, format in parameter_formats(config, formats).items():
        layer, _, tensor = name.rpartition(".")
        digits = Interval(-1, 1) if format.digits else Interval(format.low, format.high)
        stored.append(Row(layer or tensor, tensor, format.shape, format.dtype, format.q, digits))
    return stored + prove(config, formats)
