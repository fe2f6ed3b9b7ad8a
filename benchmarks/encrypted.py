"""One op under fully homomorphic encryption, beside a proof of the same call.

Run this by hand, in an environment of its own (Python 3.12) that has ``concrete-python==2.11.0 "setuptools<81" numba
groth16py==0.2.0``:

    python -m benchmarks.encrypted

The op is `ternary_linear` without its scale: a ternary sum, then a rounded shift. Decrypted results are compared with
the golden op. Without the shift only sums are left, which need no bootstrap.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import groth16py
import numpy as np
from concrete import fhe

from mamba_integer.backends.app.environment import environment
from mamba_integer.backends.files.atomic import write_json
from mamba_integer.conformance.circuits.files import r1cs_bytes, wtns_bytes
from mamba_integer.conformance.circuits.lowering import lower
from mamba_integer.spec.contract import find_op

RESULT = Path(__file__).parent.parent / "conformance" / "circuits" / "encrypted.json"
RANDOM = np.random.default_rng(0)
CALLS = ((8, 4, 8, 0), (8, 4, 4, 2))  # K, N, bits of an input, shift


def timed(run: Callable[..., Any], *arguments: Any) -> tuple[Any, float]:
    start = time.process_time()
    result = run(*arguments)
    return result, round(time.process_time() - start, 4)


def encrypted(x: np.ndarray, w: np.ndarray, shift: int, golden: np.ndarray, bits: int) -> dict[str, Any]:
    limit = (1 << (bits - 1)) - 1

    def sum_and_shift(x):
        total = x @ w
        return (total + (1 << (shift - 1))) >> shift if shift else total

    compiler = fhe.Compiler(sum_and_shift, {"x": "encrypted"})
    ends = [np.where(w[:, j] * sign > 0, limit, -limit) for j in range(w.shape[1]) for sign in (-1, 1)]
    circuit, compile_s = timed(compiler.compile, [*ends, x])
    _, keys_s = timed(circuit.keygen)
    ciphertext, encrypt_s = timed(circuit.encrypt, x)
    result, run_s = timed(circuit.run, ciphertext)
    decrypted, decrypt_s = timed(circuit.decrypt, result)
    if not np.array_equal(decrypted, golden):
        raise SystemExit(f"decrypted {decrypted.tolist()}, golden {golden.tolist()}")
    row = {"compile_s": compile_s, "keys_s": keys_s, "encrypt_s": encrypt_s, "run_s": run_s, "decrypt_s": decrypt_s}
    row |= {"bootstraps": circuit.programmable_bootstrap_count}
    return row | {"key_bytes": circuit.size_of_bootstrap_keys + circuit.size_of_keyswitch_keys}


def proved(arrays: list[np.ndarray], parameters: dict[str, int]) -> dict[str, Any]:
    statement = lower("ternary_linear", arrays, parameters, fixed={"e"})
    with tempfile.TemporaryDirectory() as folder:
        r1cs, wtns = Path(folder) / "circuit.r1cs", Path(folder) / "witness.wtns"
        r1cs.write_bytes(r1cs_bytes(statement))
        wtns.write_bytes(wtns_bytes(statement))
        (proving_key, verifying_key), setup_s = timed(groth16py.setup, str(r1cs))
        proof, prove_s = timed(groth16py.prove_wtns, proving_key, str(wtns))
    accepted, verify_s = timed(groth16py.Verifier(verifying_key).verify, proof, statement.public_values)
    if not accepted:
        raise SystemExit("the proof was refused")
    seconds = {"setup_s": setup_s, "prove_s": prove_s, "verify_s": verify_s}
    return {"constraints": statement.counts["constraints"], **seconds}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, default=RESULT, help="File to write.")
    chosen = parser.parse_args()
    report: dict[str, Any] = {"load": round(os.getloadavg()[0], 1), **environment([], ("concrete-python", "groth16py"))}
    rows = []
    for inputs, outputs, bits, shift in CALLS:
        limit = (1 << (bits - 1)) - 1
        x, w = RANDOM.integers(-limit, limit + 1, inputs), RANDOM.integers(-1, 2, (inputs, outputs))
        packed = find_op("pack_ternary")(w.T.astype(np.int8))
        arrays, parameters = [x[None].astype(np.int8), np.zeros(1, np.int32), packed], {"num": 1, "shift": shift}
        golden = find_op("ternary_linear")(*arrays, **parameters)[0]
        row = {"K": inputs, "N": outputs, "bits": bits, "shift": shift, "proof": proved(arrays, parameters)}
        rows.append(row | {"encrypted": encrypted(x, w, shift, golden, bits)})
        print(rows[-1], flush=True)
        write_json(chosen.json, report | {"rows": rows})


if __name__ == "__main__":
    main()
