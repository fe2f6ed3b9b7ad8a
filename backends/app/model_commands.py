"""The commands for models: generate, score, inspect, diff-trace, init, tokenizer train."""

import contextlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from mamba_integer.spec.contract import DomainError
from mamba_integer.spec.model import CONFIGS, ConfigError, LanguageModel, find_config
from mamba_integer.spec.model.generation import (
    WHOLE,
    GenerationError,
    Options,
    Session,
    generate,
    inverse_temperature,
    read,
    share,
)
from mamba_integer.spec.model.scoring import CHUNK, ScoreError, bits_per_byte, score, show

from ..files.container import CheckpointError
from ..files.folder import MODEL_FILE, TRAINED, TextModel, fresh_model, load_model, save_model
from ..files.source import LONGEST, Source
from ..files.state import load_session, save_session
from ..files.tokenizer import BpeTokenizer, TokenizerError, load_tokenizer, save_tokenizer, stream_text
from ..files.trace import Traced, TraceError, diff_traces, header
from ..protocol import ENVIRONMENT, Backend
from . import inspection
from .terminal import EQUAL, MISMATCH, Device, Json, UsageError, console_for, find_backend

DEFAULT_BACKEND = "numba"
DEFAULT_MODEL = "shakespeare"
ERRORS = (CheckpointError, ConfigError, DomainError, GenerationError, ScoreError, TokenizerError, TraceError)

Model = Annotated[
    str,
    typer.Option(
        help=f"{', '.join(TRAINED)}: trained; {', '.join(CONFIGS)}: fresh, of seeded weights; or a folder's path."
    ),
]
InitSeed = Annotated[int, typer.Option(min=0, max=2**64 - 1, help="Seed of a fresh model's weights.")]
TokenizerFile = Annotated[Path | None, typer.Option(help="Tokenizer of a fresh model; left out, its text is bytes.")]
BackendName = Annotated[
    str | None,
    typer.Option(help=f"golden, numba, torch, triton or package.module:attribute; else {DEFAULT_BACKEND}."),
]

tokenizer_app = typer.Typer(help="Byte-level BPE tokenizers.", no_args_is_help=True)


@dataclass(frozen=True)
class Opened:
    """A model ready to run."""

    held: TextModel
    sha256: str
    backend: Backend
    model: LanguageModel

    def to_dict(self) -> dict[str, Any]:
        return {
            "model": self.model.config.name,
            "model_sha256": self.sha256,
            "backend": self.backend.name,
            "device": self.backend.device,
        }


class Text:
    """The tokens that each row writes, and where the text stands after them."""

    def __init__(self, session: Session):
        self.session = session
        self.rows: list[list[int]] = [[] for _ in session.last]
        self.timed_from = time.monotonic()

    def write(self, model: Any, options: Options) -> Iterator[int]:
        """Write, and yield the tokens of the first row as they come."""
        for session in generate(model, self.session, options):
            self.session = session
            for row, token in zip(self.rows, session.last.tolist(), strict=True):
                row.append(token)
            if len(self.rows[0]) == 1 < options.max_tokens:
                self.timed_from = time.monotonic()
            yield self.rows[0][-1]

    def speed(self) -> float:
        """Return the tokens a second until now, not counting the first of each row: that one loads the kernels."""
        count = sum(max(1, len(row) - 1) for row in self.rows if row)
        return round(count / (time.monotonic() - self.timed_from), 2)


