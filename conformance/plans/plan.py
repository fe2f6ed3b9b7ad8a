"""What a plan says: the sizes and parameters that the cases of one op are drawn from."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

import numpy as np

# Around the powers of two at which tiles end, and one.
ROW_SIZES = (1, 2, 3, 5, 8, 16, 31, 32, 33, 64, 65, 127, 128, 129)
LEADING = ((), (0,), (1,), (2,), (3,), (2, 3))
BATCH_SIZES = (1, 2, 3, 0)
# Beyond one program's share of an elementwise op, and of the rows and of the columns of one that works row by row.
LONG_FLAT = ({"...": 70001},)
LONG_ROWS = ({"...": 3, "K": 4099}, {"...": 130, "K": 65})


def ties(shift: int, end: int, limit: int) -> np.ndarray:
    """Return ties of a rounding shift, of either sign and parity, and their neighbours, up to ``limit`` in magnitude.

    Quotients are small, or near ``end``, at which the result saturates.
    """
    quotients = np.array([q + near for q in (-end, 0, end) for near in range(-3, 3)])
    halves = (2 * quotients + 1) << shift >> 1
    found = (halves + np.array([[-1], [0], [1]])).ravel()
    return found[np.abs(found) <= limit]


@dataclass(frozen=True)
class Extreme:
    """Calls of an op with the same parameters. Those of ``extremes`` are of the same sizes, and attain every width."""

    calls: Sequence[tuple[np.ndarray, ...]]
    parameters: Mapping[str, int] = field(default_factory=dict)


Choice = Sequence[int] | Callable[[Random, Any], int]


@dataclass(frozen=True)
class Plan:
    """Where the cases of an op come from.

    ``sizes`` maps each dimension name to its options, ``parameters`` each parameter to options or to a function of the
    random source and of what was drawn before it. Options come simplest first: failures shrink toward the first.

    Part of every run are ``extremes``, the vectors that attain the op's stated bounds; ``edges``, those at which a
    clause turns: ties, saturation by one, sums beyond what a float or int32 holds; and ``large``, sizes as a model has
    them, at each of which one case of ordinary values is drawn. There "..." is the number of rows.
    """

    sizes: Mapping[str, Sequence[int]] = field(default_factory=dict)
    parameters: Mapping[str, Choice] = field(default_factory=dict)
    leading: Sequence[tuple[int, ...]] = LEADING
    extremes: Callable[[], Iterable[Extreme]] = tuple
    edges: Callable[[], Iterable[Extreme]] = tuple
    large: Sequence[Mapping[str, int]] = ()
