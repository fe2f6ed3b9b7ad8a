"""A rank-1 constraint system over the scalar field of BN254, and integers that are linear combinations of its wires.

An `Integer` carries the range that interval arithmetic proves for it and the value that it has for one input. The range
decides how many bits a shift or a comparison takes; the value is the witness. Which constraints arise depends on ranges
alone, never on a value.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from mamba_integer.spec.bounds import Interval

# The order of BN254's groups: what circom, snarkjs and Ethereum's precompiles compute with.
MODULUS = 21888242871839275222246405745257275088548364400416034343698204186575808495617
ONE = 0  # the wire that is always 1
PRODUCT, BIT, EQUALITY = "products", "bits", "equalities"

Terms = Mapping[int, int]  # factors by wire


class CircuitError(ValueError):
    """An op, or a call of it, that has no circuit: names the reason."""


class FieldOverflowError(CircuitError):
    """An integer that may be too large for the field."""


class BranchError(CircuitError):
    """Golden code that branches on a value, or counts with it: the inputs that decide it have to be fixed."""

    def __init__(self, terms: "Terms"):
        super().__init__(
            "circuit: found a branch on a value or an index, allowed on sizes, parameters and fixed inputs"
        )
        self.wires = frozenset(terms)


class Constraint(NamedTuple):
    """``a * b = c`` in the field, each a linear combination of wires."""

    a: Terms
    b: Terms
    c: Terms


class Circuit:
    """The constraints so far, and a value for each wire."""

    def __init__(self) -> None:
        self.values: list[int] = [1]
        self.depths: list[int] = [0]  # for each wire, how many steps that are not linear lead to it
        self.lookups = 0  # functions of one value that are not linear: under FHE, a bootstrap each at least
        self.constraints: list[Constraint] = []
        self.counts: Counter[str] = Counter({PRODUCT: 0, BIT: 0, EQUALITY: 0})
        self.decompositions: dict[object, tuple[list[Integer], bool]] = {}
        self.selections: dict[object, dict[int, Integer]] = {}

    def new_wire(self, value: int, depth: int = 0) -> int:
        """Return the number of a new wire, which no constraint has yet."""
        self.values.append(value)
        self.depths.append(depth)
        return len(self.values) - 1

    def wire(self, value: int, low: int, high: int, depth: int = 0) -> "Integer":
        return Integer(self, {self.new_wire(value, depth): 1}, 0, low, high, value)

    def constrain(self, kind: str, a: "Integer | int", b: "Integer | int", c: "Integer | int") -> None:
        self.counts[kind] += 1
        self.constraints.append(Constraint(combination(a), combination(b), combination(c)))

    def equate(self, a: "Integer | int", b: "Integer | int") -> None:
        self.constrain(EQUALITY, a, 1, b)

    def tie(self, wire: int, x: "Integer | int") -> None:
        """Constrain a wire to an integer."""
        self.counts[EQUALITY] += 1
        self.constraints.append(Constraint({wire: 1}, {ONE: 1}, combination(x)))

    def constrain_inverse(self, x: "Integer", result: "Integer") -> None:
        """Constrain ``x * w = result`` for some w, any element of the field: the inverse of x where there is one."""
        inverse = self.new_wire(pow(x.value, -1, MODULUS) if x.value else 0, result.depth)
        self.counts[PRODUCT] += 1
        self.constraints.append(Constraint(combination(x), {inverse: 1}, combination(result)))

    def look_up(self, x: "Integer") -> int:
        """Count a function of one value that is not linear, and return the depth of its result."""
        self.lookups += 1
        return 1 + x.depth

    def bit(self, value: int, depth: int = 0) -> "Integer":
        bit = self.wire(value, 0, 1, depth)
        self.constrain(BIT, bit, bit, bit)
        return bit

    def unsatisfied(self, values: Sequence[int] | Mapping[int, int] | None = None) -> list[int]:
        """Return the constraints that an assignment of the wires violates, by number."""
        assigned = self.values if values is None else values

        def total(terms: Terms) -> int:
            return sum(factor * assigned[wire] for wire, factor in terms.items())

        return [i for i, (a, b, c) in enumerate(self.constraints) if (total(a) * total(b) - total(c)) % MODULUS]


class Integer:
    """``constant`` plus the sum of ``terms``, from ``low`` to ``high``: its value for one input is known.

    It has two possible values at least. One value alone is an ``int``: interval arithmetic would put that number in
    place of the wires, and no constraint would hold them any more.
    """

    __slots__ = ("cases", "circuit", "constant", "high", "low", "terms", "value")

    def __init__(self, circuit: Circuit, terms: Terms, constant: int, low: int, high: int, value: int):
        if not low <= value <= high:
            raise CircuitError(f"circuit: found {value}, allowed [{low}, {high}]")
        if low == high:
            raise CircuitError(f"circuit: found wires whose one value is {value}, allowed that number itself")
        check_magnitude(low, high)
        self.circuit, self.terms, self.constant = circuit, terms, constant
        self.low, self.high, self.value = low, high, value
        self.cases: tuple[list[Integer], list[int]] | None = None

    @property
    def range(self) -> Interval:
        return Interval(self.low, self.high)

    @property
    def key(self) -> object:
        return frozenset(self.terms.items()), self.constant

    @property
    def depth(self) -> int:
        return max(map(self.circuit.depths.__getitem__, self.terms))

    def __repr__(self) -> str:
        return f"Integer({self.value} in {self.range})"

    def __bool__(self) -> bool:
        raise BranchError(self.terms)

    __int__ = __index__ = __bool__


Number = Integer | int


def check_magnitude(low: int, high: int) -> None:
    """Raise FieldOverflowError unless different integers from low to high stay different in the field.

    The limit is a quarter of the field, so that neither a difference of two wraps nor the bits of one, which reach
    twice as far.
    """
    largest = max(-low, high)
    if largest > MODULUS // 4:
        raise FieldOverflowError(f"circuit: found an integer of {largest.bit_length()} bits, allowed 251 in this field")


def combination(x: Number) -> Terms:
    if isinstance(x, int):
        return {ONE: x} if x else {}
    return {**x.terms, ONE: x.constant} if x.constant else x.terms


def interval(x: Number) -> Interval:
    return Interval(x, x) if isinstance(x, int) else x.range


def value_of(x: Number) -> int:
    return x if isinstance(x, int) else x.value


def linear(x: Integer, terms: Terms, constant: int, bounds: Interval, value: int) -> Number:
    """Return a linear combination; an integer that can be one number alone is that number."""
    if not terms or bounds.low == bounds.high:
        return value
    return Integer(x.circuit, terms, constant, bounds.low, bounds.high, value)


def narrowed(x: Number, bounds: Interval) -> Number:
    """Return x with the range that a contract proves, where it is narrower than that of interval arithmetic."""
    if isinstance(x, int):
        return x
    both = Interval(max(x.low, bounds.low), min(x.high, bounds.high))
    return x if both == x.range else linear(x, x.terms, x.constant, both, x.value)


def map_cases(x: Integer, result: Number, function) -> Number:
    if x.cases and isinstance(result, Integer):
        result.cases = x.cases[0], [function(value) for value in x.cases[1]]
    return result


def add(a: Number, b: Number) -> Number:
    if isinstance(a, int):
        if isinstance(b, int):
            return a + b
        a, b = b, a
    bounds = interval(a) + interval(b)
    if isinstance(b, int):
        shift = b
        result = linear(a, a.terms, a.constant + b, bounds, a.value + b)
        return map_cases(a, result, lambda value: value + shift)
    terms = dict(a.terms)
    for wire, factor in b.terms.items():
        if total := terms.get(wire, 0) + factor:
            terms[wire] = total
        else:
            del terms[wire]
    return linear(a, terms, a.constant + b.constant, bounds, a.value + b.value)


def scale(x: Number, factor: int) -> Number:
    if isinstance(x, int):
        return x * factor
    if factor == 0:
        return 0
    terms = {wire: f * factor for wire, f in x.terms.items()}
    result = linear(x, terms, x.constant * factor, x.range * factor, x.value * factor)
    return map_cases(x, result, lambda value: value * factor)


def subtract(a: Number, b: Number) -> Number:
    return add(a, scale(b, -1))


def multiply(a: Number, b: Number) -> Number:
    if isinstance(b, int):
        return scale(a, b)
    if isinstance(a, int):
        return scale(b, a)
    bounds = a.range.square() if a.key == b.key else a.range * b.range
    if bounds.low == bounds.high:
        return bounds.low
    product = a.circuit.wire(a.value * b.value, bounds.low, bounds.high, 1 + max(a.depth, b.depth))
    a.circuit.constrain(PRODUCT, a, b, product)
    return product


def total(numbers: Iterable[Number]) -> Number:
    return weighted((number, 1) for number in numbers)


def weighted(pairs: Iterable[tuple[Number, int]], constant: int = 0) -> Number:
    """Return a constant plus the sum of numbers by factors, as `scale` and `add` give it, in linear time."""
    symbolic: list[tuple[Integer, int]] = []
    for x, factor in pairs:
        if isinstance(x, int):
            constant += x * factor
        elif factor:
            symbolic.append((x, factor))
    if len(symbolic) < 2:
        return add(scale(*symbolic[0]), constant) if symbolic else constant
    terms: dict[int, int] = {}
    low = high = value = constant
    for x, factor in symbolic:
        for wire, weight in x.terms.items():
            terms[wire] = terms.get(wire, 0) + weight * factor
        least, greatest = (x.low, x.high) if factor > 0 else (x.high, x.low)
        low, high, value = low + least * factor, high + greatest * factor, value + x.value * factor
        constant += x.constant * factor
    terms = {wire: factor for wire, factor in terms.items() if factor}
    return linear(symbolic[0][0], terms, constant, Interval(low, high), value)
