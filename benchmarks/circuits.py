"""Cost of proving blocks and scans over width and tokens: ``python -m benchmarks.circuits``.

Groth16 over BN254, with a set-up made by one party: for demonstration. The prover is the test tool groth16py.
"""

import argparse
import os
import platform
import tempfile
import time
from pathlib import Path

import groth16py
import numpy as np

from mamba_integer.backends.files.atomic import write_json
from mamba_integer.conformance.circuits.files import r1cs_bytes, wtns_bytes
from mamba_integer.conformance.circuits.lowering import Statement, lower
from mamba_integer.conformance.circuits.networks import BLOCK_KINDS, block_statement, small_config

RESULT = Path(__file__).parent / "results" / "circuits-cpu.json"
WIDTHS = ((4, 8, 2, 1), (8, 16, 4, 1), (16, 32, 4, 1), (32, 64, 4, 1))
TOKENS = ((4, 8, 2, 2), (4, 8, 2, 4))
STEPS = (10, 100, 1000)


def timed(function, *arguments):
    start = time.perf_counter()
    result = function(*arguments)
    return result, round(time.perf_counter() - start, 3)


def proved(statement: Statement) -> dict[str, float]:
    """Return the seconds of set-up, proof and verification, after checking that the proof is accepted."""
    with tempfile.TemporaryDirectory() as folder:
        r1cs, wtns = Path(folder) / "circuit.r1cs", Path(folder) / "witness.wtns"
        r1cs.write_bytes(r1cs_bytes(statement))
        wtns.write_bytes(wtns_bytes(statement))
        (proving_key, verifying_key), setup = timed(groth16py.setup, str(r1cs))
        proof, prove = timed(groth16py.prove_wtns, proving_key, str(wtns))
    verifier = groth16py.Verifier(verifying_key)
    accepted, verify = timed(verifier.verify, proof, statement.public_values)
    assert accepted
    return {"setup_s": setup, "prove_s": prove, "verify_s": verify, "proof_bytes": len(proof)}


def scan(steps: int) -> Statement:
    """Return the scan of one state element, with formats in which nothing saturates."""
    random = np.random.default_rng(0)
    x, n = random.integers(-127, 128, (1, steps, 1, 1)), random.integers(0, 32001, (1, steps, 1))
    b, c = random.integers(-127, 128, (2, 1, steps, 1))
    arrays = [x.astype(np.int16), n.astype(np.int16), b.astype(np.int8), c.astype(np.int8)]
    arrays += [np.array([3], np.int16), np.zeros((1, 1, 1, 1), np.int32)]
    return lower("ssd_scan", arrays, dict(k=15, n_max=32000, s_v=0, s_h=0, s_y=24, convex=0))


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--out", type=Path, default=RESULT)
    out = options.parse_args().out
    machine: dict = {"cores": os.cpu_count(), "machine": platform.machine(), "python": platform.python_version()}
    machine["load"] = round(os.getloadavg()[0], 1)  # of other work, before this
    rows: list[dict] = []
    for steps in STEPS:
        statement, lowering = timed(scan, steps)
        rows.append({"circuit": "ssd_scan", "steps": steps, **statement.counts, "lower_s": lowering})
        rows[-1] |= proved(statement)
        print(rows[-1], flush=True)
    for kind in BLOCK_KINDS:
        for *sizes, tokens in WIDTHS + TOKENS:
            (statement, _), lowering = timed(block_statement, small_config(kind, *sizes), tokens)
            row = dict(zip(("d_model", "d_inner", "d_state"), sizes, strict=True))
            rows.append({"circuit": kind, **row, "tokens": tokens, **statement.counts, "lower_s": lowering})
            rows[-1] |= proved(statement)
            print(rows[-1], flush=True)
            write_json(out, {"setup": "single-party, for demonstration", "host": machine, "rows": rows})


if __name__ == "__main__":
    main()
