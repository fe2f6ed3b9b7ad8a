"""The command line. Exit codes: 0 all equal and complete, 1 a mismatch or something missing, 2 a usage error."""

import contextlib
import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from mamba_integer import spec
from mamba_integer.backends import BackendError
from mamba_integer.spec.contract import Op, UnknownOpError, find_op

from . import model_cases, model_cli, real_text, repeat, train_cli, training_cases
from .card import show_failure, show_report
from .cases import draw_case
from .comparison import AnyCase, Failure
from .report import EQUAL, MISMATCH, USAGE, Report, Result, environment, write_atomically
from .run import PRESETS, conform, run_texts
from .terminal import Device, Json, UsageError, backends_on_stderr, console_for, find_backend

app = typer.Typer(
    name="mamba-integer",
    help="Integer state-space models, and implementations held against their specification: no tolerance.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
INTERRUPTED, TERMINATED = 128 + signal.SIGINT, 128 + signal.SIGTERM  # exit codes, as of a shell

JOBS = "How many processes share the ops; with 2 or more, a run survives a backend that ends its process."
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


@app.command("conform", epilog="Example: mamba-integer conform --backend numba --backend triton --op squareplus")
def conform_command(
    backend: Annotated[
        list[str] | None,
        typer.Option(help="numba, torch, triton, unbounded or module:attribute; may be repeated."),
    ] = None,
    op: Annotated[list[str] | None, typer.Option(help="Only this op; may be repeated.")] = None,
    device: Device = None,
    preset: Annotated[str, typer.Option(help=f"How many cases: {' or '.join(PRESETS)}.")] = "minimal",
    seed: Seed = 0,
    exhaustive: Annotated[bool, typer.Option("--exhaustive", help="Also every input, where they are finite.")] = False,
    text: Annotated[Path | None, typer.Option(help="File of real text for the block run stage by stage.")] = None,
    jobs: Annotated[int, typer.Option(min=1, help=JOBS)] = 1,
    as_json: Json = False,
    report_file: Annotated[Path | None, typer.Option("--report", help="Write the report to this JSON file.")] = None,
) -> None:
    """Run the suite for backends: drawn cases, bounds, relations, real text, a whole model, training steps.

    Exit code 0: every selected op of every backend ran and every integer was equal. 1: a mismatch, an
    op that the backend lacks (select ops with --op), or nothing was compared. 2: usage error.
    """
    if preset not in PRESETS:
        raise UsageError(f"unknown preset {preset!r}; known: {', '.join(PRESETS)}")
    selected = [_op(name).name for name in op] if op else list(spec.OPS)
    if report_file and not report_file.parent.is_dir():
        raise UsageError(f"--report: no folder {report_file.parent}")
    if report_file and report_file.exists() and not report_file.is_file():
        raise UsageError(f"--report: {report_file} is there and is no regular file")
    source = _text(text) if text or not op else None
    with backends_on_stderr(as_json):
        named: list[str | None] = list(dict.fromkeys(backend)) if backend else [None]
        backends = [find_backend(name, device) for name in named]
        report, interrupted, stopped = Report(), True, INTERRUPTED
        about = {"preset": preset, "seed": seed, "exhaustive": exhaustive, "environment": environment(backends)}

        def fields() -> dict[str, Any]:
            return report.to_dict() | {"interrupted": interrupted} | about

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(*columns, console=console_for(stderr=True), transient=True) as bar:
            task = bar.add_task("conform", total=len(selected) * len(backends))

            def advance(result: Result) -> None:
                bar.update(task, advance=1, description=f"{result.op} on {result.backend}")
                if report_file:  # a run that is killed leaves what it found
                    write_atomically(report_file, fields())

            try:
                with interrupted_by_sigterm():
                    conform(backends, selected, PRESETS[preset], seed, advance, exhaustive, report, jobs)
                    if source:
                        report.texts += run_texts(backends, jobs, source.name, real_text.run, source)
                        full = preset == "full"
                        report.models += run_texts(backends, jobs, "models", model_cases.run_all, source, full)
                        report.models += run_texts(backends, jobs, "training", training_cases.run_all, source, full)
                interrupted = False
            except Terminated:
                stopped = TERMINATED
            except KeyboardInterrupt:
                pass
    if report_file:
        write_atomically(report_file, fields())
    if as_json:
        print(json.dumps(fields()))
    else:
        show_report(console_for(), report)
    raise typer.Exit(stopped if interrupted else report.exit_code)


@app.command("compare", epilog="Example: mamba-integer compare --op squareplus --backends golden,triton --cases 100")
def compare_command(
    op: Annotated[str, typer.Option(help="The op.")],
    backends: Annotated[str, typer.Option(help="Names separated by commas; the first is the reference.")],
    seed: Seed = 0,
    cases: Annotated[int, typer.Option(min=0, help="How many cases are drawn.")] = 100,
    case: Annotated[str | None, typer.Option(help="One case as JSON, as a failure card prints it.")] = None,
    device: Device = None,
    as_json: Json = False,
) -> None:
    """Compare one op on two or more backends, on drawn cases or on one given case."""
    contract = _op(op)
    names = [name.strip() for name in backends.split(",") if name.strip()]
    if len(names) < 2:
        raise UsageError(f"--backends needs a reference and at least one other, found {backends!r}")
    with backends_on_stderr(as_json):
        reference, *others = [find_backend(name, device) for name in names]
        for held in (reference, *others):
            if not held.has(op):
                raise UsageError(f"backend {held.name} has no op {op}")
        source = Random(seed)
        chosen: list[AnyCase] = [_case(case, op)] if case else [draw_case(contract.name, source) for _ in range(cases)]
        compared, failure = 0, None
        try:
            for one in chosen:
                compared += sum(repeat.check(other, one, reference) for other in others)
        except Failure as found:
            failure = found
    if as_json:
        fields = {"op": op, "backends": names, "equal": failure is None and compared > 0, "integers": compared}
        print(json.dumps(fields | {"cases": len(chosen), "failure": failure.to_dict() if failure else None}))
    else:
        console = console_for()
        if failure:
            show_failure(console, failure)
        elif compared:
            what = f"{len(chosen)} cases, {compared:,} integers"
            console.print(f"equal: {op} on {', '.join(names)}: {what}", style="green")
        else:
            console.print(f"FAILED: {op}: nothing was compared in {len(chosen)} cases", style="bold red")
    raise typer.Exit(EQUAL if compared and not failure else MISMATCH)


@app.command("ops", epilog="Example: mamba-integer ops --op selective_scan")
def ops_command(
    op: Annotated[list[str] | None, typer.Option(help="Only this op; may be repeated.")] = None, as_json: Json = False
) -> None:
    """List the ops: inputs, outputs, parameters, domain, clauses."""
    chosen = [_op(name) for name in op] if op else list(spec.OPS.values())
    if as_json:
        ops = {entry.name: _contract(entry) for entry in chosen}
        print(json.dumps({"spec_version": spec.SPEC_VERSION, "ops": ops}))
        return
    console = console_for()
    for entry in chosen:
        fields = _contract(entry)
        console.print(f"[bold]{entry.name}[/]  ({entry.family})")
        for kind in ("inputs", "outputs"):
            for tensor in fields[kind]:
                line = f"  {kind[:-1]:<9} {tensor['name']} {'|'.join(tensor['dtypes'])} [{tensor['shape']}]"
                console.print(f"{line} in {tensor['range']}  {tensor['meaning']}".rstrip(), markup=False)
        for parameter in fields["parameters"]:
            line = f"  parameter {parameter['name']} in {parameter['range']}  {parameter['meaning']}"
            console.print(line.rstrip(), markup=False)
        for name, (low, high) in fields["sizes"].items():
            console.print(f"  size      {name} in [{low}, {high}]", markup=False)
        for label, clause in fields["clauses"].items():
            console.print(f"  {label:<9} {clause}", markup=False)


model_cli.attach(app)
train_cli.attach(app)


def main() -> None:
    """Run the command line; every error is one line on stderr."""
    try:
        code = app(standalone_mode=False)
    except (UsageError, UnknownOpError, BackendError, *model_cli.ERRORS, *train_cli.ERRORS) as error:
        code = _complain(str(error))
    except BrokenPipeError:  # the reader of our output has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = EQUAL
    except OSError as error:
        code = _complain(f"{error.filename or 'input or output'}: {error.strerror or error}")
    except (typer.Abort, KeyboardInterrupt):
        code = INTERRUPTED
    except BaseException as error:  # SystemExit too: code 0 is for a verdict, not for a backend that gives up
        # Typer's own errors have this method, whichever version of click they come from.
        own = getattr(error, "format_message", None)
        code = _complain(own() if own else f"internal error: {type(error).__name__}: {error}")
    sys.exit(code or 0)


def _complain(message: str) -> int:
    if message:
        print(f"mamba-integer: {' '.join(message.split())}", file=sys.stderr)
    return USAGE


def _op(name: str) -> Op:
    return find_op(name)


def _case(text: str, op: str) -> AnyCase:
    try:
        return repeat.parse(text, op)
    except repeat.CaseError as error:
        raise UsageError(str(error)) from error


def _text(path: Path | None) -> real_text.Source:
    try:
        return real_text.Source.of_file(path) if path else real_text.Source.default()
    except (OSError, ValueError) as error:
        raise UsageError(f"--text: {error}") from error


def _contract(entry: Op) -> dict[str, Any]:
    def tensor(t):
        bounds = "its dtype's symmetric range" if t.low is None and t.high is None else _interval(t.low, t.high)
        return {"name": t.name, "dtypes": list(t.dtypes), "shape": t.shape, "range": bounds, "meaning": t.meaning}

    return {
        "family": entry.family,
        "inputs": [tensor(t) for t in entry.inputs],
        "outputs": [tensor(t) for t in entry.outputs],
        "parameters": [
            {"name": p.name, "range": _interval(p.low, p.high), "meaning": p.meaning} for p in entry.parameters
        ],
        "sizes": {name: list(allowed) for name, allowed in entry.sizes.items()},
        "clauses": dict(entry.clauses),
        "composed_of": list(entry.composed_of),
    }


def _interval(low: Any, high: Any) -> str:
    """Return an interval as text; a bound that depends on sizes or parameters is named so."""

    def end(bound: Any, least: bool) -> str:
        if bound is None:
            return "least of the dtype" if least else "greatest of the dtype"
        return "bound by the parameters" if callable(bound) else str(bound)

    return f"[{end(low, True)}, {end(high, False)}]"
