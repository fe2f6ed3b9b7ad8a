"""Counts of one call, lowered whole, or by a formula in its sizes where that would take too long.

Along an axis on which no range of the contract depends, the count is affine: those of sizes 1 and 2 give every other.
"""

from collections import Counter
from collections.abc import Collection, Mapping
from itertools import product
from types import SimpleNamespace
from typing import Any

import numpy as np

from mamba_integer.spec.contract import LEADING, TIME, Packed, dtype_name, find_op

from ..engine.cases import Case
from .calls import OpCall
from .lowering import lower


def axes(call: OpCall) -> list[str]:
    """Return the sizes along which a call is affine: those of arrays that no range and no packed weight depends on."""
    contract = find_op(call.op)
    fixed = {name for tensor in contract.inputs if isinstance(tensor, Packed) for name in tensor.dimensions}
    fixed |= {getattr(tensor, "packed", "") for tensor in contract.inputs}
    at: dict[str, Any] = {"leading": call.leading, **call.sizes, **call.parameters}

    def ranges(changes: dict[str, int]) -> list[Any]:
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
    """Return the counts of a call, or of the call at other sizes, whose arrays are drawn."""
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
