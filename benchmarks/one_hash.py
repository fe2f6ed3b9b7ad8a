"""One hash: the same training run in every way that this machine has, and the hash of its checkpoint from each.

``python -m benchmarks.one_hash --json FILE``. Every backend and device, whole batches and micro-batches, one rank and
several: gloo on the CPU, NCCL where there are two GPUs. Exit code 1 where two hashes differ.
"""

import tempfile
import time
from concurrent.futures import as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import rich
import typer
from rich.progress import track
from rich.table import Table

from mamba_integer.backends import load
from mamba_integer.backends.app.environment import environment
from mamba_integer.backends.app.loop import rank_rows
from mamba_integer.backends.app.outputs import output_file
from mamba_integer.backends.distributed import joined
from mamba_integer.backends.files.atomic import write_json
from mamba_integer.backends.files.corpus import prepare_corpus
from mamba_integer.backends.files.tokenizer import ByteTokenizer, tokenizer_hash
from mamba_integer.backends.files.training import Training, training_hash
from mamba_integer.backends.launch import free_address, launch
from mamba_integer.conformance.engine.workers import processes
from mamba_integer.conformance.speed.measure import devices_here
from mamba_integer.spec.model import find_config
from mamba_integer.spec.training import (
    Alone,
    Options,
    Run,
    initial_state,
    train_step,
)

TEXT = Path(__file__).parent / "data/shakespeare.txt.gz"


@dataclass(frozen=True)
class Way:
    """One way to run the same training; ``micro_batch`` is the number of rows that a rank computes at once."""

    backend: str
    device: str
    ranks: int
    micro_batch: int

    def train(self, config: str, options: Options, folder: Path) -> dict[str, Any]:
        """Train, and return this way, the hash at its end and the seconds it took."""
        started, file = time.monotonic(), folder / f"{self.backend}-{self.device}-{self.ranks}-{self.micro_batch}"
        if self.ranks > 1:
            launch(self.ranks, rank_work, self, config, options, folder, file, free_address())
        else:
            self.train_rank(config, options, folder, file, Alone())
        seconds = round(time.monotonic() - started, 1)
        return asdict(self) | {"checkpoint_sha256": file.read_text(), "seconds": seconds}

    def train_rank(self, config: str, options: Options, folder: Path, file: Path, exchange: Any) -> None:
        device = f"cuda:{exchange.rank}" if self.device == "cuda" else self.device
        sizes = find_config(config)
        run = Run(sizes, options, load(self.backend, device), micro_batch=self.micro_batch, exchange=exchange)
        corpus, rows, state = prepare_corpus([TEXT], ByteTokenizer(), folder), rank_rows(run), initial_state(run)
        for step in range(options.steps):
            ids = corpus.batch(options.seed, step, rows, options.length)
            state, _ = train_step(run, state, ids, rows.start)
        if exchange.rank == 0:
            training = Training(sizes, options, tokenizer_hash(ByteTokenizer()), corpus.sha256)
            file.write_text(training_hash(training, run, state))


def rank_work(rank: int, way: Way, config: str, options: Options, folder: Path, file: Path, address: str) -> None:
    """Train as one of several ranks, in a process of its own."""
    device = f"cuda:{rank}" if way.device == "cuda" else way.device
    with joined(rank, way.ranks, device, address) as exchange:
        way.train_rank(config, options, folder, file, exchange)


def ways_here(batch: int) -> list[Way]:
    import torch

    backends = [("golden", "cpu"), ("numba", "cpu"), ("torch", "cpu")]
    backends += [("torch", "cuda"), ("triton", "cuda")] if "cuda" in devices_here() else []
    ways = [Way(*where, 1, rows) for where in backends for rows in (batch, 1)]
    ways += [Way("numba", "cpu", ranks, batch) for ranks in (2, 3)]
    if torch.cuda.device_count() > 1:
        ways += [Way("triton", "cuda", 2, rows) for rows in (batch, 1)]
    return ways


def main(
    output: Annotated[Path, typer.Option("--json", help="File to write.", callback=output_file)],
    config: str = "tiny",
    steps: int = 50,
    batch: int = 4,
    length: int = 64,
    jobs: Annotated[int, typer.Option(help="Ways that run at once.")] = 1,
) -> None:
    """Train in each way from the same seed and compare the hashes."""
    options = Options(steps=steps, batch=batch, length=length, warmup=min(5, steps - 1))
    ways = ways_here(batch)
    about = environment([load(*where) for where in dict.fromkeys((way.backend, way.device) for way in ways)])
    about |= {"config": config, "options": options.to_dict()}
    done: dict[Way, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as made, processes(jobs) as pool:
        folder = Path(made)
        prepare_corpus([TEXT], ByteTokenizer(), folder)
        waiting = {pool.submit(way.train, config, options, folder): way for way in ways}
        for ended in track(as_completed(waiting), total=len(ways), description="training"):
            done[waiting[ended]] = ended.result()
            rows = [done[way] for way in ways if way in done]
            equal = len({row["checkpoint_sha256"] for row in rows}) == 1
            write_json(output, about | {"rows": rows, "equal": equal})
    shown = Table("backend", "device", "ranks", "rows at once", "SHA-256", "seconds", title=f"{config}, {steps} steps")
    for row in rows:
        shown.add_row(*map(str, row.values()))
    rich.print(shown)
    raise typer.Exit(0 if equal else 1)


if __name__ == "__main__":
    typer.run(main)
