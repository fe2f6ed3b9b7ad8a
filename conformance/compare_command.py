"""The command that compares backends on one op: on drawn cases, or on those of a failure card."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Annotated

import typer

from mamba_integer.backends.app.arguments import refuse, time_limit
from mamba_integer.backends.app.main import EQUAL, MISMATCH
from mamba_integer.backends.app.terminal import (
    Device,
    Json,
    Line,
    UsageError,
    backends_on_stderr,
    console_for,
    counted,
    find_backends,
    progress_bar,
)
from mamba_integer.backends.files.regular import read_regular
from mamba_integer.backends.processors import variables
from mamba_integer.backends.programs import ops as programs
from mamba_integer.backends.protocol import COMMAND
from mamba_integer.spec.contract import find_op

from .presets import LONGER, TIMEOUT

ENDED = (
    "Seconds that one case may take, 0.1 to 1,000,000. "
    "After that it has failed, and stderr shows where the backend stood."
)
CASE = "Check this case instead: JSON as a failure prints it, a list of cases that run one after the other, or a file."
PART = 100  # drawn cases that run in one call, between two steps of the progress bar


def compare_command(
    context: typer.Context,
    op: Annotated[str, typer.Option(help="Op to compare.")],
    backends: Annotated[
        str, typer.Option(help="Backends, separated by commas, programs last; the first is the reference.")
    ],
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of the drawn cases.")] = 0,
    cases: Annotated[int, typer.Option(min=0, help="Number of drawn cases.")] = 100,
    case: Annotated[str | None, typer.Option(help=CASE)] = None,
    variant: Annotated[str, typer.Option(help="Variant of the kernels to force, as a failure card names it.")] = "",
    device: Device = None,
    timeout: Annotated[float, typer.Option(callback=time_limit, help=ENDED)] = TIMEOUT,
    as_json: Json = False,
) -> None:
    """Compare one op on two or more backends, on drawn cases or on one case.

    Exit code 0: every integer was equal. Exit code 1: an integer differs, a case took too long, or nothing was
    compared. Exit code 2: a usage error.
    """
    from .account import Maps, explain_apart, maps_apart
    from .engine import replay
    from .engine.apart import Apart
    from .engine.cases import draw_case
    from .engine.comparing import Parts, Rules, compare_backends, variants_of
    from .engine.comparison import AnyCase
    from .render import show_failure

    if case:
        refuse(context, "--case", "cases", "seed")
    contract = find_op(op)
    names = backend_names(backends)
    if len(names) < 2:
        raise UsageError(f"--backends: found {backends!r}, allowed a reference and one backend or more, with commas")
    with backends_on_stderr(as_json), variables({programs.TIMEOUT: 0.9 * timeout}):
        reference, *others = find_backends(names, device, LONGER * timeout)
        for backend in (reference, *others):
            if not backend.has(op):
                raise UsageError(f"backend {backend.name} has no op {op}")
        rules = Rules(op, reference, variant, timeout)
        if variant and variant not in (known := variants_of(rules, others)):
            allowed = ", ".join(sorted(known)) or "none"
            raise UsageError(f"--variant: found {variant!r}, allowed of {op} on {', '.join(names[1:])}: {allowed}")
        written: list[AnyCase] = []
        if case:
            try:
                written = replay.parse_sequence(_written(case), op)
            except replay.CaseError as error:
                raise UsageError(f"--case: {error}") from error

        def drawn() -> Iterator[list[AnyCase]]:
            source = Random(seed)
            for start in range(0, cases, PART):
                yield [draw_case(contract.name, source) for _ in range(start, min(start + PART, cases))]

        chosen = len(written) if case else cases
        parts: Parts = (lambda: [written]) if case else drawn
        with progress_bar() as bar:
            task = bar.add_task(f"compare {op}", total=chosen * len(others))
            done = compare_backends(rules, others, parts, lambda count: bar.update(task, advance=count))
        failure, explanation = done.failure, None
        maps: Maps = []
        if failure and not as_json:
            with Apart() as process:
                explanation = explain_apart(process, failure, timeout) if reference.name == "golden" else None
                maps = maps_apart(process, failure, reference, timeout)
    if as_json:
        fields = {"op": op, "backends": names, "equal": failure is None and done.integers > 0, "cases": chosen}
        fields |= {"integers": done.integers, "left_out": dict(done.skipped)}
        print(json.dumps(fields | {"failure": failure.to_dict() if failure else None}))
    else:
        console = console_for()
        for reason, count in done.skipped.items():
            console.print(Line(f"{counted(count, 'case')} left out: {reason}", style="yellow"))
        if failure:
            show_failure(console, failure, explanation)
            for name, rows in maps:
                console.print(f"where {name} differs (# all, + some, · none):", style="bold", markup=False)
                console.print("\n".join(rows), markup=False)
        elif done.integers:
            amount = f"{counted(chosen, 'case')}, {counted(done.integers, 'integer')}"
            console.print(f"equal: {op} on {', '.join(names)}: {amount}", style="green")
        else:
            console.print(f"FAILED: {op}: nothing was compared in {counted(chosen, 'case')}", style="bold red")
    raise typer.Exit(EQUAL if done.integers and not failure else MISMATCH)


def backend_names(text: str) -> list[str]:
    """Split names at commas; a command may have commas of its own, so only another command can follow it."""
    names: list[str] = []
    for part in re.split(rf",(?={COMMAND})", text):
        names += [part] if part.startswith(COMMAND) else part.split(",")
    if "" in (names := [name.strip() for name in names]):
        raise UsageError(
            f"--backends: found {text!r}, in which a name is empty; allowed a name on each side of a comma"
        )
    return names


def _written(case: str) -> str | bytes:
    """Return cases as JSON, from a file where they are no JSON themselves."""
    if case.lstrip().startswith(("{", "[")):
        return case
    try:
        return read_regular(Path(case))
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UsageError(
            f"--case: found {case!r:.80}, allowed a JSON object or list, or a file of one that can be read: {reason}"
        ) from error
