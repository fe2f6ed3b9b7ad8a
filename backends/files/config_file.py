"""``config.json`` beside a model: the config, where other tools look for it. The one in the checkpoint decides."""

import json
from pathlib import Path
from typing import Any

from mamba_integer.spec.model.config import ModelConfig
from mamba_integer.spec.version import SPEC_VERSION

from .atomic import write_json
from .container import CheckpointError
from .regular import read_regular
from .strict_json import kind_of, parse_json

CONFIG_FILE, MODEL_TYPE = "config.json", "mamba-integer"


def config_fields(config: ModelConfig) -> dict[str, Any]:
    return {"model_type": MODEL_TYPE, "spec_version": SPEC_VERSION, **config.to_dict()}


def save_config(path: Path, config: ModelConfig) -> None:
    write_json(path, config_fields(config))


def check_config(path: Path, config: ModelConfig) -> None:
    """Raise CheckpointError if the file is there and a field differs from the checkpoint's.

    Fields that other tools added are ignored.
    """
    try:
        stored = parse_json(read_regular(path))
    except FileNotFoundError:
        return
    except OSError as error:
        raise CheckpointError(f"{path}: can't be read: {error.strerror}") from error
    except ValueError as error:
        raise CheckpointError(
            f"{path}: found no JSON ({error}), allowed the checkpoint's config, or no file"
        ) from error
    if not isinstance(stored, dict):
        raise CheckpointError(f"{path}: found {kind_of(stored)}, allowed an object, or no file")
    for name, value in config_fields(config).items():
        present = json.dumps(stored[name]) if name in stored else "nothing"
        if present != json.dumps(value):
            raise CheckpointError(
                f"{path}: field {name}: found {present:.80}, the checkpoint has {json.dumps(value)}; "
                "correct the field or delete the file"
            )
