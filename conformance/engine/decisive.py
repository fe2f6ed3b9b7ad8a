"""Listed cases of integers that decide what ordinary ones hide: of one sign, at an end, or equal to one another."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import replace
from itertools import combinations, product

from mamba_integer.spec.contract import Constant, Packed, Parameter, Tensor, find_op

from .bases import EVEN, TRIED, Listed, base, beside, chosen_sizes, number, settled, with_dtype, with_pattern
from .cases import Case
from .costs import cost, loops
from .dimensions import FAR, LEFT, ODD, ROWS, allowed, axis_of, dimensions, exponents, is_below, settings, small
from .layouts import CONTIGUOUS, LAYOUTS
from .pairs import ENDS, resolved
from .patterns import ABOVE, BELOW, BLOCKS, PARTED, ZERO
from .sensitivity import improved, in_domain, sized

RAGGED = (77, 1031)  # of the sizes of one sign: neither is a multiple of any tile
GROWN = (256, 512)  # terms, up to which a sum may have another type
TERMS, STEPS = 1024, 144  # of a sum that grows; the second where the golden code loops
ENDS_OF_RANGE = ("lowest", "highest", ABOVE)
WORK, PLENTY = 1 << 15, 200_000  # of the tries for one case
THIN = (2, 1, 1)
TWO = (2, 3)  # leading dimensions of views
PARTS = 4  # of an op's inputs, of which two are zero at once


def decisive_plans(op: str, line: int) -> Iterator[Listed]:
    """Yield the cases of every kind."""
    yield from one_sided_plans(op, line)
    yield from growing_plans(op, line)
    yield from parted_plans(op, line)
    yield from repeated_plans(op, line)
    yield from equal_plans(op)
    yield from state_plans(op, line)
    yield from zero_plans(op)


def reduced(op: str) -> list[str]:
    """Return the sizes over which an op may sum or compare: those that it bounds, and those that a result lacks."""
    contract = find_op(op)
    bounded = {*contract.sizes, *(parameter.name for parameter in contract.parameters)}
    taken = [name for name in dimensions(op) if name not in exponents(op) and has(contract.inputs, name).count(True)]
    return [name for name in taken if name in bounded or not all(has(contract.outputs, name))]


def has(tensors: Sequence[Tensor], dimension: str) -> list[bool]:
    """Return which tensors have a dimension."""
    return [axis_of(tensor, dimension) is not None for tensor in tensors]


def along(case: Case, dimension: str, pattern: str) -> Case:
    """Return the case with a pattern for each input that has a dimension."""
    pairs = zip(has(find_op(case.op).inputs, dimension), case.patterns, strict=True)
    return replace(case, patterns=tuple(pattern if taken else other for taken, other in pairs))


def tried(case: Case, work: int, fixed: tuple[str, ...] = ()) -> Case | None:
    """Return the case with parameters at which results are alive, if a few tries find them; None outside the domain."""
    most = min(TRIED, WORK // max(1, work))
    case = improved(case, fixed=fixed, kinds="alive", most=most) if most or not in_domain(case) else case
    return case if in_domain(case) else settled(case)


def one_sided_plans(op: str, line: int) -> Iterator[Listed]:
    """Yield sizes that leave a part of a tile empty, all integers near the low end: an empty place must not count."""
    for dimension in reduced(op):
        for wanted in RAGGED:
            size = min(wanted, allowed(op, dimension)[1])
            if loops(op).get(dimension) and size > LEFT[-1]:
                continue
            sizes = beside(op, dimension, size)
            work = cost(op, sizes, line)
            point = f"near the low end, {dimension}={size}"
            yield Listed("values", (point,), work, one_sided(op, dimension, sizes, work))


def one_sided(op: str, dimension: str, sizes: Mapping[str, int], work: int) -> Callable[[], Case | None]:
    return lambda: tried(along(of_sizes(op, dimension, sizes), dimension, BELOW), work)


def of_sizes(op: str, dimension: str, sizes: Mapping[str, int]) -> Case:
    leading = (sizes[ROWS],) if ROWS in sizes else ()
    return sized(base(op, ODD), sizes, leading, number(op, dimension, sizes[dimension]))


def growing_plans(op: str, line: int) -> Iterator[Listed]:
    """Yield sums whose terms are all at an end: of many terms, beside each parameter at its end, and of the most.

    Of a size that the golden code loops over the parameters are left out: each step rounds its sum, so none grows.
    """
    for dimension in reduced(op):
        looped, largest = loops(op).get(dimension), allowed(op, dimension)[1]
        many = min(STEPS if looped else TERMS, largest)
        grown = dict.fromkeys((*(size for size in GROWN if size < many), many, min(FAR[-1], largest), largest))
        for size, turn in product(grown, range(turns(op, dimension))):
            sizes = beside(op, dimension, size)
            point = f"all high, {dimension}={size}" + f", other dtype {turn}" * (turn > 0)
            yield Listed("values", (point,), cost(op, sizes, line), growing(op, dimension, sizes, line, turn))
        sizes = beside(op, dimension, many)
        for parameter in () if looped else settings(op):
            point = f"all high, {dimension}={many}, {parameter.name} high"
            make = growing(op, dimension, sizes, line, 0, parameter)
            yield Listed("values", (point,), cost(op, sizes, line), make)


def parted_plans(op: str, line: int) -> Iterator[Listed]:
    """Yield sums of which a part is far greater than the whole, and of words a block greater than all the rest.

    There is one for each input: it may turn the signs, or the rest of it may decide.
    """
    inputs = find_op(op).inputs
    for dimension in (name for name in reduced(op) if not loops(op).get(name)):
        size = min(TERMS, allowed(op, dimension)[1])
        sizes = beside(op, dimension, size)
        work = cost(op, sizes, line)
        for i, tensor in enumerate(inputs):
            axis = axis_of(tensor, dimension)
            if axis is not None and not isinstance(tensor, Constant):
                kinds = {"high, then low": PARTED[axis]}
                if "int32" in tensor.dtypes:  # of few narrower integers no sum leaves a word
                    kinds["high in a block"] = BLOCKS[axis]
                for says, pattern in kinds.items():
                    point = f"{tensor.name} {says}, {dimension}={size}"
                    yield Listed("values", (point,), work, parted(op, dimension, sizes, work, i, pattern))


def parted(
    op: str, dimension: str, sizes: Mapping[str, int], work: int, argument: int, pattern: str
) -> Callable[[], Case | None]:
    def make() -> Case | None:
        case = along(of_sizes(op, dimension, sizes), dimension, "highest")
        return tried(with_pattern(case, argument, pattern), work)

    return make


def repeated_plans(op: str, line: int) -> Iterator[Listed]:
    """Yield two large calls of one shape: a workspace that the first leaves behind must not be seen in the second."""
    names = [name for name in dimensions(op) if not loops(op).get(name) and name not in exponents(op)]
    for dimension in [name for name in names if allowed(op, name)[1] >= FAR[-1]][:1]:
        sizes = beside(op, dimension, FAR[-1])
        for turn in ("once", "twice"):
            make = repeated(op, dimension, sizes, turn)
            yield Listed("values", (f"{turn}, {dimension}={FAR[-1]}",), cost(op, sizes, line), make)


def repeated(op: str, dimension: str, sizes: Mapping[str, int], turn: str) -> Callable[[], Case | None]:
    return lambda: settled(replace(of_sizes(op, dimension, sizes), seed=number(op, turn)))


def turns(op: str, dimension: str) -> int:
    """Return the number of dtypes that an input with this dimension may have."""
    return max(len(t.dtypes) for t in find_op(op).inputs if axis_of(t, dimension) is not None)


def growing(
    op: str, dimension: str, sizes: Mapping[str, int], line: int, turn: int, parameter: Parameter | None = None
) -> Callable[[], Case | None]:
    """Make the case whose inputs along a dimension are all at their high ends, in the ``turn``-th of their dtypes."""

    def make() -> Case | None:
        case, work = along(of_sizes(op, dimension, sizes), dimension, "highest"), cost(op, sizes, line)
        case = replace(case, seed=sum(turn << i for i in range(len(case.patterns))))
        if parameter is None:
            return tried(case, work)
        parameters = resolved(case, {parameter.name: ENDS[1]})
        return tried(replace(case, parameters=parameters), work, (parameter.name,)) if parameters else None

    return make


def equal_plans(op: str) -> Iterator[Listed]:
    """Yield equal integers in every layout where a result is a place along an axis: the first of equals is meant."""
    contract = find_op(op)
    places = [name for name in dimensions(op) for t in contract.outputs if is_below(t, name)]
    for dimension in places:
        for i, tensor in enumerate(contract.inputs):
            axes = len(tensor.dimensions) + (len(TWO) - 1) * (ROWS in tensor.dimensions)
            for layout in LAYOUTS if axis_of(tensor, dimension) is not None else ():
                fits = LAYOUTS[layout].repeats is None and LAYOUTS[layout].dimensions <= axes
                if fits and layout != CONTIGUOUS:
                    point = f"{tensor.name}: {layout}, equal values"
                    yield Listed("layouts", (point,), 0, equals(op, dimension, i, layout))


def equals(op: str, dimension: str, argument: int, layout: str) -> Callable[[], Case | None]:
    def make() -> Case | None:
        sizes = chosen_sizes(op, EVEN)
        leading = TWO if ROWS in dimensions(op) else ()
        case = along(sized(base(op, EVEN), sizes, leading, number(op, layout)), dimension, "small")
        layouts = [layout if i == argument else CONTIGUOUS for i in range(len(case.patterns))]
        return settled(replace(case, layouts=tuple(layouts)))

    return make


def state_plans(op: str, line: int) -> Iterator[Listed]:
    """Yield each input alone at either end, beside either end of a chunk's size: counters and edges lie there."""
    for exponent in sorted(exponents(op)):
        for size in allowed(op, exponent):
            sizes = small(op, THIN) | {exponent: size}
            work = cost(op, sizes, line)
            for i, tensor in enumerate(find_op(op).inputs):
                if isinstance(tensor, Constant | Packed):
                    continue
                for pattern in ENDS_OF_RANGE:
                    point = f"{tensor.name} {pattern}, {exponent}={size}"
                    yield Listed("values", (point,), work, at_an_end(op, exponent, sizes, i, pattern))