def generate_command(
    model: Model = DEFAULT_MODEL,
    prompt: Annotated[list[str] | None, typer.Option(help="A prompt; several make a batch.")] = None,
    file: Annotated[list[Path] | None, typer.Option(help="A file that is a prompt; may be repeated.")] = None,
    lines: Annotated[bool, typer.Option("--lines", help="Each line of a file or of stdin is a prompt.")] = False,
    max_tokens: Annotated[int, typer.Option(min=0, help="Tokens to write for each prompt.")] = 64,
    greedy: Annotated[bool, typer.Option("--greedy", help="The likeliest token each time; else a draw.")] = False,
    temperature: Annotated[str, typer.Option(help="A decimal; logits are divided by it.")] = "1",
    top_k: Annotated[int, typer.Option(min=1, max=WHOLE, help="Draw from so many tokens at most.")] = WHOLE,
    top_p: Annotated[str, typer.Option(help="A decimal: draw from the likeliest tokens of this share.")] = "1",
    seed: Annotated[int, typer.Option(min=0, max=2**64 - 1, help="Seed of the draws.")] = 0,
    stream: Annotated[int, typer.Option(min=0, help="Stream of the first prompt; the next has the next.")] = 0,
    init_seed: InitSeed = 0,
    tokenizer: TokenizerFile = None,
    backend: BackendName = None,
    device: Device = None,
    trace: Annotated[Path | None, typer.Option(help="Write a hash a layer and step to this file.")] = None,
    save_state: Annotated[Path | None, typer.Option(help="Write where the text stands to this file.")] = None,
    load_state: Annotated[Path | None, typer.Option(help="Go on from such a file; prompts are then optional.")] = None,
    as_json: Json = False,
) -> None:
    """Write text after a prompt (stdin if none is given). Only what the model writes goes to stdout.

    The same seed gives the same text on every backend and, prompt by prompt, in a batch of any size. A token that no
    text has is shown as its number, ⟨4095⟩. With several prompts the JSON has a list of tokens and of texts.
    """
    options = Options(max_tokens, greedy, seed, stream, inverse_temperature(temperature), top_k, share(top_p))
    opened = open_model(model, init_seed, tokenizer, backend, device)
    before = load_session(load_state, opened.model, opened.sha256) if load_state else None
    texts = prompts(prompt or [], file or [], lines, wanted=before is None)
    ids = [opened.held.tokenizer.encode(text) for text in texts]
    if before and not ids:
        ids = [[] for _ in range(before.state.batch)]
    with tracing(trace, opened) as running:
        started = time.monotonic()
        text = Text(read(running, ids, before))
        prompt_seconds = round(time.monotonic() - started, 3)
        tokens = text.write(running, options)
        if as_json or len(ids) > 1:
            for _ in tokens:
                pass
        else:
            for piece in stream_text(opened.held.tokenizer, tokens):
                print(piece, end="", flush=True)
            print()
        speed = text.speed()
    if save_state:
        save_session(save_state, text.session, opened.model, opened.sha256)
    decoded = [opened.held.tokenizer.decode(row) for row in text.rows]
    if as_json:
        result: dict[str, Any] = {"tokens": text.rows, "text": decoded}
        if len(ids) == 1:
            result = {name: entries[0] for name, entries in result.items()}
        times = {"tokens_per_second": speed, "prompt_seconds": prompt_seconds}
        print(json.dumps(result | times | opened.to_dict() | {"seed": seed, "init_seed": init_seed}))
        return
    if len(ids) > 1:
        for number, one in enumerate(decoded):
            print(f"--- {number}\n{one}")
    where = f"{opened.backend.name} on {opened.backend.device}"
    print(f"{sum(map(len, text.rows))} tokens, {speed} tokens/s, {where}", file=sys.stderr)


def score_command(
    file: Annotated[Path, typer.Argument(help="The text, UTF-8.")],
    model: Model = "tiny",
    init_seed: InitSeed = 0,
    tokenizer: TokenizerFile = None,
    chunk: Annotated[int, typer.Option(min=1, help="Tokens read at once; the score doesn't depend on it.")] = CHUNK,
    backend: BackendName = None,
    device: Device = None,
    as_json: Json = False,
) -> None:
    """Print how many bits a byte of a text costs the model: exact integers, summed; one ratio is shown.

    The first token is not predicted: neither its loss nor its bytes count.
    """
    text = text_of(file)
    opened = open_model(model, init_seed, tokenizer, backend, device)
    spelled = opened.held.tokenizer
    ids = spelled.encode(text)
    with progress() as bar:
        task = bar.add_task("score", total=max(0, len(ids) - 1))
        result = score(opened.model, ids, chunk, lambda tokens: bar.update(task, advance=tokens))
    size = sum(len(spelled.spell(token)) for token in ids[1:])
    shown = show(bits_per_byte(result, size))
    if as_json:
        exact = {"loss_q16": result.loss, "tokens": result.tokens, "bytes": size}
        print(json.dumps({"bits_per_byte": shown} | exact | opened.to_dict()))
    else:
        print(f"{shown} bits a byte: {show(result.bits, 1)} bits, {result.tokens} tokens, {size} bytes")


