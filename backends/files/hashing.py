"""Hashes that name content: the same integers have the same hash, whoever wrote them."""

import hashlib
import json
from collections.abc import Mapping

import numpy as np


def tensor_hash(*arrays: np.ndarray) -> str:
    """Return the SHA-256 of arrays, one after the other: dtype, shape and little-endian C-ordered bytes of each."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.dtype.name} {list(array.shape)}\n".encode())
        digest.update(little_endian(array))
    return digest.hexdigest()


def content_hash(arrays: Mapping[str, np.ndarray], header: Mapping[str, str]) -> str:
    """Return the SHA-256 of the header and, by name, of each array: dtype, shape, little-endian C-ordered bytes."""
    digest = hashlib.sha256(json.dumps(dict(header), sort_keys=True).encode())
    for name in sorted(arrays):
        array = arrays[name]
        digest.update(json.dumps([name, array.dtype.name, array.shape]).encode())
        digest.update(little_endian(array))
    return digest.hexdigest()


def little_endian(array: np.ndarray) -> memoryview:
    """Return the little-endian C-ordered bytes of an array."""
    return np.ascontiguousarray(array, array.dtype.newbyteorder("<")).data