def at_an_end(
    op: str, exponent: str, sizes: Mapping[str, int], argument: int, pattern: str
) -> Callable[[], Case | None]:
    def make() -> Case | None:
        case = of_sizes(op, exponent, sizes)
        return settled(with_pattern(case, argument, pattern))

    return make


def zero_plans(op: str) -> Iterator[Listed]:
    """Yield inputs all zero, which a shortcut may leave out: each alone, any two, all but one that may be a result.

    Each alone is also zero at parameters in the middle of their ranges.
    """
    inputs = find_op(op).inputs
    drawn = [i for i, tensor in enumerate(inputs) if not isinstance(tensor, Constant)]
    for i in drawn:
        yield Listed("values", (f"{inputs[i].name} all zero",), 0, all_zero(op, (i,)))
        if settings(op):
            yield Listed("values", (f"{inputs[i].name} all zero, middle",), 0, all_zero(op, (i,), middle=True))
    rests = {tuple(j for j in drawn if j != i) for i in returned(op)}
    sets = {zeros for zeros in (*several(drawn), *rests) if len(zeros) > 1}
    for zeros in sorted(sets):
        yield Listed("values", (f"{', '.join(inputs[i].name for i in zeros)} all zero",), 0, all_zero(op, zeros))


def several(places: Sequence[int]) -> Iterator[tuple[int, ...]]:
    """Yield sets of places, of which one holds any two: the unions of two of four parts."""
    parts = [places[len(places) * i // PARTS : len(places) * (i + 1) // PARTS] for i in range(PARTS)]
    for one, other in combinations([part for part in parts if part], 2):
        yield (*one, *other)


def returned(op: str) -> dict[int, int]:
    """Return the inputs that an op could return as they are, each with the place of a result's dtype among its own."""
    contract, found = find_op(op), dict[int, int]()
    for (i, tensor), result in product(enumerate(contract.inputs), contract.outputs):
        dtypes = [j for j, dtype in enumerate(tensor.dtypes) if dtype in result.dtypes]
        if tensor.shape == result.shape and dtypes:
            found.setdefault(i, dtypes[0])
    return found


def all_zero(op: str, zeros: tuple[int, ...], middle: bool = False) -> Callable[[], Case | None]:
    def make() -> Case | None:
        case = base(op, ODD)
        if middle:
            at = copy(case.at)
            for parameter in settings(op):
                allowed = parameter.range(at)
                setattr(at, parameter.name, (allowed.low + allowed.high) // 2)
            chosen = {parameter.name: getattr(at, parameter.name) for parameter in settings(op)}
            case = replace(case, parameters={**case.parameters, **chosen})
        else:
            for i, dtype in returned(op).items():
                case = with_dtype(case, i, dtype - (case.seed >> i))
        for i in zeros:
            case = with_pattern(case, i, ZERO)
        return settled(case)

    return make
