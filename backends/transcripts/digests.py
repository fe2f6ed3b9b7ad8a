"""The digests of a run's arrays: on the host, or where the arrays are on a GPU, by a kernel there."""

import hashlib
import weakref
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol

import numpy as np

from ..protocol import Backend
from .leaf import form, tensor_digest


class Batch(Protocol):
    """Digests that may still be on their way."""

    def digests(self) -> list[bytes]: ...


class Ready:
    def __init__(self, digests: list[bytes]):
        self._digests = digests

    def digests(self) -> list[bytes]:
        return self._digests


class OnDevice:
    """Hashes of the bytes of Torch tensors, which a GPU computes while the run goes on."""

    def __init__(self, arrays: Sequence[Any], roots: Any):
        self._forms = [form(array.dtype, tuple(array.shape)) for array in arrays]
        self._roots, self._digests = roots, list[bytes]()

    def digests(self) -> list[bytes]:
        if self._roots is not None:
            roots = self._roots.cpu().numpy()
            pairs = zip(self._forms, roots, strict=True)
            self._digests = [hashlib.sha256(start + root.tobytes()).digest() for start, root in pairs]
            self._roots = None
        return self._digests


class Digests:
    """Computes the digest of each array once while the array lives: no op writes to an array."""

    def __init__(self, compute: Callable[[Sequence[Any]], Batch]):
        self._compute = compute
        self._known: dict[int, tuple[weakref.ref, Batch, int]] = {}

    def __call__(self, arrays: Sequence[Any]) -> list[Callable[[], bytes]]:
        """Return for each array a function that waits for its digest."""
        if unknown := {id(array): array for array in arrays if id(array) not in self._known}:
            batch = self._compute(list(unknown.values()))
            for number, (key, array) in enumerate(unknown.items()):
                self._known[key] = weakref.ref(array, partial(self._forget, key)), batch, number
        held = [self._known[id(array)][1:] for array in arrays]
        return [partial(wait, batch, number) for batch, number in held]

    def _forget(self, key: int, _: weakref.ref) -> None:
        self._known.pop(key, None)


def wait(batch: Batch, number: int) -> bytes:
    return batch.digests()[number]


def digests_for(backend: Backend) -> Digests:
    """Return what computes the digests of a backend's arrays, on its device where that has a kernel for it."""

    def on_host(arrays: Sequence[Any]) -> Batch:
        numbers = (array if isinstance(array, np.ndarray) else backend.store(array) for array in arrays)
        return Ready([tensor_digest(array) for array in numbers])

    kernel = device_kernel(backend)
    if kernel is None:
        return Digests(on_host)

    def compute(arrays: Sequence[Any]) -> Batch:
        on_gpu = all(getattr(array, "is_cuda", False) for array in arrays)
        return OnDevice(arrays, kernel(arrays)) if on_gpu else on_host(arrays)

    return Digests(compute)


def device_kernel(backend: Backend) -> Callable[[Sequence[Any]], Any] | None:
    if not backend.device.startswith("cuda"):
        return None
    try:
        from ..triton.sha256 import byte_roots
    except ImportError:  # Torch without Triton: arrays are copied to the host
        return None
    return byte_roots
