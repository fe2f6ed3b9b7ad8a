"""Checkpoints: one safetensors file that says what it is and proves that it is whole; reading it runs no code.

The header holds the format, the specification's version, the config, the tokenizer's hash and a SHA-256 of the content:
the same model has the same hash wherever it was written. Ternary weights are stored packed, two bits a weight.
"""

import hashlib
import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from ..contract import DomainError
from ..version import SPEC_VERSION
from .config import ConfigError, ModelConfig
from .files import write_atomically
from .formats import check_arrays, parameter_formats
from .state import State

FORMAT = "mamba-integer/model"
STATE_FORMAT = "mamba-integer/state"
MODEL_FIELDS = ("config", "tokenizer_sha256")
STATE_FIELDS = ("positions", "checkpoint_sha256")
LARGEST_HEADER = 1 << 24
LARGEST_STATE = 1 << 36


class CheckpointError(ValueError):
    """A file that is no usable checkpoint: names the file, what was found and what is allowed."""


@dataclass(frozen=True)
class Checkpoint:
    """A model as stored: its config, its parameters as NumPy arrays by name, and the hash of its tokenizer."""

    config: ModelConfig
    parameters: Mapping[str, np.ndarray]
    tokenizer_sha256: str

    @property
    def sha256(self) -> str:
        """The SHA-256 of everything that determines the model's integers."""
        return content_hash(self.parameters, model_header(self.config, self.tokenizer_sha256))


def model_header(config: ModelConfig, tokenizer_sha256: str) -> dict[str, str]:
    return {
        "format": FORMAT,
        "spec_version": SPEC_VERSION,
        "config": json.dumps(config.to_dict(), sort_keys=True),
        "tokenizer_sha256": tokenizer_sha256,
    }


def content_hash(arrays: Mapping[str, np.ndarray], header: Mapping[str, str]) -> str:
    """Return the SHA-256 of the header and, by name, of each array: dtype, shape, little-endian C-ordered bytes."""
    digest = hashlib.sha256(json.dumps(dict(header), sort_keys=True).encode())
    for name in sorted(arrays):
        array = arrays[name]
        digest.update(json.dumps([name, array.dtype.name, array.shape]).encode())
        digest.update(np.ascontiguousarray(array, array.dtype.newbyteorder("<")).data)
    return digest.hexdigest()


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> str:
    """Write a checkpoint atomically; return its content hash.

    Raises
    ------
    DomainError
        A parameter is missing, unknown, of another shape or dtype, or out of its range.
    """
    check_arrays(checkpoint.parameters, parameter_formats(checkpoint.config))
    return save_arrays(path, checkpoint.parameters, model_header(checkpoint.config, checkpoint.tokenizer_sha256))


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint.

    Raises
    ------
    CheckpointError
        The file is missing, truncated, no checkpoint, larger than its config says, of another specification version,
        altered, or holds an array of the wrong shape or dtype or with a value out of range.
    """
    header = read_header(path, FORMAT, MODEL_FIELDS)
    try:
        config = ModelConfig.from_dict(json.loads(header["config"]))
    except (ConfigError, ValueError, TypeError, RecursionError) as error:
        raise CheckpointError(f"{path}: its config makes no model: {error}") from error
    wanted = parameter_formats(config)
    largest = LARGEST_HEADER + sum(f.size_in_bytes for f in wanted.values())
    parameters = load_arrays(path, largest)
    try:
        check_arrays(parameters, wanted)
    except DomainError as error:
        raise CheckpointError(f"{path}: {error}") from error
    checkpoint = Checkpoint(config, parameters, header["tokenizer_sha256"])
    if checkpoint.sha256 != header["content_sha256"]:
        raise CheckpointError(f"{path}: altered: its content hash is not the one it was written with")
    return checkpoint


def save_state(path: Path, state: State, checkpoint_sha256: str) -> str:
    """Write the state of a model (NumPy arrays) atomically; return its content hash."""
    return save_arrays(path, state.arrays, state_header(state.positions, checkpoint_sha256))


def load_state(path: Path, checkpoint_sha256: str) -> State:
    """Read a state of the model of that hash; ``LanguageModel.state_from_numpy`` then checks its arrays.

    Raises
    ------
    CheckpointError
        The file is missing, truncated, no state, oversized, altered, of another specification version or another model.
    """
    header = read_header(path, STATE_FORMAT, STATE_FIELDS)
    if header["checkpoint_sha256"] != checkpoint_sha256:
        raise CheckpointError(
            f"{path}: a state of model {header['checkpoint_sha256'][:16]}, this model is {checkpoint_sha256[:16]}"
        )
    arrays = load_arrays(path, LARGEST_STATE)
    try:
        positions = json.loads(header["positions"])
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: its positions are no JSON") from error
    if not isinstance(positions, list) or any(type(p) is not int or p < 0 for p in positions):
        raise CheckpointError(f"{path}: positions: found {positions!r}, allowed a list of integers >= 0")
    if content_hash(arrays, state_header(tuple(positions), checkpoint_sha256)) != header["content_sha256"]:
        raise CheckpointError(f"{path}: altered: its content hash is not the one it was written with")
    return State(arrays, tuple(positions))


def state_header(positions: tuple[int, ...], checkpoint_sha256: str) -> dict[str, str]:
    return {
        "format": STATE_FORMAT,
        "spec_version": SPEC_VERSION,
        "positions": json.dumps(list(positions)),
        "checkpoint_sha256": checkpoint_sha256,
    }


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
