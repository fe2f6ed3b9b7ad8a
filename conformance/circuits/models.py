"""Constraints of a whole model: each call of an op is a circuit of its own, whose inputs and outputs are public.

A call that is too large to be lowered is counted by the formula of `scaling`.

``python -m mamba_integer.conformance.circuits.models`` counts the packaged model anew, which takes minutes.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np

from mamba_integer.backends.files.atomic import write_json
from mamba_integer.backends.files.folder import TRAINED, load_model
from mamba_integer.spec.contract import Packed, dtype_name, find_op
from mamba_integer.spec.model import ModelConfig

from .calls import OpCall, layer_calls
from .counts import COUNTS
from .pages import MODELS, write_pages
from .scaling import axes, counted

PACKAGED = "shakespeare"


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
    """Return the hash that ties a model's counts to those of the ops: where these change, the model is counted anew."""
    counted_rows = [row for row in op_rows if "counts" in row]
    return hashlib.sha256(json.dumps(counted_rows, sort_keys=True).encode()).hexdigest()


def digest_of_weights(parameters: Mapping[str, np.ndarray]) -> str:
    digest = hashlib.sha256()
    for name in sorted(parameters):
        digest.update(name.encode() + parameters[name].tobytes())
    return digest.hexdigest()


def main() -> None:
    checkpoint, recorded = load_model(TRAINED[PACKAGED]).checkpoint, json.loads(COUNTS.read_text())
    tokens = checkpoint.config.chunk_size
    model = {"model": PACKAGED, "weights_sha256": digest_of_weights(checkpoint.parameters), "tokens": tokens}
    model |= {"kinds": list(checkpoint.config.kinds), "ops_sha256": digest_of(recorded["ops"])}
    write_json(MODELS, model | {"layers": model_rows(checkpoint.config, checkpoint.parameters, tokens)})
    write_pages(recorded)


if __name__ == "__main__":
    main()
