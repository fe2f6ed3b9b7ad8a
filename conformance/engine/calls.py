"""Calls of a backend's ops, with checks of memory: results are fresh, inputs and their margins stay as they were."""

import contextlib
import os
import sys
import warnings
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mamba_integer.backends import Backend, BackendError
from mamba_integer.backends.escapes import told
from mamba_integer.backends.programs.wire import result_forms
from mamba_integer.spec.contract import find_op

from .comparison import AnyCase, Failure, compare, crashes_as_failures, in_form, interrupts
from .golden import golden_results
from .layouts import CANARY, CONTIGUOUS, Placed, place_all

HELD = 6  # calls whose results are looked at again after each later call
HELD_BYTES = 1 << 26
OVERWRITTEN = CANARY ^ 0x2A
UNFILLED = "MAMBA_INTEGER_UNFILLED"  # the variable that leaves fresh memory as it is, for tools that watch its use


@dataclass
class Returned:
    """The results of one call: as the backend returned them, and as they were then."""

    results: Sequence[Any]
    copies: Sequence[Any]


@dataclass
class Caller:
    """Calls one backend, and holds on to the results of its last calls to see whether a later one changes them."""

    backend: Backend
    held: deque[Returned] = field(default_factory=deque)

    def run(self, case: AnyCase) -> tuple[Any, ...]:
        """Run a case; return its results as NumPy arrays (whatever the backend returned, where they are none).

        Raises
        ------
        Failure
            The backend crashed, wrote to an input or beside it, or returned memory that isn't the caller's alone.
        """
        backend, layouts = self.backend, getattr(case, "layouts", ())
        chosen = layouts or (CONTIGUOUS,) * len(case.arrays)
        with crashes_as_failures(backend, case):
            placed = place_all(backend, case.arrays, chosen)
            with filled_memory():
                results = backend.call(case.op, [argument.view for argument in placed], case.parameters)
            returned = Returned(results, self._copies(results))
            after = [np.asarray(backend.store(argument.loaded)) for argument in placed]
        self._check_inputs(case, placed, after)
        with crashes_as_failures(backend, case):
            self._check_results(case, placed, returned)
        return tuple(returned.copies)

    def _copies(self, results: Sequence[Any]) -> list[Any]:
        stored = (self.backend.store(result) for result in results)
        return [array.copy() if isinstance(array, np.ndarray) else array for array in stored]

    def _check_inputs(self, case: AnyCase, placed: Sequence[Placed], after: Sequence[np.ndarray]) -> None:
        for tensor, argument, now in zip(find_op(case.op).inputs, placed, after, strict=True):
            if not np.array_equal(now, argument.buffer):
                with crashes_as_failures(self.backend, case):
                    view = self.backend.store(argument.view)
                inside = tensor.name if not np.array_equal(view, case.arrays[self._position(case, tensor.name)]) else ""
                wrote = f"changed its input {tensor.name}" if inside else f"wrote beside its input {tensor.name}"
                raise Failure(self.backend, case, "mutation", f"the op {wrote}")

    def _position(self, case: AnyCase, name: str) -> int:
        return [tensor.name for tensor in find_op(case.op).inputs].index(name)

    def _check_results(self, case: AnyCase, placed: Sequence[Placed], returned: Returned) -> None:
        """Overwrite the inputs, check all results that are held, and overwrite the results that are let go."""
        overwrite(argument.loaded for argument in placed)
        self._look(case, returned, "a result shares memory with an input")
        if any(map(is_expanded, returned.results)):
            raise Failure(self.backend, case, "memory", "a result is an expanded view, allowed memory of its own")
        for earlier in self.held:
            self._look(case, earlier, "the call changed the result of an earlier call")
        self.held.append(returned)
        while len(self.held) > HELD or sum(size(held) for held in self.held) > HELD_BYTES:
            oldest = self.held.popleft()
            for i, result in enumerate(oldest.results):
                overwrite([result])
                rest = Returned(oldest.results[i + 1 :], oldest.copies[i + 1 :])
                self._look(case, rest, "two results of one call share memory")
            for held in self.held:
                self._look(case, held, "results of two calls share memory")

    def _look(self, case: AnyCase, returned: Returned, says: str) -> None:
        for result, then in zip(returned.results, returned.copies, strict=True):
            if isinstance(then, np.ndarray) and not np.array_equal(self.backend.store(result), then):
                raise Failure(self.backend, case, "memory", f"{says}, allowed memory that only the caller holds")


