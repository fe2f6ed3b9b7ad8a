"""The commands that compare backends with the specification, or prove with it.

Exit codes: 0 all equal and complete, 1 a mismatch or something missing, 2 a usage error. The suite's engine, and
hypothesis with it, is loaded only when a command runs.
"""

import json
from collections.abc import Callable
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mamba_integer.backends.app.arguments import chosen_ops, time_limit
from mamba_integer.backends.app.environment import environment
from mamba_integer.backends.app.outputs import output_file
from mamba_integer.backends.app.terminal import (
    Device,
    Json,
    UsageError,
    backends_on_stderr,
    console_for,
    find_backends,
    progress_bar,
)
from mamba_integer.backends.escapes import escaped
from mamba_integer.backends.files.source import LONGEST, Source
from mamba_integer.backends.processors import variables
from mamba_integer.backends.programs import ops as programs
from mamba_integer.backends.protocol import ALIASES, COMMAND
from mamba_integer.backends.stopping import INTERRUPTED, exit_code, ignore_stops, unstopped

from .circuits.command import circuit_command
from .compare_command import compare_command
from .disputes.commands import attach as attach_disputes
from .presets import LONGER, PRESETS, TIMEOUT
from .speed import command as bench
from .vectors.commands import app as vectors

if TYPE_CHECKING:
    from .reports.known import Known

JOBS = "Number of processes that share the ops."
LIMIT = (
    "Seconds that one case may take, 0.1 to 1,000,000. "
    "After that its op has failed, and the process that ran it is ended."
)
KNOWN_HELP = "File of ops that may fail, with reasons. A listed op that passes fails the run."