def inspect_command(
    model: Model = "tiny",
    init_seed: InitSeed = 0,
    tokenizer: TokenizerFile = None,
    text: Annotated[Path | None, typer.Option(help=f"File of text to read, {LONGEST} bytes at most.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw ranges and bounds to this file: .png, .svg, .pdf.")] = None,
    backend: BackendName = None,
    device: Device = None,
    as_json: Json = False,
) -> None:
    """Show a model: formats and proved bounds of every array, sizes, sparsity, and ranges of activations on a text.

    "at limit" counts values at an end of their bound, where saturation puts them.
    """
    source = read_source(text)
    opened = open_model(model, init_seed, tokenizer, backend, device)
    ids = opened.held.tokenizer.encode(source.data.decode("utf-8", "ignore"))
    found = inspection.inspect(opened.held, opened.model, ids)
    if plot:
        inspection.plot(found, plot)
    if as_json:
        print(json.dumps(found.to_dict() | opened.to_dict() | {"text": source.name}))
        return
    console = console_for()
    console.print(inspection.formats_shown(found))
    console.print(inspection.layers_shown(found))
    console.print(inspection.summary(found))
    console.print(f"SHA-256 {opened.sha256}; text: {source.name}", markup=False)


def diff_trace_command(
    a: Annotated[Path, typer.Argument(help="A trace from generate --trace.")],
    b: Annotated[Path, typer.Argument(help="Another.")],
    as_json: Json = False,
) -> None:
    """Name the first place where two traced runs part. Exit code 0: they are equal, 1: they part."""
    parting = diff_traces(a, b)
    if as_json:
        print(json.dumps({"equal": parting is None, "first": vars(parting) if parting else None}))
    elif parting:
        tensor = f", {parting.tensor}" if parting.tensor else ""
        print(f"part at line {parting.line}: {parting.place}{tensor}: {parting.a} / {parting.b}")
    else:
        print("equal")
    raise typer.Exit(MISMATCH if parting else EQUAL)


def init_command(
    folder: Annotated[Path, typer.Argument(help="Folder to write.")],
    model: Annotated[str, typer.Option(help=f"Config: {', '.join(CONFIGS)}.")] = "tiny",
    seed: InitSeed = 0,
    tokenizer: TokenizerFile = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a model that is there.")] = False,
    as_json: Json = False,
) -> None:
    """Write a fresh model of seeded weights: model.safetensors and tokenizer.json."""
    if (folder / MODEL_FILE).exists() and not force:
        raise UsageError(f"{folder} holds a model; --force replaces it")
    made = fresh_model(find_config(model), seed, load_tokenizer(tokenizer) if tokenizer else None)
    digest = save_model(folder, made)
    if as_json:
        print(json.dumps({"folder": str(folder), "model": model, "seed": seed, "model_sha256": digest}))
    else:
        print(f"{folder}: {model}, SHA-256 {digest}")


