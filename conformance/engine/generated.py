"""Listed cases that are made from an op's contract alone, so that an op has them from the day it is written.

Every layout of every argument, every size at which a kernel may turn, every pair of ends of two parameters, values that
decide alone at the far place of an axis, and leading dimensions of every kind; at parameters at which states matter.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import cache
from itertools import chain, combinations, islice, permutations, product
from zlib import crc32

from mamba_integer.spec.contract import TIME, Constant, Packed, Tensor, find_op

from ..presets import PRESETS, Preset
from .bases import (
    DTYPES,
    EVEN,
    HUGE,
    SHORT,
    TRIED,
    VECTOR,
    WHOLE,
    Listed,
    base,
    beside,
    chosen_sizes,
    number,
    settled,
    with_dtype,
    with_pattern,
)
from .case_cache import Listing
from .cases import Case
from .costs import cost, loops
from .decisive import decisive_plans
from .dimensions import (
    LEFT,
    LEFT_LATE,
    ODD,
    ROWS,
    allowed,
    axis_of,
    chunk_exponents,
    dimensions,
    exponents,
    small,
    turning,
    units,
    vectors,
)
from .ends import end_plans, flag_plans, pair_plans, value_plans, word_plans
from .first import FIRST, first_plans
from .layouts import CONTIGUOUS, EXPANDED, LAYOUTS
from .patterns import ABOVE, LAST
from .sensitivity import enlivened, improved, is_alive, reseeded, sized, typical
from .shared import shared_plans
from .successive import SUCCESSIVE, successive_plans
from .wide import wide_plans

MIXED, EVENLY, SINGLY = "mixed layouts", ", even sizes", ", one row"
WIDER = "columns of a wider array"
STRIDE = 5  # of mixed layouts, from one argument to the next: it has no factor in common with their number
SINGLE = (1, 3, 5, 4, 7)  # an axis of one element has a stride that says nothing
# Leading dimensions of views: a kernel may see rows only where there is one.
TWO: dict[tuple[int, ...], tuple[int, ...]] = {ODD: (2, 3), EVEN: (VECTOR,), SINGLE: (1, 3)}
CORNERS = (33, 65, 129, 257)
LONG = 320
LONG_LOOP = 144  # of a size that the golden code loops over
THIN = (2, 1, 2, 1, 1)  # the sizes beside it
LEADING = ((1,), (2, 2, 3), (2, 1, 3), (2, 0, 3), (0,), (2, 1, 3, 2), ())
ENLIVENING, ENLIVENED = 60, 12  # other cases, where a case is dead; the second where its view may be the reason
LONG_TRIED = 20  # other parameters for a long axis, on a short one
WORK = 1 << 15  # of the tries for one case: a large one is taken as it is


def listed_cases(op: str, preset: Preset, share: int = 0, shares: int = 1) -> Iterator[tuple[Listed, Case | None]]:
    """Yield an op's cases of up to the preset's cost, one of every ``shares``; None where the domain has no such case.

    Only those are made: a case may need a search for parameters at which it says something. Successive calls are one
    case of these, so that a process that has one of them has all.
    """
    listing = listing_of(op, preset.line)
    chosen = [one for one in listing.plans if one.cost <= preset.cost and (not preset.thin or thin(one))]
    alone = [[one] for one in chosen if one.group not in (SUCCESSIVE, FIRST)]
    together = [one for one in chosen if one.group == SUCCESSIVE]
    try:
        for listed in chain.from_iterable(islice((*alone, together), share, None, shares)):
            yield listed, listed.make()
    finally:
        listing.save()


def first_cases(op: str, preset: Preset) -> Iterator[tuple[Listed, Case | None]]:
    """Yield an op's first calls, which come before all other cases in one process: they are no part of the others."""
    for listed in listing_of(op, preset.line).plans:
        if listed.group == FIRST:
            yield listed, listed.make()


KEPT = {"layouts": 48, "sizes": 4, "far": 4, "pairs": 6, "values": 12}  # one of so many


def thin(listed: Listed) -> bool:
    """Return whether a case is kept where cases are slow: a part of each group, the same in every run.

    Of layouts the mixed ones stay, in which each argument has each layout once; whole vectors, which are larger, say
    nothing where an element is loaded at a time.
    """
    name = "".join(listed.points)
    if EVENLY in name:
        return False
    if name.startswith(MIXED):
        return True
    return crc32(name.encode()) % KEPT.get(listed.group, 1) == 0


@cache
def listing_of(op: str, line: int) -> Listing:
    """Return the listed cases of an op, those that an earlier process has made included."""
    return Listing(op, line, plans)


