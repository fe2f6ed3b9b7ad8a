"""The command ``bench``: verify and time the ops on this machine, beside their floors and their peers."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from mamba_integer.backends.app.arguments import chosen_ops
from mamba_integer.backends.app.main import EQUAL, MISMATCH, warn
from mamba_integer.backends.app.outputs import output_file, plot_folder
from mamba_integer.backends.app.terminal import (
    Json,
    UsageError,
    backends_on_stderr,
    check_torch_device,
    console_for,
    progress_bar,
)
from mamba_integer.backends.files.atomic import write_json
from mamba_integer.backends.protocol import ALIASES

DEVICE = "Kind of device to time: cpu, cuda or cuda:1; may be repeated. Default: all that this machine has."
BACKEND = "Time this backend only, of golden, numba, torch and triton; may be repeated. Default: all of the device."
OUT = "Write the report to this file, after each workload."
PLOTS = "Draw the roofline and the growth with each size into this folder; the growth is measured for it."


def bench_command(
    op: Annotated[list[str] | None, typer.Option(help="Only this op; may be repeated.")] = None,
    device: Annotated[list[str] | None, typer.Option(help=DEVICE)] = None,
    backend: Annotated[list[str] | None, typer.Option(help=BACKEND)] = None,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help=OUT, callback=output_file)] = None,
    plots: Annotated[Path | None, typer.Option(metavar="FOLDER", help=PLOTS, callback=plot_folder)] = None,
    as_json: Json = False,
) -> None:
    """Verify the ops, then time them: median, share of the device's floor, and ratio to every peer that is installed.

    Exit code 1: a backend's result differs from Numba's. Such a result is not timed.
    """
    from mamba_integer.backends.app.environment import environment

    from .measure import Ceilings, WrongResultError, backends_here, devices_here, time_workload
    from .workloads import GROWTH, WORKLOADS, Growth

    names = chosen_ops(op)
    devices = list(dict.fromkeys(device or devices_here()))
    for name in devices:
        check_torch_device(name)
    chosen = [w for w in WORKLOADS if w.op in names and (w.everywhere or devices != ["cpu"])]
    if not chosen:
        ops = ", ".join(dict.fromkeys(workload.op for workload in WORKLOADS))
        raise UsageError(f"bench: --op: no workload of {', '.join(names)} for {', '.join(devices)}; timed are {ops}")
    growth = [g for g in GROWTH if plots and g.op in names]
    report: dict[str, Any] = {}
    code = EQUAL
    with backends_on_stderr(as_json):
        here = backends_here(devices)
        wanted = {ALIASES.get(name, name) for name in backend or ()} or {held.name for held in here}
        if unknown := sorted(wanted - {held.name for held in here}):
            allowed = ", ".join(dict.fromkeys(held.name for held in here))
            raise UsageError(f"bench: --backend: found {unknown[0]!r}, allowed on {', '.join(devices)}: {allowed}")
        available = [held for held in here if held.name in wanted]
        ceilings = {backend.device: Ceilings(backend) for backend in available}
        bandwidths = {name: ceiling.bandwidth for name, ceiling in ceilings.items()}
        peaks = {name: asdict(ceiling.peak) for name, ceiling in ceilings.items() if ceiling.peak}
        report = environment(available) | {"copy_bytes_per_second": bandwidths, "peaks_per_second": peaks}
        report |= {"rows": [], "growth": []}
        fastest = [b for b in available if b.name == ("triton" if b.device.startswith("cuda") else "numba")]
        work: list[Any] = [*chosen, *growth]
        with progress_bar(quiet=as_json) as bar:
            for item in bar.track(work, description="timing"):
                try:
                    if isinstance(item, Growth):
                        for value, workload in item.workloads("cuda" in bandwidths):
                            rows = time_workload(workload, fastest, ceilings, with_peers=False)
                            report["growth"] += [row | {"grows": [item.size, value]} for row in rows]
                    else:
                        report["rows"] += time_workload(item, available, ceilings)
                except WrongResultError as error:
                    warn(str(error))
                    code = MISMATCH
                if out:
                    write_json(out, report)
        if plots:
            draw(report, plots)
    if as_json:
        print(json.dumps(report))
    else:
        console_for().print(table(report["rows"]))
    if code:
        raise typer.Exit(code)


def table(rows: list[dict[str, Any]]) -> Table:
    from .table import lines

    titles, cells = lines(rows)
    shown = Table(*titles, title="median microseconds")
    for line in cells:
        shown.add_row(*line)
    return shown


def draw(report: dict[str, Any], folder: Path) -> None:
    """Draw the plots of a report, the rows of the fastest backend of each kind of device."""
    from .plots import draw_growth, draw_roofline

    folder.mkdir(parents=True, exist_ok=True)
    for kind, backend in (("cuda", "triton"), ("cpu", "numba")):
        rows, growth = (
            [row for row in report[part] if row["device"].startswith(kind) and row["backend"] == backend]
            for part in ("rows", "growth")
        )
        title = f"{report['devices'].get(backend)}, specification {report['spec_version']}, {report['date'][:10]}"
        if rows:
            device = rows[0]["device"]
            bandwidth, peaks = report["copy_bytes_per_second"][device], report["peaks_per_second"].get(device, {})
            draw_roofline(rows, bandwidth, peaks, folder / f"roofline-{kind}.png", title)
        if growth:
            draw_growth(growth, folder / f"growth-{kind}.png", title)


def attach(app: typer.Typer) -> None:
    """Add the command to a command line."""
    app.command("bench", epilog="Example: mamba-integer bench --op selective_scan --device cuda")(bench_command)
