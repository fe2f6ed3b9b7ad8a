"""Listed cases that are made from an op's contract alone, so that an op has them from the day it is written.

Every layout of every argument, every size at which a kernel may turn, every pair of ends of two parameters, values that
decide alone at the far place of an axis, and leading dimensions of every kind; at parameters at which states matter.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from itertools import islice, permutations, product
from random import Random
from zlib import crc32

from mamba_integer.spec.contract import Constant, Packed, Parameter, find_op

from ..presets import PRESETS, Preset
from .cases import Case
from .costs import cost, loops
from .dimensions import LEFT, ODD, ROWS, allowed, axis_of, dimensions, exponents, few, settings, small, turning, vectors
from .layouts import CONTIGUOUS, LAYOUTS
from .pairs import ENDS, assignments, resolved
from .patterns import LAST
from .sensitivity import enlivened, improved, in_domain, is_alive, levels, reseeded, score, sized, typical

MIXED, EVENLY, SINGLY = "mixed layouts", ", even sizes", ", one row"
EVEN = (2, 8, 4, 12, 16)
VECTOR = 16  # bytes that a thread loads at once: each last axis of the even sizes is whole vectors
SINGLE = (1, 3, 5, 4, 7)  # an axis of one element has a stride that says nothing
# Leading dimensions of views: a kernel may see rows only where there is one.
TWO: dict[tuple[int, ...], tuple[int, ...]] = {ODD: (2, 3), EVEN: (VECTOR,), SINGLE: (1, 3)}
CORNERS = (33, 65, 129, 257)
FEW = (2, 3, 1)  # of the sizes beside one that is taken
WHOLE, LONG = 64, 320
LONG_LOOP = 144  # of a size that the golden code loops over
MANY = 130  # of a size, where a kernel for many of it takes over
SEVERAL = (17, 18, 19)  # of the others, where there is not more than this work
PLENTY = 200_000
THIN = (2, 1, 2, 1, 1)  # the sizes beside it
HUGE = 1 << 14  # from this size on the others are 1
LEADING = ((1,), (2, 2, 3), (2, 1, 3), (2, 0, 3), (0,), (2, 1, 1, 2), ())
ENLIVENING = 60  # other cases, where a case is dead
TRIED = 12  # other parameters, where a case isn't sensitive
DTYPES = (1 << 16) - 1  # the bits of a seed that choose the dtypes of inputs
SETTLING = 60  # where it is outside the domain
WORK = 1 << 15  # of the tries for one case: a large one is taken as it is


@dataclass(frozen=True)
class Listed:
    """A case to be made, with its group, its coverpoints and its cost."""

    group: str
    points: tuple[str, ...]
    cost: int
    make: Callable[[], Case | None]


def listed_cases(op: str, preset: Preset, share: int = 0, shares: int = 1) -> Iterator[tuple[Listed, Case | None]]:
    """Yield an op's cases of up to the preset's cost, one of every ``shares``; None where the domain has no such case.

    Only those are made: a case may need a search for parameters at which it says something.
    """
    chosen = (one for one in plans(op, preset.line) if one.cost <= preset.cost and (not preset.thin or thin(one)))
    for listed in islice(chosen, share, None, shares):
        yield listed, made(listed)


@cache
def made(listed: Listed) -> Case | None:
    return listed.make()


KEPT = {"layouts": 48, "sizes": 4, "far": 4, "pairs": 6, "values": 12}  # one of so many


def thin(listed: Listed) -> bool:
    """Return whether a case is kept where cases are slow: a part of each group, the same in every run.

    Of layouts the mixed ones stay, in which each argument has each layout once.
    """
    name = "".join(listed.points)
    if name.startswith(MIXED):
        return EVENLY not in name
    return crc32(name.encode()) % KEPT.get(listed.group, 1) == 0


@cache
def plans(op: str, line: int) -> tuple[Listed, ...]:
    """Return all that the suite lists for an op, of any cost."""
    sizes = (*whole_plans(op, line), *size_plans(op, line), *corner_plans(op, line), *far_plans(op, line))
    return (*layout_plans(op), *leading_plans(op), *sizes, *pair_plans(op), *end_plans(op, line), *value_plans(op))


@cache
def points_of(op: str) -> tuple[str, ...]:
    """Return all that the cases of the full preset cover."""
    full = PRESETS["full"]
    listed = (one for one in plans(op, full.line) if one.cost <= full.cost)
    return tuple(dict.fromkeys(point for one in listed for point in one.points))


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


@cache
def plain(op: str, options: tuple[int, ...]) -> Case | None:
    """Return such a case with one or two leading dimensions, where the op has any."""
    leading = TWO[options] if ROWS in dimensions(op) else ()
    return settled(sized(base(op, options), chosen_sizes(op, options), leading))


def layout_plans(op: str) -> Iterator[Listed]:
    """Yield each layout of each argument alone, and of all arguments; the sizes odd, and even as vectors like them.

    Each layout of all arguments is there with a first axis of one element as well.
    """
    inputs = find_op(op).inputs
    names = [name for name in LAYOUTS if name != CONTIGUOUS]
    leading = TWO[ODD] if ROWS in dimensions(op) else ()

    def case(options: tuple[int, ...], layouts: list[str]) -> Case | None:
        seed = number(op, *layouts)
        case = plain(op, options)
        return case and replace(case, seed=seed & ~DTYPES | case.seed & DTYPES, layouts=tuple(layouts))

    def one(options: tuple[int, ...], chosen: Mapping[int, str], turn: int = 0) -> Callable[[], Case | None]:
        def make() -> Case | None:
            seen = case(options, [chosen.get(i, CONTIGUOUS) for i in range(len(inputs))])
            if seen and turn:
                seen = settled(enlivened(with_dtype(seen, *chosen, turn), ENLIVENING))
            if seen is None:
                return None
            fits = [LAYOUTS[layout].fits(array) for layout, array in zip(seen.layouts, seen.arrays, strict=True)]
            layouts = [layout if fit else CONTIGUOUS for layout, fit in zip(seen.layouts, fits, strict=True)]
            return reseeded(replace(seen, layouts=tuple(layouts))) if set(layouts) != {CONTIGUOUS} else None

        return make

    def dimensions_of(i: int) -> int:
        return len([name for name in inputs[i].shape.split() if name != ROWS]) + len(leading) * (
            ROWS in inputs[i].shape
        )

    def has(i: int, layout: str) -> bool:
        fixed = isinstance(inputs[i], Constant | Packed) and LAYOUTS[layout].repeats is not None
        return dimensions_of(i) >= LAYOUTS[layout].dimensions and not fixed

    for options, kind in ((ODD, ""), (EVEN, EVENLY), (SINGLE, SINGLY)):
        for name in names:
            chosen = {i: name for i in range(len(inputs)) if has(i, name)}
            if chosen:
                yield Listed("layouts", (f"all arguments: {name}{kind}",), 0, one(options, chosen))
        if options == SINGLE:
            return
        for shift in range(len(names)):
            mixed = {i: names[(i * 5 + shift) % len(names)] for i in range(len(inputs))}
            mixed = {i: name for i, name in mixed.items() if has(i, name)}
            if mixed:
                yield Listed("layouts", (f"{MIXED} {shift}{kind}",), 0, one(options, mixed))
        for i, tensor in enumerate(inputs):
            for name in names:
                if has(i, name):
                    for turn, other in enumerate(("", *(", other dtype",) * (len(tensor.dtypes) - 1))):
                        point = f"{tensor.name}: {name}{kind}{other}"
                        yield Listed("layouts", (point + f" {turn}" * (turn > 1),), 0, one(options, {i: name}, turn))


def with_dtype(case: Case, argument: int, turn: int) -> Case:
    """Return a case in which an argument has the dtype that is so many further in the list of those it may have."""
    dtypes = len(find_op(case.op).inputs[argument].dtypes)
    now = (case.seed >> argument) % dtypes
    return replace(case, seed=case.seed + (((now + turn) % dtypes - now) << argument))


def leading_plans(op: str) -> Iterator[Listed]:
    """Yield leading dimensions of every kind, and every size that may be empty."""
    if ROWS in dimensions(op):
        for leading in LEADING:
            yield Listed("leading", (f"leading {leading}",), 0, with_leading(op, leading))


def with_leading(op: str, leading: tuple[int, ...]) -> Callable[[], Case | None]:
    return lambda: settled(
        enlivened(reseeded(sized(base(op, ODD), small(op, ODD), leading, number(op, leading))), ENLIVENING)
    )


def settled(case: Case) -> Case | None:
    """Return the case, with other parameters where these are outside the domain at its sizes; None if none are inside.

    A case without elements needs no other parameters to be sensitive.
    """
    if not in_domain(case):
        case = improved(case, kinds="alive", most=SETTLING)
    return case if in_domain(case) else None


def beside(op: str, dimension: str, size: int) -> dict[str, int]:
    """Return one size that is taken, and few of all the others."""
    random = Random(f"{op} {dimension} {size}")
    options = tuple(random.choice(FEW) if size < HUGE else 1 for _ in dimensions(op))
    sizes = small(op, options)
    return sizes | {name: options[0] for name in (ROWS,) if name in sizes} | {dimension: size}


def size_plans(op: str, line: int) -> Iterator[Listed]:
    """Yield each size of each dimension at which a kernel may turn, the other sizes small."""
    for dimension in dimensions(op):
        looped = loops(op).get(dimension, 0)  # steps that follow one another are no vector's elements
        for size in alternating([size for size in turning(op, dimension) if not (looped and size in LEFT)]):
            sizes = beside(op, dimension, size)
            point = (f"size {dimension}={size}",)
            work = cost(op, sizes, line)
            yield Listed("sizes", point, work, with_sizes(op, dimension, sizes, WORK // max(1, work)))


def corner_plans(op: str, line: int) -> Iterator[Listed]:
    """Yield the largest power of two that a size may be, beside other sizes of every order: a kernel tiles by both.

    Sizes that the golden code loops over are left out: kernels have programs for those, and no tiles.
    """
    for exponent in chunk_exponents(op):
        high = allowed(op, exponent)[1]
        tiled = [name for name in dimensions(op) if name != ROWS and name not in exponents(op)]
        for dimension, size in product((name for name in tiled if not loops(op).get(name)), CORNERS):
            if size <= allowed(op, dimension)[1]:
                sizes = dict.fromkeys(dimensions(op), 1) | {dimension: size}
                others = {name: sizes[name] for name in sizes if name != exponent}
                work = cost(op, others, line) + (cost(op, others, 0) << high)
                make = with_sizes(op, dimension, sizes | {exponent: high}, 0)
                yield Listed("sizes", (f"sizes {exponent}={high}, {dimension}={size}",), work, make)


def whole_plans(op: str, line: int) -> Iterator[Listed]:
    """Yield two sizes that are whole tiles at once: a path for the tiles of one may go wrong at an end of the other.

    Of a size that the golden code loops over, and one that it doesn't, the first is the long one.
    """
    tiled = [name for name in dimensions(op) if name not in exponents(op)]
    for short, long in permutations(tiled, 2):
        looped = loops(op).get(long, 0)
        size = LONG_LOOP if looped else LONG
        chosen = {short: WHOLE, long: size}
        if loops(op).get(short, 0) > looped or any(chosen[name] > allowed(op, name)[1] for name in chosen):
            continue
        least = {name: allowed(op, name)[0] for name in exponents(op)}
        sizes = (small(op, THIN) if looped else beside(op, long, size)) | least | chosen
        work = cost(op, sizes, line)
        point = (f"sizes {short}={WHOLE}, {long}={size}",)
        yield Listed("sizes", point, work, with_sizes(op, f"{short} {long}", sizes, WORK // max(1, work)))


def chunk_exponents(op: str) -> frozenset[str]:
    """Return the exponents of an op's sizes; a gradient has those of the op that it belongs to as parameters."""
    forward = find_op(op).backward_of
    return exponents(op) | (exponents(forward) if forward else frozenset())