def conform_command(
    backend: Annotated[
        list[str] | None,
        typer.Option(
            help="Backend: numba, torch, triton, unbounded or module:attribute. May be repeated. Default: golden, the "
            "specification's own code."
        ),
    ] = None,
    command: Annotated[
        list[str] | None,
        typer.Option(help="Program that speaks JSON lines (conformance/PROTOCOL.md), kept running. May be repeated."),
    ] = None,
    op: Annotated[list[str] | None, typer.Option(help="Check only this op. May be repeated.")] = None,
    implemented: Annotated[
        bool, typer.Option("--implemented", help="Check only the ops that the backends have.")
    ] = False,
    device: Device = None,
    preset: Annotated[str, typer.Option(help=f"Number of cases: {', '.join(PRESETS)}.")] = "minimal",
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of the drawn cases.")] = 0,
    exhaustive: Annotated[
        bool, typer.Option("--exhaustive", help="Also try every input of the ops that have few enough.")
    ] = False,
    text: Annotated[
        Path | None,
        typer.Option(
            help=f"Text file whose first {LONGEST} bytes the block and the models read. Default: the Zen of "
            "Python; none with --op, --implemented or --preset smoke."
        ),
    ] = None,
    jobs: Annotated[int, typer.Option(min=1, help=JOBS)] = 1,
    timeout: Annotated[float, typer.Option(callback=time_limit, help=LIMIT)] = TIMEOUT,
    explain: Annotated[bool, typer.Option(help="Make failing cases small and look for known mistakes.")] = True,
    as_json: Json = False,
    report_file: Annotated[
        Path | None, typer.Option("--report", help="Write the report to this JSON file.", callback=output_file)
    ] = None,
    html: Annotated[
        Path | None,
        typer.Option(help="Write one page of HTML with cards and a coverage map.", callback=output_file),
    ] = None,
    junit: Annotated[
        Path | None, typer.Option(help="Write JUnit's XML, which CI systems show.", callback=output_file)
    ] = None,
    badge: Annotated[
        Path | None, typer.Option(help="Write the JSON of a badge, for shields.io.", callback=output_file)
    ] = None,
    known_failures: Annotated[Path | None, typer.Option(help=KNOWN_HELP)] = None,
) -> None:
    """Run the conformance suite: drawn cases, bounds, relations, real text, a whole model, training steps.

    Exit code 0: every selected op ran on every backend, and every integer was equal, known failures aside. Exit code 1:
    an integer differs, an op is missing or left cases out, a known failure passes, or nothing was compared. Exit code
    2: a usage error.
    """
    from .chains import model, training
    from .chains import text as real_text
    from .engine.run import conform
    from .engine.texts import run_chains
    from .render import show_report
    from .report import Report, Result
    from .reports.files import Files
    from .reports.known import apply_known

    if preset not in PRESETS:
        raise UsageError(f"--preset: found {preset!r}, allowed {', '.join(PRESETS)}")
    selected = chosen_ops(op)
    files = Files(report_file, html, junit, badge)
    known = _known(known_failures) if known_failures else []
    source = _text(text) if text or not (op or implemented or preset == "smoke") else None
    # A program is ended a little before the process that asks it would be: so it costs no more than its case.
    with backends_on_stderr(as_json), variables({programs.TIMEOUT: 0.9 * timeout}):
        lines = [f"{COMMAND}{line}" for line in command or ()]
        given = [*(ALIASES.get(name, name) for name in backend or ()), *lines]
        named: list[str | None] = [*dict.fromkeys(given)] or [None]
        backends = find_backends(named, device, LONGER * timeout)
        if implemented:
            selected = [name for name in selected if any(tested.has(name) for tested in backends)]
        report = Report(stopped=INTERRUPTED)  # until the end, for who reads the file of a run that is killed
        about = {"preset": preset, "seed": seed, "exhaustive": exhaustive, "environment": environment(backends)}

        def publish() -> None:
            apply_known(report, known)
            files.write(report, about)

        with progress_bar() as bar:
            task = bar.add_task("conform", total=len(selected) * len(backends))

            def advance(result: Result) -> None:
                bar.update(task, advance=1, description=escaped(f"{result.op} on {result.backend}"))
                files.write_report(report, about)  # a run that is killed leaves what it found

            try:
                conform(backends, selected, preset, seed, advance, exhaustive, report, jobs, timeout)
                if explain and report.failures:
                    from .account import explain_failures

                    explain_failures(report, timeout)
                if source:
                    runs = {source.name: real_text.run, "models": model.run_all, "training": training.run_all}
                    full = preset == "full"
                    chains = {name: partial(run, source=source, full=full) for name, run in runs.items()}
                    for texts in run_chains(backends, jobs, chains, timeout):
                        report.texts, *models = texts.values()
                        report.models = list(chain.from_iterable(models))
                report.stopped = None
                publish()
            except KeyboardInterrupt:
                report.stopped = exit_code()
                with unstopped():
                    publish()
    try:
        if as_json:
            print(json.dumps(report.to_dict() | about))
        else:
            show_report(console_for(), report)
        ignore_stops()
    except KeyboardInterrupt:  # the files say so too
        report.stopped = exit_code()
        with unstopped():
            publish()
    raise typer.Exit(report.exit_code)


def _known(path: Path) -> "list[Known]":
    from .reports.known import KnownFailuresError, read_known

    try:
        return read_known(path)
    except KnownFailuresError as error:
        raise UsageError(f"--known-failures: {error}") from error


def _text(path: Path | None) -> Source:
    try:
        return Source.of_file(path) if path else Source.default()
    except ValueError as error:
        raise UsageError(f"--text: {error}") from error


def attach(app: typer.Typer) -> None:
    """Add the commands to a command line."""
    examples = {
        "conform": "mamba-integer conform --backend numba --backend triton --op squareplus",
        "compare": "mamba-integer compare --op squareplus --backends golden,triton --cases 100",
        "circuit": "mamba-integer circuit ssd_scan_step --size S=1 --r1cs step.r1cs --wtns step.wtns",
    }
    commands: dict[str, Callable[..., None]] = {
        "conform": conform_command,
        "compare": compare_command,
        "circuit": circuit_command,
    }
    for name, command in commands.items():
        app.command(name, epilog=f"Example: {examples[name]}")(command)
    bench.attach(app)
    attach_disputes(app)
    app.add_typer(vectors, name="vectors")
