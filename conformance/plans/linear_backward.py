"""Plans of ``spec.ops.linear_backward``."""

from collections.abc import Iterator

import numpy as np

from mamba_integer import spec
from mamba_integer.spec.ops.linear_backward import MOST_GRADIENTS

from .linear import COLUMNS, DEPTHS, ROWS, SCALE
from .plan import Extreme, Plan

END = 32767


def backward_extremes() -> Iterator[Extreme]:
    for n, num, shift in ((1, 1, 0), (5, 32767, 47), (64, 181, 12)):
        w = spec.pack_ternary(np.array([[1, -1]] * n, np.int8))
        yield Extreme([(np.full((1, n), END, np.int16), w)], {"K": 2, "num": num, "shift": shift})


def backward_edges() -> Iterator[Extreme]:
    """Ties and the ends of the result; sums that int16 or a float32 doesn't hold; products past int32."""
    for sums, num, shift, purpose in (
        ([1, 2, 3, 5, 65531, 65532, 65533, 65534, 65535, 65536, 65537], 1, 1, "ties, and the ends of the result"),
        ([32767, 32768, 32769, 98303, 98304, 98305], 1, 16, "sums past int16, about ties of a long shift"),
        ([1, 2, 32769, 65536, 131071, 131074], 32767, 0, "products that no int32 holds"),
        ([2**24 + 512 + i for i in range(-4, 5)], 1, 10, "sums about a tie that no float32 holds"),
    ):
        n = sums[-1] // END + 2
        dy = np.clip(np.array(sums)[:, None] - END * np.arange(n), 0, END).astype(np.int16)
        w = spec.pack_ternary(np.array([[1, -1]] * n, np.int8))
        yield Extreme([(dy, w)], {"K": 2, "num": num, "shift": shift}, purpose)
    for rows, n in ((12, 640), (20, 64), (3, 1088), (3, 2112), (3, 4160), (3, 16448)):
        dy = ((np.arange(rows * n) * 37) % 255 - 127).reshape(rows, n).astype(np.int8)
        w = spec.pack_ternary(np.array([[1, -1], [0, 1], [1, 1]] * n, np.int8)[:n])
        yield Extreme([(dy, w)], {"K": 2, "num": 181, "shift": 12}, "few rows of errors of 8 bits")
    # The greatest sum, at a tie, and the next: of so many errors a float32 holds every sum.
    dy = np.full((2, MOST_GRADIENTS), 127, np.int8)
    dy[1, -1] -= 1
    w = spec.pack_ternary(np.array([[1, -1]] * MOST_GRADIENTS, np.int8))
    yield Extreme([(dy, w)], {"K": 2, "num": 1, "shift": 17}, "the greatest sums of errors of 8 bits")


def weight_extremes() -> Iterator[Extreme]:
    # The sums of the last two leave int32.
    for rows, bits in ((1, 2), (5, 8), (64, 16), (1030, 16), (133200, 8)):
        end = 2 ** (bits - 1) - 1
        dy = np.full((rows, 2), end, np.int16) * np.array([1, -1], np.int16)
        yield Extreme([(dy, np.full((rows, 1), 127, np.int8))], {"bits": bits})


def weight_edges() -> Iterator[Extreme]:
    """Errors at the ends of limbs of 8 bits, in rows past a tile, a batch of which has more dimensions than one."""
    ends = np.array([0, 1, 127, 128, 129, 254, 255, 32639, 32640, 32767])
    for bits, columns in ((8, 7), (9, 7), (16, 7), (16, 16)):
        fit = ends[ends < 2 ** (bits - 1)]
        errors = np.resize(np.concatenate([fit, -fit]), (3, 43, columns)).astype(np.int8 if bits == 8 else np.int16)
        q = ((np.arange(129 * 5) * 37) % 255 - 127).reshape(3, 43, 5).astype(np.int8)
        yield Extreme([(errors, q)], {"bits": bits}, "errors at the ends of their limbs of 8 bits, in rows past a tile")


PLANS = {
    "ternary_linear_backward": Plan(
        sizes={"N": DEPTHS},
        parameters={"K": COLUMNS, **SCALE},
        leading=ROWS,
        extremes=backward_extremes,
        edges=backward_edges,
        large=({"...": 5, "N": 1025, "K": 259}, {"...": 130, "N": 66, "K": 67}),
    ),
    "ternary_linear_backward_weight": Plan(
        sizes={"N": (*COLUMNS, 0), "K": (*COLUMNS, 0)},
        parameters={"bits": (16, 8, 2, 9)},
        leading=(*ROWS, (130,)),
        extremes=weight_extremes,
        edges=weight_edges,
        large=(
            {"...": 259, "N": 66, "K": 67},
            {"...": 33, "N": 130, "K": 259},
            {"...": 259, "N": 136, "K": 200, "bits": 16},  # whole words of errors, past a tile in every direction
        ),
    ),
}
