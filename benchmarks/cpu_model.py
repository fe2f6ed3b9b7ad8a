"""Decode and prefill on a CPU: the Numba model beside a float32 Torch model of the same shape, in one run.

``python -m benchmarks.cpu_model [--model base] [--json FILE]``. The Torch model has the same weights in float32. Before
anything is timed, the Numba model's logits and state are compared with the golden model's, integer by integer, the
Torch model against itself (whole and step by step) and its logits against the integers.
"""

import statistics
import time
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import rich
import torch
import typer
from rich.table import Table

from benchmarks.float_model import FloatModel, float_weights
from mamba_integer.backends import load
from mamba_integer.backends.app.environment import environment
from mamba_integer.backends.app.outputs import output_file
from mamba_integer.backends.files.atomic import write_json
from mamba_integer.backends.processors import cores
from mamba_integer.spec import compiled
from mamba_integer.spec.model import LanguageModel, find_config, initial_parameters

VERIFIED_TOKENS = 3
LEAST_CORRELATION = 0.9


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


def verify_float(model: FloatModel, ids: torch.Tensor, integer_logits: np.ndarray) -> float:
    """Check that the Torch model gives the same whole and step by step, and return how its logits correlate."""
    whole, _ = model.prefill(ids, model.new_state(1))
    state = model.new_state(1)
    for i in range(VERIFIED_TOKENS):
        logits, state = model.step(ids[:, i], state)
        if not torch.allclose(whole[:, i], logits, rtol=1e-2, atol=1e-2):
            raise SystemExit("the Torch model's prefill differs from its steps")
    correlation = float(np.corrcoef(whole.numpy().ravel(), integer_logits.ravel())[0, 1])
    if correlation < LEAST_CORRELATION:
        raise SystemExit(f"the logits of the two models correlate by {correlation:.3f}: they aren't the same network")
    return correlation


def decode_seconds(model: Any, tokens: list) -> list[float]:
    """Return the time of each step of one run through the tokens."""
    state, times = model.new_state(1), []
    for token in tokens:
        start = time.perf_counter()
        _, state = model.step(token, state)
        times.append(time.perf_counter() - start)
    return times


def prefill_seconds(model: Any, ids: Any) -> float:
    state = model.new_state(1)
    start = time.perf_counter()
    model.prefill(ids, state, last_only=True)
    return time.perf_counter() - start


def main(
    model: Annotated[str, typer.Option(help="Config.")] = "base",
    length: Annotated[int, typer.Option(help="Tokens of the prefill.")] = 512,
    tokens: Annotated[int, typer.Option(help="Tokens of a decode run.")] = 32,
    repeat: Annotated[int, typer.Option(help="Turns of each; medians are reported.")] = 5,
    output: Annotated[
        Path | None, typer.Option("--json", help="Write the results to this file.", callback=output_file)
    ] = None,
) -> None:
    """Time one prefill and a decode of both models on the cores of this process."""
    torch.set_num_threads(cores())
    config = find_config(model)
    parameters = initial_parameters(config, seed=0)
    integer = LanguageModel(config, parameters, compiled)
    ids = np.random.default_rng(0).integers(0, config.vocab_size, (1, length)).astype(np.int32)
    short = ids[:, : VERIFIED_TOKENS + 1]
    integers = verify(LanguageModel(config, parameters), integer, short)
    with torch.inference_mode():
        floating = FloatModel(config, float_weights(config, parameters))
        float_ids = torch.from_numpy(ids).long()
        integer_logits, _ = integer.prefill(ids, integer.new_state(1))
        correlation = verify_float(floating, float_ids, integer_logits)
        contestants = (
            ("mamba-integer, Numba", integer, ids, list(ids[0, :tokens, None])),
            ("float32 Torch", floating, float_ids, list(float_ids[0, :tokens, None])),
        )
        prefills: dict[str, list[float]] = {name: [] for name, *_ in contestants}
        decodes: dict[str, list[float]] = {name: [] for name, *_ in contestants}
        # In turns, so that what else the machine does falls on both alike; the first turn warms up.
        for turn in range(repeat + 1):
            for name, m, whole, single in contestants:
                prefill, decode = prefill_seconds(m, whole), decode_seconds(m, single)
                if turn:
                    prefills[name].append(prefill)
                    decodes[name] += decode
    rows = [
        {
            "model": name,
            "prefill_tokens_per_second": length / statistics.median(prefills[name]),
            "decode_tokens_per_second": 1 / statistics.median(decodes[name]),
        }
        for name, *_ in contestants
    ]
    report = environment([load("numba")]) | {
        "config": config.to_dict(),
        "prefill_length": length,
        "batch": 1,
        "integers_verified": integers,
        "logit_correlation": correlation,
        "rows": rows,
    }
    if output:
        write_json(output, report)
    shown = Table("model", "prefill tokens/s", "decode tokens/s", title=f"{config.name}, batch 1, {cores()} cores")
    for row in rows:
        shown.add_row(row["model"], f"{row['prefill_tokens_per_second']:.1f}", f"{row['decode_tokens_per_second']:.1f}")
    rich.print(shown)


if __name__ == "__main__":
    typer.run(main)
