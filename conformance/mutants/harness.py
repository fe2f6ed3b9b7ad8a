"""Plants bugs: replaces golden ops by wrong ones, and keeps a list of them."""

import contextlib
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

from mamba_integer import spec
from mamba_integer.spec import integers


class Golden:
    """The golden ops, some of them replaced."""

    def __init__(self, **wrong: Callable):
        self.wrong = wrong

    def __getattr__(self, name: str) -> Callable:
        if name in spec.OPS:
            return self.wrong.get(name, spec.OPS[name])
        raise AttributeError(name)


BUGS: dict[str, tuple[str, ...]] = {}


def plant(name: str, **wrong: Callable) -> Golden:
    """Return a backend whose given ops are replaced, and list it among the bugs."""
    BUGS[name] = tuple(wrong)
    return Golden(**wrong)


@contextlib.contextmanager
def replaced(module: ModuleType, name: str, wrong: Any) -> Iterator[None]:
    """Replace the value of one name of a module."""
    right = getattr(module, name)
    setattr(module, name, wrong)
    try:
        yield
    finally:
        setattr(module, name, right)


def under(name: str, replacement: Any, op: str, module: ModuleType = integers) -> Callable:
    """Return the golden op as it would be with one name of the number system, or of another module, replaced."""

    def wrong(*arrays, **parameters):
        with replaced(module, name, replacement):
            return spec.OPS[op].golden(*arrays, **parameters)

    return wrong


def plant_integers(bug: str, name: str, function: Callable, *ops: str) -> Golden:
    """Plant a bug of the number system in the given ops."""
    return plant(bug, **{op: under(name, function, op) for op in ops})


def after(op: str, change: Callable) -> Callable:
    """Return the golden op with its results changed: ``change(results, arrays, parameters)``."""
    return lambda *arrays, **parameters: change(spec.OPS[op].golden(*arrays, **parameters), arrays, parameters)
