"""The curves of a study of learning, from its JSON: ``python -m benchmarks.learning_curves FILE`` draws FILE's .png."""

import json
from pathlib import Path
from statistics import mean
from typing import Annotated, Any

import typer
from matplotlib.figure import Figure

from mamba_integer.backends.app.plots import save_figure


def draw(study: dict[str, Any], path: Path) -> None:
    """Draw bits per byte over the steps, each kind of training at its best rate: its seeds' mean and span."""
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    for best in study["summary"]:
        runs = [run for run in study["runs"] if (run["kind"], run["rate"]) == (best["kind"], best["rate"])]
        steps = [step for step, _ in runs[0]["curve"]]
        points = list(zip(*([bits for _, bits in run["curve"]] for run in runs), strict=True))
        label = f"{best['kind']}: {best['mean']:.3f} (rate {best['rate'] / 2**24:.5f}, {len(runs)} seeds)"
        (line,) = axes.plot(steps, [mean(at) for at in points], marker="o", markersize=3, label=label)
        axes.fill_between(
            steps, [min(at) for at in points], [max(at) for at in points], color=line.get_color(), alpha=0.15
        )
    options = study["options"]
    tokens = f"{options['batch']} x {options['length']} tokens"
    axes.set(
        xlabel=f"step of {tokens}",
        ylabel="bits per byte of validation text",
        title=f"{study['parameters']:,} parameters",
    )
    axes.legend()
    axes.grid(alpha=0.3)
    save_figure(figure, path)


def main(study: Annotated[Path, typer.Argument(help="What benchmarks.learning wrote.")]) -> None:
    draw(json.loads(study.read_text()), study.with_suffix(".png"))


if __name__ == "__main__":
    typer.run(main)
