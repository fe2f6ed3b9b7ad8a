"""Constraints of every op and of small blocks, in files that a test holds.

``python -m mamba_integer.conformance.circuits.counts`` makes the files anew.
"""

from pathlib import Path
from random import Random
from typing import Any

from mamba_integer.backends.files.atomic import write_atomically, write_json
from mamba_integer.spec.bounds import Interval
from mamba_integer.spec.contract import OPS, DomainError, find_op
from mamba_integer.spec.model import initial_parameters

from ..engine.cases import Case, draw_case
from ..plans import PLANS
from .calls import layer_calls, used_parameters
from .constraints import CircuitError
from .lowering import Statement, lower
from .networks import BLOCK_KINDS, block_statement, small_config
from .scaling import direct_count

ROOM = Path(__file__).parent
COUNTS, PAGE, FHE_PAGE = ROOM / "counts.json", ROOM / "COUNTS.md", ROOM / "FHE.md"
ENCRYPTED = ROOM / "encrypted.json"  # of benchmarks/encrypted.py
FHE_HEAD = """# Each op under fully homomorphic encryption

This page is made by `python -m mamba_integer.conformance.circuits.counts`, from the runs that COUNTS.md counts. Nothing
was run encrypted: these are counts, not times.

- Accumulator bits: the widest intermediate of the op's contract. A programmable bootstrap looks a value up in a table
  of two to its bits; a wide value must be taken apart first, by more bootstraps.
- Products: two encrypted factors each. In libraries without such a product, each costs two bootstraps.
- Bootstraps: shifts, comparisons, roots, quotients and shift amounts, each at least one.
- Depth: the longest chain of products and bootstraps.

Proofs and encryption pull apart here. A proof pays for bits once: the quotient of a shift, its remainder and its sign
come from the same bits, and sums are free at any width. Encryption pays for each function of a value anew, and more for
each bit of it. Ternary weights are additions alone in both.

| op | call | accumulator bits | products | bootstraps, at least | depth |
| --- | --- | --- | --- | --- | --- |
"""
USUAL_SIZE = 3
BLOCK_SIZES = ((4, 8, 2), (8, 16, 4))
HEAD = """# Constraints of each op

This page and `counts.json` are made by `python -m mamba_integer.conformance.circuits.counts`; a test fails when a count
changes. A circuit is the op's golden code, run on wires: rank-1 constraints over the scalar field of BN254. Packed
ternary weights, and inputs that the golden code branches on, are constants of a circuit; all other inputs are public,
so their range costs nothing. `mamba-integer circuit OP --size name=value` counts another size.

Products are constraints of two factors that both depend on the input. Bits are range checks of one bit. Equalities are
linear: systems that fold them away, or that pay per addition, as PLONK does, count differently.
"""


def parameters_of(op: str) -> dict[str, int]:
    """Return the parameters with which the tiny model or its training calls an op, or the ops of its family."""
    used, family = used_parameters(), find_op(op).family
    if op in used:
        return used[op]
    return {name: n for other, row in used.items() if find_op(other).family == family for name, n in row.items()}


def usual_case(op: str) -> Case:
    """Return a small call of an op, of one row, with the parameters that models use.

    Each size is the one of the op's plan that is nearest to 3.
    """
    sizes: dict[str, Any] = {
        name: min((size for size in options if size), key=lambda size: (abs(size - USUAL_SIZE), size))
        for name, options in PLANS[op].sizes.items()
    }
    if "B" in sizes:
        sizes["B"] = 1
    case = draw_case(op, Random(0), sizes | parameters_of(op) | {"...": (1,)})
    patterns = ("uniform",) * len(case.patterns)
    return Case(op, case.sizes, case.leading, case.parameters, patterns, case.seed)


def op_row(case: Case) -> dict[str, Any]:
    """Return the counts of a call, or why it has no circuit."""
    call: dict[str, Any] = {"op": case.op, "sizes": dict(case.sizes), "leading": list(case.leading)}
    call |= {"parameters": dict(case.parameters), "seed": case.seed}
    try:
        find_op(case.op).check(case.arrays, case.parameters)
        statement = lower(case.op, case.arrays, case.parameters)
        if not statement.public_inputs:
            return call | {"reason": "each input is a constant of the circuit: nothing is left to prove"}
        return call | {"counts": statement.counts, "encrypted": encrypted(case, statement)}
    except (CircuitError, DomainError) as error:
        return call | {"reason": str(error)}


