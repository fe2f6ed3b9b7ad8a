"""The pages COUNTS.md and FHE.md, from the files of counts.

``python -m mamba_integer.conformance.circuits.pages`` counts ops and blocks anew and makes both pages.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mamba_integer.backends.files.atomic import write_atomically, write_json

from .counts import BLOCK_SIZES, COUNTS, rows

ROOM = Path(__file__).parent
PAGE, FHE_PAGE = ROOM / "COUNTS.md", ROOM / "FHE.md"
MODELS = ROOM / "models.json"  # of `models`
ENCRYPTED = ROOM / "encrypted.json"  # of benchmarks/encrypted.py
COLUMNS = ("products", "bits", "equalities", "constraints", "wires")
HEAD = """# Constraints of each op

This page is made by `python -m mamba_integer.conformance.circuits.pages`, with `counts.json`; a test fails when a count
changes. A circuit is the op's golden code, run on wires: rank-1 constraints over the scalar field of BN254. Packed
ternary weights are constants of a circuit, and so are inputs that the golden code branches on or takes as an index. All
other inputs are public, so their range costs nothing; outputs are public too.
`mamba-integer circuit OP --size name=value` counts another size.

Products are constraints of two factors that both depend on the input. Bits are range checks of one bit. Equalities are
linear: systems that fold them away, or that pay per addition, as PLONK does, count differently.
[benchmarks/README.md](../../benchmarks/README.md#circuits-with-lookups) has rows of a system with lookups.

"""
BLOCK_HEAD = """
## One token of a whole block

The weights are constants, and the state before is zero. The last column adds up the ops of the block, each as a circuit
of its own: their inputs are public and may have any value of their domain.

"""
MODEL_HEAD = """
## A whole model

These are the constraints of {tokens} tokens that the packaged model `{model}` reads, from any state at
the start of a chunk (SHA-256 of its arrays: `{weights_sha256:.16}…`). They were counted, not proved. Each call of an op
is a circuit of its own: its inputs and outputs are public, its packed weights are constants. A call that is too large
to be lowered is counted by a formula in its sizes, which a test compares with small calls. `models.json` is made by
`python -m mamba_integer.conformance.circuits.models` in some minutes; a test fails when the counts above are newer.

Calls are in parentheses, for the first layer of each kind:

"""
FHE_HEAD = """# Each op under fully homomorphic encryption

This page is made by `python -m mamba_integer.conformance.circuits.pages`. Its first table was run encrypted; the second
one was counted from the circuits of [COUNTS.md](COUNTS.md).

Proofs and encryption pull apart here. A proof pays for bits once: the quotient of a shift, its remainder and its sign
come from the same bits, and sums are free at any width. Encryption pays for each function of a value anew, and more for
each bit of it. Ternary weights are additions alone in both.

## Measured

The op is `ternary_linear` without its scale: ternary sums of K inputs, then a rounded shift. It runs encrypted with
Concrete {concrete}, and it is proved with groth16py {groth16py} (Groth16, a set-up by one party, for demonstration).
Decrypted results are equal to the golden op's. Seconds are those of all processors together; `benchmarks/encrypted.py`
is run by hand. This was on {machine}, {date:.10}.

| K, N | input bits | shift | encrypted: run, s | keys, s | keys, MB | bootstraps | constraints | set-up, s | proof, s |
| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |
"""
FHE_COUNTS = """
A proof shows that a result is right, to somebody who sees the inputs and outputs. Encryption hides both from whoever
computes, and proves nothing. Neither replaces the other.

## Counted

- Accumulator bits: the widest intermediate of the op's contract. A programmable bootstrap looks a value up in a table
  of two to its bits; a wide value must be taken apart first, by more bootstraps.
- Products: two encrypted factors each. In libraries without such a product, each costs two bootstraps.
- Bootstraps: shifts, comparisons, roots, quotients and shift amounts, each at least one.
- Depth: the longest chain of products and bootstraps.

| op | call | accumulator bits | products | bootstraps, at least | depth |
| --- | --- | --- | --- | --- | --- |
"""


def described(numbers: dict[str, int]) -> str:
    return ", ".join(f"{name} = {value}" for name, value in numbers.items())


def cells(values: Any) -> str:
    return " | ".join(f"{value:,}" if isinstance(value, int | float) else value for value in values)


def counted(row: dict[str, Any]) -> list[int]:
    return [row["counts"].get(column, 0) for column in COLUMNS]


def page(recorded: dict[str, list[dict[str, Any]]]) -> str:
    return "".join([HEAD, *op_lines(recorded["ops"]), *block_lines(recorded["blocks"]), *model_lines(read(MODELS))])


def read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text())


def op_lines(ops: list[dict[str, Any]]) -> Iterator[str]:
    yield f"| op | call | {' | '.join(COLUMNS)} |\n| --- | --- |{' ---: |' * len(COLUMNS)}\n"
    for row in ops:
        if "counts" in row:
            call = described({**row["sizes"], **row["parameters"]})
            yield f"| {row['op']} | {call} | {cells(counted(row))} |\n"
    yield "\n## Ops without a circuit yet\n\n| op | reason |\n| --- | --- |\n"
    for row in ops:
        if "reason" in row:
            yield f"| {row['op']} | {row['reason'].replace('|', '/')} |\n"


def block_lines(blocks: list[dict[str, Any]]) -> Iterator[str]:
    yield BLOCK_HEAD
    yield f"| block | d_model, d_inner, d_state | {' | '.join(COLUMNS)} | ops alone |\n"
    yield f"| --- | --- |{' ---: |' * (len(COLUMNS) + 1)}\n"
    for row in blocks:
        yield f"| {row['block']} | {', '.join(map(str, row['sizes']))} | {cells([*counted(row), row['ops_alone']])} |\n"
    for row in blocks[:: len(BLOCK_SIZES)]:
        shares = ", ".join(f"{op} {count:,}" for op, count in row["by_op"].items())
        yield f"\nOf the smaller {row['block']} block: {shares}.\n"


def model_lines(model: dict[str, Any]) -> Iterator[str]:
    layers = {row["layer"]: row for row in model["layers"]}
    yield MODEL_HEAD.format(**model)
    first = {kind: layers[f"layers.{model['kinds'].index(kind)}"] for kind in dict.fromkeys(model["kinds"])}
    yield f"| op | {' | '.join(first)} |\n| --- |{' ---: |' * len(first)}\n"
    for op in dict.fromkeys(op for row in first.values() for op in row["ops"]):
        shares = [row["ops"].get(op) for row in first.values()]
        numbers = ("{constraints:,} ({calls})".format(**share) if share else "" for share in shares)
        yield f"| {op} | {cells(numbers)} |\n"
    yield f"| whole layer | {cells(row['counts']['constraints'] for row in first.values())} |\n"
    yield f"\n| part | {' | '.join(COLUMNS)} | constraints per token |\n| --- |{' ---: |' * (len(COLUMNS) + 1)}\n"
    whole = dict.fromkeys(COLUMNS, 0)
    for row in [*layers.values(), {"layer": "whole model", "counts": whole}]:
        yield f"| {row['layer']} | {cells([*counted(row), row['counts']['constraints'] // model['tokens']])} |\n"
        if row["counts"] is not whole:
            whole |= {column: whole[column] + n for column, n in zip(COLUMNS, counted(row), strict=True)}


def fhe_page(recorded: dict[str, list[dict[str, Any]]]) -> str:
    measured = read(ENCRYPTED)
    versions = {"concrete": measured["versions"]["concrete-python"], "groth16py": measured["versions"]["groth16py"]}
    lines = [FHE_HEAD.format(**versions, machine=measured["machine"], date=measured["date"])]
    for row in measured["rows"]:
        secret, proof = row["encrypted"], row["proof"]
        numbers = [row["bits"], row["shift"], secret["run_s"], secret["keys_s"], secret["key_bytes"] // 10**6]
        numbers += [secret["bootstraps"], proof["constraints"], proof["setup_s"], proof["prove_s"]]
        lines.append(f"| {row['K']}, {row['N']} | {cells(numbers)} |\n")
    lines.append(FHE_COUNTS)
    for row in recorded["ops"]:
        if "encrypted" in row:
            call = described({**row["sizes"], **row["parameters"]})
            lines.append(f"| {row['op']} | {call} | {cells(row['encrypted'].values())} |\n")
    lines.append("\nThe ops that COUNTS.md lists without a circuit have no row here either.\n")
    return "".join(lines)


def write_pages(recorded: dict[str, list[dict[str, Any]]]) -> None:
    write_atomically(PAGE, page(recorded).encode())
    write_atomically(FHE_PAGE, fhe_page(recorded).encode())


if __name__ == "__main__":
    made = rows()
    write_json(COUNTS, made)
    write_pages(made)
