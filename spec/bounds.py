"""Interval arithmetic: the width of every intermediate, computed from an op's parameters."""

from dataclasses import dataclass

from .integers import shift_even, shift_round


@dataclass(frozen=True)
class Interval:
    """All integers from ``low`` to ``high``. Operations return the tightest interval of the results."""

    low: int
    high: int

    def __post_init__(self):
        if self.low > self.high:
            raise ValueError(f"Interval: low {self.low} exceeds high {self.high}")

    @classmethod
    def symmetric(cls, limit: int) -> "Interval":
        return cls(-limit, limit)

    @classmethod
    def signed(cls, bits: int) -> "Interval":
        """Return the range of ``saturate(x, bits)``."""
        return cls.symmetric((1 << (bits - 1)) - 1)

    def __add__(self, other: "Interval | int") -> "Interval":
        other = _interval(other)
        return Interval(self.low + other.low, self.high + other.high)

    def __neg__(self) -> "Interval":
        return Interval(-self.high, -self.low)

    def __sub__(self, other: "Interval | int") -> "Interval":
        return self + -_interval(other)

    def __mul__(self, other: "Interval | int") -> "Interval":
        other = _interval(other)
        corners = [a * b for a in (self.low, self.high) for b in (other.low, other.high)]
        return Interval(min(corners), max(corners))

    def square(self) -> "Interval":
        """Return the range of ``x * x``, which is tighter than the product of two such ranges."""
        ends = (self.low * self.low, self.high * self.high)
        return Interval(0 if self.low <= 0 <= self.high else min(ends), max(ends))

    def magnitude(self) -> "Interval":
        """Return the range of ``abs(x)``."""
        ends = (abs(self.low), abs(self.high))
        return Interval(0 if self.low <= 0 <= self.high else min(ends), max(ends))

    def __lshift__(self, s: int) -> "Interval":
        return Interval(self.low << s, self.high << s)

    def __rshift__(self, s: int) -> "Interval":
        return Interval(self.low >> s, self.high >> s)

    def shift_round(self, s: int) -> "Interval":
        return Interval(shift_round(self.low, s), shift_round(self.high, s))

    def shift_even(self, s: int) -> "Interval":
        return Interval(shift_even(self.low, s), shift_even(self.high, s))

    def saturate(self, bits: int) -> "Interval":
        limit = (1 << (bits - 1)) - 1
        return Interval(max(min(self.low, limit), -limit), max(min(self.high, limit), -limit))

    def sum(self, count: int) -> "Interval":
        """Return the range of a sum of ``count`` terms, partial sums in any order included."""
        return Interval(min(self.low * count, 0), max(self.high * count, 0))

    def union(self, other: "Interval") -> "Interval":
        return Interval(min(self.low, other.low), max(self.high, other.high))

    def fits(self, dtype: str) -> bool:
        return DTYPE_RANGE[dtype].low <= self.low and self.high <= DTYPE_RANGE[dtype].high

    def __contains__(self, value: int) -> bool:
        return self.low <= value <= self.high

    def __str__(self) -> str:
        return f"[{self.low}, {self.high}]"


DTYPE_RANGE = {f"int{b}": Interval(-(1 << (b - 1)), (1 << (b - 1)) - 1) for b in (8, 16, 32, 64)}
DTYPE_RANGE |= {f"uint{b}": Interval(0, (1 << b) - 1) for b in (8, 32, 64)}


@dataclass(frozen=True)
class Width:
    """The proved range of one intermediate and the type that must hold it.

    ``attained`` says that some input of the domain reaches each end; else the bound is proved but not the least.
    """

    range: Interval
    dtype: str
    attained: bool = True

    @property
    def fits(self) -> bool:
        return self.range.fits(self.dtype)


def _interval(value: "Interval | int") -> Interval:
    return value if isinstance(value, Interval) else Interval(value, value)
