"""Array types: the names in the ops' signatures, whose alias says the dtype; and what a package's ops take."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Int8Array = NDArray[np.int8]
Int16Array = NDArray[np.int16]
Int32Array = NDArray[np.int32]
Int64Array = NDArray[np.int64]
UInt8Array = NDArray[np.uint8]


@dataclass(frozen=True)
class ArrayKind:
    """The arrays that a package's ops take, which its attribute ``ARRAYS`` tells; ``text`` says how to get one."""

    types: tuple[type, ...]
    text: str


NUMPY = ArrayKind((np.ndarray, np.generic), "a NumPy array: numpy.asarray, Tensor.numpy")


def type_text(value: Any) -> str:
    """Return the type of a value as text, with its article: ``a torch.Tensor``."""
    kind = type(value)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    return "None" if value is None else f"{'an' if name[0] in 'aeio' else 'a'} {name}"
