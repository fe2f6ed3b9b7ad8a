"""Tokens per second of decoding on one GPU, held against the floor of the bytes that a step must move.

``python -m benchmarks.decode --json FILE``. Before a time is taken, the tokens are compared with those of the ordinary
steps on the same device. A step reads every weight but the embedding's, and the state; it writes the state of the
"mamba1" blocks, and that of the "mamba2" blocks once per chunk. The floor is the time of these bytes at the speed of a
copy, measured in the same run. Beside the fused step stands the step op by op, replayed as one CUDA graph in the same
run. The last row is what the command ``generate`` reports; ``verse`` is a fresh model of the packaged model's size, so
that no file is needed.
"""

import statistics
import subprocess
import sys
import time
from collections import deque
from dataclasses import dataclass, replace
from itertools import product
from json import loads
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import rich
import typer
from rich.table import Table

from mamba_integer.backends import Backend, load
from mamba_integer.backends.app.environment import environment
from mamba_integer.backends.app.outputs import output_file
from mamba_integer.backends.files.atomic import write_json
from mamba_integer.conformance.speed.clocks import copy_bandwidth
from mamba_integer.spec.model import LanguageModel, find_config, initial_parameters
from mamba_integer.spec.model.config import MAMBA1, ModelConfig
from mamba_integer.spec.model.formats import parameter_formats, state_formats
from mamba_integer.spec.model.generation import Options, Session, generate, inverse_temperature, steps

SAMPLED = Options(0, seed=7, inverse_temperature=inverse_temperature("0.8"))
CHOICES = {
    "greedy": replace(SAMPLED, greedy=True),
    "sampled": SAMPLED,
    "top-k 40, top-p": replace(SAMPLED, top_k=40, top_p=58982),
}
COMMAND = "import sys; sys.argv.insert(1, 'generate'); from mamba_integer.backends.app.main import main; main()"
VERIFIED = 70  # tokens: a chunk's boundary is among them


def step_bytes(config: ModelConfig, batch: int) -> int:
    """Return the bytes of weights and state that a step reads and writes, on average."""
    weights = sum(f.size_in_bytes for name, f in parameter_formats(config).items() if name != "embedding")
    total = weights + batch * config.d_model * 2
    for name, format in state_formats(config, batch).items():
        _, layer, array = name.split(".")
        if array.startswith("open"):  # half of it is filled, and one position is written
            share = 1 / 2 + 1 / config.chunk_size
        elif array == "conv" or config.kinds[int(layer)] == MAMBA1:
            share = 2
        else:
            share = 1 + 1 / config.chunk_size
        total += round(format.size_in_bytes * share)
    return total


def start(model: LanguageModel, batch: int) -> Session:
    last = np.arange(batch, dtype=np.int32) * 7 % model.config.vocab_size
    return Session(model.new_state(batch), last.astype(np.int32))


def verify(model: LanguageModel, batch: int, options: Options) -> int:
    """Compare the tokens of `generate`, and its last state, with those of the ordinary steps; count the tokens."""
    few = replace(options, max_tokens=VERIFIED)
    ordinary, written = (list(sessions(model, start(model, batch), few)) for sessions in (steps, generate))
    if any(one.last.tolist() != other.last.tolist() for one, other in zip(written, ordinary, strict=True)):
        raise SystemExit(f"batch {batch}: decoding writes other tokens than the ordinary steps")
    state, want = (model.state_to_numpy(sessions[-1].state).arrays for sessions in (written, ordinary))
    if wrong := [name for name, array in want.items() if not np.array_equal(state[name], array)]:
        raise SystemExit(f"batch {batch}: decoding leaves another {wrong[0]} than the ordinary steps")
    return VERIFIED * batch


def speed_of_command(model: str, tokens: int, backend: str, device: str) -> float:
    """Return the tokens per second that the command ``generate`` reports of one text."""
    arguments = ["--model", model, "--prompt", "It was", "--max-tokens", str(tokens), "--json"]
    arguments += ["--backend", backend, "--device", device]
    done = subprocess.run([sys.executable, "-c", COMMAND, *arguments], capture_output=True, text=True, timeout=300)
    if done.returncode:
        raise SystemExit(f"mamba-integer generate --model {model}: {done.stderr.strip()}")
    return loads(done.stdout)["tokens_per_second"]


