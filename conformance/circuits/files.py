"""Circuits and witnesses as files: iden3's binary formats `.r1cs` and `.wtns`, which circom's provers read.

A file is a magic word, a version, and sections of a type and a length. All numbers are little-endian; an element of the
field takes 32 bytes.
"""

import struct
from collections.abc import Iterable

from .constraints import MODULUS, ONE, Terms
from .lowering import Statement

FIELD_BYTES = 32


def element(value: int) -> bytes:
    return (value % MODULUS).to_bytes(FIELD_BYTES, "little")


def container(magic: bytes, version: int, sections: Iterable[tuple[int, bytes]]) -> bytes:
    whole = [struct.pack("<IQ", kind, len(content)) + content for kind, content in sections]
    return magic + struct.pack("<II", version, len(whole)) + b"".join(whole)


def wire_order(statement: Statement) -> list[int]:
    """Return the wires as files have them: one, the public ones, the private inputs, the rest."""
    first = [ONE, *statement.public, *statement.private]
    placed = set(first)
    return first + [wire for wire in range(len(statement.circuit.values)) if wire not in placed]


def r1cs_bytes(statement: Statement) -> bytes:
    circuit, order = statement.circuit, wire_order(statement)
    place = {wire: i for i, wire in enumerate(order)}

    def packed(terms: Terms) -> bytes:
        body = [struct.pack("<I", place[wire]) + element(terms[wire]) for wire in sorted(terms, key=place.__getitem__)]
        return struct.pack("<I", len(body)) + b"".join(body)

    outputs = len(statement.public) - statement.public_inputs
    sizes = (len(order), outputs, statement.public_inputs, len(statement.private))
    header = struct.pack("<I", FIELD_BYTES) + MODULUS.to_bytes(FIELD_BYTES, "little")
    header += struct.pack("<IIIIQI", *sizes, len(order), len(circuit.constraints))
    constraints = b"".join(packed(terms) for constraint in circuit.constraints for terms in constraint)
    labels = b"".join(struct.pack("<Q", label) for label in range(len(order)))
    return container(b"r1cs", 1, ((1, header), (2, constraints), (3, labels)))


def wtns_bytes(statement: Statement) -> bytes:
    values, order = statement.circuit.values, wire_order(statement)
    header = struct.pack("<I", FIELD_BYTES) + MODULUS.to_bytes(FIELD_BYTES, "little") + struct.pack("<I", len(order))
    return container(b"wtns", 2, ((1, header), (2, b"".join(element(values[wire]) for wire in order))))
