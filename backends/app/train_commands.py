"""The commands that train: train and finetune."""

import json
from dataclasses import dataclass, replace
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any

import typer

from mamba_integer.spec.model import CONFIGS, ConfigError
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
from mamba_integer.spec.version import SPEC_VERSION

from ..files.config_file import MODEL_TYPE
from ..files.corpus import CorpusError, prepare_corpus
from ..files.folder import MODEL_FILE, TRAINED, check_vocabulary, load_model
from ..files.lock import LockError, held_folder
from ..files.regular import read_regular
from ..files.strict_json import kind_of, parse_json
from ..files.tokenizer import ByteTokenizer, Tokenizer, load_tokenizer, tokenizer_hash
from ..files.training import TRAINING_FILE, Training, TrainingError, origin_masters
from ..launch import RankError, free_address, launch
from ..protocol import BackendError
from . import opening
from .extras import remedy
from .loop import LOG_FILE, Habits, Step, train
from .main import note, warn
from .opening import BackendName, backend_name, config_of
from .outputs import output_folder
from .plots import plot_log
from .terminal import Device, Lines, UsageError, console_for, find_backend, progress_bar, say

ERRORS = (*opening.ERRORS, CorpusError, ExponentError, LockError, OptionsError, ProofError, TrainingError)
MOST_DIGITS = 32  # of a decimal

Text = Annotated[list[Path], typer.Option(help="Text file, UTF-8; it may be gzipped. May be repeated.")]
Out = Annotated[Path, typer.Option(help="Folder that the run writes to.", callback=output_folder)]
Steps = Annotated[int, typer.Option(min=1, help="Number of steps of the whole run.")]
Batch = Annotated[int, typer.Option(min=1, help="Number of sequences per step.")]
Length = Annotated[int, typer.Option(min=1, help="Number of tokens per sequence.")]
RunSeed = Annotated[int, typer.Option(min=0, max=2**64 - 1, help="Seed of the weights, the data order and rounding.")]
Rate = Annotated[str, typer.Option(help="Peak learning rate, a decimal.")]
LastRate = Annotated[
    str | None,
    typer.Option(help="Learning rate at the last step, a decimal. Default: a sixteenth of the peak."),
]
Decay = Annotated[str, typer.Option(help="Weight decay of the ternary masters and the embedding, a decimal below 1.")]
Warmup = Annotated[
    int | None, typer.Option(min=0, help="Number of steps to the peak rate. Default: a twentieth of the steps.")
]
GradientBits = Annotated[int, typer.Option(help="Width of the gradients that enter matrix products: 16 or 8 bits.")]
MicroBatch = Annotated[
    int | None, typer.Option(min=1, help="Number of sequences computed at once; it doesn't change the result.")
]
SaveEvery = Annotated[int, typer.Option(min=1, help="Number of steps between two checkpoints.")]
ValidateEvery = Annotated[int, typer.Option(min=1, help="Number of steps between two validations.")]
Windows = Annotated[int, typer.Option(min=1, help="Number of sequences of the validation text that are read.")]
Resume = Annotated[
    bool,
    typer.Option(
        "--resume",
        help="Continue the run in the folder, if it holds one. --steps may grow before the rate falls, or where "
        "--last-rate equals --rate, if --warmup stays the same.",
    ),
]
RanksWanted = Annotated[
    int, typer.Option("--ranks", min=1, help="Number of processes that share each batch; it doesn't change the result.")
]


@dataclass(frozen=True)
class Job:
    """A run as each of its ranks is told. ``start`` is the model that is trained further, if there is one."""

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
    config: Annotated[str, typer.Option(help=f"Config: {', '.join(CONFIGS)}, or a JSON file.")] = "tiny",
    seed: RunSeed = 0,
    batch: Batch = 16,
    length: Length = 128,
    rate: Rate = "0.0005",
    last_rate: LastRate = None,
    decay: Decay = "0.5",
    warmup: Warmup = None,
    gradient_bits: GradientBits = 16,
    tokenizer: Annotated[Path | None, typer.Option(help="Tokenizer file. Default: one token per byte.")] = None,
    backend: BackendName = None,
    device: Device = None,
    ranks: RanksWanted = 1,
    micro_batch: MicroBatch = None,
    save_every: SaveEvery = 50,
    validate_every: ValidateEvery = 50,
    windows: Windows = 32,
    resume: Resume = False,
    as_json: Lines = False,
) -> None:
    """Train a fresh model on text.

    The same command ends at the same hash on every backend and with any number of ranks. Several text files are joined,
    with a newline where one doesn't end with it; the last tenth of the text is for validation.
    """
    options = make_options(steps, batch, length, seed, rate, last_rate, decay, warmup, gradient_bits)
    habits = Habits(save_every, validate_every, windows)
    where = (micro_batch or batch, backend_name(backend), device)
    start(Job(read_config(config), options, tokenizer, tuple(text), out, habits, *where, None, resume, ranks, as_json))


