"""NumPy's operations on an element, for integers of a circuit: shifts, comparisons, selections, division.

Each takes Python integers too, and returns one where the ranges leave a single result. A circuit proves a quotient by
the bits of it and of its remainder: the field would accept any remainder.
"""

import functools
import math

from mamba_integer.spec.bounds import Interval

from .constraints import (
    BIT,
    EQUALITY,
    PRODUCT,
    CircuitError,
    Integer,
    Number,
    add,
    check_magnitude,
    interval,
    multiply,
    narrowed,
    scale,
    subtract,
    total,
    value_of,
    weighted,
)

MOST_CASES = 128  # of a shift's amount


def decompose(x: Integer) -> tuple[list[Integer], bool]:
    """Return bits with ``x = sum of bit_i * 2**i``, less 2 to the last where x may be negative; and whether it may.

    The last bit of an x that may be negative says that it is not.
    """
    known = x.circuit.decompositions
    if x.key not in known:
        known[x.key] = ([x], False) if is_bit(x) else constrained_bits(x, x.circuit.look_up(x))
    return known[x.key]


def constrained_bits(x: Integer, depth: int) -> tuple[list[Integer], bool]:
    signed = x.low < 0
    width = max((-x.low - 1).bit_length(), x.high.bit_length()) + 1 if signed else x.high.bit_length()
    offset = 1 << (width - 1) if signed else 0
    bits = [x.circuit.bit(((x.value + offset) >> i) & 1, depth) for i in range(width)]
    x.circuit.equate(binary(bits, -offset), x)
    return bits, signed


def binary(bits: list[Integer], constant: int) -> Number:
    return weighted(((bit, 1 << i) for i, bit in enumerate(bits)), constant)


def require_bits(x: Integer) -> None:
    """Constrain x to the bits of its range, which no other constraint proves."""
    if is_bit(x):
        x.circuit.constrain(BIT, x, x, x)
    else:
        x.circuit.decompositions[x.key] = constrained_bits(x, x.depth)


def require_nonnegative(x: Number, high: int) -> None:
    """Constrain x, which is from 0 to ``high`` if the prover is honest, to as many bits as ``high`` has."""
    if value_of(x) < 0:
        raise CircuitError(f"circuit: found {value_of(x)}, allowed [0, {high}]")
    if isinstance(x, Integer):
        require_bits(Integer(x.circuit, x.terms, x.constant, 0, high, x.value))


def require_range(x: Integer, bounds: Interval) -> None:
    """Constrain x to an interval: x - low to its bits, and high - x too where the bits alone allow more."""
    size = bounds.high - bounds.low
    require_nonnegative(subtract(x, bounds.low), size)
    if size & (size + 1):
        require_nonnegative(subtract(bounds.high, x), size)


def one_hot(s: Integer) -> dict[int, Integer]:
    """Return a bit for each value that s may have: the one of its value is 1."""
    known = s.circuit.selections
    if s.key not in known:
        if s.high - s.low >= MOST_CASES:
            raise CircuitError(f"circuit: found a shift by {s.range}, allowed {MOST_CASES} values at most")
        depth = s.circuit.look_up(s)
        bits = {j: s.circuit.bit(int(s.value == j), depth) for j in range(s.low, s.high + 1)}
        s.circuit.equate(total(bits.values()), 1)
        s.circuit.equate(weighted((bit, j) for j, bit in bits.items()), s)
        known[s.key] = bits
    return known[s.key]


def select(bits: list[Integer], values: list[int]) -> Number:
    """Return the value of the bit that is 1: a linear combination."""
    whole = weighted(zip(bits, values, strict=True))
    result = narrowed(whole, Interval(min(values), max(values)))
    if isinstance(result, Integer):
        result.cases = bits, values
    return result


def amount(s: Number) -> Number:
    """Return a shift's amount, which the specification's domains keep from being negative."""
    return narrowed(s, Interval(0, max(0, interval(s).high)))


def left_shift(x: Number, s: Number) -> Number:
    s = amount(s)
    if isinstance(s, int):
        return scale(x, 1 << s)
    bits = one_hot(s)
    return multiply(x, select([*bits.values()], [1 << j for j in bits]))


