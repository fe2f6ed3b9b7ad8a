"""The cost of committing to a run: plain, with a leaf per layer, and with a leaf per op.

python -m benchmarks.transcripts --config verse --backend numba --length 512 --tokens 32
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

from mamba_integer.backends import load
from mamba_integer.backends.app.environment import environment
from mamba_integer.backends.transcripts.computation import Generation
from mamba_integer.backends.transcripts.header import Header
from mamba_integer.backends.transcripts.recorder import LEAVES
from mamba_integer.backends.transcripts.request import Generate
from mamba_integer.backends.transcripts.run import commit
from mamba_integer.spec.model import CONFIGS, LanguageModel, initial_parameters

PLAIN = "plain"


def seconds_of(header: Header, backend, build, leaves: str, repeats: int) -> float:
    """Return the least time of a run, committed or plain; the first run loads the kernels."""
    times = []
    for _ in range(repeats + 1):
        with tempfile.TemporaryDirectory() as folder:
            started = time.perf_counter()
            if leaves == PLAIN:
                computation = build(backend)
                state = computation.start()
                for call in range(computation.calls):
                    state = computation.advance(call, state, lambda layer, name, array: None)
                computation.model.to_numpy(state.state.arrays["layers.0.conv"])  # waits for the device
            else:
                commit(Path(folder), header, backend, build)
            times.append(time.perf_counter() - started)
    return min(times[1:])


def main() -> None:
    from mamba_integer.spec.model.generation import Options

    parser = argparse.ArgumentParser()
    parser.add_argument("--config", default="verse", choices=CONFIGS)
    parser.add_argument("--backend", default="numba")
    parser.add_argument("--device")
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    config, backend = CONFIGS[chosen.config], load(chosen.backend, chosen.device)
    parameters = initial_parameters(config, 0)
    prompt = tuple(i * 7919 % config.vocab_size for i in range(chosen.length + 1))
    rows = []
    for name, ids, tokens in (("prefill", prompt, 0), ("decode", prompt[:1], chosen.tokens)):
        if len(ids) - 1 + tokens == 0:
            continue
        request = Generate(ids, Options(tokens, greedy=True), chosen.length)
        build = lambda held, request=request: Generation(LanguageModel(config, parameters, held), request)  # noqa: E731
        times = {}
        for leaves in (PLAIN, *reversed(LEAVES)):
            header = Header("0" * 64, request, "op" if leaves == PLAIN else leaves, 1 << 20)
            times[leaves] = seconds_of(header, backend, build, leaves, chosen.repeats)
        row = {"work": name, "tokens": len(ids) - 1 + tokens} | {k: round(v, 5) for k, v in times.items()}
        row |= {f"{k} overhead": f"{100 * (v / times[PLAIN] - 1):.0f} %" for k, v in times.items() if k != PLAIN}
        rows.append(row)
        print(json.dumps(row), flush=True)
    if chosen.json:
        fields = {"config": config.name, "backend": backend.name, "rows": rows, "environment": environment([backend])}
        chosen.json.write_text(json.dumps(fields, indent=1) + "\n")


if __name__ == "__main__":
    main()
