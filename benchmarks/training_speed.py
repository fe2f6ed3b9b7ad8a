"""Tokens per second of whole training steps on one GPU: forward, backward, update.

``python -m benchmarks.training_speed --json FILE``. Integers on Triton; the same architecture in eager float32 Torch,
whose scan is a loop over time (its blocks computed again for the gradient, or it would not fit the memory); and
transformers' Mamba of 130M parameters where it is present, whose scan is such a loop too where its own kernels are not.
These two take long, so they are timed at fewer tokens per row first. The first integer step at a short length is held
against Numba's before anything is timed.
"""

import math
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import rich
import torch
import typer
from rich.table import Table

from benchmarks.float_training import FloatTraining
from mamba_integer.backends import load
from mamba_integer.backends.app.environment import environment
from mamba_integer.backends.app.outputs import output_file
from mamba_integer.backends.files.atomic import write_json
from mamba_integer.conformance.speed.clocks import PEAKS
from mamba_integer.spec.model import find_config
from mamba_integer.spec.model.config import ModelConfig
from mamba_integer.spec.training import Options, Run, initial_state, masters_of, train_step
from mamba_integer.spec.version import SPEC_VERSION

VERIFIED = (2, 32)  # rows and tokens of the step that is compared


def batch(config: ModelConfig, rows: int, length: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, config.vocab_size, (rows, length + 1), dtype=np.int32)


def verify(config: ModelConfig, options: Options) -> int:
    """Compare one short step of Triton and Numba; return how many integers were equal."""
    rows, length = VERIFIED
    short = replace(options, batch=rows, length=length)
    states = []
    for backend in (load("triton", "cuda"), load("numba")):
        run = Run(config, short, backend)
        state, _ = train_step(run, initial_state(run), batch(config, rows, length))
        states.append({name: run.store(array) for name, array in (*state.masters.items(), *state.momenta.items())})
    for name, want in states[1].items():
        if not np.array_equal(states[0][name], want):
            raise SystemExit(f"{name}: Triton's training step differs from Numba's")
    return sum(2 * array.size for array in states[1].values())


def step_seconds(step: Callable[[], Any], count: int) -> list[float]:
    seconds = []
    for _ in range(count):
        torch.cuda.synchronize()
        started = time.perf_counter()
        step()
        torch.cuda.synchronize()
        seconds.append(time.perf_counter() - started)
    return seconds


def integer_step(config: ModelConfig, options: Options) -> Callable[[], Any]:
    run = Run(config, options, load("triton", "cuda"))
    held = [initial_state(run)]
    ids = batch(config, options.batch, options.length)

    def step():
        held[0], _ = train_step(run, held[0], ids)

    return step


def eager_step(config: ModelConfig, options: Options) -> Callable[[], Any]:
    twin = FloatTraining(config, options, ternary=True, device="cuda", recompute=True)
    ids = torch.from_numpy(batch(config, options.batch, options.length)).long().cuda()
    return lambda: twin.step(ids)


def transformers_step(config: ModelConfig, options: Options) -> Callable[[], Any]:
    from transformers import MambaConfig, MambaForCausalLM

    model = MambaForCausalLM(MambaConfig(hidden_size=768, num_hidden_layers=24, vocab_size=config.vocab_size)).cuda()
    model.train()
    model.gradient_checkpointing_enable()
    optimizer = torch.optim.AdamW(model.parameters(), 1e-4)
    ids = torch.from_numpy(batch(config, options.batch, options.length - 1)).long().cuda()

    def step():
        with torch.autocast("cuda", torch.bfloat16):
            loss = model(input_ids=ids, labels=ids, use_cache=False).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


INTEGER = "integer, Triton"
STEPS = {INTEGER: integer_step, "float32, eager Torch": eager_step, "transformers Mamba": transformers_step}


def floor_seconds(config: ModelConfig, options: Options) -> float:
    """Return the least time of the matrix products alone: one forward, two limbs each for both backward products."""
    digits = sum(math.prod(m.shape) for m in masters_of(config).values() if m.projection == "ternary_project")
    return 5 * digits * options.batch * options.length / PEAKS["H100"].int8_multiply_adds


def main(
    output: Annotated[Path, typer.Option("--json", help="File to write.", callback=output_file)],
    config: str = "base",
    pattern: Annotated[list[str] | None, typer.Option(help="Kinds of the blocks, repeated; else the config's.")] = None,
    rows: int = 8,
    length: int = 2048,
    repeats: int = 5,
    slow_repeats: int = 1,
    slow_length: Annotated[list[int] | None, typer.Option(help="Tokens per row of what is compared with.")] = None,
    only: Annotated[list[str] | None, typer.Option(help=f"Of {', '.join(STEPS)}.")] = None,
) -> None:
    sizes = find_config(config)
    if pattern:
        config = f"{config}, {' '.join(pattern)}"
        sizes = replace(sizes, name=config, pattern=tuple(pattern))
    options = Options(steps=1000, batch=rows, length=length)
    equal = verify(sizes, options)
    planned = [(name, at) for at in slow_length or [256, length] for name in STEPS if name != INTEGER]
    lines = []
    for name, own_length in [(INTEGER, length), *planned]:
        if only and name not in only:
            continue
        integer = name == INTEGER
        line: dict[str, Any] = {"name": name, "rows": rows, "length": own_length}
        try:
            torch.cuda.reset_peak_memory_stats()
            step = STEPS[name](sizes, replace(options, length=own_length))
            warm = step_seconds(step, 2 if integer else 1)
            seconds = statistics.median(step_seconds(step, repeats if integer else slow_repeats))
            line |= {"seconds": seconds, "tokens_per_second": rows * own_length / seconds, "first_seconds": warm[0]}
            line |= {"peak_bytes": torch.cuda.max_memory_allocated()}
            del step
        except (ImportError, torch.OutOfMemoryError, RuntimeError) as error:
            line |= {"absent": f"{type(error).__name__}: {str(error)[:200]}"}
        torch.cuda.empty_cache()
        lines.append(line)
        about = {"config": config, "rows": rows, "length": length, "integers_verified": equal}
        about |= {"spec_version": SPEC_VERSION, "matrix_floor_seconds": floor_seconds(sizes, options)}
        write_json(output, environment([load("triton", "cuda")], ["transformers"]) | about | {"rows_measured": lines})
    shown = Table("training step", "tokens", "seconds", "tokens/s", "GB", title=config)
    for line in lines:
        of = (line["name"], f"{line['rows']} x {line['length']}")
        if "absent" in line:
            shown.add_row(*of, line["absent"][:80], "", "")
        else:
            numbers = (line["seconds"], line["tokens_per_second"], line["peak_bytes"] / 1e9)
            shown.add_row(*of, *(f"{n:,.3g}" if n < 1000 else f"{n:,.0f}" for n in numbers))
    rich.print(shown)


if __name__ == "__main__":
    typer.run(main)
