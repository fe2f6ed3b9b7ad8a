"""Training steps on a CPU: Numba's, those of an earlier commit, and those of the float32 Torch twin, in turns.

``python -m benchmarks.cpu_training [--before COMMIT] [--json FILE]``. Each turn is a process of its own. Before one
of Numba times anything, it holds a short step against the golden ops of its own specification, integer by integer;
the twin, which has the same masters, data, optimizer and schedule, must have the same loss at its first step.
"""

import io
import json
import os
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import rich
import typer
from rich.table import Table

from mamba_integer.backends import load
from mamba_integer.backends.processors import cores
from mamba_integer.spec.model import find_config
from mamba_integer.spec.training import Options, Run, initial_state, train_step
from mamba_integer.spec.version import SPEC_VERSION

HERE = Path(__file__).parent.parent
VERIFIED = (2, 8)  # rows and tokens of the step that is compared
WARM, TIMED = 2, 8  # steps of a turn
LARGEST_GAP = 0.02  # bits per token of the first losses
NUMBA, BEFORE = "mamba-integer, Numba", "mamba-integer, Numba, before"
# Threads of Torch that wait for each other cost more than they save where steps are short or cores are busy.
TORCH, TORCH_ALONE = "float32 Torch", "float32 Torch, one thread"


def batch(config: Any, rows: int, length: int) -> np.ndarray:
    sizes = config.to_dict()
    vocabulary = sizes.get("vocab_size") or sizes["vocabulary"]  # as configs called it before 0.5.0
    return np.random.default_rng(0).integers(0, vocabulary, (rows, length + 1), dtype=np.int32)


def options_of(rows: int, length: int) -> Options:
    return Options(steps=1000, batch=rows, length=length)


def integer_step(backend: str, name: str, rows: int, length: int) -> tuple[Callable[[], float], Callable[[], Any]]:
    """Return a call that trains one step more and returns its bits per token, and one that returns the state."""
    config = find_config(name)
    run = Run(config, options_of(rows, length), load(backend))
    ids, held = batch(config, rows, length), [initial_state(run)]

    def step() -> float:
        held[0], metrics = train_step(run, held[0], ids)
        return metrics.loss / metrics.tokens / (1 << 16)

    return step, lambda: held[0]


def float_step(threads: int, name: str, rows: int, length: int) -> Callable[[], float]:
    import torch

    from benchmarks.float_training import FloatTraining

    torch.set_num_threads(threads)
    config = find_config(name)
    twin = FloatTraining(config, options_of(rows, length), ternary=True, device="cpu")
    ids = torch.from_numpy(batch(config, rows, length)).long()
    return lambda: float(twin.step(ids))


def verify(name: str) -> int:
    """Compare one short step of Numba and of the golden ops; return how many integers were equal."""
    states, bits = [], []
    for backend in ("golden", "numba"):
        step, state = integer_step(backend, name, *VERIFIED)
        bits.append(step())
        states.append(state())
    count = 0
    for kind in ("masters", "momenta"):
        want, got = (getattr(state, kind) for state in states)
        for key in want:
            if want[key].dtype != got[key].dtype or not np.array_equal(want[key], got[key]):
                raise SystemExit(f"{key}: Numba's training step differs from the golden ops'")
            count += want[key].size
    if bits[0] != bits[1]:
        raise SystemExit("Numba's loss differs from the golden ops'")
    return count


def turn(contestant: str, name: str, rows: int, length: int) -> dict[str, Any]:
    """Verify and time steps of one contestant with the package that this process imports."""
    about: dict[str, Any] = {"spec_version": SPEC_VERSION}
    if contestant in (TORCH, TORCH_ALONE):
        step = float_step(cores() if contestant == TORCH else 1, name, rows, length)
    else:
        about["integers_verified"] = verify(name)
        step, _ = integer_step("numba", name, rows, length)
    first, seconds = step(), []
    for _ in range(WARM + TIMED):
        started = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - started)
    return about | {"bits_per_token": first, "seconds": seconds[WARM:]}


def turn_in(tree: Path, contestant: str, *sizes: Any) -> dict[str, Any]:
    """Run a turn with the package of a tree, in which an earlier one keeps its compiled kernels."""
    variables = {"PYTHONPATH": os.pathsep.join(map(str, (tree / ".ci/editable", HERE)))}
    if tree != HERE:
        variables["NUMBA_CACHE_DIR"] = str(tree / "numba")
    command = [sys.executable, "-m", "benchmarks.cpu_training", "--turn", contestant]
    for option, value in zip(("--config", "--rows", "--length"), sizes, strict=True):
        command += [option, str(value)]
    done = subprocess.run(command, env=os.environ | variables, cwd=HERE, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout)


def unpack(commit: str, folder: Path) -> None:
    """Write the sources of a commit into a folder."""
    archive = subprocess.run(["git", "archive", commit], cwd=HERE, stdout=subprocess.PIPE, check=True)
    with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as files:
        files.extractall(folder, filter="data")


def row_of(contestant: str, turns: list[dict[str, Any]], tokens: int) -> dict[str, Any]:
    seconds = statistics.median(second for one in turns for second in one["seconds"])
    row = {key: value for key, value in turns[0].items() if key != "seconds"}
    return {"model": contestant, **row, "seconds": seconds, "tokens_per_second": tokens / seconds}


def compare_first_losses(rows: list[dict[str, Any]]) -> None:
    """Check that the twin starts with the loss of the integers."""
    bits = [row["bits_per_token"] for row in rows if row["model"] != BEFORE]
    if max(bits) - min(bits) > LARGEST_GAP:
        raise SystemExit(f"first losses of {min(bits):.3f} to {max(bits):.3f} bits: they aren't the same network")


def main(
    config: str = "tiny",
    rows: int = 8,
    length: int = 256,
    before: Annotated[str, typer.Option(help="An earlier commit, whose steps are timed too.")] = "",
    turns: Annotated[int, typer.Option(help="Turns of each; medians of all steps are reported.")] = 5,
    output: Annotated[Path | None, typer.Option("--json", help="Write the results to this file.")] = None,
    one: Annotated[str, typer.Option("--turn", hidden=True)] = "",
) -> None:
    """Time all in turns, so that what else the machine does falls on each alike."""
    if one:
        print(json.dumps(turn(one, config, rows, length)))
        return
    from mamba_integer.backends.app.environment import environment
    from mamba_integer.backends.files.atomic import write_json

    with tempfile.TemporaryDirectory() as folder:
        trees = {NUMBA: HERE}
        if before:
            unpack(before, Path(folder))
            trees[BEFORE] = Path(folder)
        trees |= {TORCH: HERE, TORCH_ALONE: HERE}
        results: dict[str, list[dict[str, Any]]] = {contestant: [] for contestant in trees}
        for _ in range(turns):
            for contestant, tree in trees.items():
                results[contestant].append(turn_in(tree, contestant, config, rows, length))
    measured = [row_of(contestant, own, rows * length) for contestant, own in results.items()]
    compare_first_losses(measured)
    about = {"config": config, "batch": rows, "length": length, "turns": turns, "before": before or None}
    if output:
        write_json(output, environment([load("numba")]) | about | {"rows": measured})
    shown = Table("training step", "ms", "tokens/s", title=f"{config}, {rows} x {length}")
    for row in measured:
        shown.add_row(row["model"], f"{row['seconds'] * 1e3:,.1f}", f"{row['tokens_per_second']:,.0f}")
    rich.print(shown)


if __name__ == "__main__":
    typer.run(main)