def finetune_command(
    model: Annotated[str, typer.Argument(help=f"Folder of a model or of a run, or {', '.join(TRAINED)}.")],
    text: Text,
    out: Out,
    steps: Steps,
    seed: RunSeed = 0,
    batch: Batch = 16,
    length: Length = 128,
    rate: Rate = "0.0001",
    last_rate: LastRate = None,
    decay: Decay = "0.5",
    warmup: Warmup = None,
    gradient_bits: GradientBits = 16,
    backend: BackendName = None,
    device: Device = None,
    ranks: RanksWanted = 1,
    micro_batch: MicroBatch = None,
    save_every: SaveEvery = 50,
    validate_every: ValidateEvery = 50,
    windows: Windows = 32,
    resume: Resume = False,
    as_json: Lines = False,
) -> None:
    """Train a model further on other text.

    Its tokenizer and sizes stay. If the folder holds the run that made the model, the run's master weights are used.
    """
    path = TRAINED.get(model, Path(model))
    held = load_model(path)
    folder = path if path.is_dir() else path.parent
    options = make_options(steps, batch, length, seed, rate, last_rate, decay, warmup, gradient_bits)
    habits = Habits(save_every, validate_every, windows)
    where = (micro_batch or batch, backend_name(backend), device)
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


def make_options(steps, batch, length, seed, rate, last_rate, decay, warmup, gradient_bits) -> Options:
    peak = decimal("--rate", rate, ONE, ONE >> 3)
    warmup = steps // 20 if warmup is None else warmup
    more = {
        "rate": peak,
        "last_rate": peak // 16 if last_rate is None else decimal("--last-rate", last_rate, ONE, peak),
        "warmup": warmup,
        "decay": decimal("--decay", decay, 1 << 16, (1 << 16) - 1),
    }
    return Options(steps=steps, batch=batch, length=length, seed=seed, gradient_bits=gradient_bits, **more)


def decimal(option: str, text: str, unit: int, most: int) -> int:
    """Return a decimal in whole units, rounded to the nearest. One above 0 that would round to 0 is refused."""
    try:
        value = Decimal(text)
    except InvalidOperation:
        value = Decimal("nan")
    # An exponent such as 99999999 would make the exact arithmetic endless.
    short = len(text) <= MOST_DIGITS and value.is_finite() and abs(value.adjusted()) < MOST_DIGITS
    units = round(Fraction(value) * unit) if short else -1
    if not 0 <= units <= most or (value and not units):
        allowed = f"0 or a decimal from {1 / unit:.6g} to {most / unit:.6g}" if most else "0"
        raise UsageError(f"{option}: found {text!r}, allowed {allowed}")
    return units


def read_config(name: str) -> ModelConfig:
    if not name.endswith(".json"):
        return config_of("--config", name, "or a file that ends in .json")
    try:
        data = parse_json(read_regular(Path(name)))
    except OSError as error:
        raise UsageError(f"--config {name}: can't be read: {error.strerror}") from error
    except ValueError as error:
        raise UsageError(f"--config {name}: {error}") from error
    if not isinstance(data, dict):
        raise UsageError(f"--config {name}: found {kind_of(data)}, allowed a JSON object")
    try:
        return ModelConfig.from_dict(own_fields(name, data))
    except ConfigError as error:
        raise UsageError(f"--config {name}: {error}") from error


