"""The report in a terminal: a card for each failure, and one table for the run."""

from rich.console import Console
from rich.panel import Panel
from rich.table import Table
from rich.text import Text as Line

from mamba_integer.spec.contract import find_op

from .engine.comparison import Failure, hexadecimal
from .engine.layouts import CONTIGUOUS
from .report import Report, Result, Text

STYLES = {"passed": "green", "failed": "bold red", "missing": "yellow", "not run": "yellow"}
SHOWN = 16  # hex digits of a digest


def failure_card(failure: Failure) -> Panel:
    """Return a panel that shows a failure's clauses, inputs and difference."""
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
    rows.add_row("parameters", Line(", ".join(f"{n}={v}" for n, v in case.parameters.items()) or "none"))
    if failure.variant:
        rows.add_row("variant", Line(failure.variant))
    if failure.before:
        rows.add_row("calls", Line(f"it fails after {len(failure.before)} other calls, which the command repeats too"))
    rows.add_row(failure.kind, Line(failure.message, style="bold red"))
    if failure.differs:
        first = ", ".join(map(str, failure.index))
        where = f"the first at {failure.output}[{first}]"
        rows.add_row("differ", f"{failure.count} of {failure.compared} integers, {where}")
        for label, value in (("got", failure.got), ("want", failure.want), ("xor", failure.got ^ failure.want)):
            rows.add_row(label, f"{value:>11}  {hexadecimal(value)}")
    title = f"{case.op} on {failure.backend.name} ({failure.backend.device})"
    return Panel(rows, title=Line(title, style="bold red"), title_align="left", border_style="red", expand=False)


def show_failure(console: Console, failure: Failure) -> None:
    """Print the card, and below it the command in one unbroken piece, so that it can be copied."""
    console.print(failure_card(failure))
    console.print("repeat:", style="bold")
    console.print(Line(failure.repeat), soft_wrap=True)
    console.print()


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
    what = f"{total['cases']:,} cases, {total['integers']:,} integers compared without tolerance: {counts}"
    if not report.compared and "failed" not in report.statuses:
        return Line(f"FAILED: nothing was compared ({counts})", style="bold red")
    if not report.passed:
        return Line(f"FAILED: {what}", style="bold red")
    if not report.complete:
        return Line(f"PARTIAL: {what}", style="bold yellow")
    return Line(f"equal: {what}", style="bold green")


def coverpoints(report: Report) -> Line:
    """Return the line that says how much of what the preset lists was run."""
    total = report.to_dict()["total"]
    points, missed = total["coverpoints"], total["coverpoints_missed"]
    percent = 100 * (points - missed) // points if points else 0
    return Line(f"coverpoints: {percent} % of {points:,} layouts, sizes and pairs of parameters")


def show_report(console: Console, report: Report) -> None:
    for failure in report.failures:
        show_failure(console, failure)
    texts = report.texts + report.models
    for text in texts:
        if text.message:
            line = f"{text.source} on {text.backend}: {text.status}: {text.message}"
            console.print(Line(line, style=STYLES[text.status]))
    console.print(table(report))
    for source in dict.fromkeys(text.source for text in texts):
        console.print(text_table([text for text in texts if text.source == source]))
    console.print(coverpoints(report))
    console.print(verdict(report))


def _cell(result: Result) -> Line:
    if not result.cases:
        return Line(result.status, style=STYLES[result.status])
    counts = f"{result.cases:,}  {result.integers:,}  "
    return Line.assemble(counts, (result.status, STYLES[result.status]))
