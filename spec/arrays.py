"""Array types: the names in the ops' signatures, whose alias says the dtype; and what a package's ops take."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .tensors import DomainError

Int8Array = NDArray[np.int8]
Int16Array = NDArray[np.int16]
Int32Array = NDArray[np.int32]
Int64Array = NDArray[np.int64]
UInt8Array = NDArray[np.uint8]


Fault = tuple[str, str]  # the thing found, and the thing allowed


@dataclass(frozen=True)
class ArrayKind:
    """The arrays that a package's ops take, which its attribute ``ARRAYS`` tells; ``text`` says how to get one.

    ``fault`` returns why an array of these types can't be taken, or None; ``unread``, why its values can't be checked.
    """

    types: tuple[type, ...]
    text: str
    fault: Callable[[Any], Fault | None] = lambda array: None
    unread: Callable[[Any], Fault | None] = lambda array: None

    def check(self, op: str, argument: str, array: Any) -> None:
        """Raise DomainError unless the array is taken."""
        if not isinstance(array, self.types):
            raise DomainError(op, argument, type_text(array), self.text)
        if fault := self.fault(array):
            raise DomainError(op, argument, *fault)

    def check_read(self, op: str, argument: str, array: Any) -> None:
        """Raise DomainError where the array has no values to check."""
        if fault := self.unread(array):
            raise DomainError(op, argument, *fault)


# A subclass may compute something else: a masked array leaves elements out. A memmap computes as any array does.
PLAIN = frozenset({np.ndarray, np.memmap, *np.sctypeDict.values()})


def numpy_fault(array: Any) -> Fault | None:
    if type(array) in PLAIN:
        return None
    return type_text(array), "a plain numpy.ndarray: numpy.asarray(x); of a masked array, x.filled(value)"


NUMPY = ArrayKind((np.ndarray, np.generic), "a NumPy array: numpy.asarray, Tensor.numpy", numpy_fault)


def type_text(value: Any) -> str:
    """Return the type of a value as text, with its article: ``a torch.Tensor``."""
    kind = type(value)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    return "None" if value is None else f"{'an' if name[0] in 'aeio' else 'a'} {name}"
