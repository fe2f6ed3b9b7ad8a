"""A record of the extremes that intermediates reach, to hold the proved widths against."""

import contextlib
import contextvars
from collections.abc import Iterator

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


def see(name: str, value: int) -> int:
    """Note the value of an intermediate, named as in the op's widths, and return it."""
    record = _record.get()
    if record is not None:
        low, high = record.get(name, (value, value))
        record[name] = (min(low, value), max(high, value))
    return value
