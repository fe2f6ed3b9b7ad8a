"""Finding a model and opening it on a backend, for every command."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from mamba_integer.spec.contract import DomainError
from mamba_integer.spec.model import CONFIGS, ConfigError, LanguageModel, ModelConfig
from mamba_integer.spec.model.generation import GenerationError
from mamba_integer.spec.model.language_model import MissingOpError
from mamba_integer.spec.model.scoring import ScoreError

from ..files.container import CheckpointError
from ..files.folder import TRAINED, TextModel, fresh_model, load_model
from ..files.text import TextError
from ..files.tokenizer import Tokenizer, TokenizerError, load_tokenizer
from ..files.trace import TraceError
from ..protocol import ENVIRONMENT, Backend
from .terminal import UsageError, find_backend

DEFAULT_BACKEND = "numba"
DEFAULT_MODEL = "shakespeare"
ERRORS = (
    CheckpointError,
    ConfigError,
    DomainError,
    GenerationError,
    MissingOpError,
    ScoreError,
    TextError,
    TokenizerError,
    TraceError,
)

Model = Annotated[
    str,
    typer.Option(
        help=f"A trained model ({', '.join(TRAINED)}), a folder that holds one, or a config ({', '.join(CONFIGS)}), "
        "which gets seeded weights."
    ),
]
InitSeed = Annotated[int, typer.Option(min=0, max=2**64 - 1, help="Seed of the weights of a fresh model.")]
TokenizerFile = Annotated[
    Path | None, typer.Option(help="Tokenizer file for a fresh model. Default: one token per byte.")
]
BackendName = Annotated[
    str | None,
    typer.Option(
        help=f"Backend: golden, numba, torch, triton or package.module:attribute. Default: {DEFAULT_BACKEND}."
    ),
]


@dataclass(frozen=True)
class Opened:
    """A model ready to run. A model that comes with the package has a name of its own, others that of their config."""

    name: str
    held: TextModel
    sha256: str
    backend: Backend
    model: LanguageModel

    @property
    def tokenizer(self) -> Tokenizer:
        return self.held.tokenizer

    def to_dict(self) -> dict[str, Any]:
        return {
            "model": self.name,
            "model_sha256": self.sha256,
            "backend": self.backend.name,
            "device": self.backend.device,
        }


def open_model(name: str, init_seed: int, tokenizer: Path | None, backend: str | None, device: str | None) -> Opened:
    held = find_model(name, init_seed, tokenizer)
    chosen = find_backend(backend_name(backend), device)
    model = LanguageModel(held.checkpoint.config, held.checkpoint.parameters, chosen)
    return Opened(name if name in TRAINED else held.checkpoint.config.name, held, held.checkpoint.sha256, chosen, model)


def backend_name(option: str | None) -> str:
    """Return the backend of the option, of the environment variable, or the default."""
    return option or os.environ.get(ENVIRONMENT) or DEFAULT_BACKEND


def find_model(name: str, init_seed: int, tokenizer: Path | None) -> TextModel:
    if name in CONFIGS:
        return fresh_model(CONFIGS[name], init_seed, load_tokenizer(tokenizer) if tokenizer else None)
    path = TRAINED.get(name, Path(name))
    if not path.exists():
        known = ", ".join((*TRAINED, *CONFIGS))
        raise UsageError(f"--model {name}: no such path, and no model of that name; known are {known}")
    if tokenizer:
        raise UsageError(f"--tokenizer: found {tokenizer}, allowed for a fresh model alone; a stored model has its own")
    if init_seed:
        raise UsageError(
            f"--init-seed: found {init_seed}, allowed for a fresh model alone; a stored model has its own weights"
        )
    return load_model(path)


def config_of(option: str, name: str, note: str = "") -> ModelConfig:
    """Return the config that an option names; the note ends the message of an error."""
    if name not in CONFIGS:
        raise UsageError(f"{option}: found {name!r}, allowed {', '.join(CONFIGS)} {note}".rstrip())
    return CONFIGS[name]
