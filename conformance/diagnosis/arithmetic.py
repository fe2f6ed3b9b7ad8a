"""Golden code run on arrays whose arithmetic is changed, or looked at, operation by operation.

The golden ops are plain NumPy: given arrays of this class, every sum, product, shift and comparison passes through
`Arithmetic.__array_ufunc__`, where a rule may compute something else and the result may be noted.
"""

import contextlib
import contextvars
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import wraps
from types import FunctionType
from typing import Any

import numpy as np

from mamba_integer.spec import integers
from mamba_integer.spec.contract import Op

Note = Callable[[Any], None]  # of a result
Rule = Callable[..., Any]  # of the operation, its method, its inputs and its options; NotImplemented leaves it alone

_ARRAYS, _SEQUENCES = (np.ndarray, np.generic), (tuple, list)

_rule: contextvars.ContextVar[Rule | None] = contextvars.ContextVar("rule", default=None)
_note: contextvars.ContextVar[Note | None] = contextvars.ContextVar("note", default=None)


class Arithmetic(np.ndarray):
    """An array that hands its operations to the rule in force, and their results to whoever notes them."""

    def __array_ufunc__(self, ufunc, method, *inputs, out=None, **options):
        plain = [value.view(np.ndarray) if type(value) is Arithmetic else value for value in inputs]
        rule, result = _rule.get(), NotImplemented
        if rule is not None:
            result = rule(ufunc, method, plain, options)
        if result is NotImplemented:
            result = getattr(ufunc, method)(*plain, **options)
        if out is not None:
            np.copyto(_plain(out[0]), result, casting="unsafe")
            result = out[0]
        if (note := _note.get()) is not None:
            note(result)
        return _wrapped(result)

    def __array_function__(self, func, types, args, kwargs):
        return _wrapped(super().__array_function__(func, types, args, kwargs))


def _plain(value: Any) -> Any:
    return value.view(np.ndarray) if type(value) is Arithmetic else value


def _wrapped(value: Any) -> Any:
    if isinstance(value, _ARRAYS):
        return value if value.dtype.kind == "b" else np.asarray(value).view(Arithmetic)
    return type(value)(map(_wrapped, value)) if isinstance(value, _SEQUENCES) else value


def run(op: Op, arrays: Sequence[np.ndarray], parameters: Mapping[str, int], rule: Rule | None = None) -> Any:
    """Return the results of the golden op under a rule, as a tuple of plain arrays."""
    token = _rule.set(rule)
    try:
        with np.errstate(all="ignore"):
            results = op.golden(*(array.copy().view(Arithmetic) for array in arrays), **parameters)
    finally:
        _rule.reset(token)
    return tuple(np.asarray(_plain(r)) for r in (results if isinstance(results, tuple) else (results,)))


def golden(op: Op, arrays: Sequence[np.ndarray], parameters: Mapping[str, int]) -> Any:
    """Return the results of the golden op, whose operations pass through here only where somebody notes them."""
    return op.golden(*arrays, **parameters) if _note.get() is None else run(op, arrays, parameters)


@contextlib.contextmanager
def noting(note: Note | None) -> Iterator[None]:
    """Hand the results of golden ops' operations, and of the number system, to a function inside the block."""
    token = _note.set(note)
    every = {name: function for name, function in vars(integers).items() if isinstance(function, FunctionType)}
    try:
        with replaced(**every) if note else contextlib.nullcontext():
            yield
    finally:
        _note.reset(token)


@contextlib.contextmanager
def replaced(**wrong: Callable) -> Iterator[None]:
    """Put other functions in the place of some of the number system's."""
    right = {name: getattr(integers, name) for name in wrong}
    for name, function in wrong.items():
        setattr(integers, name, _noted(function))
    try:
        yield
    finally:
        for name, function in right.items():
            setattr(integers, name, function)


def _noted(function: Callable) -> Callable:
    """Return a function that hands its result to whoever notes results, if somebody does."""
    note = _note.get()
    if note is None:
        return function

    @wraps(function)
    def noted(*arguments: Any) -> Any:
        result = function(*arguments)
        note(result)
        return result

    return noted
