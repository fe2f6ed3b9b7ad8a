"""Inputs and results of an op: tensors and parameters, with the shapes and the values that they may have.

The checks work on anything with ``dtype``, ``shape``, ``min`` and ``max`` (NumPy and Torch arrays alike), so every
backend raises the same error for the same input.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

from .bounds import DTYPE_RANGE, Interval
from .formula import Formula

Bound = int | str | Formula | Callable[[Any], int]
_formula = cache(Formula)

# The names that the language of shapes reserves: rows that don't affect each other, and the steps of a sequence.
BATCH, TIME, LEADING = "B", "L", "..."
LONGEST_SHOWN = 256  # bits of an integer that a message repeats


class DomainError(ValueError):
    """An input outside an op's domain: names the op, the argument, the value found and the value allowed.

    Its ``args`` stay the constructor's, so that it is pickled and that a tracing compiler can build and show it.
    """

    def __init__(self, op: str, argument: str, found: Any, allowed: Any, index: tuple[int, ...] | None = None):
        self.op, self.argument, self.found, self.allowed, self.index = op, argument, found, allowed, index

    def __str__(self) -> str:
        where = f" at index {self.index}" if self.index is not None else ""
        name = self.argument[1:-1] if self.argument.startswith("(") else f"argument {self.argument}"
        return f"{self.op}: {name}: found {_shown(self.found)}{where}, allowed {_shown(self.allowed)}"


def _shown(value: Any) -> str:
    """Return a value as text; Python doesn't write integers of more than 4,300 digits."""
    long = isinstance(value, int) and value.bit_length() > LONGEST_SHOWN
    return f"an integer of {value.bit_length()} bits" if long else str(value)


@dataclass(frozen=True)
class Tensor:
    """One array argument or result.

    ``shape`` is a string of dimension names: ``"B L D"``. Three names are reserved: ``"B"`` is the batch, ``"L"`` the
    length of a sequence, and ``"..."`` any leading dimensions, the same for all arrays of one call. A number stands for
    itself, ``"K/4"`` for K over 4 rounded up, ``"2*P"`` for an even number (P is half of it), ``"2^m"`` for a power of
    two (m is its exponent).

    ``low`` and ``high`` are integers, formulas of the sizes and parameters (a string, or a `Formula`), or functions of
    them. Left out, they are the symmetric range of the dtype.

    An op that returns a tensor under the name under which it takes one carries a state: the next call takes it again.
    """

    name: str
    dtype: str | tuple[str, ...]
    shape: str
    low: Bound | None = None
    high: Bound | None = None
    meaning: str = ""

    def __post_init__(self):
        _compile_bounds(self)

    @property
    def dtypes(self) -> tuple[str, ...]:
        return (self.dtype,) if isinstance(self.dtype, str) else self.dtype

    @property
    def dimensions(self) -> tuple[str, ...]:
        return tuple(self.shape.split())

    @property
    def time_axis(self) -> int | None:
        """The axis along which a sequence runs, or None."""
        return self.dimensions.index(TIME) if TIME in self.dimensions else None

    @property
    def is_batched(self) -> bool:
        """Whether the first dimension, or the leading ones, count rows that don't affect each other."""
        return self.dimensions[0] in (BATCH, LEADING)

    def result_dtype(self, at: Any) -> str:
        """Return the dtype that this result has for these sizes and parameters."""
        return self.dtypes[0]

    def natural_range(self, dtype: str) -> Interval:
        """Return the range that a bound left out stands for."""
        return Interval(0, 255) if dtype == "uint8" else Interval.signed(int(dtype.removeprefix("int")))

    def range(self, at: Any, dtype: str | None = None) -> Interval:
        """Return the allowed values for these sizes and parameters."""
        dtype = dtype or self.dtypes[0]
        natural = self.natural_range(dtype)
        low = natural.low if self.low is None else _value(self.low, at)
        high = natural.high if self.high is None else _value(self.high, at)
        holds = DTYPE_RANGE[dtype]
        return Interval(max(low, holds.low), min(high, holds.high))

    @property
    def domain(self) -> str:
        """The allowed values as text: numbers and formulas."""
        if len(self.dtypes) > 1 and self.low is None and self.high is None:
            return "the symmetric range of its dtype"
        natural = self.natural_range(self.dtypes[0])
        low, high = (natural.low if self.low is None else self.low), (natural.high if self.high is None else self.high)
        return f"[{bound_text(low)}, {bound_text(high)}]"

    @property
    def definitions(self) -> dict[str, str]:
        """The names that the formulas of the domain use beside sizes and parameters, and what they stand for."""
        return definitions(self.low, self.high)

    def check_values(self, op: str, array: Any, at: Any) -> None:
        allowed = self.range(at, dtype_name(array))
        low, high = int(array.min()), int(array.max())
        if low < allowed.low or high > allowed.high:
            self.reject(op, array, (array < allowed.low) | (array > allowed.high), str(allowed))

    def reject(self, op: str, array: Any, outside: Any, allowed: str) -> None:
        """Raise DomainError for the first element of ``array`` at which ``outside`` is true."""
        flat = outside.reshape(-1).tolist().index(True)
        index = []
        for size in reversed(array.shape):
            flat, position = divmod(flat, size)
            index.append(position)
        place = tuple(reversed(index))
        raise DomainError(op, self.name, int(array[place]), allowed, place)


