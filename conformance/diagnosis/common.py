"""Traits that every failing call of a backend has and every passing call lacks."""

from collections.abc import Callable, Iterator, Mapping, Sequence

from mamba_integer.spec.contract import find_op

from ..engine.vector import Vector
from .shrink import dimensions

FEWEST = 5  # failing calls, and passing ones, from which something common is told
TILES = (2, 4, 8, 16, 32, 64, 128)


def in_common(failing: Sequence[Vector], passing: Sequence[Vector], trail: Sequence[Vector] = ()) -> str:
    """Return the simplest condition that all failing calls meet and no passing one, or an empty text.

    ``trail`` has failing calls that were made from one of the others, so that they say little, but may refute much.
    """
    if len(failing) < FEWEST or len(passing) < FEWEST:
        return ""
    fail, passed = [facts(vector) for vector in (*failing, *trail)], [facts(vector) for vector in passing]
    for says, holds in conditions(fail):
        if all(map(holds, fail)) and not any(map(holds, passed)):
            return says
    return ""


def facts(vector: Vector) -> dict[str, int | str]:
    """Return the sizes, parameters and dtypes of a call."""
    contract = find_op(vector.op)
    sizes = dimensions(contract.inputs, vector.arrays)
    rows = 1
    for name, size in sizes.items():
        rows *= size if name.startswith("...") else 1
    named: dict[str, int | str] = {name: size for name, size in sizes.items() if not name.startswith("...")}
    if any("..." in tensor.shape for tensor in contract.inputs):
        named["rows"] = rows
    dtypes = {f"dtype of {name}": array.dtype.name for name, array in vector.inputs.items()}
    return named | dict(vector.parameters) | dtypes


Facts = Mapping[str, int | str]
Condition = tuple[str, Callable[[Facts], bool]]


def conditions(fail: Sequence[Facts]) -> Iterator[Condition]:
    """Yield conditions that the failing calls may have in common, the simplest first."""
    for name, value in fail[0].items():
        yield equal(name, value)
    numbers = {name: [int(one[name]) for one in fail] for name, value in fail[0].items() if isinstance(value, int)}
    for name in numbers:
        yield present(name)
    for name in numbers:
        for tile in TILES:
            yield from multiple(name, tile)
    for name, values in numbers.items():
        yield from beyond(name, min(values), max(values))


def present(name: str) -> Condition:
    return f"only {name} > 0", lambda one: int(one[name]) > 0


def equal(name: str, value: int | str) -> Condition:
    return f"only {name} = {value}", lambda one: one[name] == value


def multiple(name: str, tile: int) -> tuple[Condition, Condition]:
    return (
        (f"only {name} % {tile} == 0", lambda one: int(one[name]) % tile == 0),
        (f"only {name} % {tile} != 0", lambda one: int(one[name]) % tile != 0),
    )


def beyond(name: str, least: int, most: int) -> tuple[Condition, Condition]:
    return (
        (f"only {name} >= {least}", lambda one: int(one[name]) >= least),
        (f"only {name} <= {most}", lambda one: int(one[name]) <= most),
    )
