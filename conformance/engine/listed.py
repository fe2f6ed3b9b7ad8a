"""All listed cases of an op: no seed decides them, so they find the same mistakes in every run."""

from collections.abc import Iterator

from ..presets import PRESETS
from .cases import Case, ExtremeCase, extreme_cases, large_cases, moved_cases, twin
from .generated import first_cases, listed_cases


def listed(op: str, preset: str = "minimal") -> Iterator[Case | ExtremeCase]:
    """Yield the calls that the op's plan lists, those that its contract gives, and one at each of its large sizes."""
    for _, case in first_cases(op, PRESETS[preset]):
        if case is not None:
            yield case
    yield from extreme_cases(op)
    yield from moved_cases(op)
    for _, case in listed_cases(op, PRESETS[preset]):
        if case is not None:
            yield case
    for case in large_cases(op, 0):
        yield from (case, twin(case))
