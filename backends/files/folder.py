"""A model with its tokenizer: as a folder of ``model.safetensors`` and ``tokenizer.json``, or made from a seed."""

from dataclasses import dataclass
from pathlib import Path

from mamba_integer.spec.model.config import ModelConfig
from mamba_integer.spec.model.initial import initial_parameters

from .config_file import CONFIG_FILE, check_config, save_config
from .container import CheckpointError
from .corpus import CORPUS_FILE
from .model import Checkpoint, load_checkpoint, save_checkpoint
from .tokenizer import ByteTokenizer, Tokenizer, load_tokenizer, save_tokenizer, tokenizer_hash

MODEL_FILE, TOKENIZER_FILE = "model.safetensors", "tokenizer.json"

# Models that come with the package, by name.
TRAINED = {path.name: path for path in sorted((Path(__file__).parent / "trained").glob("*")) if path.is_dir()}


@dataclass(frozen=True)
class TextModel:
    """A model and the tokenizer that its hash names."""

    checkpoint: Checkpoint
    tokenizer: Tokenizer


def fresh_model(config: ModelConfig, seed: int, tokenizer: Tokenizer | None = None) -> TextModel:
    """Return a model with seeded weights; without a tokenizer its text is bytes.

    Raises
    ------
    CheckpointError
        The tokenizer has more tokens than the model.
    """
    tokenizer = tokenizer or ByteTokenizer()
    check_vocabulary(config.name, config, tokenizer)
    return TextModel(Checkpoint(config, initial_parameters(config, seed), tokenizer_hash(tokenizer)), tokenizer)


def save_model(folder: Path, model: TextModel) -> str:
    """Write the tokenizer, ``config.json`` and the model, each atomically, in this order; return the content hash."""
    save_tokenizer(model.tokenizer, folder / TOKENIZER_FILE)
    save_config(folder / CONFIG_FILE, model.checkpoint.config)
    return save_checkpoint(folder / MODEL_FILE, model.checkpoint)


def load_model(path: Path) -> TextModel:
    """Read a folder, or a checkpoint file with its tokenizer beside it; ``config.json`` may be missing.

    Raises
    ------
    CheckpointError, TokenizerError
        A file can't be used, the tokenizer is not the one that the checkpoint was made with, or ``config.json`` differs
        from the checkpoint's config.
    """
    if not path.exists():
        raise CheckpointError(
            f"{path}: no such folder or file; models that come with the package: {', '.join(TRAINED)}"
        )
    file = path / MODEL_FILE if path.is_dir() else path
    if (path / CORPUS_FILE).exists() and not file.exists():
        raise CheckpointError(f"{path}: found an unfinished run, allowed one with {MODEL_FILE}; go on with --resume")
    lacking = [name for name in (MODEL_FILE, TOKENIZER_FILE) if not (path / name).exists()] if path.is_dir() else []
    if lacking:
        raise CheckpointError(
            f"{path}: found no {' and no '.join(lacking)}, allowed a folder that init, train or finetune has filled"
        )
    checkpoint = load_checkpoint(file)
    check_config(file.parent / CONFIG_FILE, checkpoint.config)
    tokenizer = load_tokenizer(file.parent / TOKENIZER_FILE)
    digest = tokenizer_hash(tokenizer)
    if digest != checkpoint.tokenizer_sha256:
        allowed = checkpoint.tokenizer_sha256[:16]
        raise CheckpointError(f"{path}: {TOKENIZER_FILE}: found {digest[:16]}, allowed {allowed}, the model's own")
    check_vocabulary(str(path), checkpoint.config, tokenizer)
    return TextModel(checkpoint, tokenizer)


def check_vocabulary(name: str, config: ModelConfig, tokenizer: Tokenizer) -> None:
    if tokenizer.vocab_size > config.vocab_size:
        raise CheckpointError(
            f"{name}: found a tokenizer of {tokenizer.vocab_size} tokens, allowed {config.vocab_size} at most, the "
            "model's vocab_size"
        )