def alternating(sizes: list[int]) -> list[int]:
    """Return sizes from either end in turn, so that a small call meets the leftovers of a large one in a workspace."""
    return [size for pair in zip(sizes, reversed(sizes), strict=True) for size in pair][: len(sizes)]


def with_sizes(op: str, dimension: str, sizes: Mapping[str, int], most: int) -> Callable[[], Case | None]:
    def make() -> Case | None:
        leading = (sizes[ROWS],) if ROWS in sizes else ()
        seed = number(op, dimension, sizes.get(dimension, 0))
        case = reseeded(sized(base(op, ODD), sizes, leading, seed))
        if most and 0 not in sizes.values():
            case = enlivened(improved(case, kinds="alive", most=min(TRIED, most)), min(ENLIVENING, most))
            if not is_alive(case):
                case = with_twos(case, dimension, most)
        return settled(case)

    return make


def with_twos(case: Case, dimension: str, most: int) -> Case:
    """Return a case with 2 for each size of 1 but those of some dimensions, if it is alive: of one, little differs."""
    twos = {name: 2 if size == 1 and allowed(case.op, name)[1] > 1 else size for name, size in case.sizes.items()}
    leading = tuple(2 if size == 1 and ROWS not in dimension.split() else size for size in case.leading)
    kept = {name: case.sizes[name] for name in dimension.split() if name in twos}
    other = sized(case, twos | kept, leading)
    other = enlivened(other, min(ENLIVENING, most))
    return other if is_alive(other) else case


