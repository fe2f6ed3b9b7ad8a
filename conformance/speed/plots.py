"""Plots of measured rows: how far each op is from its device's roof, and how time grows with each size."""

from collections import defaultdict
from pathlib import Path
from typing import Any

from mamba_integer.backends.app.plots import save_figure


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
        colours = {op: f"C{i}" for i, op in enumerate(dict.fromkeys(row["op"] for row in counted))}
        for row, intensity in zip(counted, intensities, strict=True):
            speed = row["operations"] / row["seconds"]
            roof.plot(intensity, speed, "o", color=colours[row["op"]], label=row["op"])
        roof.set(xscale="log", yscale="log", xlabel="operations per byte", ylabel="operations per second")
        lines = {line.get_label(): line for line in roof.get_lines()}  # one per op
        figure.legend(lines.values(), lines, loc="outside lower center", ncols=5, fontsize=7)
    roof.grid(alpha=0.3)
    names = [row["workload"] for row in rows]
    shares.barh(names, [100 * row["floor_seconds"] / row["seconds"] for row in rows])
    shares.set(xlabel="per cent of the floor that is reached", xlim=(0, 100))
    shares.tick_params(axis="y", labelsize=6)
    shares.invert_yaxis()
    figure.suptitle(title)
    save_figure(figure, path)


def draw_growth(rows: list[dict[str, Any]], path: Path, title: str) -> None:
    """Draw time over each size that grows while the others stay: a line of panels per op, a panel per size."""
    from matplotlib.figure import Figure

    curves: dict[str, dict[str, list[tuple[int, float]]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        name, value = row["grows"]
        curves[f"{row['op']}, {row['backend']}"][name].append((value, 1e6 * row["seconds"]))
    columns = max(map(len, curves.values()), default=1)
    figure = Figure(figsize=(3.2 * columns, 2.6 * max(1, len(curves))), layout="constrained")
    panels = figure.subplots(max(1, len(curves)), columns, squeeze=False)
    for axes in panels.flat:
        axes.axis("off")
    for line, (op, sizes) in zip(panels, curves.items(), strict=False):
        for axes, (name, points) in zip(line, sizes.items(), strict=False):
            values, times = zip(*sorted(points), strict=True)
            axes.axis("on")
            axes.plot(values, times, marker="o")
            axes.set(xlabel=name, ylabel="microseconds", ylim=(0, 1.1 * max(times)), title=op)
            axes.set_xscale("log", base=2)
            axes.set_xticks(values, [str(value) for value in values])
            axes.title.set_fontsize(9)
            axes.grid(alpha=0.3)
    figure.suptitle(title)
    save_figure(figure, path)
