"""Random choices that hypothesis draws and shrinks, and that a seed alone decides."""

from collections.abc import Callable
from functools import cache
from random import Random
from typing import Any, TypeVar

from hypothesis import reject
from hypothesis import strategies as st

from .relations import InapplicableError

Case = TypeVar("Case")

# Hypothesis also draws integers that stand in the source of whatever modules are loaded; none has such as these.
OFFSET = 0x6D616D62612D696E7465676572


def drawn(make: Callable[[Random], Case]) -> st.SearchStrategy[Case]:
    """Return a strategy whose values ``make`` makes from a source of random choices."""

    @st.composite
    def strategy(draw: st.DrawFn) -> Case:
        try:
            return make(Drawn(draw))
        except InapplicableError:
            reject()

    return strategy()


@cache
def below(count: int) -> st.SearchStrategy[int]:
    return st.integers(OFFSET, OFFSET + count - 1)


class Drawn(Random):
    """A source of choices by hypothesis. A seed gives the same ones whatever backend is tested, on any machine."""

    def __init__(self, draw: st.DrawFn):
        super().__init__(0)
        self._draw = draw

    def randrange(self, start: int, stop: int | None = None, step: int = 1) -> int:
        options = range(start) if stop is None else range(start, stop, step)
        return options[self._draw(below(len(options))) - OFFSET]

    def choice(self, seq: Any) -> Any:
        return seq[self.randrange(len(seq))]

    def getrandbits(self, k: int) -> int:
        return self.randrange(1 << k)

    def random(self) -> float:
        raise NotImplementedError("cases are drawn with integers alone")