def far_plans(op: str, line: int) -> Iterator[Listed]:
    """Yield arrays that are zero but for the last place of an axis, which decides alone, at sizes of every order."""
    for dimension in dimensions(op):
        sizes = [size for size in turning(op, dimension) if size > 1]
        for size in sizes:
            if size in FAR or size == sizes[-1]:
                chosen = beside(op, dimension, size)
                point = (f"far {dimension}={size}",)
                work = cost(op, chosen, line)
                most = WORK // max(1, work)
                yield Listed("far", point, work, at_the_far_place(op, dimension, chosen, most))


FAR = (33, 127, 320, 1025, 1028, 4097, 16385)


def at_the_far_place(op: str, dimension: str, sizes: Mapping[str, int], most: int) -> Callable[[], Case | None]:
    def make() -> Case | None:
        leading = (sizes[ROWS],) if ROWS in sizes else ()
        case = sized(base(op, ODD), sizes, leading, number(op, dimension, sizes[dimension], "far"))
        patterns = list(case.patterns)
        for i, tensor in enumerate(find_op(op).inputs):
            axis = axis_of(tensor, dimension)
            if axis is not None:
                patterns[i] = LAST[axis]
        case = replace(case, patterns=tuple(patterns))
        if most:
            case = improved(case, kinds="felt", most=min(TRIED, most))
        return settled(case)

    return make


