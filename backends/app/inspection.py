"""Inspection of a model: the range of each array on a text beside its proved bound, and the values at that bound."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from mamba_integer.spec.contract import find_op
from mamba_integer.spec.model import formats_table, parameter_formats
from mamba_integer.spec.model.config import ModelConfig
from mamba_integer.spec.model.proof import Row

from .opening import Opened
from .plots import save_figure

TELLING = ("residual", "xz", "x", "scan", "gated", "scan_state")  # the tensors shown layer by layer


@dataclass(frozen=True)
class Seen:
    """One array of one layer: its proved bound, and its range on a text."""

    row: Row
    low: int
    high: int
    at_limit: int = 0  # values at an end of the bound other than 0, where saturation puts them

    def to_dict(self) -> dict[str, Any]:
        row = self.row
        return {
            "layer": row.layer,
            "tensor": row.tensor,
            "shape": list(row.shape),
            "dtype": row.dtype,
            "q": row.q,
            "bound": [row.bound.low, row.bound.high],
            "seen": [self.low, self.high],
            "at_limit": self.at_limit,
        }


@dataclass(frozen=True)
class Inspection:
    """A model's size, its ternary weights, and the range of each array while it read ``tokens`` tokens."""

    name: str
    config: ModelConfig
    parameters: int
    bytes: int
    ternary: int
    zeros: int
    tokens: int
    rows: tuple[Seen, ...]

    def to_dict(self) -> dict[str, Any]:
        return {
            "config": self.config.to_dict(),
            "parameters": self.parameters,
            "bytes": self.bytes,
            "ternary": {"weights": self.ternary, "zeros": self.zeros},
            "tokens": self.tokens,
            "tensors": [seen.to_dict() for seen in self.rows],
        }


def inspect(opened: Opened, ids: Sequence[int], progress: Callable[[int, int], None]) -> Inspection:
    """Return the ranges of the weights, and those of the activations while the model reads ``ids``.

    ``progress`` is told how many of how many arrays are seen.
    """
    model, checkpoint = opened.model, opened.held.checkpoint
    config, weights = checkpoint.config, checkpoint.parameters
    wanted = parameter_formats(config)
    table = formats_table(config)
    stored, computed = table[: len(wanted)], table[len(wanted) :]
    rows, size, ternary, zeros = [], 0, 0, 0
    for row, (name, format) in zip(stored, wanted.items(), strict=True):
        values = weights[name]
        if format.digits:
            values = find_op("unpack_ternary").golden(values, K=format.digits)
            ternary += values.size
            zeros += int((values == 0).sum())
        size += values.size
        rows.append(Seen(row, int(values.min()), int(values.max())))
    proved = {(row.layer, row.tensor): row for row in computed}

    def see(layer: str, tensor: str, array: Any) -> None:
        rows.append(look(proved[layer, tensor], model.to_numpy(array)))
        progress(len(rows), len(table))

    model.prefill(np.array([list(ids)], np.int32), model.new_state(1), observe=see)
    stored_bytes = sum(array.nbytes for array in weights.values())
    return Inspection(opened.name, config, size, stored_bytes, ternary, zeros, len(ids), tuple(rows))


def look(row: Row, array: np.ndarray) -> Seen:
    ends = [end for end in {row.bound.low, row.bound.high} if end]
    return Seen(row, int(array.min()), int(array.max()), int(np.isin(array, ends).sum()))


def merge(config: ModelConfig, rows: Iterable[Seen]) -> list[tuple[str, Seen]]:
    """Merge the arrays that are alike in all layers of a kind; return each label and entry."""
    groups: dict[tuple, list[Seen]] = {}
    for seen in rows:
        layer = seen.row.layer
        kind = config.kinds[int(layer.removeprefix("layers."))] if layer.startswith("layers.") else layer
        groups.setdefault((kind, replace(seen.row, layer=kind)), []).append(seen)
    merged = []
    for (kind, row), group in groups.items():
        label = f"{kind} × {len(group)}" if kind in config.kinds else kind
        total = sum(seen.at_limit for seen in group)
        merged.append((label, Seen(row, min(s.low for s in group), max(s.high for s in group), total)))
    return merged


