"""Cost of proving blocks and scans over width and tokens, as numbers and as a curve: ``python -m benchmarks.circuits``.

Constraints are exact. Seconds are those of a clock (``_s``) and of all processors together (``cpu_s``). The load of
other work is in the file. Wider blocks follow until one takes more than five minutes in all.

Groth16 over BN254, with a set-up made by one party: for demonstration. The prover is the test tool groth16py.
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import groth16py
import numpy as np
from matplotlib.figure import Figure

from mamba_integer.backends.app.environment import environment
from mamba_integer.backends.app.plots import save_figure
from mamba_integer.backends.files.atomic import write_json
from mamba_integer.conformance.circuits.files import r1cs_bytes, wtns_bytes
from mamba_integer.conformance.circuits.lowering import Statement, lower
from mamba_integer.conformance.circuits.networks import BLOCK_KINDS, block_statement, small_config

RESULT = Path(__file__).parent / "results" / "circuits-cpu.json"
WIDTHS = ((4, 8, 2), (8, 16, 4), (16, 32, 4), (32, 64, 4), (64, 128, 4), (128, 256, 4), (256, 512, 4), (512, 1024, 4))
TOKENS, NARROW = (2, 4), (8, 16, 4)
STEPS = (10, 100, 1000)
MOST_SECONDS = 300
PHASES = ("lower_s", "setup_s", "prove_s", "verify_s")


def timed(function, *arguments):
    start = time.perf_counter()
    result = function(*arguments)
    return result, round(time.perf_counter() - start, 3)


def proved(build: Callable[[], Statement]) -> dict[str, Any]:
    """Return the counts and the seconds of lowering, set-up, proof and verification; the proof has to be accepted."""
    processors = time.process_time()
    statement, lowering = timed(build)
    with tempfile.TemporaryDirectory() as folder:
        r1cs, wtns = Path(folder) / "circuit.r1cs", Path(folder) / "witness.wtns"
        r1cs.write_bytes(r1cs_bytes(statement))
        wtns.write_bytes(wtns_bytes(statement))
        (proving_key, verifying_key), setup = timed(groth16py.setup, str(r1cs))
        proof, prove = timed(groth16py.prove_wtns, proving_key, str(wtns))
    accepted, verify = timed(groth16py.Verifier(verifying_key).verify, proof, statement.public_values)
    if not accepted:
        raise SystemExit("the proof was refused")
    seconds = dict(zip(PHASES, (lowering, setup, prove, verify), strict=True))
    return {
        **statement.counts,
        **seconds,
        "cpu_s": round(time.process_time() - processors, 2),
        "proof_bytes": len(proof),
    }


def scan(steps: int) -> Statement:
    """Return the scan of one state element, with formats in which nothing saturates."""
    random = np.random.default_rng(0)
    x, n = random.integers(-127, 128, (1, steps, 1, 1)), random.integers(0, 32001, (1, steps, 1))
    b, c = random.integers(-127, 128, (2, 1, steps, 1))
    arrays = [x.astype(np.int16), n.astype(np.int16), b.astype(np.int8), c.astype(np.int8)]
    arrays += [np.array([3], np.int16), np.zeros((1, 1, 1, 1), np.int32)]
    return lower("ssd_scan", arrays, dict(k=15, n_max=32000, s_v=0, s_h=0, s_y=24, convex=0))


def draw(report: dict[str, Any], path: Path) -> None:
    """Draw the seconds of proving over constraints, for each kind of block, by width and by tokens."""
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    for kind in BLOCK_KINDS:
        rows = [row for row in report["rows"] if row["circuit"] == kind]
        curves = {"one token, wider": [row for row in rows if row["tokens"] == 1]}
        curves["d_model 8, more tokens"] = [row for row in rows if row["d_model"] == NARROW[0]]
        for name, points in curves.items():
            points = sorted(points, key=lambda row: row["constraints"])
            seconds = [row["cpu_s"] for row in points]
            axes.plot([row["constraints"] for row in points], seconds, marker="o", label=f"{kind}, {name}")
    axes.set(xscale="log", yscale="log", xlabel="constraints", ylabel="processor seconds: lower, set up, prove, verify")
    axes.legend()
    axes.grid(alpha=0.3)
    save_figure(figure, path)


def jobs() -> Iterator[tuple[dict[str, Any], Callable[[], Statement]]]:
    """Yield what is proved, by the names of its row: tokens of a narrow block first, then ever wider blocks."""
    for steps in STEPS:
        yield {"circuit": "ssd_scan", "steps": steps}, partial(scan, steps)
    for sizes, tokens in [(NARROW, tokens) for tokens in TOKENS] + [(sizes, 1) for sizes in WIDTHS]:
        for kind in BLOCK_KINDS:
            names = dict(zip(("d_model", "d_inner", "d_state"), sizes, strict=True))
            config = small_config(kind, *sizes)
            build = lambda config=config, tokens=tokens: block_statement(config, tokens)[0]  # noqa: E731
            yield {"circuit": kind, **names, "tokens": tokens}, build


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--out", type=Path, default=RESULT, help="File to write; rows that it has are kept.")
    out = options.parse_args().out
    report: dict[str, Any] = {"setup": "by one party, for demonstration", "load": round(os.getloadavg()[0], 1)}
    report |= {**environment([], ("groth16py",)), "rows": json.loads(out.read_text())["rows"] if out.exists() else []}
    rows = report["rows"]
    for fields, build in jobs():
        slow = {row["circuit"] for row in rows if sum(row[phase] for phase in PHASES) > MOST_SECONDS}
        if fields["circuit"] not in slow and not any(fields.items() <= row.items() for row in rows):
            rows.append(fields | proved(build))
            print(rows[-1], flush=True)
            write_json(out, report)
    draw(report, out.with_suffix(".png"))


if __name__ == "__main__":
    main()
