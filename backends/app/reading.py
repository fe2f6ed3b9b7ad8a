"""Find the model of a transcript's run and, for training, its text."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from mamba_integer.spec.model import LanguageModel
from mamba_integer.spec.training import Run

from ..files.corpus import Corpus, prepare_corpus
from ..files.hashing import content_hash
from ..files.model import Checkpoint
from ..files.tokenizer import ByteTokenizer, Tokenizer, load_tokenizer, tokenizer_hash
from ..files.training import Training
from ..protocol import Backend
from ..transcripts.computation import Computation, computation_for
from ..transcripts.header import Header
from ..transcripts.request import Request, Train
from ..transcripts.run import Build
from .arguments import refuse
from .opening import find_model
from .terminal import UsageError

TranscriptFolder = Annotated[Path, typer.Argument(help="Folder that commit wrote.")]
TrainText = Annotated[
    list[Path] | None, typer.Option("--train", help="Text file on which the run trained. May be repeated.")
]


@contextmanager
def corpus_of(text: list[Path], tokenizer: Tokenizer) -> Iterator[Corpus]:
    """Yield the tokens of text files; a temporary folder holds them until the block ends."""
    with tempfile.TemporaryDirectory() as folder:
        yield prepare_corpus(text, tokenizer, Path(folder))


def training_id(request: Train) -> str:
    """Return the hash of a training run's fresh model and of all that determines its steps."""
    training = Training(request.config, request.options, request.tokenizer_sha256, request.corpus_sha256)
    return content_hash({}, training.header(0))


@dataclass(frozen=True)
class Origin:
    """The source of a transcript's run: its computation on any backend, and its tokenizer."""

    build: Build
    tokenizer: Tokenizer


@contextmanager
def origin_of(
    context: typer.Context,
    header: Header,
    model: str,
    init_seed: int,
    tokenizer: Path | None,
    text: list[Path] | None,
) -> Iterator[Origin]:
    """Yield the origin of a transcript's run.

    Raises
    ------
    UsageError
        The model or the text is not that of the transcript, or an option has no effect on its kind of run.
    """
    request = header.request
    if isinstance(request, Train):
        refuse(context, "a transcript of commit --train", "model", "init_seed")
        if not text:
            raise UsageError("--train: found nothing, allowed the text on which the run trained")
        chosen = load_tokenizer(tokenizer) if tokenizer else ByteTokenizer()
        same_hash("--tokenizer", tokenizer_hash(chosen), request.tokenizer_sha256)
        same_hash("the transcript's model", header.model_sha256, training_id(request))
        with corpus_of(text, chosen) as corpus:
            same_hash("--train", corpus.sha256, request.corpus_sha256)
            yield Origin(build_training(request, corpus), chosen)
        return
    refuse(context, "a transcript of commit without --train", "train")
    held = find_model(model, init_seed, tokenizer)
    same_hash(f"--model {model}", held.checkpoint.sha256, header.model_sha256, "; name the model of the run")
    yield Origin(build_reading(request, held.checkpoint), held.tokenizer)


def build_training(request: Train, corpus: Corpus) -> Build:
    def build(backend: Backend) -> Computation:
        run = Run(request.config, request.options, backend)
        corpus.check(request.options.length)
        return computation_for(request, run, corpus)

    return build


def build_reading(request: Request, held: Checkpoint) -> Build:
    return lambda backend: computation_for(request, LanguageModel(held.config, held.parameters, backend))


def same_hash(name: str, digest: str, allowed: str, way_out: str = "") -> None:
    if digest != allowed:
        found = f"found SHA-256 {digest[:16]}, allowed {allowed[:16]}, that of the transcript"
        raise UsageError(f"{name}: {found}{way_out}")
