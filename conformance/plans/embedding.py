"""Plans of ``spec.ops.embedding``."""

from collections.abc import Iterator

import numpy as np

from .plan import Extreme, Plan


def extremes() -> Iterator[Extreme]:
    ids, table = np.array([0, 2], np.int32), np.array([[-32767], [0], [32767]], np.int16)
    for shift in (0, 3, 8):
        yield Extreme([(ids, table)], {"shift": shift})


# The first row and the last, and those around what a byte, an int16 and a uint16 hold.
ROWS = np.array([0, 1, 255, 256, 32767, 32768, 65535, 65536], np.int32)


def edges() -> Iterator[Extreme]:
    """Rows of a table of more than 2**16, each of another value than the rows that lost bits would name."""
    table = (np.arange(65537)[:, None] * np.array([1, -3]) % 65535 - 32767).astype(np.int16)
    purpose = "rows past 2**16, whose numbers no byte, int16 or uint16 holds"
    yield Extreme([(ROWS[[7, 0, 5, 3, 1, 6, 2, 4, 7]], table)], {"shift": 5}, purpose)


PLANS = {
    "embedding": Plan(
        sizes={"V": (1, 2, 3, 127, 256), "D": (1, 2, 3, 64, 129, 1023, 1025)},
        parameters={"shift": range(9)},
        extremes=extremes,
        edges=edges,
        large=({"...": 300, "V": 513, "D": 65},),
    )
}