def right_shift(x: Number, s: Number) -> Number:
    s = amount(s)
    if isinstance(s, Integer):
        if x == 0:
            return 0
        # x * 2**(last - s) >> last: one product, and bits as of the longest shift.
        bits = one_hot(s)
        last = max(bits)
        raised = multiply(x, select([*bits.values()], [1 << (last - j) for j in bits]))
        shifted = interval(x) >> s.low
        return narrowed(right_shift(raised, last), shifted.union(interval(x) >> last))
    if isinstance(x, int):
        return x >> s
    if s == 0:
        return x
    bounds = x.range >> s
    if x.cases:
        return select(x.cases[0], [value >> s for value in x.cases[1]])
    if bounds.low == bounds.high:
        return bounds.low
    places, signed = decompose(x)
    if signed and s >= len(places):
        return subtract(places[-1], 1)
    offset = 1 << (len(places) - 1 - s) if signed else 0
    quotient = binary(places[s:], -offset)
    if isinstance(quotient, Integer):  # its bits are the rest of those
        x.circuit.decompositions.setdefault(quotient.key, (places[s:], signed))
    return narrowed(quotient, bounds)


def bitwise_and(x: Number, mask: Number) -> Number:
    if isinstance(x, int):
        return x & mask if isinstance(mask, int) else bitwise_and(mask, x)
    if not isinstance(mask, int):
        if not (is_bit(x) and is_bit(mask)):
            raise CircuitError(
                "circuit: found a bitwise operation on two integers that both depend on inputs, allowed a constant as "
                "one"
            )
        return multiply(x, mask)
    if mask < 0:
        return subtract(x, bitwise_and(x, ~mask))
    bits, signed = decompose(x)
    kept: list[Number] = [scale(bit, mask & (1 << i)) for i, bit in enumerate(bits[: len(bits) - signed])]
    if signed:  # the sign stands for every bit from the last on
        kept.append(scale(subtract(1, bits[-1]), (mask >> (len(bits) - 1)) << (len(bits) - 1)))
    result = total(kept)
    if (
        isinstance(result, Integer) and not mask & (mask + 1) and mask.bit_length() <= len(kept) - signed
    ):  # the last bits: they are its own
        x.circuit.decompositions.setdefault(result.key, (bits[: mask.bit_length()], False))
    return result


def is_bit(x: Integer) -> bool:
    return (x.low, x.high) == (0, 1)


def bitwise_or(x: Number, mask: Number) -> Number:
    return subtract(add(x, mask), bitwise_and(x, mask))


def bitwise_xor(x: Number, mask: Number) -> Number:
    return subtract(add(x, mask), scale(bitwise_and(x, mask), 2))


def is_nonnegative(x: Number) -> Number:
    low, high = interval(x).low, interval(x).high
    if isinstance(x, int) or low >= 0 or high < 0:
        return int(low >= 0)
    bits, signed = decompose(x)
    return bits[-1] if signed else 1


def is_nonzero(x: Number) -> Number:
    if isinstance(x, int):
        return int(x != 0)
    if x.low > 0 or x.high < 0:
        return 1
    if is_bit(x):
        return x
    # With x = 0 the first product makes the result 0; with any other x the second makes it 1.
    result = x.circuit.wire(int(x.value != 0), 0, 1, x.circuit.look_up(x))
    x.circuit.constrain_inverse(x, result)
    x.circuit.constrain(PRODUCT, x, subtract(1, result), 0)
    return result


def greater_equal(a: Number, b: Number) -> Number:
    if isinstance(b, int) and b > 0 and not b & (b - 1) and interval(a).low >= 0:
        return is_nonzero(right_shift(a, b.bit_length() - 1))
    return is_nonnegative(subtract(a, b))


def less_equal(a: Number, b: Number) -> Number:
    return greater_equal(b, a)


def less(a: Number, b: Number) -> Number:
    return subtract(1, greater_equal(a, b))


def greater(a: Number, b: Number) -> Number:
    return subtract(1, greater_equal(b, a))


def not_equal(a: Number, b: Number) -> Number:
    return is_nonzero(subtract(a, b))


def equal(a: Number, b: Number) -> Number:
    return subtract(1, not_equal(a, b))


def where(condition: Number, a: Number, b: Number) -> Number:
    condition = is_nonzero(condition)
    if isinstance(condition, int):
        return a if condition else b
    return narrowed(add(b, multiply(condition, subtract(a, b))), interval(a).union(interval(b)))


