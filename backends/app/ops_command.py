"""The command ``ops``: the contract of each op."""

import json
from typing import Annotated, Any

import typer
from rich.text import Text

from mamba_integer import spec
from mamba_integer.spec.contract import Op, find_op

from .terminal import Json, console_for


def ops_command(
    op: Annotated[list[str] | None, typer.Option(help="Show only this op. May be repeated.")] = None,
    as_json: Json = False,
) -> None:
    """List the ops with their inputs, outputs, parameters, domains and clauses."""
    chosen = [find_op(name) for name in op] if op else list(spec.OPS.values())
    if as_json:
        ops = {entry.name: _contract(entry) for entry in chosen}
        print(json.dumps({"spec_version": spec.SPEC_VERSION, "ops": ops}))
        return
    console = console_for()
    for entry in chosen:
        fields = _contract(entry)
        console.print(Text.assemble((entry.name, "bold"), f"  ({entry.family})"))
        for kind in ("inputs", "outputs"):
            for tensor in fields[kind]:
                line = f"  {kind[:-1]:<9} {tensor['name']} {'|'.join(tensor['dtypes'])} [{tensor['shape']}]"
                console.print(f"{line} in {tensor['range']}  {tensor['meaning']}".rstrip())
        for parameter in fields["parameters"]:
            line = f"  parameter {parameter['name']} in {parameter['range']}  {parameter['meaning']}"
            console.print(line.rstrip())
        for name, (low, high) in fields["sizes"].items():
            console.print(f"  size      {name} in [{low}, {high}]")
        for label, clause in fields["clauses"].items():
            console.print(f"  {label:<9} {clause}")


def attach(app: typer.Typer) -> None:
    """Add the command to a command line."""
    app.command("ops", epilog="Example: mamba-integer ops --op selective_scan")(ops_command)


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
