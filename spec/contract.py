"""The contract of an op: shapes, dtypes, domain, labelled clauses, widths; and the check at its edge."""

import contextlib
import contextvars
import difflib
import functools
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, Protocol, TypeVar

from .arrays import ArrayKind, type_text
from .bounds import DTYPE_RANGE, Width
from .docstring import complete, document
from .tensors import (
    BATCH,
    LEADING,
    TIME,
    Bound,
    Constant,
    DomainError,
    Packed,
    PackedTernary,
    PackedTrits,
    Parameter,
    Tensor,
    VaryingResult,
    dtype_name,
    known_size,
    resolve_size,
    solve_size,
)

__all__ = [
    "BATCH",
    "LEADING",
    "OPS",
    "TIME",
    "Bound",
    "Constant",
    "DomainError",
    "Implementation",
    "Op",
    "Packed",
    "PackedTernary",
    "PackedTrits",
    "Parameter",
    "Tensor",
    "UnknownOpError",
    "VaryingResult",
    "dtype_name",
    "find_op",
    "implements",
    "known_size",
    "op",
    "resolve_size",
    "trusted_values",
]

# Kinds of calls of one op whose check is remembered: a model has a few, and its every step calls each op again.
MOST_REMEMBERED = 4096

GOLDEN = f"{__package__}.ops"

P = ParamSpec("P")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)

_trust_values = contextvars.ContextVar("trust_values", default=False)


class UnknownOpError(LookupError):
    """A name that is no op of the specification."""

    def __init__(self, name: str):
        near = ", ".join(difflib.get_close_matches(name, OPS))
        super().__init__(f"unknown op {name!r}; {near and f'near it are {near}; '}`mamba-integer ops` lists all")


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


class Called(Generic[P, R]):
    """Calling an op checks, then computes."""

    if TYPE_CHECKING:  # of all spellings the one from which each of mypy, Pyright and jedi reads a golden's signature
        __call__: Callable[P, R]
    else:

        def __call__(self, *arrays, **parameters):
            self.check(arrays, parameters, GOLDEN)
            return self.golden(*arrays, **parameters)


