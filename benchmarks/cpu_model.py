"""Decode and prefill on a CPU: the Numba model beside a float32 Torch model of the same shape, in one run.

``python -m benchmarks.cpu_model [--model base] [--json FILE]``. The Torch model has the same weights in float32. Before
anything is timed, the Numba model's logits and state are compared with the golden model's, integer by integer, and the
Torch model is checked against itself (whole and step by step).
"""

import json
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import rich
import torch
import typer
from rich.table import Table

from benchmarks.float_model import FloatModel
from benchmarks.run import environment
from mamba_integer.spec import compiled
from mamba_integer.spec.model import LanguageModel, find_config, initial_parameters

VERIFIED_TOKENS = 3


def verify(golden: LanguageModel, model: LanguageModel, ids: np.ndarray) -> int:
    """Compare a prefill and a step of two models; return how many integers were equal."""
    count = 0
    states = [m.new_state(1) for m in (golden, model)]
    for name, tokens in (("prefill", ids[:, :-1]), ("step", ids[:, -1])):
        results = [getattr(m, name)(tokens, s) for m, s in zip((golden, model), states, strict=True)]
        states = [state for _, state in results]
        pairs = [results[0][0], results[1][0]], *([s.arrays[key] for s in states] for key in states[0].arrays)
        for want, got in pairs:
            if want.dtype != got.dtype or not np.array_equal(want, got):
                raise SystemExit(f"{name}: the Numba model differs from the golden model")
            count += want.size
    return count


def verify_float(model: FloatModel, ids: torch.Tensor) -> None:
    whole, _ = model.prefill(ids, model.new_state(1))
    state, steps = model.new_state(1), []
    for i in range(ids.shape[1]):
        logits, state = model.step(ids[:, i], state)
        steps.append(logits)
    if not torch.allclose(whole, torch.stack(steps, 1), rtol=1e-2, atol=1e-2):
        raise SystemExit("the Torch model's prefill differs from its steps")


def decode_seconds(step: Callable, state: Any, tokens: list, repeat: int) -> float:
    """Return the median time of one step, over ``repeat`` runs through the tokens."""
    times = []
    for _ in range(repeat):
        for token in tokens:
            start = time.perf_counter()
            _, state = step(token, state)
            times.append(time.perf_counter() - start)
    return statistics.median(times)


def prefill_seconds(run: Callable[[], Any], repeat: int) -> float:
    run()
    times = []
    for _ in range(repeat):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def main(
    model: Annotated[str, typer.Option(help="Config.")] = "base",
    length: Annotated[int, typer.Option(help="Tokens of the prefill.")] = 512,
    tokens: Annotated[int, typer.Option(help="Tokens of a decode run.")] = 32,
    repeat: Annotated[int, typer.Option(help="Runs of each; medians are reported.")] = 3,
    output: Annotated[Path | None, typer.Option("--json", help="Write the results to this file.")] = None,
) -> None:
    """Time one prefill and a decode of both models on the cores of this process."""
    cores = len(os.sched_getaffinity(0))
    torch.set_num_threads(cores)
    config = find_config(model)
    parameters = initial_parameters(config, seed=0)
    integer = LanguageModel(config, parameters, compiled)
    ids = np.random.default_rng(0).integers(0, config.vocabulary, (1, length)).astype(np.int32)
    short = ids[:, : VERIFIED_TOKENS + 1]
    integers = verify(LanguageModel(config, parameters), integer, short)
    rows = []
    with torch.inference_mode():
        floating = FloatModel(config, parameters)
        float_ids = torch.from_numpy(ids).long()
        verify_float(floating, float_ids[:, : VERIFIED_TOKENS + 1])
        contestants = (
            ("mamba-integer, Numba", integer, ids, list(ids[0, :tokens, None])),
            ("float32 Torch", floating, float_ids, list(float_ids[0, :tokens, None])),
        )
        for name, m, whole, single in contestants:
            prefill = prefill_seconds(lambda m=m, whole=whole: m.prefill(whole, m.new_state(1), last_only=True), repeat)
            decode = decode_seconds(m.step, m.new_state(1), single, repeat)
            rows.append(
                {
                    "model": name,
                    "prefill_tokens_per_second": length / prefill,
                    "decode_tokens_per_second": 1 / decode,
                }
            )
    report = environment() | {
        "config": config.to_dict(),
        "prefill_length": length,
        "batch": 1,
        "integers_verified": integers,
        "rows": rows,
    }
    if output:
        partial = output.with_suffix(".partial")
        partial.write_text(json.dumps(report, indent=1) + "\n")
        partial.replace(output)
    shown = Table("model", "prefill tokens/s", "decode tokens/s", title=f"{config.name}, batch 1, {cores} cores")
    for row in rows:
        shown.add_row(row["model"], f"{row['prefill_tokens_per_second']:.1f}", f"{row['decode_tokens_per_second']:.1f}")
    rich.print(shown)


if __name__ == "__main__":
    typer.run(main)
