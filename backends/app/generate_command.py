"""The command ``generate``: text from a model."""

import contextlib
import json
import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from mamba_integer.spec.model.generation import (
    LAST_STREAM,
    WHOLE,
    Options,
    Session,
    generate,
    inverse_temperature,
    read,
    share,
)

from ..escapes import escaped
from ..files.atomic import replacing
from ..files.state import load_session, save_session
from ..files.text import decode_text, lines_of, read_stream, read_text
from ..files.tokenizer import stream_text
from ..files.trace import Traced, header
from .arguments import DRAWING, refuse
from .main import note, warn
from .opening import DEFAULT_MODEL, BackendName, InitSeed, Model, Opened, TokenizerFile, open_model
from .outputs import output_file
from .terminal import Device, Json, UsageError, counted, progress_bar

BLANKS = " \t"
CONTROLS = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")


class Text:
    """The tokens that each row has written, and the session after them."""

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
        """Return the tokens per second until now, without the first of each row, which loads the kernels."""
        count = sum(max(1, len(row) - 1) for row in self.rows if row)
        return round(count / (time.monotonic() - self.timed_from), 2)


def generate_command(
    context: typer.Context,
    model: Model = DEFAULT_MODEL,
    prompt: Annotated[list[str] | None, typer.Option(help="A prompt. Several make a batch.")] = None,
    file: Annotated[
        list[Path] | None, typer.Option(help="A text file that is a prompt; it may be gzipped. May be repeated.")
    ] = None,
    lines: Annotated[
        bool, typer.Option("--lines", help="Take each line of a file or of stdin as a prompt; blank lines are skipped.")
    ] = False,
    max_tokens: Annotated[int, typer.Option(min=0, help="Number of tokens to write after each prompt.")] = 64,
    greedy: Annotated[
        bool, typer.Option("--greedy", help="Take the likeliest token each time instead of drawing one.")
    ] = False,
    temperature: Annotated[str, typer.Option(help="Decimal by which the logits are divided.")] = "1",
    top_k: Annotated[int, typer.Option(min=1, max=WHOLE, help="Draw from this many tokens at most.")] = WHOLE,
    top_p: Annotated[
        str, typer.Option(help="Draw from the likeliest tokens that together have this probability, a decimal.")
    ] = "1",
    seed: Annotated[int, typer.Option(min=0, max=2**64 - 1, help="Seed of the draws.")] = 0,
    stream: Annotated[
        int,
        typer.Option(
            min=0, max=LAST_STREAM, help="Random stream of the first prompt; each further prompt takes the next."
        ),
    ] = 0,
    init_seed: InitSeed = 0,
    tokenizer: TokenizerFile = None,
    backend: BackendName = None,
    device: Device = None,
    trace: Annotated[
        Path | None,
        typer.Option(help="Write one SHA-256 per layer and model call to this file.", callback=output_file),
    ] = None,
    save_state: Annotated[
        Path | None,
        typer.Option(help="Save the state after the text to this file, to go on later.", callback=output_file),
    ] = None,
    load_state: Annotated[
        Path | None, typer.Option(help="Continue from a saved state; prompts are then optional.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Generate text after each prompt, which is read from stdin where none is given.

    Only the generated text goes to stdout. A terminal shows control characters as escapes; a file gets them as they
    are. The same seed gives the same text on every backend, and for each prompt in a batch of any size. A token that
    stands for no text is shown as its number, ⟨4095⟩. With several prompts the JSON holds a list of tokens and a list
    of texts.
    """
    if greedy:
        refuse(context, "--greedy", *DRAWING)
    if not file and (prompt or load_state):
        refuse(context, "--prompt" if prompt else "--load-state", "lines")
    options = Options(max_tokens, greedy, seed, stream, inverse_temperature(temperature), top_k, share(top_p))
    opened = open_model(model, init_seed, tokenizer, backend, device)
    before = load_session(load_state, opened.model, opened.sha256) if load_state else None
    texts = prompts(prompt or [], file or [], lines, wanted=before is None)
    ids = [opened.tokenizer.encode_array(text) for text in texts]
    if before and not ids:
        ids = [np.zeros(0, np.int32)] * before.state.batch
    with tracing(trace, opened) as running:
        started = time.monotonic()
        with progress_bar() as bar:
            task = bar.add_task("prefill", total=sum(map(len, ids)))
            text = Text(read(running, ids, before, progress=lambda tokens: bar.update(task, advance=tokens)))
        prompt_seconds = round(time.monotonic() - started, 3)
        tokens = text.write(running, options)
        if as_json or len(ids) > 1:
            with progress_bar() as bar:
                for _ in bar.track(tokens, total=max_tokens, description="decode"):
                    pass
        else:
            for piece in stream_text(opened.tokenizer, tokens):
                print(for_reader(piece), end="", flush=True)
            print()
        speed = text.speed()
    if save_state:
        save_session(save_state, text.session, opened.model, opened.sha256)
    decoded = [opened.tokenizer.decode(row) for row in text.rows]
    if as_json:
        result: dict[str, Any] = {"tokens": text.rows, "text": decoded}
        if len(ids) == 1:
            result = {name: entries[0] for name, entries in result.items()}
        times = {"tokens_per_second": speed, "prompt_seconds": prompt_seconds}
        print(json.dumps(result | times | opened.to_dict() | {"seed": seed, "init_seed": init_seed}))
        return
    if len(ids) > 1:
        for number, one in enumerate(decoded):
            print(f"--- {number}\n{for_reader(one)}")
    where = f"{opened.backend.name} on {opened.backend.device}"
    note(f"{counted(sum(map(len, text.rows)), 'token')}, {speed} tokens/s, {where}")


def for_reader(text: str) -> str:
    """Return generated text as a terminal may show it; a file or a pipe gets each character as it is."""
    return CONTROLS.sub(lambda found: escaped(found[0]), text) if sys.stdout.isatty() else text


def prompts(options: list[str], files: list[Path], lines: bool, wanted: bool) -> list[str]:
    """Return the prompts of the options and files, or of stdin if there are none and one is wanted."""
    typed = [("--prompt", decode_text("--prompt", os.fsencode(text))) for text in options]
    read = [(f"--file {file}", read_text(file)) for file in files]
    if wanted and not options and not files:
        if sys.stdin is None or sys.stdin.isatty():
            raise UsageError("no prompt: give --prompt, --file or text on stdin")
        read = [("stdin", read_stream("stdin", sys.stdin.buffer))]
    whole = typed if lines else [*typed, *read]
    if wanted and (empty := next((name for name, text in whole if not text), None)):
        raise UsageError(f"{empty}: found no text, allowed a prompt: give one with --prompt, --file or on stdin")
    texts = [text for _, text in read]
    if lines and texts:
        texts = lines_with_text(texts)
    return [*(text for _, text in typed), *texts]


def lines_with_text(texts: list[str]) -> list[str]:
    """Return the lines that are not blank; a note on stderr counts the others."""
    every = [line for text in texts for line in lines_of(text)]
    filled = [line for line in every if line.strip(BLANKS)]
    if not filled:
        raise UsageError(f"--lines: found {len(every)} lines and no text in them, allowed one line of text or more")
    if blank := len(every) - len(filled):
        warn(f"note: skipped {blank} blank {'line' if blank == 1 else 'lines'}")
    return filled


@contextlib.contextmanager
def tracing(path: Path | None, opened: Opened) -> Iterator[Any]:
    """Yield the model, traced to a file if there is one, which replaces an older one once the block is done."""
    if path is None:
        yield opened.model
        return
    with replacing(path) as file:
        write: Callable[[dict[str, Any]], Any] = lambda record: file.write(f"{json.dumps(record)}\n".encode())  # noqa: E731
        write(header(opened.sha256))
        yield Traced(opened.model, write)


def attach(app: typer.Typer) -> None:
    """Add the command to a command line."""
    example = "Example: mamba-integer generate --model tiny --prompt 'It was' --seed 7 --temperature 0.8"
    app.command("generate", epilog=example)(generate_command)
