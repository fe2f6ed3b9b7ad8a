"""One hash: the same training run on every backend and device of this machine, and the hash of its checkpoint on each.

``python -m benchmarks.one_hash --json FILE``. Also cut into micro-batches. Exit code 1 where two hashes differ.
"""

import tempfile
import time
from pathlib import Path
from typing import Annotated, Any

import rich
import typer
from rich.table import Table

from benchmarks.run import devices_here
from mamba_integer.backends import Backend, load
from mamba_integer.conformance.report import environment, write_atomically
from mamba_integer.spec.model import find_config
from mamba_integer.spec.model.tokenizer import ByteTokenizer, tokenizer_hash
from mamba_integer.spec.training import Options, Run, Training, initial_state, prepare_corpus, train_step
from mamba_integer.spec.training.checkpoint import training_hash

TEXT = Path(__file__).parent / "data/shakespeare.txt.gz"


def backends_here() -> list[Backend]:
    found = [load("golden"), load("numba"), load("torch", "cpu")]
    return found + ([load("torch", "cuda"), load("triton", "cuda")] if "cuda" in devices_here() else [])


def main(
    output: Annotated[Path, typer.Option("--json", help="File to write.")],
    config: str = "tiny",
    steps: int = 50,
    batch: int = 4,
    length: int = 64,
) -> None:
    """Train on each backend from the same seed and compare the hashes."""
    sizes, options = find_config(config), Options(steps=steps, batch=batch, length=length, warmup=min(5, steps - 1))
    corpus = prepare_corpus([TEXT], ByteTokenizer(), Path(tempfile.mkdtemp()))
    training = Training(sizes, options, tokenizer_hash(ByteTokenizer()), corpus.sha256)
    rows: list[dict[str, Any]] = []
    found = backends_here()
    for backend in found:
        for micro_batch in (batch, 1):
            run, started = Run(sizes, options, backend, micro_batch=micro_batch), time.monotonic()
            state = initial_state(run)
            for step in range(steps):
                state, _ = train_step(run, state, corpus.batch(options.seed, step, range(batch), length))
            where = {"backend": backend.name, "device": backend.device, "micro_batch": micro_batch}
            hashed = {"checkpoint_sha256": training_hash(training, run, state)}
            rows.append(where | hashed | {"seconds": round(time.monotonic() - started, 1)})
            about = {"config": config, "options": options.to_dict(), "rows": rows}
            equal = len({row["checkpoint_sha256"] for row in rows}) == 1
            write_atomically(output, environment(found) | about | {"equal": equal})
    shown = Table("backend", "device", "rows at once", "SHA-256", "seconds", title=f"{config}, {steps} steps")
    for row in rows:
        shown.add_row(*(str(row[name]) for name in row))
    rich.print(shown)
    raise typer.Exit(0 if equal else 1)


if __name__ == "__main__":
    typer.run(main)