def pair_plans(op: str) -> Iterator[Listed]:
    """Yield parameters at their ends, so that each two meet at both ends of each; outside the domain there are none."""
    if not settings(op):
        return
    for values, points in assignments(base(op, ODD)):
        yield Listed("pairs", points, 0, with_parameters(op, values))


def end_plans(op: str, line: int) -> Iterator[Listed]:
    """Yield each parameter at either end of its range beside each size that is large: a kernel of its own has both."""
    for dimension in dimensions(op):
        if dimension in exponents(op) or allowed(op, dimension)[1] < MANY or loops(op).get(dimension):
            continue
        sizes = small(op, SEVERAL) | {dimension: MANY}
        if cost(op, sizes, line) > PLENTY:
            sizes = beside(op, dimension, MANY)
        work = cost(op, sizes, line)
        for parameter, level, near in product(settings(op), ENDS, ("", "near ")):
            make = (near_the_end if near else at_the_end)(op, dimension, sizes, parameter, level, work)
            yield Listed("pairs", (f"{near}{parameter.name} {level}, size {dimension}={MANY}",), work, make)


def at_the_end(
    op: str, dimension: str, sizes: Mapping[str, int], parameter: Parameter, end: str, work: int
) -> Callable[[], Case | None]:
    """Make the case with a parameter at an end of its range, alive if others can make it so."""

    def make() -> Case | None:
        case = next(toward_the_end(op, dimension, sizes, parameter, end), None)
        return case and enough(case, parameter, work)

    return make


