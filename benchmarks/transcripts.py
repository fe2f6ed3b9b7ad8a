"""The cost of committing to a run: plain, with a leaf per layer, and with a leaf per op.

    python -m benchmarks.transcripts --config verse --backend numba --length 512 --tokens 32

The first committed call also hashes the weights, once per run; the times hold that and the files.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from mamba_integer.backends import Backend, load
from mamba_integer.backends.app.environment import environment
from mamba_integer.backends.files.atomic import write_json
from mamba_integer.backends.transcripts.computation import Generation
from mamba_integer.backends.transcripts.header import Header
from mamba_integer.backends.transcripts.recorder import LEAVES
from mamba_integer.backends.transcripts.request import Generate
from mamba_integer.backends.transcripts.run import commit
from mamba_integer.spec.model import CONFIGS, LanguageModel, initial_parameters
from mamba_integer.spec.model.generation import Options

PLAIN = "plain"
MODEL_SHA256 = "0" * 64  # no reader checks it here
NEVER = 1 << 20  # no state is saved on the way


def plain_run(backend: Backend, build: Callable[[Backend], Generation]) -> None:
    computation = build(backend)
    state = computation.start()
    for call in range(computation.calls):
        state = computation.advance(call, state, lambda layer, name, array: None)
    computation.model.to_numpy(state.state.arrays["layers.0.conv"])  # waits for the device


def committed_run(request: Generate, leaves: str, backend: Backend, build: Callable[[Backend], Generation]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        commit(Path(folder), Header(MODEL_SHA256, request, leaves, NEVER), backend, build)


def least_seconds(runs: dict[str, Callable[[], None]], repeats: int) -> dict[str, float]:
    """Return the least time of each run, all in turns; a first round loads the kernels."""
    times: dict[str, list[float]] = {kind: [] for kind in runs}
    for _ in range(repeats + 1):
        for kind, run in runs.items():
            started = time.perf_counter()
            run()
            times[kind].append(time.perf_counter() - started)
    return {kind: round(min(seconds[1:]), 6) for kind, seconds in times.items()}


def rows_of(name: str, backend: Backend, length: int, tokens: int, repeats: int) -> list[dict[str, Any]]:
    """Return the times of reading a prompt and of writing tokens."""
    config = CONFIGS[name]
    parameters = initial_parameters(config, 0)
    prompt = tuple(i * 7919 % config.vocab_size for i in range(length + 1))
    rows = []
    for work, ids, written in (("prefill", prompt, 0), ("decode", prompt[:1], tokens)):
        request = Generate(ids, Options(written, greedy=True), length)
        build = lambda held, request=request: Generation(LanguageModel(config, parameters, held), request)  # noqa: E731
        runs: dict[str, Callable[[], None]] = {PLAIN: partial(plain_run, backend, build)}
        runs |= {leaves: partial(committed_run, request, leaves, backend, build) for leaves in reversed(LEAVES)}
        row = {"config": name, "work": work, "tokens": len(ids) - 1 + written}
        rows.append(row | {"seconds": least_seconds(runs, repeats)})
        print(json.dumps(rows[-1]), flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", nargs="+", default=["verse", "base"], choices=CONFIGS)
    parser.add_argument("--backend", default="numba")
    parser.add_argument("--device")
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path, help="File to write.")
    chosen = parser.parse_args()
    backend = load(chosen.backend, chosen.device)
    work = chosen.length, chosen.tokens, chosen.repeats
    rows = [row for name in chosen.config for row in rows_of(name, backend, *work)]
    if chosen.json:
        write_json(chosen.json, {"backend": backend.name, "rows": rows, **environment([backend])})


if __name__ == "__main__":
    main()
