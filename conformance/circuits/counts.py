"""Constraints of every op and of small blocks, in a file that a test holds; `pages` makes it anew."""

from pathlib import Path
from random import Random
from typing import Any

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

COUNTS = Path(__file__).parent / "counts.json"
USUAL_SIZE = 3
BLOCK_SIZES = ((4, 8, 2), (8, 16, 4))


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
        return call | {"reason": reason_of(error, case.op)}


def reason_of(error: Exception, op: str) -> str:
    """Return the reason for which an op has no circuit, without the op's name."""
    return str(error).removeprefix("circuit: ").removeprefix(f"{op}: ")


def encrypted(case: Case, statement: Statement) -> dict[str, int]:
    """Return the cost of a call under fully homomorphic encryption, in units that no library defines."""
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
