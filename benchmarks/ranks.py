"""Training on several GPUs of one host: tokens per second against one GPU, and one hash for any number of them.

``python -m benchmarks.ranks --json FILE``. Each line of the table trains with so many ranks. *Weak*: each rank has as
many rows as one GPU alone. *Strong*: the ranks share the rows of one GPU, so all lines must end at the same hash.
"""

import hashlib
import json
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import rich
import torch
import typer
from rich.table import Table

from mamba_integer.backends import distributed, load
from mamba_integer.backends.app.environment import environment
from mamba_integer.backends.app.loop import rank_rows
from mamba_integer.backends.app.outputs import output_file
from mamba_integer.backends.files.atomic import write_json
from mamba_integer.backends.launch import free_address, launch
from mamba_integer.spec.model import find_config
from mamba_integer.spec.training import Options, Run, State, initial_state, train_step
from mamba_integer.spec.version import SPEC_VERSION

WARM = 2  # steps before the timed ones: kernels compile in them


def state_hash(run: Run, state: State) -> str:
    """Return one SHA-256 of all masters and momenta."""
    digest = hashlib.sha256()
    for table in (state.masters, state.momenta):
        for name in sorted(table):
            digest.update(name.encode() + run.store(table[name]).tobytes())
    return digest.hexdigest()


def measure(rank: int, ranks: int, address: str, device: str, config: str, options: Options, steps: int, to: str):
    """Train as one of the ranks; the first one writes the seconds of each step and the hash to a file."""
    device = f"cuda:{rank}" if device == "cuda" else device
    with distributed.joined(rank, ranks, device, address) as exchange:
        run = Run(
            find_config(config), options, load("triton" if "cuda" in device else "numba", device), exchange=exchange
        )
        rows = rank_rows(run)
        shape = options.batch, options.length + 1
        ids = np.random.default_rng(0).integers(0, run.config.vocab_size, shape, dtype=np.int32)[rows.start : rows.stop]
        state, seconds = initial_state(run), []
        for _ in range(WARM + steps):
            started = time.perf_counter()
            state, metrics = train_step(run, state, ids, rows.start)  # its metrics are read back: it has ended
            seconds.append(time.perf_counter() - started)
        if rank == 0:
            peak = torch.cuda.max_memory_allocated() if "cuda" in device else 0
            result = {
                "seconds": seconds[WARM:],
                "hash": state_hash(run, state),
                "loss": metrics.loss,
                "peak_bytes": peak,
            }
            write_json(Path(to), result)


def line(ranks: int, kind: str, device: str, config: str, options: Options, steps: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        to = f"{folder}/result.json"
        launch(ranks, measure, ranks, free_address(), device, config, options, steps, to)
        result = json.loads(Path(to).read_text())
    seconds = statistics.median(result.pop("seconds"))
    tokens = options.batch * options.length / seconds
    return {
        "kind": kind,
        "ranks": ranks,
        "batch": options.batch,
        "seconds": seconds,
        "tokens_per_second": tokens,
    } | result


def main(
    output: Annotated[Path, typer.Option("--json", help="File to write.", callback=output_file)],
    config: str = "base",
    rows: Annotated[int, typer.Option(help="Rows of one GPU.")] = 8,
    length: int = 2048,
    steps: int = 5,
    most: Annotated[int, typer.Option(help="Largest number of ranks.")] = 2,
    device: str = "cuda",
) -> None:
    options = Options(steps=1000, batch=rows, length=length)
    lines = [line(1, "alone", device, config, options, steps)]
    for ranks in (n for n in (2, 4, 8) if n <= most):
        lines.append(line(ranks, "weak", device, config, replace(options, batch=rows * ranks), steps))
        lines.append(line(ranks, "strong", device, config, options, steps))
    alone = lines[0]
    for one in lines:
        one["share_of_linear"] = one["tokens_per_second"] / (one["ranks"] * alone["tokens_per_second"])
        if one["kind"] == "strong" and one["hash"] != alone["hash"]:
            raise SystemExit(f"{one['ranks']} ranks end at hash {one['hash']}, one rank at {alone['hash']}")
    about = {"spec_version": SPEC_VERSION, "config": config, "length": length, "steps": steps, "lines": lines}
    write_json(output, environment([load("triton" if device == "cuda" else "numba", device)]) | about)
    shown = Table("kind", "ranks", "batch", "tokens/s", "share of linear", "hash", title=f"training, {config}")
    for one in lines:
        speed, share = f"{one['tokens_per_second']:,.0f}", f"{one['share_of_linear']:.1%}"
        shown.add_row(one["kind"], str(one["ranks"]), str(one["batch"]), speed, share, one["hash"][:16])
    rich.print(shown)


if __name__ == "__main__":
    typer.run(main)
