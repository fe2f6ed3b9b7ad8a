"""A record of the extremes that intermediates reach, to hold the proved widths against."""

import contextlib
import contextvars
from collections.abc import Iterator

_values: contextvars.ContextVar[dict[str, list[int]] | None] = contextvars.ContextVar("values", default=None)
_record: contextvars.ContextVar[dict[str, tuple[int, int]] | None] = contextvars.ContextVar("record", default=None)


@contextlib.contextmanager
def recording() -> Iterator[dict[str, tuple[int, int]]]:
    """Collect ``{intermediate: (least, greatest)}`` of every unbounded op run inside the block."""
    record: dict[str, tuple[int, int]] = {}
    token = _record.set(record)
    try:
        yield record
    finally:
        _record.reset(token)


@contextlib.contextmanager
def collecting() -> Iterator[dict[str, list[int]]]:
    """Collect ``{intermediate: its values, in the order in which they came up}`` inside the block."""
    values: dict[str, list[int]] = {}
    token = _values.set(values)
    try:
        yield values
    finally:
        _values.reset(token)


def see(name: str, value: int) -> int:
    """Note the value of an intermediate, named as in the op's widths, and return it."""
    values, record = _values.get(), _record.get()
    if values is not None:
        values.setdefault(name, []).append(value)
    if record is not None:
        ends = record.get(name)
        if ends is None:
            record[name] = (value, value)
        elif not ends[0] <= value <= ends[1]:
            record[name] = (min(ends[0], value), max(ends[1], value))
    return value
