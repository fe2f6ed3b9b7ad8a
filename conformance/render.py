"""The report in a terminal: a card for each failure, and one table for the run."""

import io
import shlex
from collections.abc import Iterator, Sequence
from itertools import chain, islice, repeat, zip_longest
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console
from rich.panel import Panel
from rich.table import Table

from mamba_integer.backends.app.terminal import Line, LiteralConsole, counted
from mamba_integer.spec.contract import find_op

from .engine.comparison import Failure, hexadecimal
from .engine.layouts import CONTIGUOUS
from .report import Report, Result, Text

if TYPE_CHECKING:  # a process that explains nothing starts without the diagnosis
    from .diagnosis.explanation import Explanation

STYLES = {"passed": "green", "failed": "bold red", "stale": "bold red"} | dict.fromkeys(
    ("missing", "partial", "skipped", "known", "not run"), "yellow"
)
SHOWN = 16  # hex digits of a digest
TEXT_WIDTH = 140
MOST_CHARACTERS = 240  # of an array
MOST_INTERMEDIATES = 16


def failure_card(failure: Failure, explanation: "Explanation | None" = None) -> Panel:
    """Return a panel that shows a failure's clauses, inputs, difference and explanation."""
    contract, case = find_op(failure.case.op), failure.case
    rows = Table.grid(padding=(0, 2))
    for label, clause in contract.clauses.items():
        rows.add_row(label, Line(clause))
    shapes = [(t.name, f"{a.dtype}{list(a.shape)}") for t, a in zip(contract.inputs, case.arrays, strict=True)]
    rows.add_row("inputs", Line(", ".join(f"{name} {shape}" for name, shape in shapes)))
    layouts = zip(contract.inputs, getattr(case, "layouts", ()), strict=False)
    views = [f"{tensor.name}: {layout}" for tensor, layout in layouts if layout != CONTIGUOUS]
    if views:
        rows.add_row("views", Line("; ".join(views)))
    if failure.purpose:
        rows.add_row("purpose", Line(failure.purpose))
    rows.add_row("parameters", Line(", ".join(f"{n}={v}" for n, v in case.parameters.items()) or "none"))
    if failure.variant:
        rows.add_row("variant", Line(failure.variant))
    if failure.before:
        rows.add_row("calls", Line(f"it fails after {len(failure.before)} other calls, which the command repeats too"))
    rows.add_row(failure.kind, Line(failure.message, style="bold red"))
    if failure.differs:
        for label, value in (("got", failure.got), ("want", failure.want), ("xor", failure.got ^ failure.want)):
            rows.add_row(label, f"{value:>11}  {hexadecimal(value, failure.bits)}")
    if explanation:
        for label, text in explained(explanation):
            rows.add_row(label, Line(text))
    title = f"{case.op} on {failure.backend.name} ({failure.backend.device})"
    return Panel(rows, title=Line(title, style="bold red"), title_align="left", border_style="red", expand=False)


def explained(explanation: "Explanation") -> Iterator[tuple[str, str]]:
    """Yield the lines of an explanation, as labels and texts."""
    from .citations import clauses_broken

    vector = explanation.vector
    yield "", ""
    if explanation.side:
        yield "side", explanation.side
    if explanation.common:
        yield "fails", explanation.common
    if not explanation.failing:
        return
    for label, (name, array) in zip(chain(["smallest"], repeat("")), vector.inputs.items(), strict=False):
        yield label, f"{name} = {numbers(array.tolist())}"
    if vector.parameters:
        yield "", ", ".join(f"{name}={value}" for name, value in vector.parameters.items())
    for tensor, got, want in zip(find_op(vector.op).outputs, explanation.got, vector.results, strict=False):
        if not np.array_equal(got, want):
            yield "", f"{tensor.name}: got {numbers(got.tolist())}, want {numbers(want.tolist())}"
    if explanation.intermediates:
        values = (f"{name} {numbers(v)}" for name, v in explanation.intermediates.items())
        yield "on the way", "; ".join(islice(values, MOST_INTERMEDIATES))
    if not explanation.got:  # it crashed
        return
    for label, mistake in zip_longest(("looks like",), explanation.mistakes, fillvalue="or like"):
        if mistake != "or like":
            yield label, mistake
    if explanation.mistakes:
        yield "", f"this returns the same integers in {explanation.explained} of {explanation.failing} failing calls"
    else:
        yield "looks like", "none of the known mistakes"
    if broken := clauses_broken(vector.op, explanation.mistakes[:1]):
        yield "breaks", ", ".join(f"{label}: {find_op(vector.op).clauses[label]}" for label in broken)
    if explanation.diverges:
        yield "begins at", explanation.diverges


def numbers(values: Any) -> str:
    text = str(values)
    return text if len(text) <= MOST_CHARACTERS else f"{text[:MOST_CHARACTERS]} ..."


def show_failure(console: Console, failure: Failure, explanation: "Explanation | None" = None) -> None:
    """Print the card, and below it the commands, each in one unbroken piece, so that it can be copied."""
    console.print(failure_card(failure, explanation))
    console.print("repeat:", style="bold")
    console.print(Line(failure.repeat), soft_wrap=True)
    if explanation and explanation.failing:
        case, backend = explanation.vector.to_json(), failure.backend.name
        command = ["mamba-integer", "vectors", "reproduce", "--backend", backend, "--case", case]
        console.print("write a script that shows it (and with promote, keep it as a vector):", style="bold")
        console.print(Line(shlex.join(command)), soft_wrap=True)
    console.print()