def seconds_a_step(model: LanguageModel, batch: int, options: Options, repeats: int) -> float:
    """Return the median over some texts, each of ``max_tokens`` steps."""
    seconds = []
    for _ in range(repeats + 1):
        session = start(model, batch)
        started = time.perf_counter()
        deque(generate(model, session, options), maxlen=0)
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds[1:]) / options.max_tokens


@dataclass(frozen=True)
class Work:
    """Decoding by one config, batch and choice of tokens, with the models that do it: fused, and op by op."""

    fused: LanguageModel
    op_by_op: LanguageModel
    batch: int
    choice: str
    bandwidth: float  # bytes per second of a copy on the same device

    def measure(self, tokens: int, repeats: int) -> dict[str, Any]:
        """Verify and time both ways; each time is the median over some texts."""
        options = CHOICES[self.choice]
        equal = verify(self.fused, self.batch, options)
        timed = replace(options, max_tokens=tokens)
        fused, plain = (seconds_a_step(model, self.batch, timed, repeats) for model in (self.fused, self.op_by_op))
        floor = step_bytes(self.fused.config, self.batch) / self.bandwidth
        return {
            "config": self.fused.config.name,
            "batch": self.batch,
            "choice": self.choice,
            "equal_tokens": equal,
            "tokens_per_second": round(self.batch / fused, 1),
            "step_us": round(fused * 1e6, 2),
            "floor_us": round(floor * 1e6, 2),
            "share_of_floor": round(floor / fused, 4),
            "op_by_op_tokens_per_second": round(self.batch / plain, 1),
            "times_op_by_op": round(plain / fused, 2),
        }


def models(config: ModelConfig, backend: Backend) -> tuple[LanguageModel, LanguageModel]:
    """Return a fresh model, and the same one whose steps are replayed op by op."""
    parameters = initial_parameters(config, seed=0)
    fused, op_by_op = (LanguageModel(config, parameters, backend) for _ in range(2))
    op_by_op.ops.fused_step = lambda *_: None
    return fused, op_by_op


def main(
    config: Annotated[list[str], typer.Option(help="A config. May be repeated.")] = ["base", "verse"],  # noqa: B006
    batch: Annotated[list[int], typer.Option(min=1, help="Rows. May be repeated.")] = [1, 8, 64],  # noqa: B006
    tokens: Annotated[int, typer.Option(min=1, help="Steps of a text that is timed.")] = 512,
    repeats: Annotated[int, typer.Option(min=1, help="Texts of which the median is taken.")] = 5,
    backend: Annotated[str, typer.Option(help="Backend.")] = "triton",
    device: Annotated[str, typer.Option(help="Device.")] = "cuda",
    model: Annotated[str, typer.Option(help="A model or config that the command `generate` is timed with.")] = "verse",
    json: Annotated[Path | None, typer.Option(help="Write the results to this file.", callback=output_file)] = None,
) -> None:
    """Verify and time decoding of fresh models."""
    loaded, rows, bandwidth = load(backend, device), [], copy_bandwidth(device)
    table = Table(
        "config", "batch", "choice", "tokens/s", "us per step", "floor us", "share of floor", "times op by op"
    )
    for name in config:
        pair = models(find_config(name), loaded)
        for size, choice in product(batch, CHOICES):
            row = Work(*pair, size, choice, bandwidth).measure(tokens, repeats)
            rows.append(row)
            shown = f"{row['step_us']:.1f}", f"{row['floor_us']:.1f}", f"{row['share_of_floor']:.1%}"
            speed, times = f"{row['tokens_per_second']:,.0f}", f"{row['times_op_by_op']:.2f}"
            table.add_row(name, str(size), choice, speed, *shown, times)
    speed_here = speed_of_command(model, tokens, backend, device)
    rows.append({"config": model, "batch": 1, "choice": "command generate", "tokens_per_second": speed_here})
    table.add_row(model, "1", "command generate", f"{speed_here:,.0f}", f"{1e6 / speed_here:.1f}", "", "", "")
    rich.print(table)
    if json:
        about = {"backend": backend, "tokens": tokens, "repeats": repeats, "copy_bytes_per_second": bandwidth}
        write_json(json, environment([loaded]) | about | {"rows": rows})


if __name__ == "__main__":
    typer.run(main)
