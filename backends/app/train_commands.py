"""The commands that train: train and finetune."""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from mamba_integer.spec.model import CONFIGS, find_config
from mamba_integer.spec.model.config import ModelConfig
from mamba_integer.spec.model.proof import ProofError
from mamba_integer.spec.training import (
    Alone,
    ExponentError,
    Options,
    OptionsError,
    Run,
    masters_of,
)
from mamba_integer.spec.training.options import ONE

from ..files.corpus import CorpusError, prepare_corpus
from ..files.folder import MODEL_FILE, TRAINED, check_vocabulary, load_model
from ..files.tokenizer import ByteTokenizer, Tokenizer, load_tokenizer, tokenizer_hash
from ..files.training import TRAINING_FILE, Training, TrainingError, origin_masters
from ..protocol import ENVIRONMENT, BackendError
from . import model_commands as model_cli
from .loop import LOG_FILE, Habits, Step, train
from .model_commands import DEFAULT_BACKEND
from .plots import plot_log
from .terminal import Device, Json, UsageError, console_for, find_backend, say, warn

ERRORS = (CorpusError, ExponentError, OptionsError, ProofError, TrainingError)
MOST_DIGITS = 32  # of a decimal

Text = Annotated[list[Path], typer.Option(help="UTF-8 text, may be gzipped; may be repeated.")]
Out = Annotated[Path, typer.Option(help="Folder of the run.")]
Steps = Annotated[int, typer.Option(min=1, help="Steps of the whole run.")]
Batch = Annotated[int, typer.Option(min=1, help="Sequences of a step.")]
Length = Annotated[int, typer.Option(min=1, help="Tokens of a sequence.")]
RunSeed = Annotated[int, typer.Option(min=0, max=2**64 - 1, help="Seed of weights, data order and rounding.")]
Rate = Annotated[str, typer.Option(help="Peak learning rate, a decimal.")]
Decay = Annotated[str, typer.Option(help="Weight decay of ternary masters and embedding, a decimal below 1.")]
Warmup = Annotated[int | None, typer.Option(min=0, help="Steps to the peak; else a twentieth of the steps.")]
ErrorBits = Annotated[int, typer.Option(help="Width of errors in matrix products: 16 or 8.")]
MicroBatch = Annotated[int | None, typer.Option(min=1, help="Sequences computed at once; changes no integer.")]
SaveEvery = Annotated[int, typer.Option(min=1, help="Steps from checkpoint to checkpoint.")]
ValidateEvery = Annotated[int, typer.Option(min=1, help="Steps from validation to validation.")]
Windows = Annotated[int, typer.Option(min=1, help="Sequences of the validation text that are read.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on where the folder's run stands, if it holds one.")]
RanksWanted = Annotated[
    int, typer.Option("--ranks", min=1, help="Processes that share each batch; changes no integer.")
]
BackendName = Annotated[str | None, typer.Option(help=f"golden, numba, torch, triton …; else {DEFAULT_BACKEND}.")]


@dataclass(frozen=True)
class Job:
    """A run as its ranks are told of it. ``start`` is the model that is trained on, if one is."""

    config: ModelConfig
    options: Options
    tokenizer: Path | None
    text: tuple[Path, ...]
    out: Path
    habits: Habits
    micro_batch: int
    backend: str
    device: str | None
    start: Path | None
    resume: bool
    ranks: int
    as_json: bool


def train_command(
    text: Text,
    out: Out,
    steps: Steps,
    config: Annotated[str, typer.Option(help=f"{', '.join(CONFIGS)}, or a JSON file.")] = "tiny",
    seed: RunSeed = 0,
    batch: Batch = 16,
    length: Length = 128,
    rate: Rate = "0.0005",
    decay: Decay = "0.5",
    warmup: Warmup = None,
    error_bits: ErrorBits = 16,
    tokenizer: Annotated[Path | None, typer.Option(help="Tokenizer file; left out, tokens are bytes.")] = None,
    backend: BackendName = None,
    device: Device = None,
    ranks: RanksWanted = 1,
    micro_batch: MicroBatch = None,
    save_every: SaveEvery = 50,
    validate_every: ValidateEvery = 50,
    windows: Windows = 32,
    resume: Resume = False,
    as_json: Json = False,
) -> None:
    """Train a fresh model on text. The same command ends at the same hash on every backend and number of ranks."""
    options = make_options(steps, batch, length, seed, rate, decay, warmup, error_bits)
    habits = Habits(save_every, validate_every, windows)
    where = (micro_batch or batch, backend or os.environ.get(ENVIRONMENT) or DEFAULT_BACKEND, device)
    start(Job(read_config(config), options, tokenizer, tuple(text), out, habits, *where, None, resume, ranks, as_json))