def encrypted(case: Case, statement: Statement) -> dict[str, int]:
    """Return what a call asks of fully homomorphic encryption, whatever the library."""
    contract, circuit = find_op(case.op), statement.circuit
    widths = contract.widths(contract.check(case.arrays, case.parameters))
    return {
        "accumulator_bits": max((signed_bits(width.range) for width in widths.values()), default=0),
        "products": statement.counts["products"],
        "lookups": circuit.lookups,
        "depth": max(circuit.depths),
    }


def signed_bits(bounds: Interval) -> int:
    """Return the bits of two's complement that hold an interval; without a sign where it has no negative numbers."""
    return max(-bounds.low - 1, bounds.high).bit_length() + (bounds.low < 0)


def recorded_case(row: dict[str, Any]) -> Case:
    patterns = ("uniform",) * len(find_op(row["op"]).inputs)
    return Case(row["op"], row["sizes"], tuple(row["leading"]), row["parameters"], patterns, row["seed"])


def block_row(kind: str, sizes: tuple[int, int, int]) -> dict[str, Any]:
    config = small_config(kind, *sizes)
    statement, by_op = block_statement(config)
    calls = layer_calls(config, initial_parameters(config, 0), tokens=1)["layers.0"]
    alone = sum(direct_count(call)["constraints"] for call in calls)
    row = {"block": kind, "sizes": list(sizes), "counts": statement.counts}
    return row | {"ops_alone": alone, "by_op": dict(by_op)}


def rows() -> dict[str, list[dict[str, Any]]]:
    return {
        "ops": [op_row(usual_case(op)) for op in OPS],
        "blocks": [block_row(kind, sizes) for kind in BLOCK_KINDS for sizes in BLOCK_SIZES],
    }


def described(numbers: dict[str, int]) -> str:
    return ", ".join(f"{name} = {value}" for name, value in numbers.items())


def counted(row: dict[str, Any], columns: tuple[str, ...]) -> str:
    return " | ".join(f"{row['counts'][column]:,}" for column in columns)


def page(recorded: dict[str, list[dict[str, Any]]]) -> str:
    columns = ("products", "bits", "equalities", "constraints", "wires")
    head = f"| {' | '.join(columns)} |\n|{' --- |' * (len(columns) + 2)}\n"
    lines = [HEAD, "\n| op | call ", head]
    missing = []
    for row in recorded["ops"]:
        if "reason" in row:
            missing.append(f"| {row['op']} | {row['reason'].replace('|', '/')} |\n")
            continue
        call = described({**row["sizes"], **row["parameters"]})
        lines.append(f"| {row['op']} | {call} | {counted(row, columns)} |\n")
    lines.append("\n## Ops without a circuit yet\n\n| op | reason |\n| --- | --- |\n")
    lines += missing
    lines += ["\n## One token of a whole block\n\n", "The weights are constants, and the state before is zero.\n"]
    lines += ["\n| block | d_model, d_inner, d_state ", head]
    for row in recorded["blocks"]:
        lines.append(f"| {row['block']} | {', '.join(map(str, row['sizes']))} | {counted(row, columns)} |\n")
    for row in recorded["blocks"][:: len(BLOCK_SIZES)]:
        shares = ", ".join(f"{op} {count:,}" for op, count in row["by_op"].items())
        lines.append(f"\nOf the smaller {row['block']} block: {shares}.\n")
    return "".join(lines)


def fhe_page(recorded: dict[str, list[dict[str, Any]]]) -> str:
    lines = [FHE_HEAD]
    for row in recorded["ops"]:
        if "encrypted" in row:
            call = described({**row["sizes"], **row["parameters"]})
            lines.append(f"| {row['op']} | {call} | {' | '.join(f'{n:,}' for n in row['encrypted'].values())} |\n")
    lines.append("\nThe ops that COUNTS.md lists without a circuit have no row here either.\n")
    return "".join(lines)


if __name__ == "__main__":
    made = rows()
    write_json(COUNTS, made)
    write_atomically(PAGE, page(made).encode())
    write_atomically(FHE_PAGE, fhe_page(made).encode())
