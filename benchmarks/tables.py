"""The tables of the README, generated from the committed results: ``python -m benchmarks.tables``."""

import json
import re
from pathlib import Path
from typing import Any

from mamba_integer import spec

ROOT = Path(__file__).parent.parent
COLUMNS = [("golden", "cpu"), ("numba", "cpu"), ("torch", "cpu"), ("torch", "cuda"), ("triton", "cuda")]
TITLES = {"golden": "golden NumPy", "numba": "Numba", "torch": "Torch", "triton": "Triton"}


def by_workload(rows: list[dict[str, Any]]) -> dict[str, dict[tuple[str, str], dict[str, Any]]]:
    grouped: dict[str, dict[tuple[str, str], dict[str, Any]]] = {}
    for row in rows:
        grouped.setdefault(row["workload"], {})[row["backend"], row["device"]] = row
    return grouped


def microseconds(seconds: float) -> str:
    return f"{seconds * 1e6:,.0f}" if seconds >= 1e-4 else f"{seconds * 1e6:.1f}"


def lines(rows: list[dict[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Return titles and cells: one workload a line, a time a backend, the floor beside the last of each device."""
    present = [c for c in COLUMNS if any((r["backend"], r["device"]) == c for r in rows)]
    titles = ["workload"] + [f"{TITLES[name]}, {device}" for name, device in present]
    if ("triton", "cuda") in present:
        titles += ["floor, cuda", "share of floor"]
    cells = []
    for workload, found in by_workload(rows).items():
        line = [workload] + [microseconds(found[c]["seconds"]) if c in found else "" for c in present]
        if ("triton", "cuda") in present:
            row = found["triton", "cuda"]
            line += [microseconds(row["floor_seconds"]), f"{row['floor_seconds'] / row['seconds']:.0%}"]
        cells.append(line)
    return titles, cells


def markdown(report: dict[str, Any]) -> str:
    titles, cells = lines(report["rows"])
    device = report["devices"].get("triton", "cpu")
    versions = report["versions"]
    bandwidth = ", ".join(f"{d} {b / 1e12:.2f} TB/s" for d, b in report["copy_bytes_per_second"].items())
    note = (
        f"Microseconds, medians of one run on {device}, {report['machine']} ({report['date'][:10]}, torch "
        f"{versions['torch']}, triton {versions['triton']}, commit {report['commit'][:10]}); every result "
        "was equal to the specification's before it was timed. "
        f"Floor: bytes over the measured copy bandwidth ({bandwidth}) or operations over the peak rate, the larger."
    )
    head = ["| " + " | ".join(titles) + " |", "|" + " --- |" + " ---: |" * (len(titles) - 1)]
    return "\n".join([*head, *("| " + " | ".join(line) + " |" for line in cells), "", note])


def ops_table() -> str:
    """Return every op with its family and the clauses that define it."""
    head = ["| op | family | clauses |", "| --- | --- | --- |"]
    for name, op in spec.OPS.items():
        clauses = "<br>".join(f"{label}: {escape(text)}" for label, text in op.clauses.items())
        head.append(f"| `{name}` | {op.family} | {clauses} |")
    return "\n".join(head)


def escape(text: str) -> str:
    """Keep a clause from ending its table cell or turning into emphasis."""
    return text.replace("|", "\\|").replace("*", "\\*")


def fill(text: str, name: str, content: str) -> str:
    """Replace what stands between the markers of a generated block."""
    pattern = re.compile(f"(<!-- begin {name} -->\n).*?(<!-- end {name} -->)", re.DOTALL)
    if not pattern.search(text):
        raise SystemExit(f"README.md has no block {name}")
    return pattern.sub(lambda match: f"{match[1]}{content}\n{match[2]}", text)


def main() -> None:
    readme = ROOT / "README.md"
    text = readme.read_text()
    text = fill(text, "ops", ops_table())
    report = json.loads((ROOT / "benchmarks/results/ops-h100.json").read_text())
    readme.write_text(fill(text, "ops-h100", markdown(report)))


if __name__ == "__main__":
    main()
