"""What an op promises: shapes, dtypes, domain, labelled clauses, widths; and the check at its edge.

The check works on anything with ``dtype``, ``shape``, ``min`` and ``max`` (NumPy and Torch arrays alike), so
every backend raises the same error for the same input.
"""

import contextlib
import contextvars
import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, Protocol

from .bounds import DTYPE_RANGE, Interval, Width

# Kinds of calls of one op whose check is remembered: a model has a few, and its every step calls each op again.
MOST_REMEMBERED = 4096

Bound = int | Callable[[Any], int]

_trust_values = contextvars.ContextVar("trust_values", default=False)


class DomainError(ValueError):
    """An input outside an op's domain: names the op, the argument, what was found and what is allowed."""

    def __init__(self, op: str, argument: str, found: Any, allowed: Any, index: tuple[int, ...] | None = None):
        self.op, self.argument, self.found, self.allowed, self.index = op, argument, found, allowed, index
        where = f" at index {index}" if index is not None else ""
        super().__init__(f"{op}: argument {argument}: found {found}{where}, allowed {allowed}")


class UnknownOpError(LookupError):
    """A name that is no op of the specification."""

    def __init__(self, name: str):
        super().__init__(f"unknown op {name!r}; the specification has: {', '.join(sorted(OPS))}")


@contextlib.contextmanager
def trusted_values():
    """Skip the checks of element values (shapes and dtypes are still checked).

    For callers that proved the domain, such as a model whose bounds follow from its formats, and for a GPU,
    where looking at values waits for the device.
    """
    token = _trust_values.set(True)
    try:
        yield
    finally:
        _trust_values.reset(token)


@dataclass(frozen=True)
class Tensor:
    """One array argument or result.

    ``shape`` is a string of dimension names: ``"B L D"``; ``"..."`` stands for any leading dimensions (the same
    for all arguments of one call), a number for itself, ``"K/4"`` for K over 4 rounded up, ``"2*P"`` for an even
    number (P is half of it), ``"2^m"`` for a power of two (m is its exponent).
    ``low`` and ``high`` are integers or functions of the sizes and parameters; left out, they are the symmetric
    range of the dtype.
    """

    name: str
    dtype: str | tuple[str, ...]
    shape: str
    low: Bound | None = None
    high: Bound | None = None
    meaning: str = ""

    @property
    def dtypes(self) -> tuple[str, ...]:
        return (self.dtype,) if isinstance(self.dtype, str) else self.dtype

    def result_dtype(self, at: Any) -> str:
        """Return the dtype that this result has for these sizes and parameters."""
        return self.dtypes[0]

    def range(self, at: Any, dtype: str | None = None) -> Interval:
        """Return the allowed values for these sizes and parameters."""
        dtype = dtype or self.dtypes[0]
        natural = Interval(0, 255) if dtype == "uint8" else Interval.signed(int(dtype.removeprefix("int")))
        low = natural.low if self.low is None else _value(self.low, at)
        high = natural.high if self.high is None else _value(self.high, at)
        holds = DTYPE_RANGE[dtype]
        return Interval(max(low, holds.low), min(high, holds.high))

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
    """Two-bit codes, four a byte: 00 is 0, 01 is 1, 11 is -1, 10 is invalid."""

    packer: str = "pack_ternary"

    def check_values(self, op: str, array: Any, at: Any) -> None:
        invalid = ((array >> 1) & ~array & 0x55) != 0
        if bool(invalid.any()):
            self.reject(op, array, invalid, "bytes of 2-bit codes 00, 01, 11 (10 is no ternary digit)")
        padding = -getattr(at, self.packed) % 4
        if padding:
            self.check_padding(op, array, at, array[..., -1:] >> (8 - 2 * padding) != 0)