def finetune_command(
    model: Annotated[str, typer.Argument(help=f"Folder of a model or of a finished run, or {', '.join(TRAINED)}.")],
    text: Text,
    out: Out,
    steps: Steps,
    seed: RunSeed = 0,
    batch: Batch = 16,
    length: Length = 128,
    rate: Rate = "0.0001",
    decay: Decay = "0.5",
    warmup: Warmup = None,
    error_bits: ErrorBits = 16,
    backend: BackendName = None,
    device: Device = None,
    ranks: RanksWanted = 1,
    micro_batch: MicroBatch = None,
    save_every: SaveEvery = 50,
    validate_every: ValidateEvery = 50,
    windows: Windows = 32,
    resume: Resume = False,
    as_json: Json = False,
) -> None:
    """Train a model further on other text: its tokenizer and sizes stay; a run's master weights are taken if there."""
    path = TRAINED.get(model, Path(model))
    held = load_model(path)
    folder = path if path.is_dir() else path.parent
    options = make_options(steps, batch, length, seed, rate, decay, warmup, error_bits)
    habits = Habits(save_every, validate_every, windows)
    where = (micro_batch or batch, backend or os.environ.get(ENVIRONMENT) or DEFAULT_BACKEND, device)
    sizes = held.checkpoint.config
    job = Job(sizes, options, folder / "tokenizer.json", tuple(text), out, habits, *where, path, resume, ranks, as_json)
    start(job)


def attach(app: typer.Typer) -> None:
    """Add the commands that train to a command line."""
    examples = {
        "train": "mamba-integer train --config tiny --text book.txt --steps 50 --seed 1 --backend numba --out run",
        "finetune": "mamba-integer finetune run --text other.txt --steps 50 --out run2",
    }
    for name, command in (("train", train_command), ("finetune", finetune_command)):
        app.command(name, epilog=f"Example: {examples[name]}")(command)


def make_options(steps, batch, length, seed, rate, decay, warmup, error_bits) -> Options:
    peak = decimal("--rate", rate, ONE, ONE >> 3)
    warmup = steps // 20 if warmup is None else warmup
    more = {
        "rate": peak,
        "last_rate": peak // 16,
        "warmup": warmup,
        "decay": decimal("--decay", decay, 1 << 16, (1 << 16) - 1),
    }
    return Options(steps=steps, batch=batch, length=length, seed=seed, error_bits=error_bits, **more)


def decimal(option: str, text: str, unit: int, most: int) -> int:
    """Return a decimal in whole units, rounded to the nearest; one that only rounding makes 0 is refused."""
    try:
        value = Decimal(text)
    except InvalidOperation:
        value = Decimal("nan")
    # An exponent such as 99999999 would make the exact arithmetic endless.
    short = len(text) <= MOST_DIGITS and value.is_finite() and abs(value.adjusted()) < MOST_DIGITS
    units = round(Fraction(value) * unit) if short else -1
    if not 0 <= units <= most or (value and not units):
        allowed = f"0 or a decimal from {1 / unit:.6g} to {most / unit:.6g}"
        raise UsageError(f"{option}: found {text!r}, allowed {allowed}")
    return units


def read_config(name: str) -> ModelConfig:
    if not name.endswith(".json"):
        return find_config(name)
    try:
        data = json.loads(Path(name).read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"--config {name}: {error}") from error
    if not isinstance(data, dict):
        raise UsageError(f"--config {name}: found no JSON object")
    return ModelConfig.from_dict(data)


def start(job: Job) -> None:
    """Run a job; an error of a file that isn't named, such as one of a full disk, names the job's folder."""
    try:
        check_and_train(job)
    except OSError as error:
        error.filename = error.filename or str(job.out)
        raise


