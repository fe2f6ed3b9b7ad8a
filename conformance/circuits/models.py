"""Constraints of a whole model: each call of an op is a circuit of its own, whose inputs and outputs are public.

A call that is too large to be lowered is counted by a formula. Along an axis on which no range of the contract depends,
the count is affine, so the counts of sizes 1 and 2 give that of every size.

``python -m mamba_integer.conformance.circuits.models`` counts the packaged model anew, which takes minutes.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Collection, Mapping
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from mamba_integer.backends.files.atomic import write_json
from mamba_integer.backends.files.folder import TRAINED, load_model
from mamba_integer.spec.contract import LEADING, TIME, Packed, dtype_name, find_op
from mamba_integer.spec.model import ModelConfig
from mamba_integer.spec.version import SPEC_VERSION

from ..engine.cases import Case
from .calls import OpCall, layer_calls
from .lowering import lower

MODELS = Path(__file__).parent / "models.json"
PACKAGED = "shakespeare"


def axes(call: OpCall) -> list[str]:
    """Return the sizes along which a call is affine: those of arrays that no range and no packed weight depends on."""
    contract = find_op(call.op)
    fixed = {name for tensor in contract.inputs if isinstance(tensor, Packed) for name in tensor.dimensions}
    fixed |= {getattr(tensor, "packed", "") for tensor in contract.inputs}
    at = {"leading": call.leading, **call.sizes, **call.parameters}

    def ranges(changes: Mapping[str, int]) -> list[Any]:
        sizes = SimpleNamespace(**at | changes)
        tensors = [tensor.range(sizes) for tensor in contract.inputs]
        return [*tensors, *(width.range for width in contract.widths(sizes).values())]

    free = [
        name
        for name, size in call.sizes.items()
        if size > 2 and name not in {TIME, *fixed} and all(ranges({name: n}) == ranges({}) for n in (1, 2, 3))
    ]
    return free + ([LEADING] if int(np.prod(call.leading)) > 2 else [])


def direct_count(call: OpCall, changes: Mapping[str, int] = {}) -> Counter[str]:
    """Return the counts of a call, or of one of other sizes; arrays of other shapes are drawn."""
    leading = (changes[LEADING],) if LEADING in changes else call.leading
    sizes = call.sizes | {name: n for name, n in changes.items() if name != LEADING}
    inputs = find_op(call.op).inputs
    case = Case(call.op, sizes, leading, call.parameters, ("uniform",) * len(inputs), 0)
    arrays = [
        array if array.shape == case.shape(tensor) else case.array(i, tensor, dtype_name(array))
        for i, (tensor, array) in enumerate(zip(inputs, call.arrays, strict=True))
    ]
    return Counter(lower(call.op, arrays, call.parameters).counts)


def counted(call: OpCall, along: Collection[str]) -> Counter[str]:
    """Return the counts of a call from those of sizes 1 and 2 along these axes."""
    sizes = call.sizes | {LEADING: int(np.prod(call.leading))}
    whole: Counter[str] = Counter()
    for corner in product((1, 2), repeat=len(along)):
        changes = dict(zip(along, corner, strict=True))
        weight = int(np.prod([sizes[name] - 1 if n == 2 else 2 - sizes[name] for name, n in changes.items()]))
        for name, number in direct_count(call, changes).items():
            whole[name] += weight * number
    return whole


def layer_row(layer: str, calls: list[OpCall], known: dict[Any, Counter[str]]) -> dict[str, Any]:
    by_op: dict[str, dict[str, int]] = {}
    total: Counter[str] = Counter()
    for call in calls:
        key = repr((call.op, call.sizes, call.leading, call.parameters, tuple(map(dtype_name, call.arrays))))
        packed = any(isinstance(tensor, Packed) for tensor in find_op(call.op).inputs)
        counts = known.get(key) or counted(call, axes(call))
        if not packed:
            known[key] = counts
        total += counts
        row = by_op.setdefault(call.op, {"calls": 0, "constraints": 0})
        row["calls"] += 1
        row["constraints"] += counts["constraints"]
    return {"layer": layer, "counts": dict(total), "ops": by_op}


def model_rows(config: ModelConfig, parameters: Mapping[str, np.ndarray], tokens: int) -> list[dict[str, Any]]:
    known: dict[Any, Counter[str]] = {}
    rows = []
    for layer, calls in layer_calls(config, parameters, tokens).items():
        rows.append(layer_row(layer, calls, known))
        print(rows[-1]["layer"], rows[-1]["counts"], flush=True)
    return rows


def digest_of(op_rows: list[dict[str, Any]]) -> str:
    """Return what ties a model's counts to those of the ops: where these change, the model is counted anew."""
    return hashlib.sha256(json.dumps(op_rows, sort_keys=True).encode()).hexdigest()


def main() -> None:
    from .counts import COUNTS

    checkpoint = load_model(TRAINED[PACKAGED]).checkpoint
    tokens = checkpoint.config.chunk_size
    model = {"model": PACKAGED, "sha256": checkpoint.sha256, "spec_version": SPEC_VERSION, "tokens": tokens}
    model |= {"kinds": list(checkpoint.config.kinds), "ops_sha256": digest_of(json.loads(COUNTS.read_text())["ops"])}
    write_json(MODELS, model | {"layers": model_rows(checkpoint.config, checkpoint.parameters, tokens)})


if __name__ == "__main__":
    main()