@dataclass(frozen=True)
class PackedTrits(Packed):
    """Five digits a byte in base 3: code 0 is -1, 1 is 0, 2 is 1; bytes above 242 are invalid."""

    packer: str = "pack_trits"

    def check_values(self, op: str, array: Any, at: Any) -> None:
        super().check_values(op, array, at)
        padding = -getattr(at, self.packed) % 5
        if padding:
            self.check_padding(op, array, at, array[..., -1:] // 3 ** (5 - padding) != (3**padding - 1) // 2)


@dataclass(frozen=True)
class Constant(Tensor):
    """A one-dimensional array that the sizes and parameters determine: its domain is ``value(at)`` alone."""

    value: Callable[[Any], Any] = lambda at: ()

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
    """A static integer of an op, from ``low`` to ``high`` (integers, or functions of sizes and earlier parameters)."""

    name: str
    low: Bound
    high: Bound
    meaning: str = ""

    def range(self, at: Any) -> Interval:
        return Interval(_value(self.low, at), _value(self.high, at))


@dataclass(eq=False)
class Op:
    """An op of the specification: its contract and its golden implementation. Calling it checks, then computes."""

    name: str
    golden: Callable
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    parameters: tuple[Parameter, ...] = ()
    sizes: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    clauses: Mapping[str, str] = field(default_factory=dict)
    widths: Callable[[Any], Mapping[str, Width]] = lambda at: {}
    composed_of: tuple[str, ...] = ()
    _accepted: dict[Any, SimpleNamespace] = field(default_factory=dict, repr=False)

    @property
    def family(self) -> str:
        return self.golden.__module__.rsplit(".", 1)[-1]

    def __call__(self, *arrays, **parameters):
        self.check(arrays, parameters)
        return self.golden(*arrays, **parameters)

    def check(self, arrays: Sequence[Any], parameters: Mapping[str, int]) -> SimpleNamespace:
        """Raise DomainError unless the call is in the domain; return its sizes and parameters."""
        kind = call_kind(arrays, parameters)
        at = self._accepted.get(kind)
        if at is None:
            at = self._check_kind(arrays, parameters)
            if len(self._accepted) == MOST_REMEMBERED:
                self._accepted.clear()
            self._accepted[kind] = at
        if not _trust_values.get():
            for tensor, array in zip(self.inputs, arrays, strict=True):
                if 0 not in array.shape:
                    tensor.check_values(self.name, array, at)
        return at

    def _check_kind(self, arrays: Sequence[Any], parameters: Mapping[str, int]) -> SimpleNamespace:
        """Check all that doesn't depend on the arrays' elements."""
        for name, value in parameters.items():
            if type(value) is not int:
                raise DomainError(self.name, name, f"a {type(value).__name__}", "a Python int")
        at = self.bind(arrays, parameters)
        for name, (low, high) in self.sizes.items():
            if not low <= getattr(at, name) <= high:
                raise DomainError(self.name, f"(size {name})", getattr(at, name), f"[{low}, {high}]")
        for parameter in self.parameters:
            allowed = parameter.range(at)
            if getattr(at, parameter.name) not in allowed:
                raise DomainError(self.name, parameter.name, getattr(at, parameter.name), allowed)
        for label, width in self.widths(at).items():
            if not width.fits:
                raise DomainError(self.name, f"(intermediate {label})", width.range, f"what {width.dtype} holds")
        return at

    def bind(self, arrays: Sequence[Any], parameters: Mapping[str, int]) -> SimpleNamespace:
        """Return the sizes and parameters of a call by name, after checking its dtypes and that its shapes agree.

        The sizes may be symbols of a tracing compiler: nothing here compares one with a limit.
        """
        at = self._bind_parameters(parameters)
        self._bind_shapes(arrays, at)
        return at

    def _bind_parameters(self, parameters: Mapping[str, int]) -> SimpleNamespace:
        names = [p.name for p in self.parameters]
        for name in parameters:
            if name not in names:
                raise DomainError(self.name, name, "an unknown parameter", f"parameters {names}")
        for name in names:
            if name not in parameters:
                raise DomainError(self.name, name, "nothing", "an integer")
        return SimpleNamespace(**parameters)

    def _bind_shapes(self, arrays: Sequence[Any], at: SimpleNamespace) -> None:
        if len(arrays) != len(self.inputs):
            names = ", ".join(t.name for t in self.inputs)
            raise DomainError(self.name, "(arrays)", f"{len(arrays)} arrays", f"{len(self.inputs)}: {names}")
        for tensor, array in zip(self.inputs, arrays, strict=True):
            if not hasattr(array, "dtype") or not hasattr(array, "shape"):
                raise DomainError(self.name, tensor.name, f"a {type(array).__name__}", "an array")
            if dtype_name(array) not in tensor.dtypes:
                raise DomainError(self.name, tensor.name, f"dtype {dtype_name(array)}", " or ".join(tensor.dtypes))
            self._bind_shape(tensor, tuple(array.shape), at)

    def _bind_shape(self, tensor: Tensor, shape: tuple[int, ...], at: SimpleNamespace) -> None:
        names = tensor.shape.split()
        if names[:1] == ["..."]:
            names = names[1:]
            split = len(shape) - len(names)
            if split < 0:
                raise DomainError(self.name, tensor.name, f"shape {shape}", f"shape ({tensor.shape})")
            leading, shape = shape[:split], shape[split:]
            if getattr(at, "leading", leading) != leading:
                raise DomainError(self.name, tensor.name, f"leading dimensions {leading}", f"{at.leading}")
            at.leading = leading
        if len(shape) != len(names):
            raise DomainError(self.name, tensor.name, f"shape {shape}", f"shape ({tensor.shape})")
        for name, size in zip(names, shape, strict=True):
            expected = resolve_size(name, at)
            if expected is None:
                unit, value = solve_size(name, size)
                if value is None:
                    raise DomainError(self.name, tensor.name, f"size {size}", f"sizes of the form {name}")
                setattr(at, unit, value)
            elif size != expected:
                raise DomainError(self.name, tensor.name, f"size {size} of dimension {name}", expected)


def call_kind(arrays: Sequence[Any], parameters: Mapping[str, int]) -> Any:
    """Return what tells calls apart but for the arrays' elements. Types are part of it: True == 1 == 1.0."""
    types = tuple((getattr(a, "dtype", type(a)), tuple(getattr(a, "shape", ()))) for a in arrays)
    return types, tuple((name, type(value), str(value)) for name, value in parameters.items())


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


def dtype_name(array: Any) -> str:
    return str(array.dtype).removeprefix("torch.")


def _value(bound: Bound, at: Any) -> int:
    return bound(at) if callable(bound) else bound


OPS: dict[str, Op] = {}


def op(**contract: Any) -> Callable[[Callable], Op]:
    """Register the decorated golden function as the op of its name, under this contract."""

    def register(golden: Callable) -> Op:
        entry = Op(name=golden.__name__, golden=golden, **contract)
        if entry.name in OPS:
            raise ValueError(f"op {entry.name} is defined twice")
        OPS[entry.name] = functools.update_wrapper(entry, golden)  # type: ignore[assignment, arg-type]
        return entry

    return register


def find_op(name: str) -> Op:
    if name not in OPS:
        raise UnknownOpError(name)
    return OPS[name]


class Implementation(Protocol):
    """A backend's op: called, it checks; ``kernel`` trusts its caller."""

    kernel: Callable

    def __call__(self, *arrays: Any, **parameters: int) -> Any: ...


def implements(entry: Op) -> Callable[[Callable], Implementation]:
    """Put the op's check in front of a backend's kernel; the kernel alone stays reachable as ``.kernel``."""

    def wrap(kernel: Callable) -> Implementation:
        if kernel.__name__ != entry.name:
            raise ValueError(f"{kernel.__module__}.{kernel.__name__} claims to implement {entry.name}")

        @functools.wraps(kernel)
        def public(*arrays, **parameters):
            entry.check(arrays, parameters)
            return kernel(*arrays, **parameters)

        public.kernel = kernel  # type: ignore[attr-defined]
        return public  # type: ignore[return-value]

    return wrap
