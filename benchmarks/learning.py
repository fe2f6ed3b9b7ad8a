"""How well integers learn: all-integer training beside its float32 twins, ternary and dense, each at its best rate.

``python -m benchmarks.learning --text FILE --json FILE``. Every kind of training gets the same data, tokens and
schedule family. Every peak rate is run with every seed, and the best rate of a kind has the lowest mean; 8-bit
gradients take the rate of 16-bit ones. Scores are bits per byte of the whole validation text, in windows of the
training length. Runs that the file already has are not repeated, so a study that was stopped goes on.
"""

import json
import math
import os
import time
from concurrent.futures import as_completed
from dataclasses import replace
from pathlib import Path
from statistics import mean
from typing import Annotated, Any

import rich
import typer
from rich.progress import track
from rich.table import Table

from mamba_integer.backends import load
from mamba_integer.backends.app.environment import commit_here, environment
from mamba_integer.backends.app.loop import spelled_bytes, validate
from mamba_integer.backends.app.outputs import output_file
from mamba_integer.backends.files.atomic import write_json
from mamba_integer.backends.files.corpus import prepare_corpus
from mamba_integer.backends.files.tokenizer import ByteTokenizer
from mamba_integer.conformance.engine.workers import processes
from mamba_integer.spec.model import find_config
from mamba_integer.spec.model.config import ModelConfig
from mamba_integer.spec.training import (
    Options,
    Run,
    initial_state,
    masters_of,
    train_step,
)
from mamba_integer.spec.training.options import ONE
from mamba_integer.spec.version import SPEC_VERSION

# A float twin has no fast scan with a decay for each channel, so the study's blocks have one for each head.
STUDY = ModelConfig("study", 256, d_model=256, d_inner=768, n_layer=8, pattern=("mamba2",), nheads=12, dt_rank=16)
SMALL = replace(find_config("tiny"), name="small study", pattern=("mamba2",), n_layer=4, mamba2_d_state=32)
STUDIES = {"study": STUDY, "small": SMALL}
KINDS = ("integer", "float ternary", "float dense")
NARROW = "integer, 8-bit gradients"
CURVE_POINTS = 10
WHOLE = 1 << 30


def parameters(config: ModelConfig) -> int:
    return sum(math.prod(master.shape) for master in masters_of(config).values())


