"""Tokens per second of decoding on one GPU, greedy and drawn, in batches.

``python -m benchmarks.decode --json FILE`` compares a text with that of ordinary steps, token by token and in its last
state, before it times one of the same kind. The floor is the time to read the packed weights and the state once, at
the bandwidth of the device's data sheet.
"""

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import rich
import torch
import typer
from rich.table import Table

from mamba_integer.backends import load
from mamba_integer.backends.app.environment import environment
from mamba_integer.backends.app.opening import DEFAULT_MODEL
from mamba_integer.backends.files.atomic import write_json
from mamba_integer.spec.model import LanguageModel, find_config, initial_parameters
from mamba_integer.spec.model.generation import Options, Session, generate, inverse_temperature, steps

BANDWIDTH = 3.35e12  # bytes per second of an H100 SXM
VERIFIED = 70  # steps, so that a chunk ends among them
WAYS = {
    "greedy": Options(0, greedy=True),
    "drawn": Options(0, seed=7),
    "drawn, top-k and top-p": Options(0, seed=7, inverse_temperature=inverse_temperature("0.8"), top_k=40, top_p=60000),
}
COMMAND = "from mamba_integer.backends.app.main import main; main()"


def start_of(model: LanguageModel, batch: int) -> Session:
    """Return texts of one token each, not all alike."""
    tokens = np.arange(batch) * 7 % model.config.vocab_size
    return Session(model.new_state(batch), tokens.astype(np.int32))


def verify(model: LanguageModel, batch: int, options: Options) -> int:
    """Compare a text with that of ordinary steps; return how many integers were equal."""
    start, short = start_of(model, batch), replace(options, max_tokens=VERIFIED)
    written, ordinary = list(generate(model, start, short)), list(steps(model, start, short))
    for number, (one, other) in enumerate(zip(written, ordinary, strict=True)):
        if one.last.tolist() != other.last.tolist():
            raise SystemExit(f"batch {batch}: token {number} differs from that of ordinary steps")
    state, want = (model.state_to_numpy(texts[-1].state).arrays for texts in (written, ordinary))
    for name, array in want.items():
        if not np.array_equal(state[name], array):
            raise SystemExit(f"batch {batch}: {name} differs from that of ordinary steps")
    return VERIFIED * batch + sum(array.size for array in want.values())


def floor_seconds(model: LanguageModel, batch: int) -> float:
    """Return the least time of a step: every weight but the embedding once, and the state of each row."""
    weights = sum(a.nbytes for name, a in model.network.weights.items() if name != "embedding")
    state = sum(a.nbytes for a in model.new_state(batch).arrays.values())
    return (weights + state) / BANDWIDTH


def step_seconds(model: LanguageModel, batch: int, options: Options, repeats: int) -> float:
    """Return the median time of a step, over whole texts."""
    start, seconds = start_of(model, batch), []
    for _ in range(1 + repeats):  # the first one captures the graph
        torch.cuda.synchronize()
        started = time.perf_counter()
        for _ in generate(model, start, options):
            pass
        torch.cuda.synchronize()
        seconds.append((time.perf_counter() - started) / options.max_tokens)
    return statistics.median(seconds[1:])


def lines_of(config: str, batches: list[int], tokens: int, repeats: int) -> Iterator[dict[str, Any]]:
    sizes = find_config(config)
    model = LanguageModel(sizes, initial_parameters(sizes, seed=1), load("triton", "cuda"))
    for batch in batches:
        floor = floor_seconds(model, batch)
        for way, options in WAYS.items():
            equal = verify(model, batch, options)
            seconds = step_seconds(model, batch, replace(options, max_tokens=tokens), repeats)
            line = {"name": config, "batch": batch, "way": way, "seconds": seconds, "floor_seconds": floor}
            yield line | {"tokens_per_second": batch / seconds, "integers_verified": equal}


def command_line(model: str, tokens: int) -> dict[str, Any]:
    """Return the speed that the command ``generate`` reports of a model's text."""
    arguments = ["generate", "--model", model, "--prompt", "It was", "--max-tokens", str(tokens), "--json"]
    arguments += ["--backend", "triton", "--device", "cuda"]
    done = subprocess.run([sys.executable, "-c", COMMAND, *arguments], capture_output=True, text=True, timeout=300)
    line = {"name": f"mamba-integer generate --model {model}", "batch": 1, "way": "drawn"}
    if done.returncode:
        return line | {"absent": done.stderr.strip()[-200:]}
    speed = json.loads(done.stdout)["tokens_per_second"]
    return line | {"seconds": 1 / speed, "tokens_per_second": speed}


def main(
    output: Annotated[Path, typer.Option("--json", help="File to write.")],
    config: str = "base",
    batch: Annotated[list[int] | None, typer.Option(help="Rows of a batch. Default: 1 and 64.")] = None,
    tokens: Annotated[int, typer.Option(min=1, help="Tokens that each row writes.")] = 512,
    repeats: Annotated[int, typer.Option(min=1)] = 5,
    model: Annotated[str, typer.Option(help="Model of the command.")] = DEFAULT_MODEL,
) -> None:
    lines: list[dict[str, Any]] = []
    about = environment([load("triton", "cuda")]) | {"tokens": tokens, "bandwidth": BANDWIDTH}
    with torch.inference_mode():
        for line in lines_of(config, batch or [1, 64], tokens, repeats):
            lines.append(line)
            write_json(output, about | {"rows": lines})
    lines.append(command_line(model, tokens))
    write_json(output, about | {"rows": lines})
    shown = Table("decode", "rows", "tokens", "us per step", "floor, us", "share", "tokens/s")
    for line in lines:
        of = (line["name"], str(line["batch"]), line["way"])
        if "absent" in line:
            shown.add_row(*of, line["absent"], "", "", "")
            continue
        floor = line.get("floor_seconds")
        cells = (f"{floor * 1e6:.1f}", f"{floor / line['seconds']:.0%}") if floor else ("", "")
        shown.add_row(*of, f"{line['seconds'] * 1e6:.1f}", *cells, f"{line['tokens_per_second']:,.0f}")
    rich.print(shown)


if __name__ == "__main__":
    typer.run(main)
