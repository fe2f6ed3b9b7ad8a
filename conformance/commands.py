"""The commands that compare backends with the specification: conform and compare.

Exit codes: 0 all equal and complete, 1 a mismatch or something missing, 2 a usage error. The suite's engine, and
hypothesis with it, is loaded only when a command runs.
"""

import contextlib
import faulthandler
import json
import re
import signal
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mamba_integer import spec
from mamba_integer.backends.app.environment import environment
from mamba_integer.backends.app.main import EQUAL, INTERRUPTED, MISMATCH, TERMINATED
from mamba_integer.backends.app.terminal import (
    Device,
    Json,
    UsageError,
    backends_on_stderr,
    check_output,
    console_for,
    counted,
    find_backends,
    progress_bar,
    warn,
)
from mamba_integer.backends.files.atomic import write_atomically, write_json
from mamba_integer.backends.files.source import Source
from mamba_integer.backends.processors import variables
from mamba_integer.backends.programs import ops as programs
from mamba_integer.backends.protocol import COMMAND
from mamba_integer.spec.contract import find_op

from .circuits.command import circuit_command
from .disputes.commands import attach as attach_disputes
from .presets import PRESETS, TIMEOUT
from .speed import command as bench
from .vectors.commands import app as vectors

if TYPE_CHECKING:
    from .report import Report
    from .reports.known import Known

JOBS = "Number of processes that share the ops."
LIMIT = "Seconds that one case may take. After that its op has failed, and the process that ran it is ended."
ENDED = "Seconds that one case may take. A longer one ends the command, which shows where the backend stood."
STDERR = 2
CASE = "Check this case instead: JSON as a failure prints it, a list of cases that run one after the other, or a file."
SECONDS_TO_EXPLAIN = 60.0
KNOWN_HELP = "File of ops that may fail, with reasons. A listed op that passes fails the run."
Seed = Annotated[int, typer.Option("--seed", min=0, help="Seed of the drawn cases.")]


class Terminated(KeyboardInterrupt):
    """SIGTERM came: a run ends as at Ctrl-C, with its processes ended and its report written."""


@contextlib.contextmanager
def interrupted_by_sigterm() -> Iterator[None]:
    def stop(number, frame):
        raise Terminated

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


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
    seed: Seed = 0,
    exhaustive: Annotated[
        bool, typer.Option("--exhaustive", help="Also try every input of the ops that have few enough.")
    ] = False,
    text: Annotated[
        Path | None,
        typer.Option(
            help="Text file for the block and the models. Default: the Zen of Python; none with --op, --implemented or "
            "--preset smoke."
        ),
    ] = None,
    jobs: Annotated[int, typer.Option(min=1, help=JOBS)] = 1,
    timeout: Annotated[float, typer.Option(min=0.1, help=LIMIT)] = TIMEOUT,
    explain: Annotated[bool, typer.Option(help="Make failing cases small and look for known mistakes.")] = True,
    as_json: Json = False,
    report_file: Annotated[Path | None, typer.Option("--report", help="Write the report to this JSON file.")] = None,
    html: Annotated[Path | None, typer.Option(help="Write one page of HTML with cards and a coverage map.")] = None,
    junit: Annotated[Path | None, typer.Option(help="Write JUnit's XML, which CI systems show.")] = None,
    badge: Annotated[Path | None, typer.Option(help="Write the JSON of a badge, for shields.io.")] = None,
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
    from .reports.junit import junit as junit_xml
    from .reports.known import apply_known
    from .reports.page import page

    if preset not in PRESETS:
        raise UsageError(f"--preset: found {preset!r}, allowed {', '.join(PRESETS)}")
    selected = [find_op(name).name for name in op] if op else list(spec.OPS)
    for option, path in (("report", report_file), ("html", html), ("junit", junit), ("badge", badge)):
        check_output(f"--{option}", path)
    known = _known(known_failures) if known_failures else []
    source = _text(text) if text or not (op or implemented or preset == "smoke") else None
    # A program is ended a little before the process that asks it would be: so it costs no more than its case.
    with backends_on_stderr(as_json), variables({programs.TIMEOUT: 0.9 * timeout}):
        lines = [f"{COMMAND}{line}" for line in command or ()]
        named: list[str | None] = list(dict.fromkeys([*(backend or ()), *lines])) or [None]
        backends = find_backends(named, device)
        if implemented:
            selected = [name for name in selected if any(tested.has(name) for tested in backends)]
        report = Report(stopped=INTERRUPTED)  # until the end, for who reads the file of a run that is killed
        about = {"preset": preset, "seed": seed, "exhaustive": exhaustive, "environment": environment(backends)}

        def fields() -> dict[str, Any]:
            return report.to_dict() | about

        with progress_bar() as bar:
            task = bar.add_task("conform", total=len(selected) * len(backends))

            def advance(result: Result) -> None:
                bar.update(task, advance=1, description=f"{result.op} on {result.backend}")
                if report_file:  # a run that is killed leaves what it found
                    write_json(report_file, fields())

            try:
                with interrupted_by_sigterm():
                    conform(backends, selected, preset, seed, advance, exhaustive, report, jobs, timeout)
                    if explain and report.failures:
                        explain_failures(report)
                    if source:
                        runs = {source.name: real_text.run, "models": model.run_all, "training": training.run_all}
                        full = preset == "full"
                        chains = {name: partial(run, source=source, full=full) for name, run in runs.items()}
                        for texts in run_chains(backends, jobs, chains, timeout):
                            report.texts, *models = texts.values()
                            report.models = list(chain.from_iterable(models))
                report.stopped = None
            except Terminated:
                report.stopped = TERMINATED
            except KeyboardInterrupt:
                pass
    apply_known(report, known)
    if report_file:
        write_json(report_file, fields())
    if html:
        write_atomically(html, page(report, about).encode(errors="replace"))
    if junit:
        write_atomically(junit, junit_xml(report))
    if badge:
        from .reports.badge import badge as badge_of

        write_json(badge, badge_of(report))
    if as_json:
        print(json.dumps(fields()))
    else:
        show_report(console_for(), report)
    raise typer.Exit(report.exit_code)


