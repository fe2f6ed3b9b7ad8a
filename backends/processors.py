"""The processors that this process may use."""

import os


def cores() -> int:
    """Return how many processors this process may run on; where the system doesn't tell, how many there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
