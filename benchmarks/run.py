"""Time the ops on every backend of this machine: ``python -m benchmarks.run [--json FILE]``.

Each result is compared with the reference, integer by integer, before it is timed; a mismatch ends the run.
"""

import time
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import rich
import typer
from rich.progress import track
from rich.table import Table

from benchmarks.tables import lines
from benchmarks.timing import (
    INT8_MULTIPLY_ADDS,
    INTEGER_INSTRUCTIONS,
    LONG_SECONDS,
    copy_bandwidth,
    median_seconds,
)
from benchmarks.workloads import WORKLOADS, Workload
from mamba_integer import spec
from mamba_integer.backends import Backend, load
from mamba_integer.backends.app.environment import environment
from mamba_integer.backends.files.atomic import write_json


def backends(devices: list[str]) -> list[Backend]:
    cpu = [load("golden"), load("numba"), load("torch", "cpu")] if "cpu" in devices else []
    return cpu + ([load("torch", "cuda"), load("triton", "cuda")] if "cuda" in devices else [])


def devices_here() -> list[str]:
    import torch

    return ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]


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
        start = time.perf_counter()
        got = tuple(backend.store(r) for r in backend.call(workload.op, arrays, workload.parameters))
        first = time.perf_counter() - start
        for g, w in zip(got, want, strict=True):
            if g.dtype != w.dtype or not np.array_equal(g, w):
                raise SystemExit(f"{workload.name}: {backend.name} on {backend.device} differs from {reference.name}")
        with spec.trusted_values():
            call = partial(backend.call, workload.op, arrays, workload.parameters)
            seconds = (
                first if first > LONG_SECONDS and backend.device == "cpu" else median_seconds(call, backend.device)
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
    device: Annotated[list[str] | None, typer.Option(help="Only these devices: cpu, cuda.")] = None,
) -> None:
    """Time every workload on every backend of this machine, after comparing its result."""
    available = backends(device or devices_here())
    bandwidth = {device: copy_bandwidth(device) for device in sorted({b.device for b in available})}
    chosen = [w for w in WORKLOADS if (not op or w.op in op) and (w.everywhere or "cuda" in bandwidth)]
    rows: list[dict[str, Any]] = []
    for workload in track(chosen, description="timing"):
        rows += time_workload(workload, available, bandwidth)
        if output:
            write_json(output, environment(available) | {"copy_bytes_per_second": bandwidth, "rows": rows})
    rich.print(table(rows))


if __name__ == "__main__":
    typer.run(main)
