"""The table of measured rows: one workload per line, one time per backend, then the floor and the peers."""

from typing import Any

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
    """Return titles and cells; the floor, its share and the peers are those of the fastest backend that is present."""
    present = [c for c in COLUMNS if any((r["backend"], r["device"]) == c for r in rows)]
    titles = ["workload"] + [f"{TITLES[name]}, {device}" for name, device in present]
    fastest = next((c for c in (("triton", "cuda"), ("numba", "cpu")) if c in present), present[-1])
    titles += [f"floor, {fastest[1]}", f"share of floor, {TITLES[fastest[0]]}"]
    with_peers = any(row.get("peers") for row in rows)
    if with_peers:
        titles.append("times as fast as")
    cells = []
    for workload, by_backend in by_workload(rows).items():
        line = [workload] + [microseconds(by_backend[c]["seconds"]) if c in by_backend else "" for c in present]
        row = by_backend.get(fastest) or next(iter(by_backend.values()))
        share = row["floor_seconds"] / row["seconds"]
        line += [microseconds(row["floor_seconds"]), f"{share:.0%}" if share >= 0.1 else f"{share:.1%}"]
        if with_peers:
            line.append(", ".join(compared(row["seconds"], peer) for peer in row.get("peers", [])))
        cells.append(line)
    return titles, cells


def compared(seconds: float, peer: dict[str, Any]) -> str:
    return f"{peer['peer']}: {peer.get('absent') or format(peer['seconds'] / seconds, '.2f')}"