def choose(index: Number, *options: Number) -> Number:
    """Return the option with this number, by a product for each number that is possible."""
    index = narrowed(index, Interval(0, len(options) - 1))
    if isinstance(index, int):
        return options[index]
    bits = one_hot(index)
    chosen = total(multiply(bit, options[number]) for number, bit in bits.items())
    bounds = functools.reduce(Interval.union, (interval(options[number]) for number in bits))
    return narrowed(chosen, bounds)


def maximum(a: Number, b: Number) -> Number:
    first, second = interval(a), interval(b)
    if first.low >= second.high or second.low >= first.high:
        return a if first.low >= second.high else b
    chosen = where(is_nonnegative(subtract(a, b)), a, b)
    return narrowed(chosen, Interval(max(first.low, second.low), max(first.high, second.high)))


def minimum(a: Number, b: Number) -> Number:
    return scale(maximum(scale(a, -1), scale(b, -1)), -1)


def absolute(x: Number) -> Number:
    if isinstance(x, int):
        return abs(x)
    return narrowed(where(is_nonnegative(x), x, scale(x, -1)), x.range.magnitude())


def sign(x: Number) -> Number:
    return subtract(is_nonnegative(x), is_nonnegative(scale(x, -1)))


def floor_divide(a: Number, b: Number) -> Number:
    # Where the divisor depends on an input, the specification's domains keep it positive; the remainder's bits do too.
    b = narrowed(b, Interval(1, interval(b).high))
    if isinstance(a, int) and isinstance(b, int):
        return a // b
    divisors, numerators = interval(b), interval(a)
    if isinstance(b, int) and not b & (b - 1):
        return right_shift(a, b.bit_length() - 1)
    circuit = next(x.circuit for x in (a, b) if isinstance(x, Integer))
    ends = [n // d for n in (numerators.low, numerators.high) for d in (divisors.low, divisors.high)]
    if min(ends) == max(ends):
        return ends[0]
    depth = max(circuit.look_up(x) for x in (a, b) if isinstance(x, Integer))
    quotient = circuit.wire(value_of(a) // value_of(b), min(ends), max(ends), depth)
    require_bits(quotient)
    remainder = circuit.wire(value_of(a) % value_of(b), 0, divisors.high - 1, depth)
    require_bits(remainder)
    require_nonnegative(subtract(subtract(b, 1), remainder), divisors.high - 1)
    # The bits allow a quotient of up to twice its range.
    reached = interval(quotient) * 2 * divisors + numerators
    check_magnitude(reached.low, reached.high)
    circuit.constrain(EQUALITY if isinstance(b, int) else PRODUCT, quotient, b, subtract(a, remainder))
    return quotient


def isqrt(v: Number) -> Number:
    """Return the largest r with ``r * r <= v``, by that postcondition, as which the specification states the root."""
    bounds = interval(v)
    if isinstance(v, int):
        return math.isqrt(v)
    low, high = math.isqrt(bounds.low), math.isqrt(bounds.high)
    if low == high:
        return low
    check_magnitude(0, 4 * bounds.high)  # the bits allow a root of up to twice its range
    root = v.circuit.wire(math.isqrt(v.value), low, high, v.circuit.look_up(v))
    require_bits(root)
    square = multiply(root, root)
    below = subtract(v, square)
    require_nonnegative(below, 2 * high)
    require_nonnegative(subtract(scale(root, 2), below), 2 * high)
    return root


def bit_length(x: Number) -> Number:
    """Return the number of bits of a magnitude: its highest 1 and all after it, a product for each."""
    x = absolute(x)
    if isinstance(x, int):
        return x.bit_length()
    least, most = x.low.bit_length(), x.high.bit_length()
    bits, _ = decompose(x)
    counted: list[Integer] = []
    for bit in reversed(bits[least:]):
        counted.append(either(counted[-1], bit) if counted else bit)
    return narrowed(total([*counted, least]), Interval(least, most))


def either(a: Integer, b: Integer) -> Integer:
    """Return whether one of two bits is 1."""
    result = b.circuit.wire(a.value | b.value, 0, 1, b.circuit.look_up(b))
    b.circuit.constrain(PRODUCT, a, b, subtract(add(a, b), result))
    return result
