"""Safetensors files that say what they are and prove that they are whole; reading one runs no code.

The header holds the format, the specification's version, the fields of the format and a SHA-256 of the content: the
same content has the same hash wherever it was written.
"""

import json
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from mamba_integer.spec.version import SPEC_VERSION

from .atomic import write_atomically
from .hashing import content_hash

LARGEST_HEADER = 1 << 24


class CheckpointError(ValueError):
    """A file that is no usable checkpoint: names the file, what was found and what is allowed."""


def read_header(path: Path, kind: str, fields: Sequence[str]) -> dict[str, str]:
    """Return the metadata of a safetensors file, after checking that it can be one, is of this kind and version, and
    has these fields and a content hash.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = struct.unpack("<Q", prefix)[0] if len(prefix := file.read(8)) == 8 else None
            if length is None or length > size - 8:
                raise CheckpointError(f"{path}: truncated: {size} bytes, its header needs {length or 8} more")
            if length > LARGEST_HEADER:
                raise CheckpointError(f"{path}: no checkpoint: a header of {length} bytes, allowed {LARGEST_HEADER}")
            header: Any = json.loads(file.read(length))
    except OSError as error:
        raise CheckpointError(f"{path}: can't be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"{path}: no checkpoint: its header is no JSON") from error
    metadata = header.get("__metadata__") if isinstance(header, dict) else None
    if not isinstance(metadata, dict) or metadata.get("format") != kind:
        found = metadata.get("format") if isinstance(metadata, dict) else None
        raise CheckpointError(f"{path}: no {kind} file: format {found!r}")
    if metadata.get("spec_version") != SPEC_VERSION:
        raise CheckpointError(
            f"{path}: specification version: found {metadata.get('spec_version')!r}, allowed {SPEC_VERSION!r}"
        )
    for field in (*fields, "content_sha256"):
        if not isinstance(metadata.get(field), str):
            raise CheckpointError(f"{path}: its header has no {field}")
    return metadata


def save_arrays(path: Path, arrays: Mapping[str, np.ndarray], header: dict[str, str]) -> str:
    digest = content_hash(arrays, header)
    stored = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    write_atomically(path, in_order(save(stored, {**header, "content_sha256": digest})))
    return digest


def in_order(file: bytes) -> bytes:
    """Return a safetensors file with its metadata sorted; the library's order changes from run to run."""
    start = 8 + struct.unpack("<Q", file[:8])[0]
    header = json.loads(file[8:start])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + file[start:]


def load_arrays(path: Path, largest: int) -> dict[str, np.ndarray]:
    size = path.stat().st_size
    if size > largest:
        raise CheckpointError(f"{path}: oversized: {size} bytes, allowed {largest} for its config")
    try:
        with safe_open(path, "numpy") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    except (SafetensorError, OSError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: truncated or damaged: {error}") from error
