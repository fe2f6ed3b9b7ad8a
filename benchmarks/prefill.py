"""Tokens per second of prefill on one GPU, through ``LanguageModel.prefill``, as a user calls it.

``python -m benchmarks.prefill --json FILE``. A short prefill is compared with Numba's first: its logits and its state.
The floor is the time of the matrix products alone at the peak rate of int8.
"""

import math
import statistics
import time
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import rich
import typer

from mamba_integer.backends import Backend, load
from mamba_integer.backends.app.environment import environment
from mamba_integer.backends.app.outputs import output_file
from mamba_integer.backends.files.atomic import write_json
from mamba_integer.conformance.speed.clocks import peak_of
from mamba_integer.spec import trusted_values
from mamba_integer.spec.model import LanguageModel, find_config, initial_parameters
from mamba_integer.spec.model.config import ModelConfig
from mamba_integer.spec.training import masters_of

VERIFIED = 2, 70  # rows and tokens: a chunk's boundary is among them


def verify(config: ModelConfig, model: LanguageModel, parameters: Any) -> int:
    """Compare the logits and the state of a short prefill with those of Numba; count the integers."""
    twin, ids = LanguageModel(config, parameters, load("numba")), random_ids(config, *VERIFIED)
    results = []
    for one in (model, twin):
        logits, state = one.prefill(ids, one.new_state(len(ids)))
        results.append({"logits": model.ops.to_numpy(logits) if one is model else logits})
        results[-1] |= one.state_to_numpy(state).arrays
    got, want = results
    if wrong := [name for name, array in want.items() if not np.array_equal(got[name], array)]:
        raise SystemExit(f"prefill: {wrong[0]} differs from Numba's")
    return sum(array.size for array in want.values())


def random_ids(config: ModelConfig, rows: int, length: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, config.vocab_size, (rows, length), dtype=np.int32)


def seconds(model: LanguageModel, ids: np.ndarray, backend: Backend, repeats: int) -> float:
    """Return the median time of a prefill, device work included; the first two warm up."""
    import torch

    times = []
    with trusted_values():
        for _ in range(repeats + 2):
            state = model.new_state(len(ids))
            torch.cuda.synchronize(backend.device)
            start = time.perf_counter()
            model.prefill(ids, state, last_only=True)
            torch.cuda.synchronize(backend.device)
            times.append(time.perf_counter() - start)
    return statistics.median(times[2:])


def main(
    config: Annotated[str, typer.Option(help="Config.")] = "base",
    rows: Annotated[int, typer.Option(min=1, help="Rows.")] = 8,
    length: Annotated[list[int], typer.Option(min=1, help="Tokens of a row. May be repeated.")] = [2048],  # noqa: B006
    repeats: Annotated[int, typer.Option(min=1, help="Prefills of which the median is taken.")] = 9,
    output: Annotated[
        Path | None, typer.Option("--json", help="Write the results to this file.", callback=output_file)
    ] = None,
) -> None:
    """Verify and time the prefill of a fresh model."""
    sizes, backend = find_config(config), load("triton", "cuda")
    parameters = initial_parameters(sizes, seed=1)
    model = LanguageModel(sizes, parameters, backend)
    about = environment([backend]) | {"config": config, "integers_verified": verify(sizes, model, parameters)}
    digits = sum(math.prod(m.shape) for m in masters_of(sizes).values() if m.projection == "ternary_project")
    peak, measured = peak_of(about["devices"]["triton"]), []
    for tokens in length:
        taken = seconds(model, random_ids(sizes, rows, tokens), backend, repeats)
        line = {"rows": rows, "length": tokens, "seconds": taken, "tokens_per_second": rows * tokens / taken}
        if peak:
            line["matrix_floor_seconds"] = digits * rows * tokens / peak.int8_multiply_adds
        measured.append(line)
        rich.print(
            f"prefill `{config}` {rows} x {tokens}: {line['tokens_per_second']:,.0f} tokens/s, {taken * 1e3:.2f} ms"
        )
    if output:
        write_json(output, about | {"rows_measured": measured})


if __name__ == "__main__":
    typer.run(main)