@dataclass(frozen=True)
class Packed(Tensor):
    """Ternary digits as bytes, packed along the dimension ``packed`` by the op ``packer``."""

    packed: str = "K"
    packer: str = ""

    def check_padding(self, op: str, array: Any, at: Any, wrong: Any) -> None:
        if bool(wrong.any()):
            self.reject(op, array[..., -1:], wrong, f"zeros after the last of {getattr(at, self.packed)} digits")


@dataclass(frozen=True)
class PackedTernary(Packed):
    """Two-bit codes, four per byte: 00 is 0, 01 is 1, 11 is -1, 10 is invalid."""

    packer: str = "pack_ternary"

    @property
    def domain(self) -> str:
        return f"bytes of 2-bit codes 00, 01, 11; codes 00 after digit {self.packed} - 1"

    def check_values(self, op: str, array: Any, at: Any) -> None:
        invalid = ((array >> 1) & ~array & 0x55) != 0
        if bool(invalid.any()):
            self.reject(op, array, invalid, "bytes of 2-bit codes 00, 01, 11 (10 is no ternary digit)")
        padding = -getattr(at, self.packed) % 4
        if padding:
            self.check_padding(op, array, at, array[..., -1:] >> (8 - 2 * padding) != 0)


@dataclass(frozen=True)
class PackedTrits(Packed):
    """Five digits per byte in base 3: code 0 is -1, 1 is 0, 2 is 1; bytes above 242 are invalid."""

    packer: str = "pack_trits"

    @property
    def domain(self) -> str:
        return f"{super().domain}; digits 0 after digit {self.packed} - 1"

    def check_values(self, op: str, array: Any, at: Any) -> None:
        super().check_values(op, array, at)
        padding = -getattr(at, self.packed) % 5
        if padding:
            self.check_padding(op, array, at, array[..., -1:] // 3 ** (5 - padding) != (3**padding - 1) // 2)


@dataclass(frozen=True)
class Constant(Tensor):
    """A one-dimensional array that the sizes and parameters determine: its domain is ``value(at)`` alone."""

    value: Callable[[Any], Any] = lambda at: ()

    @property
    def domain(self) -> str:
        return "the only array that the sizes and parameters allow"

    def check_values(self, op: str, array: Any, at: Any) -> None:
        for i, (found, wanted) in enumerate(zip(array.tolist(), self.value(at).tolist(), strict=True)):
            if found != wanted:
                raise DomainError(op, self.name, found, wanted, (i,))


@dataclass(frozen=True)
class VaryingResult(Tensor):
    """A result whose dtype the sizes and parameters determine: ``select(at)``, one of its dtypes."""

    select: Callable[[Any], str] = lambda at: ""

    def result_dtype(self, at: Any) -> str:
        return self.select(at)


@dataclass(frozen=True)
class Parameter:
    """A static integer of an op, from ``low`` to ``high``: integers, or formulas or functions as those of a `Tensor`.

    A formula may use the sizes and the parameters before this one. ``numbers_rows`` marks the number of a call's first
    row in a larger batch: the results depend on where its rows stand in that batch. ``sets_grid`` marks the logarithm
    of the distance between the positions at which a sequence may be cut.
    """

    name: str
    low: Bound
    high: Bound
    meaning: str = ""
    numbers_rows: bool = False
    sets_grid: bool = False

    def __post_init__(self):
        _compile_bounds(self)

    def range(self, at: Any) -> Interval:
        return Interval(_value(self.low, at), _value(self.high, at))

    @property
    def domain(self) -> str:
        """The allowed values as text: numbers and formulas."""
        return f"[{bound_text(self.low)}, {bound_text(self.high)}]"

    @property
    def definitions(self) -> dict[str, str]:
        """The names that the formulas of the domain use beside sizes and parameters, and what they stand for."""
        return definitions(self.low, self.high)


def resolve_size(name: str, at: Any) -> int | None:
    """Return the size that a dimension name stands for, or None where it is not bound yet."""
    if name.isdigit():
        return int(name)
    if "/" in name:
        size, divisor = name.split("/")
        whole = resolve_size(size, at)
        return None if whole is None else -(-whole // int(divisor))
    if "*" in name:
        factor, unit = name.split("*")
        return int(factor) * getattr(at, unit) if hasattr(at, unit) else None
    if "^" in name:
        base, exponent = name.split("^")
        return int(base) ** getattr(at, exponent) if hasattr(at, exponent) else None
    return getattr(at, name, None)


def solve_size(name: str, size: int) -> tuple[str, int | None]:
    """Return which size a dimension name binds and to what, or to None if no value gives ``size``."""
    if "*" in name:
        factor, unit = name.split("*")
        return unit, size // int(factor) if size % int(factor) == 0 else None
    if name.startswith("2^"):
        size = int(size)  # a symbol becomes a number: it has no bits to count
        return name.removeprefix("2^"), size.bit_length() - 1 if size.bit_count() == 1 else None
    return name, size


def known_size(name: str, at: Any) -> int:
    """Return the size that a dimension name stands for; it must be bound."""
    size = resolve_size(name, at)
    if size is None:
        raise ValueError(f"the size {name} is open")
    return size


def size_symbols(tensors: tuple[Tensor, ...]) -> tuple[str, ...]:
    """Return the names of the sizes in the shapes of tensors, in their order; leading dimensions have none."""
    dimensions = (dimension for tensor in tensors for dimension in tensor.dimensions if dimension != LEADING)
    parts = (part for dimension in dimensions for part in re.split(r"[/*^]", dimension))
    return tuple(dict.fromkeys(part for part in parts if not part.isdigit()))


def shape_text(shape: str) -> str:
    """Return a shape as text: ``(..., ceil(K / 4))`` for ``"... K/4"``."""
    names = []
    for name in shape.split():
        if "^" in name:
            name = name.replace("^", "**").replace("/", " / ")
        elif "/" in name:
            name = f"ceil({name.replace('/', ' / ')})"
        names.append(name.replace("*", " * ") if "**" not in name else name)
    return f"({', '.join(names)})" if len(names) > 1 or names == [LEADING] else f"({names[0]},)"


def dtype_name(array: Any) -> str:
    return _name_of(array.dtype)


@cache
def _name_of(dtype: Any) -> str:
    return str(dtype).removeprefix("torch.")


def number_text(value: int) -> str:
    """Return an integer as text: a large multiple of a power of two, or one less, as that product."""
    size, sign = abs(value), "-" if value < 0 else ""
    if size < 1 << 16:
        return str(value)
    for below in (0, 1):
        exponent = ((size + below) & -(size + below)).bit_length() - 1
        factor = (size + below) >> exponent
        if exponent > 16 and factor < 1000:
            power = f"{factor} * 2**{exponent}" if factor > 1 else f"2**{exponent}"
            return (f"-({power} - 1)" if sign else f"{power} - 1") if below else sign + power
    return str(value)


def bound_text(bound: Bound) -> str:
    """Return a bound as text: a number, its formula, or the name of the function that computes it."""
    if isinstance(bound, int):
        return number_text(bound)
    return bound.text if isinstance(bound, Formula) else f"computed by {getattr(bound, '__name__', 'a function')}"


def definitions(*bounds: Bound | None) -> dict[str, str]:
    """Return what the names that formulas define stand for, the names that use others first."""
    where: dict[str, str] = {}
    for bound in bounds:
        where |= bound.where if isinstance(bound, Formula) else {}
    return dict(reversed(where.items()))


def _compile_bounds(entry: Tensor | Parameter) -> None:
    for end in ("low", "high"):
        if isinstance(bound := getattr(entry, end), str):
            object.__setattr__(entry, end, _formula(bound))


def _value(bound: Any, at: Any) -> int:
    return bound(at) if callable(bound) else bound