def check_and_train(job: Job) -> None:
    """Check what can be checked before a long run, then train on one rank or several."""
    if job.ranks > 1 and (job.device or "").startswith("cuda:"):
        raise UsageError(f"--device: found {job.device}, allowed cuda, where each of {job.ranks} ranks has its own GPU")
    job = replace(job, device=find_backend(job.backend, job.device).device)
    if (job.out / TRAINING_FILE).exists():
        if not job.resume:
            raise UsageError(f"{job.out} holds a run; --resume goes on with it")
    elif (job.out / MODEL_FILE).exists():
        raise UsageError(f"{job.out} holds a model, which the run would overwrite")
    if job.ranks > job.options.batch:
        raise UsageError(f"--ranks: found {job.ranks}, allowed {job.options.batch} at most, a sequence each")
    tokenizer = tokenizer_of(job)
    check_vocabulary(job.config.name, job.config, tokenizer)
    with alone_in(job.out):
        prepare_and_train(job, tokenizer)


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Hold a folder, so that no two runs write to it; the hold ends with this process, however that ends."""
    made = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise UsageError(f"{folder}: another run is training in this folder") from None
    finally:
        os.close(handle)
        if made and not any(folder.iterdir()):
            folder.rmdir()


def prepare_and_train(job: Job, tokenizer: Tokenizer) -> None:
    with bar(job.as_json) as shown:
        task = shown.add_task("tokenise", total=None)
        corpus = prepare_corpus(
            job.text, tokenizer, job.out, lambda done, total: shown.update(task, completed=done, total=total)
        )
    corpus.check(job.options.length)
    if job.ranks == 1:
        work(job, Alone())
        return
    from .. import distributed

    try:
        distributed.launch(job.ranks, rank_work, job, distributed.free_address())
    finally:
        console_for(stderr=True).show_cursor()  # the bar of a rank that was ended hides it


def rank_work(rank: int, job: Job, address: str) -> None:
    """Train as one of several ranks, in a process of its own."""
    from .. import distributed

    device = f"cuda:{rank}" if job.device == "cuda" else job.device or "cpu"
    try:
        with distributed.joined(rank, job.ranks, device, address) as ranks:
            work(replace(job, device=device), ranks)
    except (UsageError, BackendError, *model_cli.ERRORS, *ERRORS) as error:
        raise distributed.RankError(str(error)) from error
    except OSError as error:
        raise distributed.RankError(f"{error.filename or job.out}: {error.strerror or error}") from error


def tokenizer_of(job: Job) -> Tokenizer:
    return load_tokenizer(job.tokenizer) if job.tokenizer else ByteTokenizer()


def work(job: Job, exchange: Any) -> None:
    """Train on this rank; the first one shows how it goes."""
    chosen = find_backend(job.backend, job.device)
    tokenizer = tokenizer_of(job)
    corpus = prepare_corpus(job.text, tokenizer, job.out)
    run = Run(job.config, job.options, chosen, micro_batch=job.micro_batch, exchange=exchange)
    origin, masters = origin_masters(job.start, masters_of(job.config)) if job.start else ("", None)
    training = Training(job.config, job.options, tokenizer_hash(tokenizer), corpus.sha256, origin)
    quiet = exchange.rank > 0
    with bar(job.as_json or quiet) as shown:
        task = shown.add_task("train", total=job.options.steps)
        clipped = 0

        def progress(step: Step) -> None:
            nonlocal clipped
            clipped += step.clipped
            validation = f", validation {step.validation}" if step.validation else ""
            stopped = f", {clipped} weights stopped at the end of their range" if clipped else ""
            text = f"{step.bits_per_byte} bits a byte, {step.tokens_per_second:,.0f} tokens/s{stopped}"
            shown.update(task, completed=step.step, description=text)
            if job.as_json:
                say(json.dumps(step.to_dict()))
            elif step.validation:
                console_for(stderr=True).print(f"step {step.step}: {text}{validation}", markup=False)

        made = train(run, training, corpus, tokenizer, job.out, job.habits, masters, job.resume, progress)
    if quiet:
        return
    if job.as_json:
        say(json.dumps(made | {"backend": chosen.name, "device": chosen.device, "ranks": job.ranks}))
    else:
        hash_, bits = made["checkpoint_sha256"], made["bits_per_byte"]
        say(f"{job.out}: step {made['step']}, {bits} bits a byte, SHA-256 {hash_}")
    try:
        plot_log(job.out / LOG_FILE, job.out / "loss.png", job.config.name)
    except Exception as error:  # whatever it is, the run is complete
        warn(f"no loss.png: {type(error).__name__}: {error}")


@contextmanager
def bar(quiet: bool) -> Iterator[Progress]:
    console = console_for(stderr=True)
    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    hidden = quiet or not console.is_terminal
    with Progress(TextColumn("{task.description}"), *columns, console=console, transient=True, disable=hidden) as shown:
        yield shown