def plans(op: str, line: int) -> tuple[Listed, ...]:
    """Return all that the suite lists for an op, of any cost."""
    sizes = (*whole_plans(op, line), *size_plans(op, line), *corner_plans(op, line), *far_plans(op, line))
    return (
        *first_plans(op),
        *layout_plans(op),
        *leading_plans(op),
        *sizes,
        *pair_plans(op),
        *end_plans(op, line),
        *flag_plans(op, line),
        *value_plans(op),
        *word_plans(op),
        *decisive_plans(op, line),
        *wide_plans(op, line),
        *shared_plans(op),
        *successive_plans(op, line),
    )


@cache
def points_of(op: str) -> tuple[str, ...]:
    """Return all that the cases of the full preset cover."""
    full = PRESETS["full"]
    listed = (one for one in listing_of(op, full.line).plans if one.cost <= full.cost)
    return tuple(dict.fromkeys(point for one in listed for point in one.points))


@cache
def plain(op: str, options: tuple[int, ...]) -> Case | None:
    """Return the case with one or two leading dimensions, where the op has any."""
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
                (argument,) = chosen
                seen = settled(enlivened(with_dtype(seen, argument, turn), ENLIVENING))
            if seen is None:
                return None
            fits = [LAYOUTS[layout].fits(array) for layout, array in zip(seen.layouts, seen.arrays, strict=True)]
            layouts = [layout if fit else CONTIGUOUS for layout, fit in zip(seen.layouts, fits, strict=True)]
            if set(layouts) == {CONTIGUOUS}:
                return None
            return enlivened(reseeded(replace(seen, layouts=tuple(layouts))), ENLIVENED)

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
            break
        for shift in range(len(names)):
            mixed = {i: names[(i * STRIDE + shift) % len(names)] for i in range(len(inputs))}
            mixed = {i: name for i, name in mixed.items() if has(i, name)}
            if mixed:
                yield Listed("layouts", (f"{MIXED} {shift}{kind}",), 0, one(options, mixed))
        for i, tensor in enumerate(inputs):
            for name in names:
                if has(i, name) and not (kind and name == EXPANDED):
                    for turn, other in enumerate(("", *(", other dtype",) * (len(tensor.dtypes) - 1))):
                        point = f"{tensor.name}: {name}{kind}{other}"
                        yield Listed("layouts", (point + f" {turn}" * (turn > 1),), 0, one(options, {i: name}, turn))
    for i, tensor in enumerate(inputs):
        if sizes := row_sizes(op, tensor):
            yield Listed("layouts", (f"{tensor.name}: {WIDER}, alone",), 0, alone(op, i, sizes))


def row_sizes(op: str, tensor: Tensor) -> dict[str, int]:
    """Return sizes at which an input is one row of whole words: its other axes have one element. Empty: they have more.

    Dense as such a row is, its distance from the next may be any number of bytes.
    """
    *others, last = tensor.shape.split()
    words = vectors(op, 4 * VECTOR)
    sizes = {name: min(max(1, allowed(op, name)[0]), allowed(op, name)[1]) for name in dimensions(op)}
    sizes |= {name: words[name] for name in units(last) if name in words}
    ones = all(name in sizes and name not in exponents(op) and sizes[name] == 1 for name in others)
    return sizes if others and ones and sizes.get(last.partition("/")[0], 1) > 1 else {}


def alone(op: str, argument: int, sizes: Mapping[str, int]) -> Callable[[], Case | None]:
    """Make a case of one row of an argument, cut from a wider array."""
    layouts = tuple(WIDER if i == argument else CONTIGUOUS for i in range(len(find_op(op).inputs)))
    leading = (1,) if ROWS in dimensions(op) else None

    def make() -> Case | None:
        cases = (
            enlivened(reseeded(replace(sized(start, sizes, leading), layouts=layouts)), ENLIVENING)
            for start in (base(op, EVEN), base(op, ODD), typical(op, tuple(sizes.items())))
        )
        return next(filter(is_alive, cases), None)

    return make


def leading_plans(op: str) -> Iterator[Listed]:
    """Yield leading dimensions of every kind, and every size that may be empty."""
    if ROWS in dimensions(op):
        for leading in LEADING:
            yield Listed("leading", (f"leading {leading}",), 0, with_leading(op, leading))


def with_leading(op: str, leading: tuple[int, ...]) -> Callable[[], Case | None]:
    return lambda: settled(
        enlivened(reseeded(sized(base(op, ODD), small(op, ODD), leading, number(op, leading))), ENLIVENING)
    )