@contextlib.contextmanager
def filled_memory() -> Iterator[None]:
    """Have PyTorch, where it is loaded, fill fresh memory with large integers: fresh zeros hide what nobody wrote."""
    torch = sys.modules.get("torch")
    if torch is None or os.environ.get(UNFILLED):
        yield
        return
    mode = torch.get_deterministic_debug_mode()
    with warnings.catch_warnings():
        # PyTorch fills memory where it is asked for deterministic ops, and warns of ops that have no such form.
        warnings.filterwarnings("ignore", message=".*deterministic")
        torch.set_deterministic_debug_mode("warn")
        try:
            yield
        finally:
            torch.set_deterministic_debug_mode(mode)


def overwrite(arrays: Any) -> None:
    """Fill arrays with other integers where they can be written to."""
    for array in arrays:
        with contextlib.suppress(Exception):  # arrays that can't be written to can't be changed by others either
            array[...] = OVERWRITTEN


def is_expanded(result: Any) -> bool:
    """Tell whether elements of an array share memory, as its strides say: NumPy's and Torch's arrays have them."""
    strides = getattr(result, "stride", getattr(result, "strides", ()))
    pairs = list(zip(strides() if callable(strides) else strides, getattr(result, "shape", ()), strict=False))
    return all(size > 0 for _, size in pairs) and any(stride == 0 and size > 1 for stride, size in pairs)


def size(returned: Returned) -> int:
    return sum(array.nbytes for array in returned.copies if isinstance(array, np.ndarray))


def check_case(caller: Caller | Backend, case: AnyCase, reference: Caller | Backend | None = None) -> int:
    """Run a case on a backend and on the reference (the golden op); return the number of integers compared.

    A Caller also looks again at what its backend returned for earlier cases.

    Raises
    ------
    Failure
        The backend crashed, or returned anything but the reference's result in memory that is the caller's alone.
    """
    caller = as_caller(caller)
    if reference is None:
        return compare(caller.backend, case, caller.run(case), golden_results(case))
    reference = as_caller(reference)
    try:
        got, want = caller.run(case), reference.run(case)
        want = in_form(reference.backend, case, want, result_forms(case.op, case.arrays, case.parameters))
        return compare(caller.backend, case, got, want)
    except Failure as failure:
        failure.reference = reference.backend.name
        raise


def as_caller(backend: Caller | Backend) -> Caller:
    return backend if isinstance(backend, Caller) else Caller(backend)


def on_cuda(backend: Backend) -> bool:
    """Return whether the backend's arrays are Torch tensors on a CUDA device."""
    return bool(getattr(backend.load(np.zeros(1, np.int32)), "is_cuda", False))


class BetweenCasesError(BackendError):
    """A backend failed where it ran no case: it says wrongly what it has."""


def names_from(backend: Backend, function: str, op: str) -> tuple[str, ...]:
    """Return the names that an optional function of a backend returns for an op; none where it has no such function."""
    if not hasattr(backend.ops, function):
        return ()
    try:
        names = tuple(getattr(backend.ops, function)(op))
    except interrupts():
        raise
    except BaseException as error:
        raise BetweenCasesError(f"backend {backend.name}: {function}({op!r}): {told(error)}") from error
    if wrong := [name for name in names if not isinstance(name, str)]:
        raise BetweenCasesError(f"backend {backend.name}: {function}({op!r}): found {wrong[0]!r}, allowed names")
    return names


def variants(backend: Backend, op: str) -> tuple[str, ...]:
    """Return the names of an op's paths that a backend doesn't take by itself at the sizes of the suite."""
    return names_from(backend, "variants", op)


def variant_of(backend: Backend, name: str) -> contextlib.AbstractContextManager[Any]:
    """Return the context in which a backend takes the paths of a variant; without a name, those it always takes."""
    if not name:
        return contextlib.nullcontext()
    try:
        return backend.ops.variant(name)
    except interrupts():
        raise
    except BaseException as error:
        raise BetweenCasesError(f"backend {backend.name}: variant({name!r}): {told(error)}") from error
