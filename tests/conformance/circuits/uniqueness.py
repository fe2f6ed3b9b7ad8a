"""Wires that inputs determine: whatever a dishonest prover changes together, these keep their values.

Values are derived from the given wires and the constraints alone, at full width, by four rules:

- the only unknown wire of a linear constraint;
- bits whose factors each exceed the sum of the smaller ones, and bits of which exactly one is 1;
- a quotient and a remainder in ranges that leave one pair;
- a root r of v with r*r <= v <= r*r + 2*r.

Each rule checks that the integers in question differ by less than the field's order, so that none wraps.
"""

from collections import defaultdict, deque
from math import isqrt

from mamba_integer.conformance.circuits.constraints import MODULUS, Circuit, Terms

Factors = dict[int, int]  # by wire
MOST_UNKNOWN = 2  # wires beside bits, of which a rule can tell something


def signed(value: int) -> int:
    value %= MODULUS
    return value if value <= MODULUS // 2 else value - MODULUS


def determined(circuit: Circuit, inputs: set[int]) -> dict[int, int]:
    """Return each wire that has one possible value where the given wires have theirs."""
    return Derivation(circuit, inputs).run()


class Derivation:
    def __init__(self, circuit: Circuit, inputs: set[int]):
        self.constraints, self.values = circuit.constraints, circuit.values
        self.bits = {next(iter(a)) for a, b, c in circuit.constraints if a == b == c and len(a) == 1}
        self.known = {wire: circuit.values[wire] for wire in {0, *inputs}}
        self.ranges: dict[int, tuple[int, int]] = {}
        self.least: dict[tuple[int, int], int] = {}  # of wire + 2 * another
        self.one_of: dict[int, set[int]] = {}  # by bit: it and others, of which exactly one is 1
        self.uses = defaultdict(list)
        self.unknown = [0] * len(self.constraints)  # wires of each constraint that are no bits
        for number, constraint in enumerate(self.constraints):
            for wire in {wire for terms in constraint for wire in terms}:
                self.uses[wire].append(number)
                self.unknown[number] += wire not in self.bits and wire not in self.known

    def run(self) -> dict[int, int]:
        queue = deque(range(len(self.constraints)))
        waiting = set(queue)
        while queue:
            number = queue.popleft()
            waiting.discard(number)
            if self.unknown[number] <= MOST_UNKNOWN:
                again = {use for wire in self.learn(number) for use in self.uses[wire]} - waiting
                queue.extend(again)
                waiting |= again
        return self.known

    def learn(self, number: int) -> set[int]:
        """Return the wires of which a constraint tells something new."""
        a, b, c = self.constraints[number]
        (left, left_sum), (right, right_sum), (out, out_sum) = map(self.split, (a, b, c))
        if left and right:
            return self.root(left, right, out, out_sum) if not (left_sum or right_sum) else set()
        if left:
            left, left_sum, right, right_sum = right, right_sum, left, left_sum
        factors = dict(out)
        for wire, factor in right.items():
            factors[wire] = factors.get(wire, 0) - left_sum * factor
        factors = {wire: signed(factor) for wire, factor in factors.items() if factor % MODULUS}
        return self.linear(factors, signed(left_sum * right_sum - out_sum))

    def split(self, terms: Terms) -> tuple[Factors, int]:
        """Return the unknown part of a linear combination, and the value of the rest."""
        unknown = {wire: factor for wire, factor in terms.items() if wire not in self.known}
        return unknown, sum(factor * self.known[wire] for wire, factor in terms.items() if wire in self.known)

    def settle(self, values: Factors) -> set[int]:
        for wire, value in values.items():
            assert (value - self.values[wire]) % MODULUS == 0, "the witness violates a constraint"
            for number in () if wire in self.bits else self.uses[wire]:
                self.unknown[number] -= 1
        self.known |= values
        return set(values)

    def linear(self, factors: Factors, whole: int) -> set[int]:
        """Learn from ``sum of factor * wire = whole`` in the field."""
        if not factors:
            assert whole == 0, "the witness violates a constraint"
            return set()
        if len(factors) == 1:
            ((wire, factor),) = factors.items()
            return self.settle({wire: signed(whole * pow(factor, -1, MODULUS))})
        others = {wire: factor for wire, factor in factors.items() if wire not in self.bits}
        if not others:
            return self.bit_values(factors, whole)
        return self.bound(factors, others, whole) | self.quotient(factors, whole)

    def bit_values(self, factors: Factors, whole: int) -> set[int]:
        group = self.one_of.get(next(iter(factors)), set())
        if set(factors.values()) == {whole} and group != set(factors):
            self.one_of |= {wire: set(factors) for wire in factors}
            return set(factors)
        if len({*factors.values()}) == len(factors) and set(factors) <= group and len(group) - len(factors) <= 1:
            return self.settle({wire: int(factors.get(wire, 0) == whole) for wire in group})
        ordered = sorted(factors, key=lambda wire: abs(factors[wire]), reverse=True)
        rest = sum(map(abs, factors.values()))
        if 2 * rest >= MODULUS:
            return set()
        left = whole - sum(min(factor, 0) for factor in factors.values())
        values = {}
        for wire in ordered:
            size = abs(factors[wire])
            rest -= size
            if size <= rest:
                return set()
            raised = left >= size
            left -= size * raised
            values[wire] = int(raised == (factors[wire] > 0))
        return self.settle(values)

    def bound(self, factors: Factors, others: Factors, whole: int) -> set[int]:
        """Learn the range of a wire, or of a wire and twice another, from a sum of bits."""
        bits = [factor for wire, factor in factors.items() if wire in self.bits]
        low, high = whole - sum(max(f, 0) for f in bits), whole - sum(min(f, 0) for f in bits)
        if 2 * (high - low) >= MODULUS:
            return set()
        sign = min(others.values(), key=abs)
        if abs(sign) != 1:
            return set()
        low, high = (low, high) if sign == 1 else (-high, -low)
        scaled = {factor * sign: wire for wire, factor in others.items()}
        if len(others) == 1:
            before = self.ranges.get(scaled[1], (low, high))
            after = max(low, before[0]), min(high, before[1])
            if after == self.ranges.get(scaled[1]):
                return set()
            self.ranges[scaled[1]] = after
            return set(others)
        pair = (scaled.get(1, 0), scaled.get(2, 0))
        if len(others) == 2 and all(pair) and pair not in self.least:
            self.least[pair] = low
            return set(others)
        return set()

    def quotient(self, factors: Factors, whole: int) -> set[int]:
        """Learn q and r from ``b * q + r = whole``, where their ranges leave one pair."""
        if len(factors) != 2 or not factors.keys() <= self.ranges.keys():
            return set()
        r, q = sorted(factors, key=lambda wire: abs(factors[wire]))
        if abs(factors[r]) != 1:
            return set()
        b, whole = factors[q] * factors[r], whole * factors[r]
        (q_low, q_high), (r_low, r_high) = self.ranges[q], self.ranges[r]
        reached = abs(b) * max(-q_low, q_high) + max(-r_low, r_high) + abs(whole)
        if 2 * reached >= MODULUS or r_high - r_low >= abs(b):
            return set()
        quotient = (whole - r_low) // b if b > 0 else -((whole - r_low) // -b)
        return self.settle({q: quotient, r: whole - b * quotient}) if q_low <= quotient <= q_high else set()

    def root(self, left: Factors, right: Factors, out: Factors, known: int) -> set[int]:
        """Learn r and s from ``r * r = s``, ``s <= v`` and ``s + 2 * r >= v``."""
        if left != right or known or [*left.values(), *out.values()] != [1, 1]:
            return set()
        (r,), (s,) = left, out
        if not (r in self.ranges and s in self.ranges and (s, r) in self.least):
            return set()
        (r_low, r_high), (s_low, s_high) = self.ranges[r], self.ranges[s]
        if r_low < 0 or s_high < 0 or 2 * (r_high**2 + 2 * r_high + max(abs(s_low), s_high)) >= MODULUS:
            return set()
        most = min(r_high, isqrt(s_high))
        return self.settle({r: most, s: most * most}) if (most - 1) ** 2 + 2 * (most - 1) < self.least[s, r] else set()