def own_fields(name: str, data: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of a config, without those that the ``config.json`` beside a model adds."""
    if data.get("model_type") != MODEL_TYPE:
        return data
    if (version := data.get("spec_version")) != SPEC_VERSION:
        raise UsageError(f"--config {name}: field spec_version: found {version!r}, allowed {SPEC_VERSION!r}")
    return {field: value for field, value in data.items() if field not in ("model_type", "spec_version")}


def start(job: Job) -> None:
    """Run a job. An error that names no file, such as that of a full disk, is given the job's folder."""
    try:
        check_and_train(job)
    except OSError as error:
        error.filename = error.filename or str(job.out)
        raise


def check_and_train(job: Job) -> None:
    """Check what can be checked before a long run, then train on one rank or several."""
    if job.ranks > 1 and (job.device or "").startswith("cuda:"):
        raise UsageError(
            f"--device: found {job.device}, allowed cuda, which gives each of {job.ranks} ranks its own GPU"
        )
    job = replace(job, device=find_backend(job.backend, job.device).device)
    if (job.out / TRAINING_FILE).exists():
        if not job.resume:
            raise UsageError(f"{job.out} holds a run; --resume goes on with it")
    elif (job.out / MODEL_FILE).exists():
        raise UsageError(f"{job.out} holds a model, which the run would overwrite")
    if job.ranks > job.options.batch:
        raise UsageError(f"--ranks: found {job.ranks}, allowed 1 to {job.options.batch}, so that each has a sequence")
    tokenizer = tokenizer_of(job)
    check_vocabulary(job.config.name, job.config, tokenizer)
    with held_folder(job.out):
        prepare_and_train(job, tokenizer)


def prepare_and_train(job: Job, tokenizer: Tokenizer) -> None:
    with progress_bar(job.as_json) as shown:
        task = shown.add_task("tokenize", total=None)
        progress = lambda done, total: shown.update(task, completed=done, total=total)  # noqa: E731
        corpus = prepare_corpus(job.text, tokenizer, job.out, job.options.length, progress)
    corpus.check(job.options.length)
    if job.ranks == 1:
        work(job, Alone())
        return
    try:
        launch(job.ranks, rank_work, job, free_address())
    finally:
        console_for(stderr=True).show_cursor()  # the bar of a rank that was ended hides it


def rank_work(rank: int, job: Job, address: str) -> None:
    """Train as one of several ranks, in a process of its own."""
    try:
        from .. import distributed
    except ModuleNotFoundError as error:
        raise RankError(remedy(error) or str(error)) from error
    device = f"cuda:{rank}" if job.device == "cuda" else job.device or "cpu"
    try:
        with distributed.joined(rank, job.ranks, device, address) as ranks:
            work(replace(job, device=device), ranks)
    except (UsageError, BackendError, *ERRORS) as error:
        raise RankError(str(error)) from error
    except OSError as error:
        raise RankError(f"{error.filename or job.out}: {error.strerror or error}") from error


def continuation(job: Job) -> str:
    """Say how an interrupted run goes on."""
    if (job.out / TRAINING_FILE).exists():
        return f"--resume goes on from the last checkpoint in {job.out}"
    first = min(job.habits.save_every, job.options.steps)
    return f"{job.out} has no checkpoint yet; the first one is that of step {first}"


def tokenizer_of(job: Job) -> Tokenizer:
    return load_tokenizer(job.tokenizer) if job.tokenizer else ByteTokenizer()


def work(job: Job, exchange: Any) -> None:
    """Train on this rank; the first rank shows the progress."""
    chosen = find_backend(job.backend, job.device)
    tokenizer = tokenizer_of(job)
    corpus = prepare_corpus(job.text, tokenizer, job.out)
    run = Run(job.config, job.options, chosen, micro_batch=job.micro_batch, exchange=exchange)
    origin, masters = origin_masters(job.start, masters_of(job.config)) if job.start else ("", None)
    training = Training(job.config, job.options, tokenizer_hash(tokenizer), corpus.sha256, origin)
    quiet = exchange.rank > 0
    with progress_bar(job.as_json or quiet) as shown:
        task = shown.add_task("train", total=job.options.steps)
        clipped = 0

        def progress(step: Step) -> None:
            nonlocal clipped
            clipped += step.clipped
            validation = f", validation {step.validation}" if step.validation else ""
            stopped = f", {clipped} weights clipped to their range" if clipped else ""
            text = f"{step.bits_per_byte} bits per byte, {step.tokens_per_second:,.0f} tokens/s{stopped}"
            shown.update(task, completed=step.step, description=text)
            if job.as_json:
                say(json.dumps(step.to_dict()))
            elif step.validation:
                note(f"step {step.step}: {text}{validation}")

        try:
            made = train(run, training, corpus, tokenizer, job.out, job.habits, masters, job.resume, progress)
        except KeyboardInterrupt:
            if job.ranks == 1:  # of several ranks none knows whether the others have gone
                warn(f"interrupted: {continuation(job)}")
            raise
    if quiet:
        return
    if job.as_json:
        say(json.dumps(made | {"backend": chosen.name, "device": chosen.device, "ranks": job.ranks}))
    else:
        hash_, bits = made["checkpoint_sha256"], made["bits_per_byte"]
        say(f"{job.out}: step {made['step']}, {bits} bits per byte, SHA-256 {hash_}")
    try:
        plot_log(job.out / LOG_FILE, job.out / "loss.png", job.config.name)
    except Exception as error:  # whatever it is, the run is complete
        warn(f"no loss.png: {type(error).__name__}: {error}")
