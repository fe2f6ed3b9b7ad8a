"""A contract as plain data: formulas, or the numbers that they give for chosen sizes and parameters."""

from collections.abc import Mapping
from typing import Any

from .contract import Constant, Op
from .tensors import LEADING, Parameter, Tensor, number_text, size_symbols

LEADING_SIZE = "leading"


class MissingValuesError(ValueError):
    """Sizes or parameters that the numbers of an op's contract depend on, and that were not given: ``names``."""

    def __init__(self, op: str, names: list[str]):
        note = f"; {LEADING_SIZE} is the number of rows" if LEADING_SIZE in names else ""
        super().__init__(f"{op}: no value for {', '.join(names)}{note}")
        self.names = names


class _Values:
    """Sizes and parameters as attributes; one that was not given is noted in ``missing`` and taken to be 1."""

    def __init__(self, values: Mapping[str, int]):
        self.missing: list[str] = []
        for name, value in values.items():
            setattr(self, name, (value,) if name == LEADING_SIZE else value)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if name not in self.missing:
            self.missing.append(name)
        return (1,) if name == LEADING_SIZE else 1


def symbols(entry: Op) -> tuple[str, ...]:
    """Return the names of an op's sizes and parameters; ``leading`` is the number of rows that "..." stands for."""
    tensors = (*entry.inputs, *entry.outputs)
    leading = (LEADING_SIZE,) if any(LEADING in tensor.dimensions for tensor in tensors) else ()
    return tuple(dict.fromkeys((*size_symbols(tensors), *leading, *(p.name for p in entry.parameters))))


def summary(entry: Op) -> str:
    """Return the first line of an op's docstring."""
    return (entry.__doc__ or "").split("\n", 1)[0]


def related(entry: Op) -> dict[str, list[str]]:
    """Return the names of the ops that an op is related to, by the kind of the relation."""
    return {
        "step": [entry.step.name] if entry.step else [],
        "step_of": [entry.step_of] if entry.step_of else [],
        "inverse": [entry.inverse.name] if entry.inverse else [],
        "backward": [backward.name for backward in entry.backwards],
        "backward_of": [entry.backward_of] if entry.backward_of else [],
        "composed_of": list(entry.composed_of),
    }


def describe(entry: Op, values: Mapping[str, int] | None = None) -> dict[str, Any]:
    """Return an op's contract as JSON data.

    Without ``values`` every bound is a formula. With the sizes and parameters that it depends on, every bound is also a
    number, and each intermediate has its least and greatest value, the type that must hold it, and whether some input
    attains both ends.

    Raises
    ------
    ValueError
        A value for a name that is no size or parameter of the op.
    MissingValuesError
        Numbers depend on a size or parameter that has no value.
    DomainError
        A size or parameter outside its range, or an intermediate that would not fit its type.
    """
    at = None if values is None else _accept(entry, values)
    fields: dict[str, Any] = {
        "family": entry.family,
        "summary": summary(entry),
        "inputs": [_tensor(tensor, at) for tensor in entry.inputs],
        "outputs": [_tensor(tensor, at) for tensor in entry.outputs],
        "carried": [tensor.name for tensor in entry.carried],
        "parameters": [_parameter(parameter, at) for parameter in entry.parameters],
        "sizes": {name: list(allowed) for name, allowed in entry.sizes.items()},
        "clauses": dict(entry.clauses),
        **related(entry),
    }
    if entry.inverse:
        fields["inverse_limit"] = entry.inverse_limit
    if at is not None:
        fields["intermediates"] = {
            label: {
                "low": width.range.low,
                "high": width.range.high,
                "dtype": width.dtype,
                "attained": width.attained,
            }
            for label, width in entry.widths(at).items()
        }
        _require(entry, at)
    return fields


def _accept(entry: Op, values: Mapping[str, int]) -> _Values:
    known = symbols(entry)
    for name in values:
        if name not in known:
            raise ValueError(f"{entry.name}: no size or parameter is called {name}; it has: {', '.join(known)}")
    at = _Values(values)
    at.missing += [parameter.name for parameter in entry.parameters if parameter.name not in values]
    at.missing += [name for name in entry.sizes if name not in values and name not in at.missing]
    _require(entry, at)
    entry.check_bounds(at)
    return at


def _require(entry: Op, at: _Values) -> None:
    if at.missing:
        raise MissingValuesError(entry.name, [name for name in symbols(entry) if name in at.missing])


def _tensor(tensor: Tensor, at: _Values | None) -> dict[str, Any]:
    fields: dict[str, Any] = {"name": tensor.name, "dtypes": list(tensor.dtypes), "shape": tensor.shape}
    fields |= _domain(tensor) | {"meaning": tensor.meaning}
    if at is not None and not isinstance(tensor, Constant):
        ranges = {dtype: tensor.range(at, dtype) for dtype in tensor.dtypes}
        fields["bounds"] = {dtype: [allowed.low, allowed.high] for dtype, allowed in ranges.items()}
    return fields


def _parameter(parameter: Parameter, at: _Values | None) -> dict[str, Any]:
    fields = {"name": parameter.name, **_domain(parameter), "meaning": parameter.meaning}
    if at is not None:
        allowed = parameter.range(at)
        fields["bounds"] = [allowed.low, allowed.high]
    return fields


def _domain(argument: Tensor | Parameter) -> dict[str, Any]:
    where = {"where": argument.definitions} if argument.definitions else {}
    return {"range": argument.domain, **where}


def size_text(name: str, allowed: tuple[int, int]) -> str:
    """Return the range of a size as text."""
    return f"{name} in [{allowed[0]}, {number_text(allowed[1])}]"