def stride(options: Options) -> int:
    """Return the steps from point to point of a curve."""
    return max(1, options.steps // CURVE_POINTS)


def train_integer(config: ModelConfig, options: Options, corpus, device: str, backend_name: str) -> list[list[Any]]:
    run = Run(config, options, load(backend_name, device))
    state, curve = initial_state(run), []
    spelling = spelled_bytes(ByteTokenizer(), config.vocab_size)
    while state.step < options.steps:
        ids = corpus.batch(options.seed, state.step, range(options.batch), options.length)
        state, _ = train_step(run, state, ids)
        if state.step == options.steps:
            curve.append([state.step, float(validate(run, state, corpus, spelling, WHOLE))])
        elif state.step % stride(options) == 0:
            curve.append([state.step, float(validate(run, state, corpus, spelling, 64))])
    return curve


def train_float(config: ModelConfig, options: Options, corpus, device: str, ternary: bool) -> list[list[Any]]:
    import torch

    from benchmarks.float_training import FloatTraining

    twin, curve = FloatTraining(config, options, ternary, device), []

    def validation(most: int) -> float:
        windows = torch.from_numpy(corpus.windows(options.length, most)).long().to(device)
        with torch.no_grad():
            losses = [twin.loss(rows) for rows in windows.split(options.batch)]
        return float(torch.cat(losses).double().mean())

    for step in range(options.steps):
        ids = corpus.batch(options.seed, step, range(options.batch), options.length)
        twin.step(torch.from_numpy(ids).long().to(device))
        if step + 1 == options.steps:
            curve.append([step + 1, validation(WHOLE)])
        elif (step + 1) % stride(options) == 0:
            curve.append([step + 1, validation(64)])
    return curve


def run_one(
    kind: str,
    config: ModelConfig,
    options: Options,
    text: Path,
    folder: Path,
    device: str,
    backend: str,
    gpu: int | None,
) -> dict:
    """Train once; return what was trained, the curve, and the bits per byte at its end."""
    if gpu is not None:
        # A process stays on the GPU of its first run.
        os.environ.setdefault("CUDA_VISIBLE_DEVICES", str(gpu))
    corpus = prepare_corpus([text], ByteTokenizer(), folder)
    started = time.monotonic()
    if kind.startswith("integer"):
        bits = 8 if kind == NARROW else 16
        curve = train_integer(config, replace(options, gradient_bits=bits), corpus, device, backend)
    else:
        curve = train_float(config, options, corpus, device, ternary=kind == "float ternary")
    seconds = time.monotonic() - started
    about = {"kind": kind, "seed": options.seed, "rate": options.rate, "commit": commit_here()["commit"]}
    return about | {"bits_per_byte": curve[-1][1], "curve": curve, "seconds": round(seconds, 1)}


def summary(runs: list[dict]) -> list[dict[str, Any]]:
    """Return mean and spread over the seeds of each kind at its best rate, of those that the most seeds were run at."""
    ends: dict[str, dict[int, list[float]]] = {}
    for run in runs:
        ends.setdefault(run["kind"], {}).setdefault(run["rate"], []).append(run["bits_per_byte"])
    lines = []
    for kind, by_rate in ends.items():
        most = max(map(len, by_rate.values()))
        least, rate = min((mean(scores), rate) for rate, scores in by_rate.items() if len(scores) == most)
        spread = max(by_rate[rate]) - min(by_rate[rate])
        lines.append({"kind": kind, "rate": rate, "seeds": most, "mean": least, "spread": spread})
    return lines


def runs_of(path: Path, about: dict[str, Any]) -> list[dict]:
    """Return the runs that a file has of the study that ``about`` describes."""
    if not path.exists():
        return []
    study = json.loads(path.read_text())
    for name, value in about.items():
        if study[name] != value:
            raise typer.BadParameter(f"{path} is of another study: found {name} {study[name]!r}, allowed {value!r}")
    return study["runs"]


def main(
    text: Annotated[Path, typer.Option(help="The text; its last tenth is for validation.")],
    output: Annotated[Path, typer.Option("--json", help="File to write.", callback=output_file)],
    folder: Annotated[Path, typer.Option(help="Where the tokens go.")] = Path("learning-tokens"),
    size: Annotated[str, typer.Option(help=f"{' or '.join(STUDIES)}: small is for a CPU.")] = "study",
    steps: int = 500,
    batch: int = 16,
    length: int = 1024,
    rate: Annotated[list[int] | None, typer.Option(help="Peak rates to sweep, in units of 2**-24.")] = None,
    kind: Annotated[list[str] | None, typer.Option(help=f"Of {', '.join((*KINDS, NARROW))}; else all.")] = None,
    seeds: int = 3,
    device: str = "cuda",
    backend: str = "triton",
    jobs: Annotated[int, typer.Option(help="Runs at once.")] = 4,
    gpus: Annotated[int, typer.Option(help="GPUs that they are spread over.")] = 1,
) -> None:
    """Sweep, repeat, and write every curve."""
    rates = rate or [8192, 16384, 32768]
    if size not in STUDIES:
        raise typer.BadParameter(f"--size: found {size!r}, allowed {' or '.join(STUDIES)}")
    config, corpus = STUDIES[size], prepare_corpus([text], ByteTokenizer(), folder)
    options = Options(steps=steps, batch=batch, length=length, warmup=max(1, steps // 20))
    about = {
        "spec_version": SPEC_VERSION,
        "config": config.to_dict(),
        "parameters": parameters(config),
        "options": options.to_dict(),
        "text": text.name,
        "corpus_sha256": corpus.sha256,
    }

    runs: list[dict] = runs_of(output, about)

    def together(planned: list[tuple[str, int, int]]) -> None:
        done_before = {(run["kind"], run["rate"], run["seed"]) for run in runs}
        planned = [one for one in planned if one not in done_before]
        with processes(jobs) as pool:
            waiting = [
                pool.submit(
                    run_one,
                    name,
                    config,
                    replace(options, rate=peak, last_rate=peak // 16, seed=seed),
                    text,
                    folder,
                    device,
                    backend,
                    place % gpus if gpus > 1 else None,
                )
                for place, (name, peak, seed) in enumerate(planned)
            ]
            for done in track(as_completed(waiting), total=len(waiting), description="training"):
                runs.append(done.result())
                write_json(
                    output, environment([load(backend, device)]) | about | {"summary": summary(runs), "runs": runs}
                )

    kinds = kind or [*KINDS, NARROW]
    together([(name, peak, seed) for seed in range(seeds) for peak in rates for name in KINDS if name in kinds])
    if NARROW in kinds:
        best = next(line["rate"] for line in summary(runs) if line["kind"] == "integer")
        together([(NARROW, best, seed) for seed in range(seeds)])
    shown = Table("kind", "best rate", "seeds", "bits per byte", "spread", title=f"{about['parameters']:,} parameters")
    for line in summary(runs):
        rate = f"{line['rate'] / ONE:.5f}"
        shown.add_row(line["kind"], rate, str(line["seeds"]), f"{line['mean']:.4f}", f"{line['spread']:.4f}")
    rich.print(shown)


if __name__ == "__main__":
    typer.run(main)
