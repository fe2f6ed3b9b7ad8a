"""The start of every case made from a contract: a sensitive case of small sizes, and sizes beside one large size."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from random import Random
from zlib import crc32

from mamba_integer.spec.contract import find_op

from .cases import Case
from .dimensions import ODD, ROWS, allowed, dimensions, exponents, few, small, vectors
from .sensitivity import improved, in_domain, score, sized, typical

EVEN = (2, 8, 4, 12, 16)
VECTOR = 16  # bytes that a thread loads at once: each last axis of the even sizes is whole vectors
FEW = (2, 3, 1)  # of the sizes beside one that is taken
HUGE = 1 << 14  # from this size on the others are 1
SHORT, GAIN = 9, 0.125  # of an axis that stands for a long one; in sensitivity, by another size
WHOLE = 64
TRIED = 12  # other parameters, where a case isn't sensitive
DTYPES = (1 << 16) - 1  # the bits of a seed that choose the dtypes of inputs
SETTLING = 60  # where it is outside the domain


@dataclass(frozen=True)
class Listed:
    """A case to be made, with its group, its coverpoints and its cost."""

    group: str
    points: tuple[str, ...]
    cost: int
    make: Callable[[], Case | None]


def number(*names: object) -> int:
    """Return a seed that a case has by its name."""
    return crc32(" ".join(map(str, names)).encode())


def chosen_sizes(op: str, options: tuple[int, ...]) -> dict[str, int]:
    """Return small sizes, taken from the options; where these are even, each last axis is whole vectors."""
    return small(op, options) | (vectors(op, VECTOR) if options == EVEN else {})


@cache
def base(op: str, options: tuple[int, ...]) -> Case:
    """Return a sensitive case of small sizes."""
    case = typical(op, tuple(few(op).items()))
    if options != ODD:
        leading = (options[0],) if case.leading else ()
        other = case.seed ^ DTYPES  # the other dtypes, where an input may have several
        case = improved(sized(case, chosen_sizes(op, options), leading, other))
        if score(case) < 1.0:
            case = typical(op, tuple(chosen_sizes(op, options).items()))
    return case


def settled(case: Case) -> Case | None:
    """Return the case, with other parameters where its own are outside the domain; None if no parameters are inside.

    A case without elements needs no other parameters to be sensitive.
    """
    if not in_domain(case):
        case = improved(case, kinds="alive", most=SETTLING)
    return case if in_domain(case) else None


def beside(op: str, dimension: str, size: int) -> dict[str, int]:
    """Return the sizes of a case: one chosen size, and small values of all others."""
    random = Random(f"{op} {dimension} {size}")
    options = tuple(random.choice(FEW) if size < HUGE else 1 for _ in dimensions(op))
    sizes = small(op, options)
    sizes |= {name: options[0] for name in (ROWS,) if name in sizes}
    if size >= HUGE:
        sizes |= dict.fromkeys(needed(op, dimension), 2)
    return sizes | {dimension: size}


@cache
def needed(op: str, dimension: str) -> tuple[str, ...]:
    """Return the sizes that must be 2 beside a long axis, for one element of them says little: a row's own mean.

    A short axis shows it; where no size alone is enough, all may be 1.
    """
    ones = {name: 1 for name in dimensions(op)} | {dimension: SHORT}
    others = [name for name in dimensions(op) if name not in (dimension, *exponents(op))]
    best, chosen = -1.0, tuple[str, ...]()
    for names in ((), *((name,) for name in others if allowed(op, name)[1] > 1)):
        sizes = ones | dict.fromkeys(names, 2)
        leading = (sizes[ROWS],) if ROWS in sizes else ()
        reached = score(improved(sized(base(op, ODD), sizes, leading), most=TRIED))
        if reached > best + GAIN:
            best, chosen = reached, names
    return chosen


def with_pattern(case: Case, argument: int, pattern: str) -> Case:
    """Return the case with a pattern for one of its inputs."""
    return replace(case, patterns=(*case.patterns[:argument], pattern, *case.patterns[argument + 1 :]))


def with_dtype(case: Case, argument: int, turn: int) -> Case:
    """Return a case in which an argument has another of its dtypes, a number of places further in their list."""
    dtypes = len(find_op(case.op).inputs[argument].dtypes)
    now = (case.seed >> argument) % dtypes
    return replace(case, seed=case.seed + (((now + turn) % dtypes - now) << argument))
