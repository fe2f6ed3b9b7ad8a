"""Safetensors files whose header names their format and proves that they are whole. Reading one runs no code.

The header holds the format, the specification's version, the fields of the format and a SHA-256 of the content. The
same content has the same hash wherever it was written.
"""

import json
import struct
from collections.abc import Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from mamba_integer.spec.version import SPEC_VERSION

from .atomic import write_atomically
from .hashing import content_hash
from .regular import open_regular, regular_size
from .strict_json import kind_of, parse_json

LARGEST_HEADER = 1 << 24
WIDTHS = {"U8": 1, "I8": 1, "I16": 2, "I32": 4, "I64": 8}  # bytes per integer
MOST_AXES = 8


class CheckpointError(ValueError):
    """A file is no usable checkpoint; the message names the file, the value found and the value allowed."""


def read_header(path: Path, kind: str, fields: Sequence[str]) -> dict[str, str]:
    """Return the metadata of a safetensors file.

    Checked before: the header describes exactly the bytes of the file, and its metadata is of this kind and version and
    has these fields and a content hash.
    """
    header, size = _json_header(path)
    metadata = header.pop("__metadata__", None)
    if not isinstance(metadata, dict) or metadata.get("format") != kind:
        other = metadata.get("format") if isinstance(metadata, dict) else None
        raise CheckpointError(f"{path}: no {kind} file: format {other!r}")
    if metadata.get("spec_version") != SPEC_VERSION:
        raise CheckpointError(
            f"{path}: specification version: found {metadata.get('spec_version')!r}, allowed {SPEC_VERSION!r}"
        )
    for field in (*fields, "content_sha256"):
        if not isinstance(metadata.get(field), str):
            raise CheckpointError(f"{path}: its header has no {field}")
    _check_entries(path, header, size)
    return metadata


def _json_header(path: Path) -> tuple[dict[str, Any], int]:
    """Return the header of a safetensors file and how many bytes follow it."""
    try:
        size = regular_size(path)
        with open_regular(path) as file:
            length = struct.unpack("<Q", prefix)[0] if len(prefix := file.read(8)) == 8 else None
            if length is None or length > size - 8:
                raise CheckpointError(
                    f"{path}: truncated, or no safetensors file: {size} bytes, its header needs {8 + (length or 0)}"
                )
            if length > LARGEST_HEADER:
                raise CheckpointError(f"{path}: no checkpoint: a header of {length} bytes, allowed {LARGEST_HEADER}")
            text = file.read(length)
    except OSError as error:
        raise CheckpointError(f"{path}: can't be read: {error.strerror}") from error
    try:
        header = parse_json(text)
    except ValueError as error:
        raise CheckpointError(f"{path}: no checkpoint: its header is no JSON: {error}") from error
    if not isinstance(header, dict):
        raise CheckpointError(f"{path}: no checkpoint: its header is {kind_of(header)}, allowed an object")
    return header, size - 8 - length


def _check_entries(path: Path, entries: dict[str, Any], size: int) -> None:
    """Raise CheckpointError unless the entries of arrays follow one another and fill ``size`` bytes."""
    ends = []
    for name, entry in entries.items():
        if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
            raise CheckpointError(f"{path}: {name}: found {entry!r:.80}, allowed a dtype, a shape and data_offsets")
        shape, offsets = entry["shape"], entry["data_offsets"]
        for numbers in (shape, offsets):
            few = isinstance(numbers, list) and len(numbers) <= MOST_AXES
            if not few or any(type(n) is not int or not 0 <= n < 1 << 63 for n in numbers):
                raise CheckpointError(
                    f"{path}: {name}: found {numbers!r:.80}, allowed a list of at most {MOST_AXES} integers >= 0"
                )
        if not isinstance(entry["dtype"], str) or entry["dtype"] not in WIDTHS:
            raise CheckpointError(f"{path}: {name}: found dtype {entry['dtype']!r:.80}, allowed {', '.join(WIDTHS)}")
        if len(offsets) != 2 or offsets[1] - offsets[0] != WIDTHS[entry["dtype"]] * prod(shape):
            raise CheckpointError(f"{path}: {name}: data_offsets {offsets} don't hold an array of shape {shape}")
        ends.append(offsets)
    place = 0
    for low, high in sorted(ends):
        if low != place:
            raise CheckpointError(f"{path}: truncated or damaged: its arrays overlap or leave a gap at byte {place}")
        place = high
    if place != size:
        raise CheckpointError(f"{path}: truncated or damaged: {size} bytes of arrays, its header describes {place}")


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
    size = regular_size(path)
    if size > largest:
        raise CheckpointError(f"{path}: oversized: {size} bytes, allowed {largest} for its config")
    try:
        with safe_open(path, "numpy") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    except (SafetensorError, OSError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: truncated or damaged: {error}") from error
