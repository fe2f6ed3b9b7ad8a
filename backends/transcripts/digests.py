"""The digests of a run's arrays: on the host, or where the arrays are on a GPU, by a kernel there."""

import hashlib
import weakref
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from ..protocol import Backend
from .leaf import form, tensor_digest

HELD_BYTES = 1 << 28  # of arrays that wait for one launch of a GPU's kernel


class OnDevice:
    """Hashes of the bytes of Torch tensors, which a GPU computes while the run goes on."""

    def __init__(self, arrays: Sequence[Any], roots: Any):
        self._forms = [form(array.dtype, tuple(array.shape)) for array in arrays]
        self._roots = roots

    def __call__(self) -> list[bytes]:
        pairs = zip(self._forms, self._roots.cpu().numpy(), strict=True)
        return [hashlib.sha256(start + root.tobytes()).digest() for start, root in pairs]


class Batch:
    """Arrays that are hashed together; until then they are held."""

    def __init__(self, compute: Callable[[Sequence[Any]], Callable[[], list[bytes]]]):
        self._compute = compute
        self._arrays: list[Any] = []
        self._wait: Callable[[], list[bytes]] | None = None
        self._digests: list[bytes] = []
        self.bytes = 0

    @property
    def started(self) -> bool:
        return self._wait is not None

    def add(self, array: Any) -> int:
        """Return the array's number."""
        self._arrays.append(array)
        self.bytes += array.nbytes
        return len(self._arrays) - 1

    def start(self) -> None:
        if self._wait is None:
            self._wait = self._compute(self._arrays) if self._arrays else list
            self._arrays = []

    def digest(self, number: int) -> bytes:
        """Wait for a digest."""
        if not self._digests:
            self.start()
            assert self._wait is not None
            self._digests = self._wait()
        return self._digests[number]


class Digests:
    """Computes the digest of each array once while the array lives: no op writes to an array."""

    def __init__(self, compute: Callable[[Sequence[Any]], Callable[[], list[bytes]]], held_bytes: int = 0):
        self._compute, self._held_bytes = compute, held_bytes
        self._known: dict[int, tuple[weakref.ref, Batch, int]] = {}
        self._batch = Batch(compute)

    def __call__(self, arrays: Sequence[Any]) -> list[Callable[[], bytes]]:
        """Return for each array a function that waits for its digest."""
        if self._batch.started:
            self._batch = Batch(self._compute)
        batch = self._batch
        for array in arrays:
            key = id(array)
            if key not in self._known:
                self._known[key] = weakref.ref(array, partial(self._forget, key)), batch, batch.add(array)
        if batch.bytes >= self._held_bytes:
            batch.start()
        return [partial(held.digest, number) for _, held, number in (self._known[id(array)] for array in arrays)]

    def _forget(self, key: int, _: weakref.ref) -> None:
        self._known.pop(key, None)


def digests_for(backend: Backend) -> Digests:
    """Return what computes the digests of a backend's arrays, on its device where that has a kernel for it."""

    def on_host(arrays: Sequence[Any]) -> Callable[[], list[bytes]]:
        numbers = (array if isinstance(array, np.ndarray) else backend.store(array) for array in arrays)
        digests = [tensor_digest(array) for array in numbers]
        return lambda: digests

    kernel = device_kernel(backend)
    if kernel is None:
        return Digests(on_host)

    def compute(arrays: Sequence[Any]) -> Callable[[], list[bytes]]:
        on_gpu = all(getattr(array, "is_cuda", False) for array in arrays)
        return OnDevice(arrays, kernel(arrays)) if on_gpu else on_host(arrays)

    return Digests(compute, HELD_BYTES)


def device_kernel(backend: Backend) -> Callable[[Sequence[Any]], Any] | None:
    if not backend.device.startswith("cuda"):
        return None
    try:
        from ..triton.sha256 import byte_roots
    except ImportError:  # Torch without Triton: arrays are copied to the host
        return None
    return byte_roots