def near_the_end(
    op: str, dimension: str, sizes: Mapping[str, int], parameter: Parameter, end: str, work: int
) -> Callable[[], Case | None]:
    """Make the case as near to the end as results are alive, where they are dead at the end itself."""

    def make() -> Case | None:
        cases = (enough(case, parameter, work) for case in toward_the_end(op, dimension, sizes, parameter, end))
        at = next(cases, None)
        return None if at is None or is_alive(at) else next((case for case in cases if is_alive(case)), None)

    return make


def toward_the_end(op: str, dimension: str, sizes: Mapping[str, int], parameter: Parameter, end: str) -> Iterator[Case]:
    """Yield cases with a parameter from an end of its range to the middle, those that are in the domain."""
    leading = (sizes[ROWS],) if ROWS in sizes else ()
    case = sized(base(op, ODD), sizes, leading, number(op, dimension, parameter.name, end))
    values = levels(parameter, case.at)
    for value in (values if end == ENDS[0] else values[::-1])[: len(values) // 2 + 1]:
        other = replace(case, parameters={**case.parameters, parameter.name: value})
        if in_domain(other):
            yield other


def enough(case: Case, parameter: Parameter, work: int) -> Case:
    """Return a case whose other parameters are such that results are alive, if a few tries find them."""
    return improved(case, fixed=(parameter.name,), kinds="alive", most=min(TRIED, PLENTY // max(1, work)))


def with_parameters(op: str, values: Mapping[str, int]) -> Callable[[], Case | None]:
    def make() -> Case | None:
        case = replace(base(op, ODD), parameters=dict(values), seed=number(op, *values.items()))
        case = improved(case, fixed=values, kinds="alive", most=TRIED)
        return case if in_domain(case) else None

    return make


# Values at which an edge is likely to be met, where a parameter at its end may have edges of its own.
VALUES = ("small", "ties", "extremes")


def value_plans(op: str) -> Iterator[Listed]:
    """Yield each parameter at either end of its range, and none of them, beside values of each kind."""
    names = [parameter.name for parameter in settings(op)]
    for ends, pattern in product(({}, *({name: level} for name in names for level in ENDS)), VALUES):
        says = "".join(f"{name} {level}, " for name, level in ends.items())
        yield Listed("values", (f"{says}{pattern} values",), 0, with_values(op, ends, pattern))


def with_values(op: str, ends: Mapping[str, str], pattern: str) -> Callable[[], Case | None]:
    def make() -> Case | None:
        case = base(op, ODD)
        parameters = resolved(case, ends)
        patterns = (pattern,) * len(case.patterns)
        seed = number(op, *ends.items(), pattern)
        other = parameters and replace(case, parameters=parameters, patterns=patterns, seed=seed)
        return other if other and in_domain(other) else None

    return make