def show_recorded(console: Console, failures: Sequence[Failure], explanation: "Explanation | None") -> None:
    """Print one card for all wrong answers to vectors of an op: of the smallest, where it is explained."""
    case = explanation.vector if explanation else failures[0].case
    failure = next(one for one in failures if one.case is case)
    console.print(failure_card(failure, explanation))
    console.print(f"{len(failures)} answers of {case.op} are wrong", style="bold", markup=False)
    if explanation:
        command = ["mamba-integer", "vectors", "reproduce", "--language", "c", "--case", explanation.vector.to_json()]
        console.print("print this one as literals of C:", style="bold")
        console.print(Line(shlex.join(command)), soft_wrap=True)
    console.print()


def card_text(result: Result) -> str:
    """Return the card and the commands of a failed result as plain text."""
    assert result.failure
    console = LiteralConsole(file=io.StringIO(), width=TEXT_WIDTH, color_system=None)
    show_failure(console, result.failure, result.explanation)
    return console.file.getvalue()  # type: ignore[attr-defined]


def table(report: Report) -> Table:
    """Return the table op x backend: cases, integers compared, status."""
    columns = list(dict.fromkeys((result.backend, result.device) for result in report.results))
    cells = {(r.op, r.backend, r.device): r for r in report.results}
    shown = Table(title="cases, integers, status", title_justify="left")
    shown.add_column("op")
    for name, device in columns:
        shown.add_column(f"{name} ({device})", justify="right")
    for op in dict.fromkeys(result.op for result in report.results):
        shown.add_row(op, *(_cell(cells[op, *column]) for column in columns))
    shown.add_section()
    totals = [[r for r in report.results if (r.backend, r.device) == column] for column in columns]
    shown.add_row("total", *(f"{sum(r.cases for r in c):,}  {sum(r.integers for r in c):,}" for c in totals))
    return shown


def text_table(texts: list[Text]) -> Table:
    """Return the table stage x backend of digests."""
    shown = Table(title=f"stage by stage: {texts[0].source}", title_justify="left")
    shown.add_column("stage")
    shown.add_column("wanted")
    for text in texts:
        shown.add_column(text.backend)
    for stage, digest in max((text.want for text in texts), key=len).items():
        digests = [text.stages.get(stage, "") for text in texts]
        cells = [Line(f[:SHOWN] or "-", style="green" if f == digest else "bold red") for f in digests]
        shown.add_row(stage, digest[:SHOWN], *cells)
    shown.add_section()
    shown.add_row("status", "", *(Line(text.status, style=STYLES[text.status]) for text in texts))
    return shown


def verdict(report: Report) -> Line:
    """Return the last line of a run."""
    total = report.to_dict()["total"]
    counts = ", ".join(f"{count} {status}" for status, count in sorted(total["statuses"].items()))
    amount = f"{counted(total['cases'], 'case')}, {counted(total['integers'], 'integer')}"
    amount += f" compared without tolerance: {counts}"
    if report.unequal:
        return Line(f"FAILED: {amount}", style="bold red")
    if report.interrupted:
        return Line(f"INTERRUPTED: {amount}", style="bold yellow")
    if not report.compared:
        why = counts or "no backend has an op that was chosen"
        return Line(f"FAILED: nothing was compared ({why})", style="bold red")
    if not report.complete:
        return Line(f"PARTIAL: {amount}", style="bold yellow")
    return Line(f"equal: {amount}", style="bold green")


def coverpoints(report: Report) -> Line:
    """Return the line that gives the share of the listed coverpoints that was run."""
    total = report.to_dict()["total"]
    points, missed = total["coverpoints"], total["coverpoints_missed"]
    percent = 100 * (points - missed) // points if points else 0
    return Line(f"coverpoints: {percent} % of {points:,} layouts, sizes and pairs of parameters")


def show_report(console: Console, report: Report) -> None:
    for result in report.results:
        if result.known:
            console.print(Line(f"{result.op} on {result.backend}: {result.status}: {result.known}", style="yellow"))
        elif result.failure:
            show_failure(console, result.failure, result.explanation)
    texts = report.texts + report.models
    for text in texts:
        if text.message:
            line = f"{text.source} on {text.backend}: {text.status}: {text.message}"
            console.print(Line(line, style=STYLES[text.status]))
    for result in report.results:
        for reason, count in result.skipped.items():
            console.print(Line(f"{result.op} on {result.backend}: {count} cases skipped: {reason}", style="yellow"))
        for note in result.notes:
            console.print(Line(f"{result.op} on {result.backend}: {note}"))
    console.print(table(report))
    for source in dict.fromkeys(text.source for text in texts):
        console.print(text_table([text for text in texts if text.source == source]))
    console.print(coverpoints(report))
    console.print(verdict(report))
    if any(result.status == "missing" for result in report.results):
        console.print(
            Line("missing: the backend has no op of that name; --implemented checks only the ops that it has")
        )


def _cell(result: Result) -> Line:
    if not result.cases:
        return Line(result.status, style=STYLES[result.status])
    counts = f"{result.cases:,}  {result.integers:,}  "
    cell = Line(counts)
    cell.append(result.status, STYLES[result.status])
    return cell
