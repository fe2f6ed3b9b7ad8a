"""Plans of ``spec.ops.embedding_backward``."""

from collections.abc import Iterator

import numpy as np

from .embedding import ROWS
from .plan import Extreme, Plan


def extremes() -> Iterator[Extreme]:
    ids, limit = np.array([2, 2, 2], np.int32), 2**31 - 1
    yield Extreme([(ids, np.array([[-limit, limit]] * 3, np.int32))], {"V": 3})


def edges() -> Iterator[Extreme]:
    """Rows of a table of more than 2**16, named in turn, the sums past 2**34."""
    dy = np.array([2**31 - 1, 1 - 2**31]) - np.arange(9 * len(ROWS))[:, None] * np.array([7, -5])
    purpose = "rows past 2**16, each named nine times, with sums past 2**34"
    yield Extreme([(np.tile(ROWS, 9), dy.astype(np.int32))], {"V": 65537}, purpose)


PLANS = {
    "embedding_backward": Plan(
        sizes={"D": (1, 2, 3, 64, 129, 257)},
        parameters={"V": (1, 2, 3, 127, 256)},
        leading=((), (0,), (1,), (2,), (3,), (2, 3), (33,)),
        extremes=extremes,
        edges=edges,
        large=({"...": 300, "D": 65, "V": 513}, {"...": 5, "D": 1025, "V": 300}),
    )
}
