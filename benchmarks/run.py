"""Time the ops on every backend of this machine: ``python -m benchmarks.run [--json FILE]``.

Each result is compared with the reference, integer by integer, before it is timed; a mismatch ends the run.
"""

import datetime
import json
import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import rich
import typer
from rich.progress import track
from rich.table import Table

from benchmarks.tables import lines
from benchmarks.timing import INT8_MULTIPLY_ADDS, INTEGER_INSTRUCTIONS, copy_bandwidth, median_seconds
from benchmarks.workloads import WORKLOADS, Workload
from mamba_integer import spec
from mamba_integer.backends import Backend, load


def environment() -> dict[str, Any]:
    import torch

    git = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, cwd=Path(__file__).parent)
    commit = os.environ.get("MAMBA_INTEGER_COMMIT") or git.stdout.strip() or "unknown"
    packages = ("numpy", "numba", "torch", "triton")
    return {
        "date": datetime.date.today().isoformat(),
        "commit": commit,
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "cpu": f"{platform.machine()}, {len(os.sched_getaffinity(0))} cores",
        "python": platform.python_version(),
        "spec": spec.SPEC_VERSION,
    } | {name: version(name) for name in packages}


def backends() -> list[Backend]:
    import torch

    cpu = [load("golden"), load("numba"), load("torch", "cpu")]
    return cpu + ([load("torch", "cuda"), load("triton", "cuda")] if torch.cuda.is_available() else [])


def floor_seconds(workload: Workload, results: tuple[np.ndarray, ...], device: str, bandwidth: float) -> float:
    """Return the least time the hardware allows: every byte once, and on the GPU every operation at the peak rate."""
    moved = sum(a.nbytes for a in (*workload.arrays, *results)) / bandwidth
    if device != "cuda":
        return moved
    return max(moved, workload.multiply_adds / INT8_MULTIPLY_ADDS, workload.instructions / INTEGER_INSTRUCTIONS)


def time_workload(workload: Workload, available: list[Backend], bandwidth: dict[str, float]) -> list[dict[str, Any]]:
    reference = load("numba")
    want = reference.run(workload.op, workload.arrays, workload.parameters)
    rows = []
    for backend in available:
        if not workload.everywhere and (backend.device != "cuda" and backend.name != "numba"):
            continue
        if not workload.everywhere and backend.name == "torch" and "scan" in workload.op:
            continue
        arrays = [backend.load(array) for array in workload.arrays]
        got = tuple(backend.store(r) for r in backend.call(workload.op, arrays, workload.parameters))
        for g, w in zip(got, want, strict=True):
            if g.dtype != w.dtype or not np.array_equal(g, w):
                raise SystemExit(f"{workload.name}: {backend.name} on {backend.device} differs from {reference.name}")
        with spec.trusted_values():
            seconds = median_seconds(
                lambda b=backend, a=arrays: b.call(workload.op, a, workload.parameters), backend.device
            )
        floor = floor_seconds(workload, want, backend.device, bandwidth[backend.device])
        rows.append(
            {
                "workload": workload.name,
                "op": workload.op,
                "backend": backend.name,
                "device": backend.device,
                "seconds": seconds,
                "floor_seconds": floor,
                "integers_verified": sum(w.size for w in want),
            }
        )
    return rows


def table(rows: list[dict[str, Any]]) -> Table:
    titles, cells = lines(rows)
    shown = Table(*titles, title="median microseconds")
    for line in cells:
        shown.add_row(*line)
    return shown


def main(
    output: Annotated[Path | None, typer.Option("--json", help="Write the measured rows to this file.")] = None,
    op: Annotated[list[str] | None, typer.Option(help="Only these ops.")] = None,
) -> None:
    """Time every workload on every backend of this machine, after comparing its result."""
    available = backends()
    bandwidth = {device: copy_bandwidth(device) for device in sorted({b.device for b in available})}
    chosen = [w for w in WORKLOADS if (not op or w.op in op) and (w.everywhere or "cuda" in bandwidth)]
    rows: list[dict[str, Any]] = []
    for workload in track(chosen, description="timing"):
        rows += time_workload(workload, available, bandwidth)
    if output:
        report = environment() | {"copy_bytes_per_second": bandwidth, "rows": rows}
        partial = output.with_suffix(".partial")
        partial.write_text(json.dumps(report, indent=1) + "\n")
        partial.replace(output)
    rich.print(table(rows))


if __name__ == "__main__":
    typer.run(main)