def size_plans(op: str, line: int) -> Iterator[Listed]:
    """Yield each size of each dimension at which a kernel may turn, the other sizes small."""
    for dimension in dimensions(op):
        looped = loops(op).get(dimension, 0)  # steps that follow one another are no vector's elements
        left = (*LEFT, *LEFT_LATE) if looped else ()
        for size in alternating([size for size in turning(op, dimension) if size not in left]):
            sizes = beside(op, dimension, size)
            point = (f"size {dimension}={size}",)
            work = cost(op, sizes, line)
            yield Listed("sizes", point, work, with_sizes(op, dimension, sizes, WORK // max(1, work)))


def corner_plans(op: str, line: int) -> Iterator[Listed]:
    """Yield the largest power of two that a size may be, beside other sizes of every order: a kernel tiles by both.

    Of sizes that the golden code loops over, for which kernels have programs and no tiles, only those of steps stand
    beside it: a whole chunk, and a little more, with ordinary integers and with the chunk's last place alone.

    A kernel may have no room for the largest power: half of it stands beside two ragged sizes, and a little more steps.
    """
    for exponent in chunk_exponents(op):
        high = allowed(op, exponent)[1]
        several = [name for name in dimensions(op) if name != ROWS and name not in exponents(op)]
        tiled = [name for name in several if not loops(op).get(name)]
        for dimension, size in product(tiled, CORNERS):
            if size <= allowed(op, dimension)[1]:
                sizes = dict.fromkeys(dimensions(op), 1) | {dimension: size}
                others = {name: sizes[name] for name in sizes if name != exponent}
                work = cost(op, others, line) + (cost(op, others, 0) << high)
                make = with_sizes(op, dimension, sizes | {exponent: high}, 0)
                yield Listed("sizes", (f"sizes {exponent}={high}, {dimension}={size}",), work, make)
        for short, long in combinations(tiled, 2):
            half = {name: (1 << (high - 1)) + THIN[0] if name == TIME else 1 for name in dimensions(op)}
            sizes = half | {short: CORNERS[0], long: CORNERS[1], exponent: high - 1}
            work = cost(op, {name: sizes[name] for name in sizes if name != exponent}, line)
            point = f"sizes {exponent}={high - 1}, {short}={CORNERS[0]}, {long}={CORNERS[1]}"
            yield Listed("sizes", (point,), work, with_sizes(op, f"{short} {long}", sizes, 0))
        for size in (1 << high, (1 << high) + THIN[0]) if TIME in dimensions(op) else ():
            sizes = small(op, THIN) | {TIME: size, exponent: high}
            work = cost(op, {name: sizes[name] for name in sizes if name != exponent}, line)
            point = f"{exponent}={high}, {TIME}={size}"
            yield Listed("sizes", (f"sizes {point}",), work, with_sizes(op, TIME, sizes, WORK // work))
            yield Listed("far", (f"far {point}",), work, at_the_far_place(op, TIME, sizes, WORK // work))
            for i, tensor in enumerate(find_op(op).inputs):
                if axis_of(tensor, TIME) is not None:
                    make = with_sizes(op, TIME, sizes, 0, (i, ABOVE))
                    yield Listed("sizes", (f"sizes {point}, {tensor.name} near the high end",), work, make)


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


def alternating(sizes: list[int]) -> list[int]:
    """Return sizes from either end in turn, so that a small call meets the leftovers of a large one in a workspace."""
    return [size for pair in zip(sizes, reversed(sizes), strict=True) for size in pair][: len(sizes)]


def with_sizes(
    op: str, dimension: str, sizes: Mapping[str, int], most: int, chosen: tuple[int, str] | None = None
) -> Callable[[], Case | None]:
    """Make the case of these sizes, for which ``most`` others are tried; one input may have a chosen pattern."""

    def make() -> Case | None:
        leading = (sizes[ROWS],) if ROWS in sizes else ()
        seed = number(op, dimension, sizes.get(dimension, 0))
        case = sized(base(op, ODD), sizes, leading, seed)
        case = with_pattern(case, *chosen) if chosen else case
        case = reseeded(lively(case, dimension, sizes) if sizes.get(dimension, 0) >= HUGE else case)
        if most and 0 not in sizes.values():
            case = enlivened(improved(case, kinds="alive", most=min(TRIED, most)), min(ENLIVENING, most))
            if not is_alive(case):
                case = with_twos(case, dimension, most)
        return settled(case)

    return make


def lively(case: Case, dimension: str, sizes: Mapping[str, int]) -> Case:
    """Return a case of a long axis, with the parameters at which one of a short axis is sensitive: that costs less."""
    short = sized(case, {**sizes, dimension: SHORT}, (SHORT,) if dimension == ROWS else case.leading)
    found = enlivened(improved(short, most=LONG_TRIED), ENLIVENING)
    return sized(found, sizes, case.leading)


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


FAR = (33, 127, 320, 960, 1025, 1028, 4097, 16385)


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
