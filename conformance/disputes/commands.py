"""The commands that settle disputes: dispute and referee."""

import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mamba_integer.backends.app.main import EQUAL, MISMATCH
from mamba_integer.backends.app.opening import DEFAULT_MODEL, BackendName, InitSeed, Model, TokenizerFile, backend_name
from mamba_integer.backends.app.reading import TrainText, origin_of
from mamba_integer.backends.app.terminal import (
    Json,
    UsageError,
    console_for,
    find_backend,
    progress_bar,
)
from mamba_integer.backends.escapes import escaped
from mamba_integer.backends.transcripts.folder import Transcript, read_transcript
from mamba_integer.backends.transcripts.opening import Opening, read_opening
from mamba_integer.backends.transcripts.run import Replay

if TYPE_CHECKING:
    from .verdict import Verdict


def dispute_command(
    context: typer.Context,
    a: Annotated[Path, typer.Argument(help="A transcript.")],
    b: Annotated[Path, typer.Argument(help="Another transcript of the same request.")],
    model: Model = DEFAULT_MODEL,
    init_seed: InitSeed = 0,
    tokenizer: TokenizerFile = None,
    train: TrainText = None,
    backend: BackendName = None,
    as_json: Json = False,
) -> None:
    """Settle a dispute: find the first op on which two transcripts differ, run it again, and name the liar.

    Both agree on a state before that op. The CPU repeats the run from there up to the op, which the golden code runs.
    Exit code 0: the transcripts are equal, 1: they differ, 2: a usage error or a damaged transcript.
    """
    from .dispute import settle

    names = different(a, b)
    held = [read_transcript(path) for path in (a, b)]
    with origin_of(context, held[0].header, model, init_seed, tokenizer, train) as origin, progress_bar(as_json) as bar:
        task = bar.add_task("dispute", total=None)
        replay = lambda: Replay(held[0].header, find_backend(backend_name(backend), "cpu"), origin.build)  # noqa: E731
        progress = lambda done, all: bar.update(task, completed=done, total=all)  # noqa: E731
        verdict = settle(list(zip(names, held, strict=True)), replay, progress)
    show(replace(verdict, roots=roots_of(zip(names, held, strict=True))), as_json)


def referee_command(
    a: Annotated[Path, typer.Argument(help="One side's opening of a leaf, from the command open.")],
    b: Annotated[Path, typer.Argument(help="The other side's opening of the same leaf.")],
    as_json: Json = False,
) -> None:
    """Settle a dispute about one op: hold two openings of a leaf against the golden code, and name the liar.

    Exit code 0: both are right, 1: one isn't or neither is, 2: a usage error, a damaged opening, or other inputs.
    """
    from .referee import referee

    sides = list(zip(different(a, b), map(read_opening, (a, b)), strict=True))
    show(replace(referee(sides), roots=roots_of(sides)), as_json)


def different(a: Path, b: Path) -> tuple[str, str]:
    if a.resolve() == b.resolve():
        raise UsageError(f"found {a} twice, allowed two different ones")
    return str(a), str(b)


def roots_of(sides: Iterable[tuple[str, Transcript | Opening]]) -> dict[str, str]:
    return {name: one.root.hex() for name, one in sides}


def show(verdict: "Verdict", as_json: bool) -> None:
    from ..render import failure_card

    if as_json:
        print(json.dumps(verdict.to_dict()))
    elif not verdict.liars:
        print(*map(escaped, (f"equal: {verdict.says}", *root_lines(verdict))), sep="\n")
    else:
        console = console_for()
        for failure in verdict.failures:
            console.print(failure_card(failure))
        for mistake in verdict.mistakes:
            console.print(f"known mistake that gives the same integers: {mistake}")
        rounds = f", found in {verdict.rounds} rounds" if verdict.rounds else ""
        console.print(f"first difference: {verdict.where}{rounds}")
        console.print(verdict.says)
        for line in root_lines(verdict):
            console.print(line)
        liars = " and ".join(verdict.liars)
        if not verdict.failures and verdict.leaf:
            console.print(
                f"to see its integers, each side opens it: mamba-integer open TRANSCRIPT --leaf {verdict.leaf}"
            )
        console.print(f"liar: {liars}" if len(verdict.liars) == 1 else f"liars: {liars}", style="bold red")
    raise typer.Exit(MISMATCH if verdict.liars else EQUAL)


def root_lines(verdict: "Verdict") -> list[str]:
    """Return the root of each side, to be compared with the published ones: a side may hand in another run."""
    return [f"root of {name}: {root}" for name, root in verdict.roots.items()]


def attach(app: typer.Typer) -> None:
    """Add the commands that settle disputes to a command line."""
    examples = {
        "dispute": "mamba-integer dispute mine theirs --model tiny",
        "referee": "mamba-integer referee mine/openings/12.1.4.safetensors theirs/openings/12.1.4.safetensors",
    }
    for name, command in (("dispute", dispute_command), ("referee", referee_command)):
        app.command(name, epilog=f"Example: {examples[name]}")(command)
