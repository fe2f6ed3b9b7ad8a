"""Plots of measured rows: how far each op is from its device's roof, and how time grows with each size."""

from collections import defaultdict
from pathlib import Path
from typing import Any


def draw_roofline(
    rows: list[dict[str, Any]], bandwidth: float, peaks: dict[str, float], path: Path, title: str
) -> None:
    """Draw the speed of rows of one device over their operations per byte, under the roof of its bytes and peaks.

    ``peaks`` is a device's `Peak` as a mapping, empty where its data sheet isn't known.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 6), layout="constrained")
    roof, shares = figure.subplots(1, 2, width_ratios=(3, 2))
    if counted := [row for row in rows if row["operations"]]:
        intensities = [row["operations"] / row["bytes"] for row in counted]
        reach = min(intensities) / 4, max(intensities) * 4
        roof.plot(reach, [bandwidth * x for x in reach], color="black", linewidth=1, label="bytes, measured copy")
        for style, (name, peak) in zip(("--", ":"), peaks.items(), strict=False):
            operations = 2 * peak if "multiply" in name else peak
            roof.axhline(operations, color="black", linewidth=1, linestyle=style, label=name.replace("_", " "))
        for row, intensity in zip(counted, intensities, strict=True):
            roof.plot(intensity, row["operations"] / row["seconds"], "o", label=f"{row['workload']} ({row['bound']})")
        roof.set(xscale="log", yscale="log", xlabel="operations per byte", ylabel="operations per second")
        roof.legend(fontsize=6)
    roof.grid(alpha=0.3)
    names = [row["workload"] for row in rows]
    shares.barh(names, [100 * row["floor_seconds"] / row["seconds"] for row in rows])
    shares.set(xlabel="per cent of the floor that is reached", xlim=(0, 100))
    shares.tick_params(axis="y", labelsize=6)
    shares.invert_yaxis()
    figure.suptitle(title)
    figure.savefig(path)


def draw_growth(rows: list[dict[str, Any]], path: Path, title: str) -> None:
    """Draw time over each size that grows while the others stay: one panel per size, one line per op and backend."""
    from matplotlib.figure import Figure

    curves: dict[str, dict[str, list[tuple[int, float]]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        name, value = row["grows"]
        curves[name][f"{row['op']}, {row['backend']}"].append((value, row["seconds"]))
    figure = Figure(figsize=(4 * len(curves), 4), layout="constrained")
    for axes, (name, lines) in zip(
        figure.subplots(1, max(1, len(curves)), squeeze=False)[0], curves.items(), strict=False
    ):
        for label, points in lines.items():
            axes.plot(*zip(*sorted(points), strict=True), marker="o", markersize=3, label=label)
        axes.set(xscale="log", yscale="log", xlabel=name, ylabel="seconds")
        axes.legend(fontsize=6)
        axes.grid(alpha=0.3)
    figure.suptitle(title)
    figure.savefig(path)
