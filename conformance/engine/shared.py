"""Listed calls in which two inputs share memory: they are one array, or overlap, wherever their shapes may be equal.

A kernel that stages one input over the other, or takes what lies together for the same, is right while they differ.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import combinations, islice
from random import Random

import numpy as np

from mamba_integer.spec.contract import Constant, Packed, find_op

from .bases import DTYPES, Listed, base, with_pattern
from .cases import Case, draw_case
from .dimensions import ODD, ROWS, allowed, few
from .layouts import goes_on
from .patterns import ALIKE, COMMON, ENDS_ALIKE, FURTHER
from .sensitivity import in_domain, neighbours, score, sized

# Ways to share memory, each with pairs of patterns for the two inputs. The pair that changes results most is taken.
WAYS = {
    "are one array": [(ALIKE, ALIKE)],
    "are one array of ends": [(ENDS_ALIKE, ENDS_ALIKE)],
    "are one array of common integers": [(name, name) for name in COMMON.values()],
    "overlap": list(FURTHER.items()),
}
DRAWN, TRIED, ROUNDS = 4, 40, 2  # cases that are looked at: with parameters of their own, and beside the best


def shared_plans(op: str) -> Iterator[Listed]:
    """Yield each two inputs that may share memory, in each way; `place_all` hands them over so."""
    inputs = find_op(op).inputs
    for (i, one), (j, other) in combinations(enumerate(inputs), 2):
        fixed = any(isinstance(tensor, Constant | Packed) for tensor in (one, other))
        sizes = None if fixed or not set(one.dtypes) & set(other.dtypes) else equal_sizes(op, i, j)
        for way, patterns in WAYS.items() if sizes else ():
            make = sharing(op, [dict(zip((i, j), pair, strict=True)) for pair in patterns], sizes or {})
            yield Listed("values", (f"{one.name} and {other.name} {way}",), 0, make)


def equal_sizes(op: str, one: int, other: int) -> dict[str, int] | None:
    """Return small sizes at which two inputs have one shape, and as "..." their rows; None where none are found."""
    shapes = [find_op(op).inputs[i].shape.split() for i in (one, other)]
    longer, shorter = sorted(shapes, key=lambda names: (ROWS not in names, len(names)), reverse=True)
    sizes = few(op)
    if ROWS in shorter and ROWS not in longer:
        rows = len(longer) - len(shorter) + 1
        if rows:
            return None  # rows that are named would be several sizes
        sizes[ROWS], shorter = 1, shorter[1:]
    if len(longer) != len(shorter):
        return None
    for left, right in [*zip(longer, shorter, strict=True)] * len(longer):  # once more where a size was taken for two
        for name, same in ((left, right), (right, left)):
            if left != right and name in sizes:
                exponent = same.removeprefix("2^")
                value = int(same) if same.isdigit() else sizes.get(same, 1 << sizes.get(exponent, 0))
                sizes[name] = value
                break
    inside = all(allowed(op, name)[0] <= size <= allowed(op, name)[1] for name, size in sizes.items())
    return sizes if inside else None


def sharing(op: str, ways: Sequence[Mapping[int, str]], sizes: Mapping[str, int]) -> Callable[[], Case | None]:
    """Make the most sensitive case of a few in which two inputs have patterns of one of the ways, and share memory."""

    def make() -> Case | None:
        drawn = (draw_case(op, Random(f"shared {op} {i}")) for i in range(DRAWN))
        starts = [base(op, ODD), *(replace(case, patterns=("uniform",) * len(case.patterns)) for case in drawn)]
        chosen = None
        for way in ways:
            chosen = best((alike(case, way, sizes) for case in starts), tuple(way), chosen)
        if chosen is None:
            cases = (alike(case, way, sizes) for way in ways for case in neighbours(starts[0]))
            chosen = best(cases, tuple(ways[0]), None)
        for turn in range(ROUNDS):
            others = list(neighbours(chosen)) if chosen else []
            Random(f"shared {op} {turn}").shuffle(others)
            chosen = best(islice(others, TRIED), tuple(ways[0]), chosen)
        return chosen

    return make


def alike(case: Case, way: Mapping[int, str], sizes: Mapping[str, int]) -> Case:
    """Return a case with these patterns for two inputs, one dtype of theirs, and sizes at which their shapes agree."""
    inputs = find_op(case.op).inputs
    one, other = way
    dtype = next(name for name in inputs[one].dtypes if name in inputs[other].dtypes)
    seed = case.seed & ~DTYPES | sum(inputs[i].dtypes.index(dtype) << i for i in way)
    rows = (sizes[ROWS],) if sizes.get(ROWS, 1) > 1 else ()
    case = sized(replace(case, layouts=()), sizes, rows, seed)
    for i, pattern in way.items():
        case = with_pattern(case, i, pattern)
    return case


def best(cases: Iterable[Case], pair: tuple[int, ...], chosen: Case | None) -> Case | None:
    """Return the most sensitive of the cases in which two inputs share memory, and of the one chosen before."""
    reached = score(chosen) if chosen else -1.0
    for case in cases:
        if reached >= 1.0:
            break
        if in_domain(case) and shares(case, *pair):
            found = score(case, above=reached)
            chosen, reached = (case, found) if found > reached else (chosen, reached)
    return chosen


def shares(case: Case, one: int, other: int) -> bool:
    """Return whether two inputs are equal, or the second goes on where the second element of the first is."""
    first, second = case.arrays[one], case.arrays[other]
    return goes_on(first, second) if case.patterns[other] in FURTHER.values() else np.array_equal(first, second)
