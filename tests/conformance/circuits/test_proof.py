"""Real proofs (Groth16 over BN254) of a scan and of a block, made and verified here; forged outputs are refused.

The set-up is made by one party, who could forge proofs with what it must forget: it is for demonstration.
"""

import groth16py
import numpy as np
import pytest

from mamba_integer.conformance.circuits.constraints import MODULUS
from mamba_integer.conformance.circuits.files import r1cs_bytes, wtns_bytes
from mamba_integer.conformance.circuits.lowering import lower
from mamba_integer.conformance.circuits.networks import BLOCK_KINDS, block_statement, small_config
from mamba_integer.spec.contract import find_op

from .scans import scan

STEPS = 100  # `benchmarks/circuits.py` proves 1,000


def assert_proved(statement, folder, forged_places=(0, -1)):
    (folder / "circuit.r1cs").write_bytes(r1cs_bytes(statement))
    (folder / "witness.wtns").write_bytes(wtns_bytes(statement))
    proving_key, verifying_key = groth16py.setup(str(folder / "circuit.r1cs"))
    proof = groth16py.prove_wtns(proving_key, str(folder / "witness.wtns"))
    verifier, public = groth16py.Verifier(verifying_key), statement.public_values
    assert len(proof) == 256
    assert verifier.verify(proof, public)
    for place in forged_places:
        forged = list(public)
        forged[place] += 1
        assert not verifier.verify(proof, forged)
        forged[place] = public[place] + MODULUS  # the same element of the field: another integer
        with pytest.raises(groth16py.EncodingError):
            verifier.verify(proof, forged)


def test_a_hundred_steps_of_a_scan_are_proved(tmp_path):
    arrays, parameters = scan(STEPS)
    statement = lower("ssd_scan", arrays, parameters)
    y, h = find_op("ssd_scan")(*arrays, **parameters)
    assert statement.public_values[: STEPS + 1] == [int(v) % MODULUS for v in (*y.ravel(), h.item())]
    assert_proved(statement, tmp_path)


@pytest.mark.parametrize("kind", BLOCK_KINDS)
def test_one_token_of_a_whole_block_is_proved(kind, tmp_path):
    statement, _ = block_statement(small_config(kind, 4, 8, 2))
    assert_proved(statement, tmp_path)


def test_another_witness_of_the_same_circuit_needs_no_new_setup(tmp_path):
    arrays, parameters = scan(2)
    first = lower("ssd_scan", arrays, parameters)
    second = lower("ssd_scan", [*arrays[:-1], arrays[-1] + 5], parameters)
    assert r1cs_bytes(first) == r1cs_bytes(second)
    assert first.public_values != second.public_values


def test_a_public_value_is_bound_though_nothing_depends_on_it(tmp_path):
    """Weights of zero leave out two inputs, and make an output that no input changes."""
    packed = find_op("pack_ternary")(np.array([[0, 0, 0, 0], [1, 0, 0, 1]], np.int8))
    arrays = [np.array([[10, -3, 5, 127]], np.int8), np.array([0], np.int32), packed]
    statement = lower("ternary_linear", arrays, dict(num=1, shift=0), fixed={"e"})
    assert statement.public_values == [0, 137, 10, MODULUS - 3, 5, 127]
    assert_proved(statement, tmp_path, range(6))
