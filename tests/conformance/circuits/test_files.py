"""Circuits and witnesses in iden3's formats, read back by a reader of our own that follows their specification."""

import struct

import numpy as np
import pytest

from mamba_integer.conformance.circuits.constraints import MODULUS
from mamba_integer.conformance.circuits.files import r1cs_bytes, wtns_bytes
from mamba_integer.conformance.circuits.lowering import lower


def sections(content, magic, version):
    assert content[:4] == magic
    assert struct.unpack_from("<I", content, 4) == (version,)
    (count,) = struct.unpack_from("<I", content, 8)
    parts, position = {}, 12
    for _ in range(count):
        kind, length = struct.unpack_from("<IQ", content, position)
        parts[kind] = content[position + 12 : position + 12 + length]
        position += 12 + length
    assert position == len(content)
    return parts


@pytest.fixture(scope="module")
def statement():
    return lower("residual_add", [np.array([5, -7], np.int32), np.array([-3, 4], np.int16)], dict(num=-3, shift=2))


def test_constraints_and_witness_agree_after_a_round_trip(statement):
    parts = sections(r1cs_bytes(statement), b"r1cs", 1)
    assert int.from_bytes(parts[1][4:36], "little") == MODULUS
    wires, outputs, inputs, private, labels, count = struct.unpack_from("<IIIIQI", parts[1], 36)
    assert (outputs, inputs, private, labels) == (2, 4, 0, wires)
    witness = sections(wtns_bytes(statement), b"wtns", 2)
    assert struct.unpack_from("<I", witness[1], 36) == (wires,)
    values = [int.from_bytes(witness[2][i : i + 32], "little") for i in range(0, 32 * wires, 32)]
    assert values[:7] == [1, *(x % MODULUS for x in (7, -10, 5, -7, -3, 4))]
    position, totals = 0, []
    for _ in range(3 * count):
        (terms,) = struct.unpack_from("<I", parts[2], position)
        position, total = position + 4, 0
        for _ in range(terms):
            (wire,) = struct.unpack_from("<I", parts[2], position)
            total += values[wire] * int.from_bytes(parts[2][position + 4 : position + 36], "little")
            position += 36
        totals.append(total)
    assert position == len(parts[2])
    assert all((a * b - c) % MODULUS == 0 for a, b, c in zip(*[iter(totals)] * 3, strict=True))
    assert parts[3] == b"".join(struct.pack("<Q", label) for label in range(wires))