@tokenizer_app.command("train", epilog="Example: mamba-integer tokenizer train text.txt --vocabulary 4096 --out t.json")
def train_command(
    files: Annotated[list[Path], typer.Argument(help="UTF-8 text files.")],
    vocabulary: Annotated[int, typer.Option(help="How many tokens, 256 or more.")],
    out: Annotated[Path, typer.Option(help="File to write.")],
    as_json: Json = False,
) -> None:
    """Learn a byte-level BPE vocabulary from text files."""
    for file in files:
        text_of(file)
    trained = BpeTokenizer.train(files, vocabulary, progress=sys.stderr.isatty() and not as_json)
    save_tokenizer(trained, out)
    if as_json:
        print(json.dumps({"out": str(out), "vocab_size": trained.vocab_size}))
    else:
        print(f"{out}: {trained.vocab_size} tokens")


def attach(app: typer.Typer) -> None:
    """Add the commands for models to a command line."""
    for name, command, example in (
        ("generate", generate_command, "--model tiny --prompt 'It was' --seed 7 --temperature 0.8"),
        ("score", score_command, "README.md --model tiny --json"),
        ("inspect", inspect_command, "--model base --plot ranges.png"),
        ("diff-trace", diff_trace_command, "a.jsonl b.jsonl"),
        ("init", init_command, "folder --model tiny --seed 7"),
    ):
        app.command(name, epilog=f"Example: mamba-integer {name} {example}")(command)
    app.add_typer(tokenizer_app, name="tokenizer")


def open_model(name: str, init_seed: int, tokenizer: Path | None, backend: str | None, device: str | None) -> Opened:
    held = find_model(name, init_seed, tokenizer)
    chosen = find_backend(backend or os.environ.get(ENVIRONMENT) or DEFAULT_BACKEND, device)
    model = LanguageModel(held.checkpoint.config, held.checkpoint.parameters, chosen)
    return Opened(held, held.checkpoint.sha256, chosen, model)


def find_model(name: str, init_seed: int, tokenizer: Path | None) -> TextModel:
    if name in CONFIGS:
        return fresh_model(CONFIGS[name], init_seed, load_tokenizer(tokenizer) if tokenizer else None)
    path = TRAINED.get(name, Path(name))
    if not path.exists():
        known = ", ".join((*TRAINED, *CONFIGS))
        raise UsageError(f"--model {name}: no such path, and no model of that name; known are {known}")
    if tokenizer:
        raise UsageError("--tokenizer: a stored model has its own")
    return load_model(path)


def prompts(given: list[str], files: list[Path], lines: bool, wanted: bool) -> list[str]:
    """Return the prompts of the options, or of stdin if there are none and one is wanted."""
    texts = [text_of(file) for file in files]
    if wanted and not given and not files:
        if sys.stdin.isatty():
            raise UsageError("no prompt: give --prompt, --file or text on stdin")
        texts = [utf8("stdin", sys.stdin.buffer.read())]
    if lines:
        texts = [line for text in texts for line in text.splitlines()]
    for text in given:
        utf8("--prompt", os.fsencode(text))
    return [*given, *texts]


def text_of(path: Path) -> str:
    try:
        return utf8(str(path), path.read_bytes())
    except OSError as error:
        raise UsageError(f"{path}: can't be read: {error.strerror}") from error


def utf8(name: str, data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UsageError(f"{name}: not UTF-8 at byte {error.start}") from error


def read_source(text: Path | None) -> Source:
    try:
        return Source.of_file(text) if text else Source.default()
    except (OSError, ValueError) as error:
        raise UsageError(f"--text: {error}") from error


@contextlib.contextmanager
def tracing(path: Path | None, opened: Opened) -> Iterator[Any]:
    """Yield the model, traced to a file if there is one."""
    if path is None:
        yield opened.model
        return
    try:
        file = path.open("w", encoding="utf-8")
    except OSError as error:
        raise UsageError(f"--trace {path}: {error.strerror}") from error
    with file:
        write: Callable[[dict[str, Any]], None] = lambda record: print(json.dumps(record), file=file)  # noqa: E731
        write(header(opened.sha256))
        yield Traced(opened.model, write)


def progress() -> Progress:
    console = console_for(stderr=True)
    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    return Progress(
        TextColumn("{task.description}"), *columns, console=console, transient=True, disable=not console.is_terminal
    )
