"""Plans: the sizes and parameters that the cases of one op are drawn from."""

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
BESIDE, MOST_BESIDE = 40, 16  # how far from a tie, and how many
LONG_ROWS = ({"...": 3, "K": 4099}, {"...": 130, "K": 65})


def ties(shift: int, end: int, limit: int, factor: int = 1) -> np.ndarray:
    """Return integers, up to ``limit`` in magnitude, whose products with ``factor`` are at and beside ties of a shift.

    The quotients are small, or near ``end``, at which the result saturates, of both signs and parities. A factor that
    isn't 1 has quotients at which no product is a tie: there the two products around it are given, and the next tie.
    """
    size = abs(int(factor))
    odd = size // (size & -size)
    period = max(1, (odd << shift) // size)
    places: set[int] = set()
    for middle in (-end, 0, end):
        for quotient in range(middle - 3, middle + 3):
            first = ((2 * quotient + 1) << shift) // (2 * size)
            residues = [(period // 2 + beside) * pow(odd, -1, period) for beside in (-1, 0, 1)]
            start = (quotient << shift) // size
            places |= {first, first + 1, *(start + (residue - start) % period for residue in residues)}
    return np.array(sorted(x if factor > 0 else -x for x in places if abs(x) <= limit))


def beside_ties(shift: int, limit: int, factor: int) -> np.ndarray:
    """Return the largest integers, up to ``limit``, whose products with an odd factor are at or just beside a tie.

    Of products of 60 bits a float64 has 53: it takes for a tie what is beside one.
    """
    products = (1 << (shift - 1)) + np.arange(-BESIDE, BESIDE + 1)
    inverse, period = pow(factor, -1, 1 << shift), 1 << shift
    wrapped = [int(product) * inverse % period for product in products]
    near = sorted((x - period * (2 * x > period) for x in wrapped), key=abs)
    return np.array([x for x in near if abs(x) <= limit][-MOST_BESIDE:])


@dataclass(frozen=True)
class Extreme:
    """Calls of an op with the same parameters. Those of ``extremes`` are of the same sizes, and attain every width.

    A failure card shows the ``purpose``. Extremes may lack it: then the card says which ends of widths a call attains.
    """

    calls: Sequence[tuple[np.ndarray, ...]]
    parameters: Mapping[str, int] = field(default_factory=dict)
    purpose: str = ""


Choice = Sequence[int] | Callable[[Random, Any], int]


@dataclass(frozen=True)
class Plan:
    """Where the cases of an op come from.

    ``sizes`` maps each dimension name to its options, ``parameters`` each parameter to options or to a function of the
    random source and of what was drawn before it. Options come simplest first: failures shrink toward the first.

    Part of every run are ``extremes``, the vectors that attain the op's stated bounds; ``edges``, those at which a
    clause turns: ties, saturation by one, sums beyond what a float or int32 holds; and ``large``, sizes as a model has
    them, at each of which one case of ordinary values is drawn. There "..." is the number of rows. ``crowded`` are
    large sizes whose rows are more than the processors of a GPU: they choose a launch there, and only cost time where
    programs are interpreted one by one.
    """

    sizes: Mapping[str, Sequence[int]] = field(default_factory=dict)
    parameters: Mapping[str, Choice] = field(default_factory=dict)
    leading: Sequence[tuple[int, ...]] = LEADING
    extremes: Callable[[], Iterable[Extreme]] = tuple
    edges: Callable[[], Iterable[Extreme]] = tuple
    large: Sequence[Mapping[str, int]] = ()
    crowded: Sequence[Mapping[str, int]] = ()
