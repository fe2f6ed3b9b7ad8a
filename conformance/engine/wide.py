"""Listed cases in which small and large calls part ways: views of long axes, widths of sums, numbers of places."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from itertools import combinations, permutations, product
from operator import itemgetter
from types import SimpleNamespace

from mamba_integer.spec.contract import TIME, Constant, Packed, find_op

from .bases import Listed, base, beside, number, settled, with_pattern
from .cases import Case
from .costs import cost, loops
from .dimensions import FAR, ODD, ROWS, allowed, axis_of, dimensions, exponents, is_below, settings, units
from .layouts import CONTIGUOUS, LAYOUTS
from .patterns import ABOVE
from .sensitivity import OUTSIDE, in_domain, levels, reseeded, sized

# The views of long axes that programs pass around; a kernel for long ones may take them for contiguous.
VIEWS = ("columns of a wider array", "last axes swapped", "rows of a longer array", "axes reversed")
LONG_VIEW, LONG_STEPS, LONG_ROWS = 1032, 72, (34, 40)  # whole vectors of 8, past one tile
TILED_VIEW, TILED_ROWS = 1152, (9, 128)  # whole tiles of up to 128, for which a kernel may have a path
NUMBERED = (1032, (1 << 15) + 257)  # places, of which the last may not fit a number of 16 bits
KEYED = ((13_120, 163_800), (16_390, 262_200))  # sizes whose product is past 2**31, and past 2**32
RAGGED, FEW_ROWS = 16423, 4  # an odd number of elements, and more than 2**16 in all
PAST = 72  # whole vectors of 8, past a tile of 64
WIDEST = 1 << 12  # of a size that is looked at for the place where a sum leaves int32


def wide_plans(op: str, line: int) -> Iterator[Listed]:
    """Yield the cases of every kind."""
    yield from view_plans(op, line)
    yield from pair_of_tiles_plans(op, line)
    yield from leftover_plans(op, line)
    yield from width_plans(op, line)
    yield from place_plans(op, line)
    yield from key_plans(op, line)


def view_plans(op: str, line: int) -> Iterator[Listed]:
    """Yield views of arrays with each axis long in turn, each argument seen in each way, no two in the same one."""
    inputs = find_op(op).inputs
    for dimension in dimensions(op):
        taken = any(axis_of(tensor, dimension) is not None for tensor in inputs)
        if dimension in exponents(op) or not taken or (loops(op).get(dimension) and dimension != TIME):
            continue
        size = min(LONG_STEPS if loops(op).get(dimension) else LONG_VIEW, allowed(op, dimension)[1])
        sizes = beside(op, dimension, size)
        work = cost(op, sizes, line)
        for turn in range(len(VIEWS)):
            point = f"views {turn}, {dimension}={size}"
            leading = LONG_ROWS if dimension == ROWS else (1, sizes[ROWS]) if ROWS in sizes else ()
            yield Listed("layouts", (point,), work, seen(op, dimension, sizes, turn, leading))
        if size == LONG_VIEW and allowed(op, dimension)[1] >= TILED_VIEW:
            yield from tiled_view_plans(op, dimension, line)


def tiled_view_plans(op: str, dimension: str, line: int) -> Iterator[Listed]:
    """Yield views in which each argument with an axis of whole tiles is columns of a wider matrix once."""
    sizes = beside(op, dimension, TILED_VIEW)
    leading = TILED_ROWS if dimensions(op) == (ROWS,) else (sizes[ROWS],) if ROWS in sizes else ()
    taken = [i for i, tensor in enumerate(find_op(op).inputs) if axis_of(tensor, dimension) is not None]
    for turn in sorted({-i % len(VIEWS) for i in taken}):
        point = f"views {turn}, {dimension}={TILED_VIEW}"
        yield Listed("layouts", (point,), cost(op, sizes, line), seen(op, dimension, sizes, turn, leading))


def seen(
    op: str, dimension: str, sizes: Mapping[str, int], turn: int, leading: tuple[int, ...]
) -> Callable[[], Case | None]:
    def make() -> Case | None:
        case = settled(reseeded(sized(base(op, ODD), sizes, leading, number(op, dimension, turn))))
        if case is None:
            return None
        views = [VIEWS[(i + turn) % len(VIEWS)] for i in range(len(case.patterns))]
        fits = [LAYOUTS[view].fits(array) for view, array in zip(views, case.arrays, strict=True)]
        layouts = tuple(view if fit else CONTIGUOUS for view, fit in zip(views, fits, strict=True))
        return replace(case, layouts=layouts) if any(fits) else None

    return make


def pair_of_tiles_plans(op: str, line: int) -> Iterator[Listed]:
    """Yield each two sizes past a tile at once: no other case reaches the tile in which both are leftovers.

    Where a chunk is open it is also full but for a place, so that a step ends it.
    """
    tiled = [name for name in dimensions(op) if name not in exponents(op) and not loops(op).get(name)]
    for one, other in combinations([name for name in tiled if allowed(op, name)[1] >= PAST], 2):
        sizes = beside(op, f"{one} {other}", PAST) | {one: PAST, other: PAST}
        del sizes[f"{one} {other}"]
        point = f"sizes {one}={PAST}, {other}={PAST}"
        yield Listed("sizes", (point,), cost(op, sizes, line), of_sizes(op, sizes))
        for i, tensor in enumerate(find_op(op).inputs):
            if any(is_below(tensor, f"2**{exponent}") for exponent in exponents(op)):
                make = of_sizes(op, sizes, (i, "highest"))
                yield Listed("sizes", (f"{point}, {tensor.name} highest",), cost(op, sizes, line), make)


def leftover_plans(op: str, line: int) -> Iterator[Listed]:
    """Yield a few rows of each last axis that is no multiple of anything, past 2**16 elements: threads share them."""
    contract = find_op(op)
    for dimension in (name for name in dimensions(op) if name not in exponents(op) and not loops(op).get(name)):
        shapes = [tensor.shape.split() for tensor in (*contract.inputs, *contract.outputs)]
        last = [names for names in shapes if len(names) > 1 and dimension in units(names[-1])]
        rows = next((name for names in last for name in units(names[-2]) if name not in exponents(op)), None)
        if rows and allowed(op, dimension)[1] >= RAGGED and allowed(op, rows)[1] >= FEW_ROWS:
            sizes = beside(op, dimension, RAGGED) | {rows: FEW_ROWS}
            point = f"sizes {dimension}={RAGGED}, {rows}={FEW_ROWS}"
            yield Listed("sizes", (point,), cost(op, sizes, line), of_sizes(op, sizes))


def of_sizes(op: str, sizes: Mapping[str, int], chosen: tuple[int, str] | None = None) -> Callable[[], Case | None]:
    def make() -> Case | None:
        leading = (sizes[ROWS],) if ROWS in sizes else ()
        case = sized(base(op, ODD), sizes, leading, number(op, *sizes.items()))
        return settled(reseeded(with_pattern(case, *chosen) if chosen else case))

    return make


def width_plans(op: str, line: int) -> Iterator[Listed]:
    """Yield the least size at which an intermediate no longer fits int32, all inputs at either end of their ranges."""
    for dimension in dimensions(op):
        if dimension in exponents(op) or loops(op).get(dimension) or dimension == ROWS:
            continue
        for size, parameters in widened(op, dimension):
            sizes = beside(op, dimension, size)
            says = f"{dimension}={size}, where {', '.join(parameters)} leaves int32"
            for pattern in ("highest", "lowest"):
                make = at_ends(op, dimension, sizes, pattern, next(iter(parameters.values())))
                yield Listed("values", (f"all {pattern}, {says}",), cost(op, sizes, line), make)


def widened(op: str, dimension: str) -> list[tuple[int, dict[str, dict[str, int]]]]:
    """Return sizes of a dimension, and by the names of the intermediates that leave int32 there the parameters.

    Of all formats that differ from a typical one in one parameter, the largest size is taken for each intermediate: its
    sum then passes the end of int32 by the least.
    """
    low, high = allowed(op, dimension)
    case, most = base(op, ODD), min(high, WIDEST)
    largest: dict[str, tuple[int, dict[str, int]]] = {}
    for parameters in formats(case):

        def wide(size: int, parameters: dict[str, int] = parameters) -> set[str]:
            at = SimpleNamespace(**{**vars(case.at), **parameters, dimension: size})
            return {name for name, width in find_op(op).widths(at).items() if not width.range.fits("int32")}

        try:
            for name in sorted(wide(most) - wide(max(low, 1))):
                size = least(name, max(low, 1), most, wide)
                largest[name] = max(largest.get(name, (0, {})), (size, parameters), key=itemgetter(0))
        except OUTSIDE:
            continue
    sizes: dict[int, dict[str, dict[str, int]]] = {}
    for name, (size, parameters) in largest.items():
        sizes.setdefault(size, {})[name] = parameters
    return list(sizes.items())


def formats(case: Case) -> Iterator[dict[str, int]]:
    """Yield the parameters of a case, and those that differ in one of them."""
    yield dict(case.parameters)
    for parameter in settings(case.op):
        for value in levels(parameter, case.at)[1:-1:2]:
            yield {**case.parameters, parameter.name: value}


def least(name: str, below: int, above: int, wide: Callable[[int], set[str]]) -> int:
    """Return the least size at which an intermediate is wide."""
    while below < above:
        middle = (below + above) // 2
        below, above = (below, middle) if name in wide(middle) else (middle + 1, above)
    return below


def at_ends(
    op: str, dimension: str, sizes: Mapping[str, int], pattern: str, parameters: Mapping[str, int]
) -> Callable[[], Case | None]:
    def make() -> Case | None:
        leading = (sizes[ROWS],) if ROWS in sizes else ()
        case = replace(base(op, ODD), parameters=dict(parameters), patterns=(pattern,) * len(base(op, ODD).patterns))
        case = sized(case, sizes, leading, number(op, dimension, pattern))
        return case if in_domain(case) else None

    return make


def place_plans(op: str, line: int) -> Iterator[Listed]:
    """Yield inputs that name the last place of an axis, of so many places that the number needs more bits."""
    contract = find_op(op)
    for dimension in dimensions(op):
        for i, tensor in enumerate(contract.inputs):
            named = not isinstance(tensor, Constant | Packed) and is_below(tensor, dimension)
            for size in (*NUMBERED, FAR[-1]) if named else ():
                sizes = beside(op, dimension, min(size, allowed(op, dimension)[1]))
                point = f"{tensor.name} highest, {dimension}={sizes[dimension]}"
                yield Listed("values", (point,), cost(op, sizes, line), last_place(op, dimension, sizes, i))


def last_place(op: str, dimension: str, sizes: Mapping[str, int], argument: int) -> Callable[[], Case | None]:
    def make() -> Case | None:
        leading = (sizes[ROWS],) if ROWS in sizes else ()
        case = sized(base(op, ODD), sizes, leading, number(op, dimension, sizes[dimension]))
        return settled(with_pattern(case, argument, "highest"))

    return make


def key_plans(op: str, line: int) -> Iterator[Listed]:
    """Yield two sizes that no array has both of, their product past 32 bits: a key made of both numbers is wider.

    The numbers that one of them bounds are near its end. The arrays are small beside the product, so their elements are
    the cost.
    """
    contract = find_op(op)
    tensors = (*contract.inputs, *contract.outputs)
    for (few, many), i in product(permutations(dimensions(op), 2), range(len(contract.inputs))):
        together = any(axis_of(tensor, few) is not None and axis_of(tensor, many) is not None for tensor in tensors)
        if together or not is_below(contract.inputs[i], many):
            continue
        for factors in KEYED:
            sizes = dict.fromkeys(dimensions(op), 1) | dict(zip((few, many), factors, strict=True))
            if all(sizes[name] <= allowed(op, name)[1] for name in sizes):
                work = sum(factors) + loops(op).get(few, 0) * sizes[few] * line
                point = f"{contract.inputs[i].name} near the high end, {few}={sizes[few]}, {many}={sizes[many]}"
                yield Listed("values", (point,), work, of_sizes(op, sizes, (i, ABOVE)))
