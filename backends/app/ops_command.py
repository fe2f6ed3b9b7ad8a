"""The command ``ops``: what each op takes, returns and promises."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from mamba_integer import spec
from mamba_integer.spec.contract import DomainError, find_op
from mamba_integer.spec.describe import MissingValuesError, describe, size_text, symbols
from mamba_integer.spec.pages import pages

from ..files.atomic import write_atomically
from .arguments import assignments, chosen_ops, refuse
from .outputs import output_folder
from .terminal import Json, Line, UsageError, console_for


def ops_command(
    context: typer.Context,
    op: Annotated[list[str] | None, typer.Option(help="Show only this op; may be repeated.")] = None,
    at: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=INTEGER", help="Size or parameter: show numbers, not formulas; may be repeated."),
    ] = None,
    pages_in: Annotated[
        Path | None,
        typer.Option(
            "--pages", metavar="FOLDER", help="Write the reference pages to this folder.", callback=output_folder
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """List the ops: inputs, outputs, parameters, domain, clauses and related ops."""
    if pages_in is not None:
        refuse(context, "--pages", "op", "at", "as_json")
        for name, text in pages().items():
            write_atomically(pages_in / name, text.encode())
        return
    chosen = [find_op(name) for name in chosen_ops(op)]
    values = {entry.name: None for entry in chosen} if at is None else _values(chosen, bool(op), at)
    try:
        contracts = {entry.name: describe(entry, values[entry.name]) for entry in chosen}
    except (DomainError, ValueError) as error:
        raise UsageError(f"--at: {error}") from error
    if as_json:
        print(json.dumps({"spec_version": spec.SPEC_VERSION, "ops": contracts}))
        return
    console = console_for()
    for name, contract in contracts.items():
        _show(console, name, contract)
        if op and at is None:
            _show_widths(console, find_op(name))


def attach(app: typer.Typer) -> None:
    """Add the command to a command line."""
    example = "mamba-integer ops --op quantize_rows --at K=768"
    app.command("ops", epilog=f"Example: {example}")(ops_command)


def _values(chosen: list[spec.Op], named: bool, settings: list[str]) -> dict[str, dict[str, int]]:
    """Return, for each op, the settings that are sizes or parameters of it."""
    if not named:
        raise UsageError("--at gives sizes and parameters of chosen ops; name them with --op")
    values = assignments("--at", settings)
    known = {entry.name: symbols(entry) for entry in chosen}
    for name in values:
        if not any(name in names for names in known.values()):
            names = "; ".join(f"{op} has {', '.join(names)}" for op, names in known.items())
            raise UsageError(f"--at: no size or parameter is called {name!r}; {names}")
    return {op: {name: value for name, value in values.items() if name in names} for op, names in known.items()}


def _show(console: Console, name: str, contract: dict[str, Any]) -> None:
    def line(kind: str, text: str) -> None:
        _line(console, kind, text)

    console.print(Line.assemble((name, "bold"), f"  ({contract['family']})"))
    line("", contract["summary"].replace("``", "`"))
    for kind in ("inputs", "outputs", "parameters"):
        for argument in contract[kind]:
            form = f" {'|'.join(argument['dtypes'])} [{argument['shape']}]" if "shape" in argument else ""
            meaning = f"  {argument['meaning']}" if argument["meaning"] else ""
            line(kind[:-1], f"{argument['name']}{form} in {_range(argument)}{meaning}")
            for defined, text in argument.get("where", {}).items() if "bounds" not in argument else ():
                line("", f"where {defined} = {text}")
    for size, allowed in contract["sizes"].items():
        line("size", size_text(size, allowed))
    for label, clause in contract["clauses"].items():
        line(label, clause)
    for text in _widths(contract):
        line("intermediate", text)
    for kind in ("step", "step_of", "inverse", "backward", "backward_of", "composed_of"):
        if contract[kind]:
            line(kind.replace("_", " "), ", ".join(contract[kind]))


def _line(console: Console, kind: str, text: str) -> None:
    console.print(f"  {kind:<12} {text}".rstrip(), markup=False, soft_wrap=True)


def _widths(contract: dict[str, Any]) -> list[str]:
    """Return a text for each intermediate whose width is known."""
    return [
        f"{label} in [{width['low']}, {width['high']}], {width['dtype']}"
        + ("" if width["attained"] else "  (a bound that is not attained)")
        for label, width in contract.get("intermediates", {}).items()
    ]


def _show_widths(console: Console, entry: spec.Op) -> None:
    """Show the widths of an op of which they depend on nothing; of another, the options that show them."""
    try:
        for text in _widths(describe(entry, {})):
            _line(console, "intermediate", text)
    except MissingValuesError as error:
        _line(
            console, "widths", f"for the width of each intermediate, add --at NAME=INTEGER for {', '.join(error.names)}"
        )


def _range(argument: dict[str, Any]) -> str:
    """Return the range of an argument: numbers where it has them."""
    bounds = argument.get("bounds")
    if bounds is None:
        return argument["range"]
    if isinstance(bounds, list):
        return f"[{bounds[0]}, {bounds[1]}]"
    ranges = {dtype: f"[{low}, {high}]" for dtype, (low, high) in bounds.items()}
    return " or ".join(ranges.values() if len(ranges) == 1 else (f"{text} ({dtype})" for dtype, text in ranges.items()))
