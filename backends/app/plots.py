"""The curve of a training run, from its log."""

import json
from pathlib import Path


def plot_log(log: Path, path: Path, title: str) -> None:
    """Draw the bits per byte of the batches and of the validation text over the steps."""
    from matplotlib.figure import Figure  # it takes a second to load, and most commands draw nothing

    lines = [json.loads(line) for line in log.read_text("utf-8").splitlines()]
    validated = [line for line in lines if "validation" in line]
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    axes.plot(*columns(lines, "bits_per_byte"), linewidth=0.8, alpha=0.6, label="batch")
    axes.plot(*columns(validated, "validation"), marker="o", markersize=3, label="validation")
    axes.set(xlabel="step", ylabel="bits per byte")
    axes.set_title(title, parse_math=False)  # a name is no formula
    axes.legend()
    axes.grid(alpha=0.3)
    figure.savefig(path)


def columns(lines: list[dict], name: str) -> tuple[list[int], list[float]]:
    return [line["step"] for line in lines], [float(line[name]) for line in lines]
