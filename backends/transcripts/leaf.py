"""The leaves of a transcript: one hash per call of an op, over what was called, on what, and what it returned."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from ..files.hashing import little_endian

PIECE = 4096  # bytes that are hashed one after the other; pieces may be hashed at the same time
TENSOR, LEAF = b"mamba-integer/tensor\0", b"mamba-integer/leaf\0"
STATE = "state"  # the pseudo-op whose results are all that the next call goes on from


class Place(NamedTuple):
    """The place of a leaf: the call of the model or the step, the layer's place in it, the op's place in the layer."""

    call: int
    segment: int
    op: int

    @property
    def name(self) -> str:
        return ".".join(map(str, self))


@dataclass(frozen=True)
class OpCall:
    """One call of an op, with its arrays."""

    op: str
    parameters: Mapping[str, int]
    inputs: Sequence[Any]
    outputs: Sequence[Any]


@dataclass(frozen=True)
class Leaf:
    """A leaf and the call that it stands for."""

    place: Place
    label: str
    call: OpCall = field(repr=False)
    digest: bytes

    @property
    def where(self) -> str:
        return f"leaf {self.place.name} (call {self.place.call}, {self.label}, {self.call.op})"


def tensor_digest(array: np.ndarray) -> bytes:
    """Return the SHA-256 that stands for an array: of its dtype, its shape and the hash of its bytes."""
    root = bytes_root(little_endian(array).cast("B") if array.size else b"")
    return hashlib.sha256(form(array.dtype, array.shape) + root).digest()


@lru_cache(maxsize=4096)
def form(dtype: Any, shape: tuple[int, ...]) -> bytes:
    """Return the first bytes to be hashed for arrays of a dtype, NumPy's or Torch's, and a shape."""
    name = dtype.name if isinstance(dtype, np.dtype) else str(dtype).removeprefix("torch.")
    return TENSOR + f"{name} {list(shape)}\n".encode()


def bytes_root(data: memoryview | bytes) -> bytes:
    """Return the hash of bytes: pieces are hashed, their hashes joined, and so on until one is left."""
    while len(data) > PIECE:
        view = memoryview(data)
        data = b"".join(hashlib.sha256(view[i : i + PIECE]).digest() for i in range(0, len(data), PIECE))
    return hashlib.sha256(data).digest()


def leaf_digest(
    run_id: bytes,
    place: Place,
    label: str,
    op: str,
    parameters: Mapping[str, int],
    inputs: Sequence[bytes],
    outputs: Sequence[bytes],
) -> bytes:
    """Return a leaf: ``run_id`` stands for the specification's version, the model and the request."""
    named = ",".join(f"{name}={value}" for name, value in sorted(parameters.items()))
    about = f"{place.call} {place.segment} {place.op}\n{label}\n{op}\n{named}\n{len(inputs)} {len(outputs)}\n"
    return hashlib.sha256(b"".join((LEAF, run_id, about.encode(), *inputs, *outputs))).digest()
