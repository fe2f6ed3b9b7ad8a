"""Comparison without tolerance: dtype, shape and every integer, or a failure that names the first difference."""

import contextlib
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Protocol

import numpy as np

from mamba_integer.backends import Backend
from mamba_integer.spec.contract import Tensor, find_op, known_size, trusted_values


class AnyCase(Protocol):
    """What every kind of case has: the op, its inputs and its JSON, from which it can be rebuilt."""

    @property
    def op(self) -> str: ...
    @property
    def arrays(self) -> tuple[np.ndarray, ...]: ...
    @property
    def parameters(self) -> Mapping[str, int]: ...
    def to_json(self) -> str: ...


@dataclass(eq=False)
class Failure(Exception):
    """What a backend did wrong in one case."""

    backend: Backend
    case: AnyCase
    kind: str  # crash, timeout, result, dtype, shape, value, mutation, memory, accepted, unstable
    message: str
    output: str = ""
    count: int = 0
    compared: int = 0
    index: tuple[int, ...] = ()
    got: int = 0
    want: int = 0
    reference: str = "golden"
    before: tuple[str, ...] = ()  # the JSON of the cases that must run before this one for it to fail
    history: tuple[str, ...] = ()  # of all that ran before it
    variant: str = ""  # of the backend

    def __reduce__(self):
        return Failure, tuple(getattr(self, field.name) for field in fields(self))

    def __str__(self) -> str:
        return f"{self.case.op} on {self.backend.name}: {self.kind}: {self.message}"

    @property
    def differs(self) -> bool:
        """Whether there is a first differing integer to show."""
        return self.kind == "value"

    @property
    def repeat(self) -> str:
        """The command that repeats this case, after those that must run before it."""
        names = f"{self.reference},{self.backend.name}"
        command = ["mamba-integer", "compare", "--op", self.case.op, "--backends", names]
        variant = ["--variant", self.variant] if self.variant else []
        return shlex.join([*command, "--device", self.backend.device, *variant, "--case", self.sequence])

    @property
    def sequence(self) -> str:
        """The case as JSON; where it fails only after others, a list of all of them."""
        case = self.case.to_json()
        return f"[{','.join([*self.before, case])}]" if self.before else case

    def to_dict(self) -> dict[str, Any]:
        found: dict[str, Any] = {
            "op": self.case.op,
            "backend": self.backend.name,
            "device": self.backend.device,
            "reference": self.reference,
            "kind": self.kind,
            "message": self.message,
            "clauses": dict(find_op(self.case.op).clauses),
            "shapes": [list(array.shape) for array in self.case.arrays],
            "parameters": dict(self.case.parameters),
            "case": self.case.to_json(),
            "cases_before": len(self.before),
            "repeat": self.repeat,
        }
        if self.differs:
            found |= {
                "output": self.output,
                "count": self.count,
                "compared": self.compared,
                "index": list(self.index),
                "got": self.got,
                "want": self.want,
                "got_hex": hexadecimal(self.got),
                "want_hex": hexadecimal(self.want),
                "xor_hex": hexadecimal(self.got ^ self.want),
            }
        return found


def hexadecimal(value: int) -> str:
    """Return the two's complement bits of value: 32 of them, or 64 where it needs more."""
    bits = 32 if -(1 << 31) <= value < 1 << 32 else 64
    return f"0x{value & ((1 << bits) - 1):0{bits // 4}x}"


@contextlib.contextmanager
def crashes_as_failures(backend: Backend, case: AnyCase, says: str = "") -> Iterator[None]:
    """Make a Failure of whatever a backend raises: a SystemExit too, which would end the run as if all were equal."""
    try:
        yield
    except (KeyboardInterrupt, Failure):
        raise
    except BaseException as error:
        raise Failure(backend, case, "crash", f"{says}{type(error).__name__}: {error}") from error


@dataclass(frozen=True)
class Form:
    """What is known of a result before its integers are."""

    name: str
    dtypes: tuple[str, ...]
    shape: tuple[int, ...]


def forms(op: str, arrays: Sequence[np.ndarray], parameters: Mapping[str, int]) -> list[Form]:
    """Return the forms that an op's contract gives its results."""
    contract = find_op(op)
    with trusted_values():
        at = contract.check(arrays, parameters)

    def shape(tensor: Tensor) -> tuple[int, ...]:
        names = tensor.shape.split()
        leading = at.leading if "..." in names else ()
        return (*leading, *(known_size(name, at) for name in names if name != "..."))

    return [Form(tensor.name, tensor.dtypes, shape(tensor)) for tensor in contract.outputs]


def in_form(
    backend: Backend, case: AnyCase, got: Sequence[Any], want: Sequence[Form], says: str = ""
) -> tuple[np.ndarray, ...]:
    """Return results as arrays, or raise Failure where their number, a type, a dtype or a shape is wrong."""
    if len(got) != len(want):
        raise Failure(backend, case, "result", f"{says}{len(got)} results, want {len(want)}")
    arrays = tuple(map(_as_array, got))
    for array, form in zip(arrays, want, strict=True):
        name, found = form.name, type(array)
        if found is not np.ndarray:  # a subclass may hide its integers, or give == another meaning
            known = "a numpy.ndarray" if isinstance(array, np.ndarray) else "an array"
            raise Failure(backend, case, "result", f"{says}{name} is a {found.__name__}, want {known}", name)
        if str(array.dtype) not in form.dtypes:
            allowed = " or ".join(form.dtypes)
            raise Failure(backend, case, "dtype", f"{says}{name} has dtype {array.dtype}, want {allowed}", name)
        if array.shape != form.shape:
            raise Failure(backend, case, "shape", f"{says}{name} has shape {array.shape}, want {form.shape}", name)
    return arrays


def compare(
    backend: Backend,
    case: AnyCase,
    got: Sequence[Any],
    want: Sequence[np.ndarray],
    names: Sequence[str] = (),
    relation: str = "",
) -> int:
    """Return the number of integers compared, or raise Failure at the first difference.

    ``names`` are those of the results, the op's outputs if left out; ``relation`` says what should have been equal.
    """
    names = names or [tensor.name for tensor in find_op(case.op).outputs]
    says = f"{relation}; " if relation else ""
    wanted = [_as_array(w) for w in want]
    expected = [Form(name, (str(w.dtype),), w.shape) for name, w in zip(names, wanted, strict=True)]
    compared = 0
    for name, g, w in zip(names, in_form(backend, case, got, expected, says), wanted, strict=True):
        wrong = g != w
        if wrong.any():
            index = tuple(int(i) for i in np.argwhere(wrong)[0])
            a, b, count = int(g[index]), int(w[index]), int(wrong.sum())
            message = f"{says}{name}: {count} of {w.size} integers differ; first at {index}: got {a}, want {b}"
            raise Failure(backend, case, "value", message, name, count, w.size, index, a, b)
        compared += w.size
    return compared


def _as_array(result: Any) -> Any:
    """Return NumPy's scalars as arrays: its functions turn arrays without dimensions into them."""
    return np.asarray(result) if isinstance(result, np.generic) else result
