"""Models as safetensors files.

The header holds the format, the specification's version, the config, the tokenizer's hash and a SHA-256 of the content:
the same model has the same hash wherever it was written. Ternary weights are packed, two bits per weight.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mamba_integer.spec.contract import DomainError
from mamba_integer.spec.model.config import ConfigError, ModelConfig
from mamba_integer.spec.model.formats import check_arrays, parameter_formats
from mamba_integer.spec.version import SPEC_VERSION

from .container import LARGEST_HEADER, CheckpointError, load_arrays, read_header, save_arrays
from .hashing import content_hash
from .strict_json import parse_json

FORMAT = "mamba-integer/model"
MODEL_FIELDS = ("config", "tokenizer_sha256")


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
        config = ModelConfig.from_dict(parse_json(header["config"]))
    except (ConfigError, ValueError, TypeError) as error:
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