@dataclass(eq=False, repr=False)
class Op(Called[P, R]):
    """An op of the specification: its contract and its golden implementation. Calling it checks, then computes.

    ``step_of``, ``inverse_of``, ``backward_of`` and ``composed_of`` name other ops, which may be defined later. The
    properties `step`, `inverse`, `backwards` and `parts` return them, from either side of the relation.
    """

    name: str
    golden: Callable[P, R]
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    parameters: tuple[Parameter, ...] = ()
    sizes: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    clauses: Mapping[str, str] = field(default_factory=dict)
    widths: Callable[[Any], Mapping[str, Width]] = lambda at: {}
    composed_of: tuple[str, ...] = ()
    composed_along: str = ""
    step_of: str = ""
    inverse_of: str = ""
    round_trip: int | None = None
    backward_of: str = ""
    _accepted: dict[Any, SimpleNamespace] = field(default_factory=dict, repr=False)

    @property
    def family(self) -> str:
        return self.golden.__module__.rsplit(".", 1)[-1]

    @property
    def parts(self) -> "tuple[Op[..., Any], ...]":
        """The ops that a composite op runs one after the other; along a dimension, its one part at each index."""
        return tuple(map(find_op, self.composed_of))

    @property
    def step(self) -> "Op[..., Any] | None":
        """The op that does one step of this op's sequence."""
        return next((entry for entry in OPS.values() if entry.step_of == self.name), None)

    @property
    def inverse(self) -> "Op[..., Any] | None":
        """The op that takes the result back to the first input."""
        if self.inverse_of:
            return find_op(self.inverse_of)
        return next((entry for entry in OPS.values() if entry.inverse_of == self.name), None)

    @property
    def inverse_limit(self) -> int | None:
        """The largest magnitude of first inputs for which the inverse takes the result back; None: no limit."""
        return self.round_trip if self.inverse_of or self.inverse is None else self.inverse.round_trip

    @property
    def backwards(self) -> "tuple[Op[..., Any], ...]":
        """The ops that compute this op's gradients."""
        return tuple(entry for entry in OPS.values() if entry.backward_of == self.name)

    @property
    def carried(self) -> tuple[Tensor, ...]:
        """The state that goes from one piece of a sequence to the next, or from one step to the next."""
        taken = {tensor.name for tensor in self.inputs}
        return tuple(tensor for tensor in self.outputs if tensor.name in taken)

    @property
    def row_number(self) -> Parameter | None:
        """The parameter that says where a call's rows stand in a larger batch, where results depend on it."""
        return next((parameter for parameter in self.parameters if parameter.numbers_rows), None)

    def grid(self, parameters: Mapping[str, int]) -> int:
        """Return the distance between the positions at which a sequence of this op may be cut."""
        return next((1 << parameters[p.name] for p in self.parameters if p.sets_grid), 1)

    def __repr__(self) -> str:
        arguments = [*(t.name for t in self.inputs), "/", *(["*"] if self.parameters else [])]
        return f"<op {self.name}({', '.join([*arguments, *(p.name for p in self.parameters)])})>"

    def check(self, arrays: Sequence[Any], parameters: Mapping[str, Any], package: str = "") -> SimpleNamespace:
        """Raise DomainError unless the call is in the domain; return its sizes and parameters.

        A package that has ``ARRAYS`` says with it which arrays its ops take. Calls of one kind share what is returned:
        a caller that changes it changes a copy.
        """
        try:
            kind = call_kind(package, arrays, parameters)
        except RuntimeError:  # Torch's nested tensors have no shape
            self._check_taken(arrays, package)
            raise
        at = self._accepted.get(kind)
        if at is None:
            at = self._check_kind(arrays, parameters, package)
            if len(self._accepted) == MOST_REMEMBERED:
                self._accepted.clear()
            self._accepted[kind] = at
        if not _trust_values.get():
            try:
                self._check_values(arrays, at)
            except RuntimeError:  # of an array that has no values
                self._check_read(arrays, package)
                raise
        return at

    def _check_values(self, arrays: Sequence[Any], at: SimpleNamespace) -> None:
        for tensor, array in zip(self.inputs, arrays, strict=True):
            if 0 not in array.shape:
                tensor.check_values(self.name, array, at)

    def _check_read(self, arrays: Sequence[Any], package: str) -> None:
        """Raise DomainError where an array has no values to check."""
        taken = getattr(sys.modules.get(package), "ARRAYS", None)
        for tensor, array in zip(self.inputs, arrays, strict=True):
            if taken:
                taken.check_read(self.name, tensor.name, array)

    def _check_kind(self, arrays: Sequence[Any], parameters: Mapping[str, Any], package: str) -> SimpleNamespace:
        """Check all that doesn't depend on the arrays' elements."""
        self._check_taken(arrays, package)
        static = {parameter.name for parameter in self.parameters}
        for name, value in parameters.items():
            if name in static and type(value) is not int:
                remedy = f": int({name})" if hasattr(value, "__index__") else ""
                raise DomainError(self.name, name, type_text(value), f"a Python int{remedy}")
        at = self.bind(arrays, parameters)
        self.check_bounds(at)
        return at

    def _check_taken(self, arrays: Sequence[Any], package: str) -> None:
        if taken := getattr(sys.modules.get(package), "ARRAYS", None):
            self.check_arrays(arrays, taken)

    def check_arrays(self, arrays: Sequence[Any], taken: ArrayKind) -> None:
        """Raise DomainError unless each array is one that is taken."""
        for tensor, array in zip(self.inputs, arrays, strict=False):
            taken.check(self.name, tensor.name, array)

    def bind(self, arrays: Sequence[Any], parameters: Mapping[str, Any]) -> SimpleNamespace:
        """Return the sizes and parameters of a call by name, after a check of its dtypes, shapes and devices.

        The shapes agree with one another, and the devices. The sizes may be symbols of a tracing compiler: nothing here
        compares one with a limit.
        """
        self._check_names(arrays, parameters)
        at = SimpleNamespace(**parameters)
        self._bind_shapes(arrays, at)
        return at

    def check_bounds(self, at: Any) -> Mapping[str, Width]:
        """Raise DomainError unless the sizes and parameters are in the domain; return the widths that they give."""
        for name, (low, high) in self.sizes.items():
            if not low <= getattr(at, name) <= high:
                raise DomainError(self.name, f"(size {name})", getattr(at, name), f"[{low}, {high}]")
        for parameter in self.parameters:
            allowed = parameter.range(at)
            if getattr(at, parameter.name) not in allowed:
                raise DomainError(self.name, parameter.name, getattr(at, parameter.name), allowed)
        widths = self.widths(at)
        for label, width in widths.items():
            if not width.fits:
                raise DomainError(
                    self.name, f"(intermediate {label})", width.range, f"{width.dtype}: {DTYPE_RANGE[width.dtype]}"
                )
        return widths

    def _check_names(self, arrays: Sequence[Any], parameters: Mapping[str, Any]) -> None:
        """Raise DomainError unless there are as many arrays as inputs, and each parameter once."""
        inputs, names = [tensor.name for tensor in self.inputs], [p.name for p in self.parameters]
        for name in parameters:
            if name in inputs and name not in names:
                raise DomainError(self.name, name, "a keyword argument", "an array by position")
            if name not in names:
                raise DomainError(self.name, name, "an unknown parameter", f"parameters {names}")
        if len(arrays) != len(inputs):
            keywords = f"; by keyword: {', '.join(names)}" if names else ""
            allowed = f"{len(inputs)} by position: {', '.join(inputs)}{keywords}"
            raise DomainError(self.name, "(arrays)", len(arrays), allowed)
        for name in names:
            if name not in parameters:
                raise DomainError(self.name, name, "nothing", "an integer")

    def _bind_shapes(self, arrays: Sequence[Any], at: SimpleNamespace) -> None:
        for tensor, array in zip(self.inputs, arrays, strict=True):
            if not hasattr(array, "dtype") or not hasattr(array, "shape"):
                raise DomainError(self.name, tensor.name, type_text(array), "an array")
            if dtype_name(array) not in tensor.dtypes:
                raise DomainError(self.name, tensor.name, f"dtype {dtype_name(array)}", " or ".join(tensor.dtypes))
            self._bind_shape(tensor, tuple(array.shape), at)
        devices = [str(getattr(array, "device", "cpu")) for array in arrays]
        for tensor, device in zip(self.inputs, devices, strict=True):
            if device != devices[0]:
                raise DomainError(self.name, tensor.name, f"device {device}", f"{devices[0]}, as {self.inputs[0].name}")

    def _bind_shape(self, tensor: Tensor, shape: tuple[int, ...], at: SimpleNamespace) -> None:
        names = tensor.shape.split()
        if names[:1] == [LEADING]:
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


