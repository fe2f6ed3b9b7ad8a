"""The processors that this process may use, and the variables that tell its children of theirs."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager


def cores() -> int:
    """Return how many processors this process may run on; where the system doesn't tell, how many there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def variables(values: Mapping[str, object]) -> Iterator[None]:
    """Set variables of the environment, for processes that are started in the block, and put them back after it."""
    before = {name: os.environ.get(name) for name in values}
    os.environ |= {name: str(value) for name, value in values.items()}
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
