"""Listed cases of parameters at the ends of their ranges: in pairs, beside large sizes, whole vectors and ties."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import cache
from itertools import product

from mamba_integer.spec.contract import Parameter

from .bases import EVEN, SETTLING, TRIED, VECTOR, Listed, base, beside, chosen_sizes, number
from .cases import Case
from .costs import cost, loops
from .dimensions import ODD, ROWS, allowed, dimensions, exponents, settings, small, vectors
from .pairs import ENDS, assignments, resolved
from .patterns import NARROW, POWERS
from .sensitivity import improved, in_domain, is_alive, levels, sized

MANY, MANY_WHOLE = 130, 160  # of a size, where a kernel for many of it takes over; the second is whole tiles of 32
SEVERAL = (17, 18, 19)  # of the others, where there is not more than this work
PLENTY = 200_000
TILES = (16, 32, 64)
# Values at which an edge is likely to be met, where a parameter at its end may have edges of its own.
VALUES = ("small", "ties", "extremes")
QUARTERS = (1, 3)
WIDTHS, SHORT = (8, 16, 24, 32), 64  # of bytes and words, for parameters below the last
PLENTY_OF_TIES = 96  # rows, of which some meet a tie of each shift


def pair_plans(op: str) -> Iterator[Listed]:
    """Yield parameters at their ends, so that each two meet at both ends of each; outside the domain there are none."""
    if not settings(op):
        return
    for values, points in assignments(base(op, ODD)):
        yield Listed("pairs", points, 0, with_parameters(op, values))


def end_plans(op: str, line: int) -> Iterator[Listed]:
    """Yield each parameter at either end of its range beside each size that is large: a kernel of its own has both.

    At the end itself sizes are whole vectors; nearer to the middle, where results are alive, they are ragged. The
    second is left out where the golden code takes steps: the search would take longer than all else.
    """
    for dimension in dimensions(op):
        if dimension in exponents(op) or allowed(op, dimension)[1] < MANY_WHOLE or loops(op).get(dimension):
            continue
        for near in (False,) if any(loops(op).values()) else (False, True):
            size = MANY if near else MANY_WHOLE
            sizes = (small(op, SEVERAL) if near else chosen_sizes(op, EVEN)) | {dimension: size}
            if cost(op, sizes, line) > PLENTY:
                sizes = beside(op, dimension, size)
            work = cost(op, sizes, line)
            for parameter, level in product(settings(op), ENDS):
                chosen = op, dimension, sizes, parameter, level
                make = near_the_end(*chosen, work) if near else at_the_end(*chosen)
                point = f"{'near ' * near}{parameter.name} {level}, size {dimension}={size}"
                yield Listed("pairs", (point,), work, make)


def flag_plans(op: str, line: int) -> Iterator[Listed]:
    """Yield each flag, a branch of a kernel, off and on beside whole vectors: each last axis is of one tile or more."""
    flags, even = [parameter for parameter in settings(op) if is_flag(parameter)], small(op, EVEN)
    names = list(vectors(op, VECTOR))
    for sizes in product(TILES, repeat=len(names)) if flags else ():
        chosen = even | dict(zip(names, sizes, strict=True))
        work = cost(op, chosen, line)
        alike = len(set(sizes)) == 1 or sizes.count(TILES[0]) + 1 == len(names)
        if work > PLENTY or not alike:
            continue
        for parameter, level in product(flags, ENDS):
            says = ", ".join(f"{name}={size}" for name, size in zip(names, sizes, strict=True))
            make = at_the_end(op, " ".join(names), chosen, parameter, level)
            yield Listed("pairs", (f"{parameter.name} {level}, {says}",), work, make)


def is_flag(parameter: Parameter) -> bool:
    """Tell whether a parameter is 0 or 1."""
    return (parameter.low, parameter.high) == (0, 1)


def at_the_end(
    op: str, dimension: str, sizes: Mapping[str, int], parameter: Parameter, end: str
) -> Callable[[], Case | None]:
    """Make the case with a parameter at an end of its range."""
    return lambda: next(toward_the_end(op, dimension, sizes, parameter, end), None)


def near_the_end(
    op: str, dimension: str, sizes: Mapping[str, int], parameter: Parameter, end: str, work: int
) -> Callable[[], Case | None]:
    """Make the case as near to an end as results are alive, where they are dead at the end itself."""

    def make() -> Case | None:
        cases = list(toward_the_end(op, dimension, sizes, parameter, end))
        if not cases or is_alive(cases[0]):
            return None
        return next(filter(is_alive, (enough(case, parameter, work) for case in cases)), None)

    return make


def toward_the_end(op: str, dimension: str, sizes: Mapping[str, int], parameter: Parameter, end: str) -> Iterator[Case]:
    """Yield cases with a parameter from an end of its range to the middle, those that are in the domain."""
    leading = (sizes[ROWS],) if ROWS in sizes else ()
    case = sized(base(op, ODD), sizes, leading, number(op, dimension, parameter.name, end))
    values = levels(parameter, case.at)
    for value in (values if end == ENDS[0] else values[::-1])[: len(values) // 2 + 1]:
        other = replace(case, parameters={**case.parameters, parameter.name: value})
        if not in_domain(other):
            other = improved(other, fixed=(parameter.name,), kinds="alive", most=TRIED)
        if in_domain(other):
            yield other


def enough(case: Case, parameter: Parameter, work: int) -> Case:
    """Return a case whose other parameters keep results alive, if a few tries find them."""
    return improved(case, fixed=(parameter.name,), kinds="alive", most=min(TRIED, PLENTY // max(1, work)))


def with_parameters(op: str, values: Mapping[str, int]) -> Callable[[], Case | None]:
    def make() -> Case | None:
        case = replace(base(op, ODD), parameters=dict(values), seed=number(op, *values.items()))
        case = improved(case, fixed=values, kinds="alive", most=TRIED)
        return case if in_domain(case) else None

    return make


def value_plans(op: str) -> Iterator[Listed]:
    """Yield each parameter at either end of its range, and none of them, beside values of each kind.

    Between its ends a shift of its own has ties of its own: a quarter of its range and three are there beside them.
    """
    names = [parameter.name for parameter in settings(op)]
    for ends, pattern in product(({}, *({name: level} for name in names for level in ENDS)), VALUES):
        says = "".join(f"{name} {level}, " for name, level in ends.items())
        yield Listed("values", (f"{says}{pattern} values",), 0, with_values(op, ends, pattern))
    for pattern in NARROW:
        yield Listed("values", (f"all {pattern}",), 0, with_values(op, {}, pattern))
    for parameter, quarter in product(settings(op), QUARTERS):
        point = f"{parameter.name} {quarter}/4, values that are powers"
        yield Listed("values", (point,), 0, with_powers(op, parameter, quarter))


def word_plans(op: str) -> Iterator[Listed]:
    """Yield each parameter of a short range at the widths of bytes and words: a shift by one needs no shift."""
    for parameter in settings(op):
        limits = parameter.range(base(op, ODD).at)
        for value in (value for value in WIDTHS if limits.low < value < limits.high < SHORT):
            point = f"{parameter.name}={value}, values that are powers"
            yield Listed("values", (point,), 0, at_a_width(op, parameter, value))


def at_a_width(op: str, parameter: Parameter, value: int) -> Callable[[], Case | None]:
    def make() -> Case | None:
        case = finest(op)
        case = sized(case, case.sizes, (PLENTY_OF_TIES,) if case.leading else (), number(op, value))
        case = replace(case, parameters={**case.parameters, parameter.name: value})
        case = improved(case, fixed=(parameter.name,), kinds="alive", most=TRIED)
        return case if in_domain(case) else None

    return make


def with_powers(op: str, parameter: Parameter, quarter: int) -> Callable[[], Case | None]:
    def make() -> Case | None:
        case = finest(op)
        limits = parameter.range(case.at)
        value = limits.low + (limits.high - limits.low) * quarter // 4
        other = replace(case, parameters={**case.parameters, parameter.name: value}, seed=number(op, value))
        return other if in_domain(other) else None

    return make


@cache
def finest(op: str) -> Case:
    """Return a case of powers whose parameters are as low as results stay alive: most shifts then drop few bits."""
    case = base(op, ODD)
    case = improved(replace(case, patterns=(POWERS,) * len(case.patterns)), kinds="alive", most=SETTLING)
    for parameter in settings(op):
        lower = (
            replace(case, parameters={**case.parameters, parameter.name: value})
            for value in levels(parameter, case.at)
            if value < case.parameters[parameter.name]
        )
        case = next(filter(is_alive, lower), case)
    return case


def with_values(op: str, ends: Mapping[str, str], pattern: str) -> Callable[[], Case | None]:
    def make() -> Case | None:
        case = base(op, ODD)
        parameters = resolved(case, ends)
        patterns = (pattern,) * len(case.patterns)
        seed = number(op, *ends.items(), pattern)
        if parameters is None:
            return None
        other = replace(case, parameters=parameters, patterns=patterns, seed=seed)
        return other if in_domain(other) else None

    return make
