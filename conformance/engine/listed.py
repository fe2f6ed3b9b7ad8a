"""All that is listed for an op: what no seed decides, so that it finds the same mistakes in every run."""

from collections.abc import Iterator

from .cases import extreme_cases, large_cases
from .comparison import AnyCase


def listed(op: str) -> Iterator[AnyCase]:
    """Yield the calls that the op's plan lists, and one of ordinary values at each of its large sizes."""
    yield from extreme_cases(op)
    yield from large_cases(op, 0)
