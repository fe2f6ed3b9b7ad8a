"""The proved ranges of an op's intermediates all over its domain, as one hash per op.

A call that attains a bound tells one that is too narrow. A bound that nothing attains could be changed by a slip of the
hand, and every call would still be inside. So the hashes of what is proved lie in a file, and a test compares them:
``python -m mamba_integer.conformance.engine.extents FILE`` writes it.
"""

import hashlib
import sys
from collections.abc import Iterator
from copy import copy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from mamba_integer.backends.files.atomic import write_json
from mamba_integer.spec.contract import OPS, DomainError, Op

from .dimensions import ROWS, allowed, dimensions, exponents

SIZES = (1, 2, 5, 70, 600)
LEVELS = 8


def extents_hash(contract: Op) -> str:
    """Return the hash of the proved ranges of intermediates all over a domain, and of the places of cuts."""
    told = hashlib.sha256()
    for at in formats(contract):
        try:
            widths = contract.widths(at)
            said = ";".join(f"{name} {w.range.low} {w.range.high} {w.dtype} {w.attained}" for name, w in widths.items())
        except (DomainError, ZeroDivisionError) as error:
            said = type(error).__name__
        told.update(f"{said}; cut at multiples of {contract.grid(vars(at))}".encode())
    return told.hexdigest()


def formats(contract: Op) -> Iterator[Any]:
    """Yield sizes of every order, each with parameters in the middle of their ranges and one of them at every level."""
    for position, size in enumerate(SIZES):
        at = SimpleNamespace(leading=(size,))
        for name in dimensions(contract.name):
            if name != ROWS:
                low, high = allowed(contract.name, name)
                wanted = low + position if name in exponents(contract.name) else size
                setattr(at, name, min(max(low, wanted), high))
        chosen = [parameter for parameter in contract.parameters if not hasattr(at, parameter.name)]
        yield settled(at, chosen, {})
        for parameter in chosen:
            for level in range(LEVELS + 1):
                yield settled(at, chosen, {parameter.name: level})


def settled(sizes: Any, chosen: list[Any], levels: dict[str, int]) -> Any:
    """Return sizes with each parameter at its level, else in the middle; its range may follow from those before."""
    at = copy(sizes)
    for parameter in chosen:
        limits = parameter.range(at)
        steps = limits.high - limits.low
        setattr(at, parameter.name, limits.low + levels.get(parameter.name, LEVELS // 2) * steps // LEVELS)
    return at


if __name__ == "__main__":
    write_json(Path(sys.argv[1]), {name: extents_hash(contract) for name, contract in OPS.items()})
