"""Pictures in files, and the curve of a training run, from its log."""

import io
from pathlib import Path
from typing import Any

from ..files.atomic import write_atomically
from ..files.regular import read_regular
from ..files.strict_json import parse_json
from ..files.text import LONGEST_TEXT, lines_of


def save_figure(figure: Any, path: Path) -> None:
    """Draw a figure to a file atomically, in the format that its name ends with."""
    drawn = io.BytesIO()
    figure.savefig(drawn, format=path.suffix.removeprefix("."))
    write_atomically(path, drawn.getvalue())


def plot_log(log: Path, path: Path, title: str) -> None:
    """Draw the bits per byte of the batches and of the validation text over the steps."""
    from matplotlib.figure import Figure  # it takes a second to load, and most commands draw nothing

    lines = [parse_json(line) for line in lines_of(read_regular(log, LONGEST_TEXT).decode())]
    validated = [line for line in lines if "validation" in line]
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    axes.plot(*columns(lines, "bits_per_byte"), linewidth=0.8, alpha=0.6, label="batch")
    axes.plot(*columns(validated, "validation"), marker="o", markersize=3, label="validation")
    axes.set(xlabel="step", ylabel="bits per byte")
    axes.set_title(title, parse_math=False)  # a name is no formula
    axes.legend()
    axes.grid(alpha=0.3)
    save_figure(figure, path)


def columns(lines: list[dict], name: str) -> tuple[list[int], list[float]]:
    return [line["step"] for line in lines], [float(line[name]) for line in lines]