def compare_command(
    op: Annotated[str, typer.Option(help="Op to compare.")],
    backends: Annotated[
        str, typer.Option(help="Backends, separated by commas, programs last; the first is the reference.")
    ],
    seed: Seed = 0,
    cases: Annotated[int, typer.Option(min=0, help="Number of drawn cases.")] = 100,
    case: Annotated[str | None, typer.Option(help=CASE)] = None,
    variant: Annotated[str, typer.Option(help="Variant of the kernels to force, as a failure card names it.")] = "",
    device: Device = None,
    timeout: Annotated[float, typer.Option(min=0.1, help=ENDED)] = TIMEOUT,
    as_json: Json = False,
) -> None:
    """Compare one op on two or more backends, on drawn cases or on one case.

    Exit code 0: every integer was equal. Exit code 1: an integer differs, a case took too long, or nothing was
    compared. Exit code 2: a usage error.
    """
    from .diagnosis.explanation import explain
    from .engine import replay
    from .engine.calls import Caller, variant_of, variants
    from .engine.cases import draw_case
    from .engine.comparison import AnyCase, Failure
    from .engine.exhaustive import ExhaustiveCase
    from .engine.far_ends import FarCase
    from .engine.relations import RelationCase
    from .maps import maps
    from .render import show_failure

    contract = find_op(op)
    names = backend_names(backends)
    if len(names) < 2:
        raise UsageError(f"--backends: found {backends!r}, allowed a reference and one backend or more, with commas")
    with backends_on_stderr(as_json), variables({programs.TIMEOUT: 0.9 * timeout}):
        reference, *others = find_backends(names, device)
        for held in (reference, *others):
            if not held.has(op):
                raise UsageError(f"backend {held.name} has no op {op}")
        source = Random(seed)
        chosen: list[AnyCase] = [draw_case(contract.name, source) for _ in range(0 if case else cases)]
        if case:
            try:
                chosen = replay.parse_sequence(_written(case), op)
            except replay.CaseError as error:
                raise UsageError(str(error)) from error
        compared, failure = 0, None
        try:
            for other in others:
                caller, wanted = Caller(other), Caller(reference)
                with variant_of(other, variant if variant in variants(other, op) else ""):
                    for one in chosen:
                        with ended_after(timeout):
                            compared += replay.check(caller, one, wanted)
        except Failure as error:
            failure = error
    if as_json:
        fields = {"op": op, "backends": names, "equal": failure is None and compared > 0, "integers": compared}
        print(json.dumps(fields | {"cases": len(chosen), "failure": failure.to_dict() if failure else None}))
    else:
        console = console_for()
        if failure:
            show_failure(console, failure, explain(failure) if reference.name == "golden" else None)
            drawable = failure.differs and not isinstance(failure.case, RelationCase | ExhaustiveCase | FarCase)
            for name, lines in maps(failure, reference) if drawable else ():
                console.print(f"where {name} differs (# all, + some, · none):", style="bold", markup=False)
                console.print("\n".join(lines), markup=False)
        elif compared:
            amount = f"{counted(len(chosen), 'case')}, {counted(compared, 'integer')}"
            console.print(f"equal: {op} on {', '.join(names)}: {amount}", style="green")
        else:
            console.print(f"FAILED: {op}: nothing was compared in {counted(len(chosen), 'case')}", style="bold red")
    raise typer.Exit(EQUAL if compared and not failure else MISMATCH)


@contextlib.contextmanager
def ended_after(seconds: float) -> Iterator[None]:
    """End this process with code 1 unless the block ends in time, even in a kernel that holds Python's lock."""
    faulthandler.dump_traceback_later(seconds, exit=True, file=STDERR)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()


def explain_failures(report: "Report") -> None:
    """Explain the failures of a report, as many as there is time for."""
    from .diagnosis.explanation import explain

    deadline = time.monotonic() + SECONDS_TO_EXPLAIN
    for result in report.results:
        if result.failure and time.monotonic() < deadline:
            try:
                result.explanation = explain(result.failure)
            except Exception as error:  # the verdict stands, whatever becomes of its explanation
                warn(f"{result.op}: no explanation: {type(error).__name__}: {error}")


def backend_names(text: str) -> list[str]:
    """Split names at commas; a command may have commas of its own, so only another command can follow it."""
    names: list[str] = []
    for part in re.split(rf",(?={COMMAND})", text):
        names += [part] if part.startswith(COMMAND) else part.split(",")
    return [name.strip() for name in names if name.strip()]


def _known(path: Path) -> "list[Known]":
    from .reports.known import KnownFailuresError, read_known

    try:
        return read_known(path)
    except KnownFailuresError as error:
        raise UsageError(f"--known-failures: {error}") from error


def _written(case: str) -> str:
    """Return cases as JSON, from a file where they are no JSON themselves."""
    if case.lstrip().startswith(("{", "[")):
        return case
    try:
        return Path(case).read_text()
    except (OSError, ValueError) as error:
        raise UsageError(f"--case: neither JSON nor a file: {error}") from error


def _text(path: Path | None) -> Source:
    try:
        return Source.of_file(path) if path else Source.default()
    except ValueError as error:
        raise UsageError(f"--text: {error}") from error


def attach(app: typer.Typer) -> None:
    """Add the commands that compare backends with the specification, or prove with it, to a command line."""
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