def formats_shown(inspection: Inspection) -> Table:
    """Return the table of formats and bounds, layers of a kind together."""
    shown = Table(title="every array: format, proved bound, range on the text", title_justify="left")
    for name in ("layer", "tensor", "dtype", "format", "shape", "bound", "seen", "bits of bound", "at limit"):
        shown.add_column(name, justify="right" if name in ("bound", "seen", "at limit") else "left")
    before = None
    for label, seen in merge(inspection.config, inspection.rows):
        row = seen.row
        if before not in (None, label):
            shown.add_section()
        shape = "×".join(map(str, row.shape))
        bound = f"{row.bound.low} … {row.bound.high}"
        cells = (bound, interval(seen), bits(seen), str(seen.at_limit or ""))
        shown.add_row("" if label == before else label, row.tensor, row.dtype, row.q, shape, *cells)
        before = label
    return shown


def layers_shown(inspection: Inspection) -> Table:
    """Return the table of activation ranges layer by layer."""
    shown = Table(title=f"activations on {inspection.tokens} tokens, layer by layer", title_justify="left")
    shown.add_column("layer")
    shown.add_column("kind")
    for tensor in (*TELLING, "at limit"):
        shown.add_column(tensor, justify="right")
    for i, kind in enumerate(inspection.config.kinds):
        layer_rows = [seen for seen in inspection.rows if seen.row.layer == f"layers.{i}"]
        ranges = {seen.row.tensor: interval(seen) for seen in layer_rows}
        cells = (ranges[tensor] for tensor in TELLING)
        shown.add_row(str(i), kind, *cells, str(sum(seen.at_limit for seen in layer_rows)))
    return shown


def title(inspection: Inspection) -> str:
    name, config = inspection.name, inspection.config.name
    return name if name == config else f"{name} (config {config})"


def summary(inspection: Inspection) -> str:
    config, megabytes = inspection.config, inspection.bytes / 1e6
    zeros = 100 * inspection.zeros / inspection.ternary
    return (
        f"{title(inspection)}: {config.n_layer} layers, {inspection.parameters:,} parameters in {megabytes:.1f} MB, "
        f"{inspection.ternary:,} of them ternary, {zeros:.2f} % of these zero"
    )


def interval(seen: Seen) -> str:
    return f"{seen.low} … {seen.high}"


def bits(seen: Seen) -> str:
    return f"{magnitude(seen.low, seen.high).bit_length()} of {limit(seen).bit_length()}"


def magnitude(low: int, high: int) -> int:
    return max(abs(low), abs(high))


def limit(seen: Seen) -> int:
    return magnitude(seen.row.bound.low, seen.row.bound.high)


def plot(inspection: Inspection, path: Path) -> None:
    """Draw the greatest magnitude of each telling tensor layer by layer, and its bound dashed, as bits."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    in_layers = [seen for seen in inspection.rows if seen.row.layer.startswith("layers.")]
    for tensor in TELLING:
        shown = [seen for seen in in_layers if seen.row.tensor == tensor]
        values = np.log2([max(1, magnitude(seen.low, seen.high)) for seen in shown])
        bounds = np.log2([limit(seen) for seen in shown])
        (line,) = axes.plot(range(len(shown)), values, marker="o", markersize=3, label=tensor)
        axes.plot(range(len(shown)), bounds, "--", color=line.get_color(), linewidth=1)
    axes.set(xlabel="layer", ylabel="log2 of the greatest magnitude")
    axes.set_title(f"{title(inspection)}: range on the text, and proved bound (dashed)", parse_math=False)
    figure.legend(loc="outside lower center", ncols=len(TELLING), fontsize="small")
    axes.grid(alpha=0.3)
    save_figure(figure, path)
