"""The commands for models: score, inspect, diff-trace, init, tokenizer train."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from mamba_integer.spec.model import CONFIGS
from mamba_integer.spec.model.scoring import CHUNK, bits_per_byte, score, show

from ..escapes import escaped
from ..files.folder import MODEL_FILE, fresh_model, save_model
from ..files.source import LONGEST, Source
from ..files.text import read_text, read_texts
from ..files.tokenizer import BYTE_VOCABULARY, LARGEST_VOCABULARY, BpeTokenizer, load_tokenizer, save_tokenizer
from ..files.trace import diff_traces
from . import inspection
from .main import EQUAL, MISMATCH, one_line
from .opening import DEFAULT_MODEL, BackendName, InitSeed, Model, TokenizerFile, config_of, open_model
from .outputs import output_file, output_folder, plot_file
from .terminal import Device, Json, UsageError, console_for, counted, progress_bar

tokenizer_app = typer.Typer(help="Train byte-level BPE tokenizers.", no_args_is_help=True)


def score_command(
    file: Annotated[Path, typer.Argument(help="Text file, UTF-8; it may be gzipped.")],
    model: Model = DEFAULT_MODEL,
    init_seed: InitSeed = 0,
    tokenizer: TokenizerFile = None,
    chunk: Annotated[
        int, typer.Option(min=1, help="Number of tokens read at once; it doesn't change the score.")
    ] = CHUNK,
    backend: BackendName = None,
    device: Device = None,
    as_json: Json = False,
) -> None:
    """Score a text: print the bits per byte that a model needs to predict it.

    The losses are exact integers, and so is their sum; only the ratio is rounded, for display. The first token is not
    predicted, so neither its loss nor its bytes count.
    """
    text = read_text(file)
    opened = open_model(model, init_seed, tokenizer, backend, device)
    ids = opened.tokenizer.encode_array(text)
    with progress_bar() as bar:
        task = bar.add_task("score", total=max(0, len(ids) - 1))
        result = score(opened.model, ids, chunk, lambda tokens: bar.update(task, advance=tokens))
    size = sum(len(opened.tokenizer.spell(token)) for token in map(int, ids[1:]))
    shown = show(bits_per_byte(result, size))
    if as_json:
        exact = {"loss_q16": result.loss, "tokens": result.tokens, "bytes": size}
        print(json.dumps({"bits_per_byte": shown} | exact | opened.to_dict()))
    else:
        amount = f"{counted(result.tokens, 'token')}, {counted(size, 'byte')}"
        print(f"{shown} bits per byte: {show(result.bits, 1)} bits, {amount}")


def inspect_command(
    model: Model = DEFAULT_MODEL,
    init_seed: InitSeed = 0,
    tokenizer: TokenizerFile = None,
    text: Annotated[
        Path | None,
        typer.Option(help=f"Text file whose first {LONGEST} bytes the model reads. Default: the Zen of Python."),
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option(help="Draw the ranges and their bounds to this file: .png, .svg or .pdf.", callback=plot_file),
    ] = None,
    backend: BackendName = None,
    device: Device = None,
    as_json: Json = False,
) -> None:
    """Inspect a model: show sizes, sparsity, and for each array its format, proved bound and range on a text.

    The column "at limit" counts the values at an end of their bound, where saturation puts them.
    """
    try:
        source = Source.of_file(text) if text else Source.default()
    except ValueError as error:
        raise UsageError(f"--text: {error}") from error
    opened = open_model(model, init_seed, tokenizer, backend, device)
    ids = opened.tokenizer.encode(source.data.decode())
    with progress_bar() as bar:
        task = bar.add_task("inspect", total=None)
        result = inspection.inspect(opened, ids, lambda seen, all: bar.update(task, completed=seen, total=all))
    if plot:
        inspection.plot(result, plot)
    if as_json:
        print(json.dumps(result.to_dict() | opened.to_dict() | {"text": source.name}))
        return
    console = console_for()
    console.print(inspection.formats_shown(result))
    console.print(inspection.layers_shown(result))
    console.print(inspection.summary(result))
    console.print(f"SHA-256 {opened.sha256}; text: {source.name}")


def diff_trace_command(
    a: Annotated[Path, typer.Argument(help="A trace from generate --trace.")],
    b: Annotated[Path, typer.Argument(help="The trace to compare it with.")],
    as_json: Json = False,
) -> None:
    """Compare two traces and name the first place where they differ. Exit code 0: equal, 1: different."""
    parting = diff_traces(a, b)
    if as_json:
        print(json.dumps({"equal": parting is None, "first": vars(parting) if parting else None}))
    elif parting:
        tensor = f", {parting.tensor}" if parting.tensor else ""
        where = f"the traces differ from line {parting.line} on: {parting.place}{tensor}"
        print(one_line(f"{where}: {parting.a} / {parting.b}"))
    else:
        print("equal")
    raise typer.Exit(MISMATCH if parting else EQUAL)


def init_command(
    folder: Annotated[Path, typer.Argument(help="Folder to write to.", callback=output_folder)],
    model: Annotated[str, typer.Option(help=f"Config: {', '.join(CONFIGS)}.")] = "tiny",
    seed: InitSeed = 0,
    tokenizer: TokenizerFile = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the model that the folder holds.")] = False,
    as_json: Json = False,
) -> None:
    """Write a fresh model with seeded weights: model.safetensors, config.json and tokenizer.json."""
    if (folder / MODEL_FILE).exists() and not force:
        raise UsageError(f"{folder} holds a model; --force replaces it")
    made = fresh_model(config_of("--model", model), seed, load_tokenizer(tokenizer) if tokenizer else None)
    digest = save_model(folder, made)
    if as_json:
        print(json.dumps({"folder": str(folder), "model": model, "seed": seed, "model_sha256": digest}))
    else:
        print(escaped(f"{folder}: {model}, SHA-256 {digest}"))


@tokenizer_app.command("train", epilog="Example: mamba-integer tokenizer train text.txt --vocabulary 4096 --out t.json")
def tokenizer_train_command(
    files: Annotated[list[Path], typer.Argument(help="Text files, UTF-8; they may be gzipped.")],
    vocabulary: Annotated[int, typer.Option(min=BYTE_VOCABULARY, max=LARGEST_VOCABULARY, help="Number of tokens.")],
    out: Annotated[Path, typer.Option(help="Tokenizer file to write.", callback=output_file)],
    as_json: Json = False,
) -> None:
    """Train a byte-level BPE tokenizer on text files."""
    text = read_texts(files)
    trained = BpeTokenizer.train(text, vocabulary, progress=sys.stderr.isatty() and not as_json)
    save_tokenizer(trained, out)
    if as_json:
        print(json.dumps({"out": str(out), "vocab_size": trained.vocab_size}))
    else:
        print(escaped(f"{out}: {counted(trained.vocab_size, 'token')}"))


def attach(app: typer.Typer) -> None:
    """Add the commands for models to a command line."""
    for name, command, example in (
        ("score", score_command, "README.md --json"),
        ("inspect", inspect_command, "--model base --plot ranges.png"),
        ("diff-trace", diff_trace_command, "a.jsonl b.jsonl"),
        ("init", init_command, "folder --model tiny --seed 7"),
    ):
        app.command(name, epilog=f"Example: mamba-integer {name} {example}")(command)
    app.add_typer(tokenizer_app, name="tokenizer")
