"""The lines of an op's golden code at which an operation or a function of the number system is used."""

import linecache
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, wraps
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

import numpy as np

from mamba_integer.spec import integers
from mamba_integer.spec.contract import Op

from . import arithmetic
from .primitives import WrongOperation

OPS_PACKAGE = "mamba_integer.spec.ops."


@dataclass(frozen=True)
class Site:
    """A line of golden code."""

    file: str
    line: int

    @property
    def text(self) -> str:
        return text_at(self.file, self.line)


@cache
def text_at(file: str, line: int) -> str:
    source = " ".join(linecache.getline(file, line).split())
    return f"`{source}` ({Path(file).name}:{line})"


def current() -> Site | None:
    """Return the line of an op that is being run."""
    frame = sys._getframe(1)
    while frame is not None:
        if frame.f_globals.get("__name__", "").startswith(OPS_PACKAGE):
            return Site(frame.f_code.co_filename, frame.f_lineno)
        frame = frame.f_back  # type: ignore[assignment]
    return None


def at(site: Site, operation: WrongOperation) -> arithmetic.Rule:
    """Return the rule as it applies to one line alone."""

    names = [name.partition(".")[0] for name in operation.operations]  # quicker to compare, and seldom another method's

    def there(ufunc, method, inputs, options):
        if ufunc.__name__ not in names or name_of(ufunc, method) not in operation.operations or current() != site:
            return NotImplemented
        return operation.rule(ufunc, method, inputs, options)

    return there


def replaced_at(site: Site, functions: Mapping[str, Callable]) -> dict[str, Callable]:
    """Return functions that replace those of the number system on one line alone."""

    def choose(name: str, wrong: Callable) -> Callable:
        right = getattr(integers, name)

        @wraps(right)
        def function(*arguments):
            return (wrong if current() == site else right)(*arguments)

        return function

    return {name: choose(name, wrong) for name, wrong in functions.items()}


def name_of(ufunc: np.ufunc, method: str) -> str:
    return ufunc.__name__ if method == "__call__" else f"{ufunc.__name__}.{method}"


def used(op: Op, arrays, parameters) -> dict[str, list[Site]]:
    """Return the lines of a call's golden code by the operation or function that each uses, in the order of use."""
    sites: dict[str, dict[Site, None]] = {}

    def note(name: str) -> None:
        if (site := current()) is not None:
            sites.setdefault(name, {})[site] = None

    def rule(ufunc, method, inputs, options):
        note(name_of(ufunc, method))
        return NotImplemented

    def noting(name: str, right: Callable) -> Callable:
        def function(*arguments):
            note(name)
            return right(*arguments)

        return function

    names = [name for name, value in vars(integers).items() if isinstance(value, FunctionType)]
    functions = {name: noting(name, getattr(integers, name)) for name in names}
    with arithmetic.replaced(**functions), arithmetic.noting(None):
        arithmetic.run(op, arrays, parameters, rule)
    return {name: list(lines) for name, lines in sites.items()}


def functions(op: Op) -> list[FunctionType]:
    """Return the functions of the specification that an op's golden code runs, itself first."""
    every: dict[FunctionType, None] = {}

    def visit(function: FunctionType) -> None:
        if function in every or not function.__module__.startswith("mamba_integer.spec"):
            return
        every[function] = None
        for name in function.__code__.co_names:
            value = function.__globals__.get(name)
            if isinstance(value, FunctionType):
                visit(value)
            elif isinstance(value, Op):
                visit(value.golden)  # type: ignore[arg-type]
            elif isinstance(value, ModuleType):
                for attribute in function.__code__.co_names:
                    if isinstance(inner := getattr(value, attribute, None), FunctionType):
                        visit(inner)

    visit(op.golden)  # type: ignore[arg-type]
    return list(every)


def constants(op: Op) -> list[tuple[dict[str, Any], str, int]]:
    """Return the integer constants that an op's golden code reads: the names' module, the name, the value."""
    read: dict[tuple[int, str], tuple[dict[str, Any], str, int]] = {}
    for function in functions(op):
        for name in function.__code__.co_names:
            if type(value := function.__globals__.get(name)) is int:
                read[id(function.__globals__), name] = (function.__globals__, name, value)
    return list(read.values())
