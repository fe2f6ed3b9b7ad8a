"""Constraints of every op and of small blocks, in files that a test holds.

``python -m mamba_integer.conformance.circuits.counts`` makes the files anew.
"""

import json
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from mamba_integer.backends.files.atomic import write_atomically, write_json
from mamba_integer.spec.contract import OPS, DomainError, find_op
from mamba_integer.spec.model import CONFIGS, LanguageModel, initial_parameters

from ..engine.cases import Case, draw_case
from ..plans import PLANS
from .constraints import CircuitError
from .lowering import lower
from .networks import BLOCK_KINDS, block_statement, small_config

COUNTS, PAGE = Path(__file__).parent / "counts.json", Path(__file__).parent / "COUNTS.md"
USUAL_SIZE = 4
BLOCK_SIZES = ((4, 8, 2), (8, 16, 4))
HEAD = """# Constraints of each op

This page and `counts.json` are made by `python -m mamba_integer.conformance.circuits.counts`; a test fails when a count
changes. A circuit is the op's golden code, run on wires: rank-1 constraints over the scalar field of BN254. Packed
ternary weights, and inputs that the golden code branches on, are constants of a circuit; all other inputs are public,
so their range costs nothing. `mamba-integer circuit OP --size name=value` counts another size.

Products are constraints of two factors that both depend on the input. Bits are range checks of one bit. Equalities are
linear: systems that fold them away, or that pay per addition, as PLONK does, count differently.
"""


class RecordingOps:
    """The golden ops, and the parameters of the last call of each."""

    def __init__(self) -> None:
        self.parameters: dict[str, dict[str, int]] = {}

    def __getattr__(self, name: str) -> Any:
        if name not in OPS:
            raise AttributeError(name)

        def run(*arrays: Any, **parameters: int) -> Any:
            self.parameters[name] = parameters
            return find_op(name)(*arrays, **parameters)

        return run


@cache
def model_parameters() -> dict[str, dict[str, int]]:
    """Return the parameters that the tiny model calls ops with, by the ops' families."""
    config, ops = CONFIGS["tiny"], RecordingOps()
    model = LanguageModel(config, initial_parameters(config, 0), ops)
    model.prefill(np.zeros((1, 1), np.int32), model.new_state(1))
    families: dict[str, dict[str, int]] = {}
    for name, parameters in ops.parameters.items():
        families.setdefault(find_op(name).family, {}).update(parameters)
    return families


def usual_case(op: str) -> Case:
    """Return a small call of an op, of one row, with the parameters of the tiny model where it calls such an op.

    Each size is the one of the op's plan that is nearest to 4.
    """
    sizes: dict[str, Any] = {
        name: min((size for size in options if size), key=lambda size: (abs(size - USUAL_SIZE), size))
        for name, options in PLANS[op].sizes.items()
    }
    if "B" in sizes:
        sizes["B"] = 1
    parameters = model_parameters().get(find_op(op).family, {})
    case = draw_case(op, Random(0), sizes | parameters | {"...": (1,)})
    patterns = ("uniform",) * len(case.patterns)
    return Case(op, case.sizes, case.leading, case.parameters, patterns, case.seed)


def op_row(case: Case) -> dict[str, Any]:
    """Return the counts of a call, or why it has no circuit."""
    call: dict[str, Any] = {"op": case.op, "sizes": dict(case.sizes), "leading": list(case.leading)}
    call |= {"parameters": dict(case.parameters), "seed": case.seed}
    try:
        find_op(case.op).check(case.arrays, case.parameters)
        statement = lower(case.op, case.arrays, case.parameters)
        if not statement.public:
            return call | {"reason": "each input is a constant of the circuit: nothing is left to prove"}
        return call | {"counts": statement.counts}
    except (CircuitError, DomainError) as error:
        return call | {"reason": str(error)}


def recorded_case(row: dict[str, Any]) -> Case:
    patterns = ("uniform",) * len(find_op(row["op"]).inputs)
    return Case(row["op"], row["sizes"], tuple(row["leading"]), row["parameters"], patterns, row["seed"])


def block_row(kind: str, sizes: tuple[int, int, int]) -> dict[str, Any]:
    statement, by_op = block_statement(small_config(kind, *sizes))
    return {"block": kind, "sizes": list(sizes), "counts": statement.counts, "by_op": dict(by_op)}


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


if __name__ == "__main__":
    made = rows()
    write_json(COUNTS, made)
    write_atomically(PAGE, page(json.loads(COUNTS.read_text())).encode())