def call_kind(package: str, arrays: Sequence[Any], parameters: Mapping[str, int]) -> Any:
    """Return the key that tells calls apart, the arrays' elements aside. It has types, since True == 1 == 1.0."""
    forms = [(type(a), *(getattr(a, name, None) for name in ("dtype", "device", "layout", "shape"))) for a in arrays]
    integers = [(name, type(v), v if type(v) is int else str(v)) for name, v in parameters.items()]
    return package, tuple(forms), tuple(integers)


OPS: dict[str, Op[..., Any]] = {}


def op(
    *,
    inputs: tuple[Tensor, ...],
    outputs: tuple[Tensor, ...],
    parameters: tuple[Parameter, ...] = (),
    sizes: Mapping[str, tuple[int, int]] | None = None,
    clauses: Mapping[str, str] | None = None,
    widths: Callable[[Any], Mapping[str, Width]] = lambda at: {},
    composed_of: tuple[str, ...] = (),
    composed_along: str = "",
    step_of: str = "",
    inverse_of: str = "",
    round_trip: int | None = None,
    backward_of: str = "",
) -> Callable[[Callable[P, R]], Op[P, R]]:
    """Register the decorated golden function as the op of its name, under this contract.

    Parameters
    ----------
    inputs, outputs, parameters
        The arrays by position, the results, and the static integers by keyword, in the order of the signature.
    sizes : mapping of dimension names to (least, greatest)
    clauses : mapping of labels to sentences
        A case of the conformance suite, a comment or a circuit refers to a rule by its label.
    widths : function of the sizes and parameters
        Returns the proved range of every intermediate.
    composed_of : names of ops
        The op is these ops, run one after the other.
    composed_along : name of a dimension
        The op is its one part, run at each index of this dimension.
    step_of : name of an op
        The op is one step of that op's sequence.
    inverse_of : name of an op
        The op takes that op's result back to its first input, and the other way round.
    round_trip : int, optional
        The largest magnitude of first inputs for which the inverse always does so; left out, there is no limit.
    backward_of : name of an op
        The op computes gradients of that op.
    """

    def register(golden: Callable[P, R]) -> Op[P, R]:
        entry = Op(
            golden.__name__,
            golden,
            inputs,
            outputs,
            parameters,
            sizes or {},
            clauses or {},
            widths,
            composed_of,
            composed_along,
            step_of,
            inverse_of,
            round_trip,
            backward_of,
        )
        if entry.name in OPS:
            raise ValueError(f"op {entry.name} is defined twice")
        golden.__doc__ = complete(entry, golden.__doc__)
        functools.update_wrapper(entry, golden)
        OPS[entry.name] = entry
        return entry

    return register


def find_op(name: str) -> Op[..., Any]:
    if name not in OPS:
        raise UnknownOpError(name)
    return OPS[name]


class Implementation(Protocol[P, R_co]):
    """A backend's op: called, it checks; ``kernel`` trusts its caller."""

    kernel: Callable[..., Any]

    def __call__(self, *arrays: P.args, **parameters: P.kwargs) -> R_co: ...


def implements(entry: Op[..., Any]) -> Callable[[Callable[P, R]], Implementation[P, R]]:
    """Put the op's check in front of a backend's kernel; the kernel alone stays reachable as ``.kernel``.

    The kernel takes the arrays that its package's ``ARRAYS`` says, an `ArrayKind`; any where it says nothing.
    """

    def wrap(kernel: Callable[P, R]) -> Implementation[P, R]:
        if kernel.__name__ != entry.name:
            raise ValueError(f"{kernel.__module__}.{kernel.__name__} claims to implement {entry.name}")
        package = kernel.__module__.rpartition(".")[0]

        @functools.wraps(kernel)
        def public(*arrays: P.args, **parameters: P.kwargs) -> R:
            entry.check(arrays, parameters, package)
            return kernel(*arrays, **parameters)

        document(public, entry)
        public.kernel = kernel  # type: ignore[attr-defined]
        return public  # type: ignore[return-value]

    return wrap
