"""Comparison without tolerance: dtype, shape and every integer, or a failure that names the first difference."""

import contextlib
import multiprocessing
import shlex
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from mamba_integer.backends import Backend, UnsupportedError
from mamba_integer.backends.escapes import told
from mamba_integer.backends.programs import ProgramError, RoomError
from mamba_integer.backends.programs.wire import Form
from mamba_integer.spec.contract import find_op

OURS = str(Path(__file__).parents[2])  # what a crash is never blamed on: the suite, and whatever else lies beside it


class AnyCase(Protocol):
    """Common part of all kinds of cases: the op, its inputs and the JSON that rebuilds the case."""

    @property
    def op(self) -> str: ...
    @property
    def arrays(self) -> tuple[np.ndarray, ...]: ...
    @property
    def parameters(self) -> Mapping[str, int]: ...
    def to_json(self) -> str: ...


@dataclass(eq=False)
class Failure(Exception):
    """A mistake of a backend in one case."""

    backend: Backend
    case: AnyCase
    kind: str  # crash, timeout, protocol, result, dtype, shape, value, mutation, memory, accepted, unstable
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
    purpose: str = ""  # of a listed case
    process_ended: bool = False  # by the case: it can't be called again here

    def __reduce__(self):
        return Failure, tuple(getattr(self, field.name) for field in fields(self))

    def __str__(self) -> str:
        return f"{self.case.op} on {self.backend.name}: {self.kind}: {self.message}"

    @property
    def differs(self) -> bool:
        """Tells whether there is a first differing integer to show."""
        return self.kind == "value"

    @property
    def bits(self) -> int:
        """The width of the type whose integers differ; 64 where its op has no result of this name."""
        named = [tensor for tensor in find_op(self.case.op).outputs if tensor.name == self.output]
        return max((np.dtype(dtype).itemsize * 8 for t in named for dtype in t.dtypes), default=64)

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
        shown: dict[str, Any] = {
            "op": self.case.op,
            "backend": self.backend.name,
            "device": self.backend.device,
            "reference": self.reference,
            "kind": self.kind,
            "message": self.message,
            "clauses": dict(find_op(self.case.op).clauses),
            "shapes": [list(array.shape) for array in self.case.arrays],
            "parameters": dict(self.case.parameters),
            "purpose": self.purpose,
            "case": self.case.to_json(),
            "cases_before": len(self.before),
            "repeat": self.repeat,
        }
        if self.differs:
            shown |= {
                "output": self.output,
                "count": self.count,
                "compared": self.compared,
                "index": list(self.index),
                "got": self.got,
                "want": self.want,
                "got_hex": hexadecimal(self.got, self.bits),
                "want_hex": hexadecimal(self.want, self.bits),
                "xor_hex": hexadecimal(self.got ^ self.want, self.bits),
            }
        return shown


def hexadecimal(value: int, bits: int) -> str:
    """Return the two's complement bits of value."""
    return f"0x{value & ((1 << bits) - 1):0{bits // 4}x}"


def interrupts() -> tuple[type[BaseException], ...]:
    """Return what ends a run. The processes that run a backend never hear of a signal: there a backend raised it."""
    return () if multiprocessing.parent_process() else (KeyboardInterrupt,)


@contextlib.contextmanager
def crashes_as_failures(backend: Backend, case: AnyCase, says: str = "") -> Iterator[None]:
    """Make a Failure of whatever a backend raises: a SystemExit too, which would end the run as if all were equal."""
    try:
        yield
    except (Failure, UnsupportedError, RoomError):
        raise
    except interrupts():
        raise
    except ProgramError as error:
        raise Failure(backend, case, error.kind, f"{says}{error}") from error
    except BaseException as error:
        message = f"{says}{told(error)}{raised_at(error)}"
        raise Failure(backend, case, "crash", message) from error


def raised_at(error: BaseException) -> str:
    """Return the line of a backend at which it raised: the last one that isn't ours."""
    frames = traceback.extract_tb(error.__traceback__)
    theirs = [frame for frame in frames if not frame.filename.startswith(OURS)]
    return f" (at {theirs[-1].filename}:{theirs[-1].lineno}: {theirs[-1].line})" if theirs else ""


def in_form(
    backend: Backend, case: AnyCase, got: Sequence[Any], want: Sequence[Form], says: str = ""
) -> tuple[np.ndarray, ...]:
    """Return results as arrays, or raise Failure where their number, a type, a dtype or a shape is wrong."""
    if len(got) != len(want):
        raise Failure(backend, case, "result", f"{says}{len(got)} results, want {len(want)}")
    arrays = tuple(map(_as_array, got))
    for array, form in zip(arrays, want, strict=True):
        name, kind = form.name, type(array)
        if kind is not np.ndarray:  # a subclass may hide its integers, or give == another meaning
            known = "an array"
            if isinstance(array, np.ndarray):
                known = "a numpy.ndarray"
            elif hasattr(array, "__array__") and not hasattr(backend.ops, "to_numpy"):
                known = "NumPy's: a backend with other arrays has from_numpy and to_numpy (see backends/protocol.py)"
            raise Failure(backend, case, "result", f"{says}{name} is a {kind.__name__}, want {known}", name)
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
