"""Plans of ``spec.ops.packing``."""

from collections.abc import Iterator
from itertools import product

import numpy as np

from mamba_integer import spec

from .plan import LEADING, LONG_ROWS, Extreme, Plan

DIGIT_COUNTS = (1, 2, 3, 4, 5, 6, 9, 10, 16, 17, 63, 64, 65, 130)
ENDS = np.array([[-1] * 5, [0] * 5, [1] * 5], np.int8)


def pack_extremes() -> Iterator[Extreme]:
    yield Extreme([(ENDS,)])
    yield Extreme([(ENDS[:, :2],)])


def unpack_extremes(pack) -> Iterator[Extreme]:
    yield Extreme([(pack(ENDS),)], {"K": 5})


def every_byte(width: int, digits: int) -> np.ndarray:
    """Return rows of nine bytes of digits, every byte once, and one of fewer digits."""
    every = np.array(list(product((-1, 0, 1), repeat=width)), np.int8).reshape(-1, 9 * width)
    return np.hstack([every, every[:, width : width + digits]])


def pack_edges(width: int) -> Iterator[Extreme]:
    """Every byte, and each number of digits in a row's last one."""
    calls = [(every_byte(width, digits),) for digits in range(width)]
    yield Extreme(calls, purpose="every byte, and each number of digits in a row's last one")


def unpack_edges(pack, width: int) -> Iterator[Extreme]:
    """Every byte, and rows that end within one."""
    for digits in (0, width - 1):
        call = (pack(every_byte(width, digits)),)
        yield Extreme([call], {"K": 9 * width + digits}, "every byte, in rows that end at or within one")


PLANS = {
    "pack_ternary": Plan(
        sizes={"K": DIGIT_COUNTS},
        leading=LEADING,
        extremes=pack_extremes,
        edges=lambda: pack_edges(4),
        large=LONG_ROWS,
    ),
    "unpack_ternary": Plan(
        parameters={"K": DIGIT_COUNTS},
        leading=LEADING,
        extremes=lambda: unpack_extremes(spec.pack_ternary),
        edges=lambda: unpack_edges(spec.pack_ternary, 4),
        large=LONG_ROWS,
    ),
    "pack_trits": Plan(
        sizes={"K": DIGIT_COUNTS},
        leading=LEADING,
        extremes=pack_extremes,
        edges=lambda: pack_edges(5),
        large=LONG_ROWS,
    ),
    "unpack_trits": Plan(
        parameters={"K": DIGIT_COUNTS},
        leading=LEADING,
        extremes=lambda: unpack_extremes(spec.pack_trits),
        edges=lambda: unpack_edges(spec.pack_trits, 5),
        large=LONG_ROWS,
    ),
}
