"""Plans of ``spec.ops.norm_backward``."""

from collections.abc import Iterator

import numpy as np

from .norm import LARGE, LIMIT, MANTISSAS, extreme_rows
from .plan import ROW_SIZES, Extreme, Plan


def extremes() -> Iterator[Extreme]:
    for D in (1, 2, 3, 129):
        x, gamma = extreme_rows(D), np.full(D, 32767, np.int16)
        calls = [
            (x, gamma, np.resize(np.array(dy, np.int16), x.shape), np.full(x.shape, dr, np.int32))
            for dy, dr in (
                ([32767], 0),
                ([-32767], 0),
                ([0], 2**31 - 1),
                ([0], -(2**31) + 1),
                # One part is along the row, one along ones, the rest across both.
                ([1000, -1501, 300], 0),
            )
        ]
        for b in range(5):
            for e in (-16, 0, 31):
                yield Extreme(calls, {"b": b, "e": e})


def sum_edges() -> Iterator[Extreme]:
    """The gradient of gamma, all of whose terms have one sign, leaves int32."""
    signs = np.where(np.arange(65 * 64).reshape(65, 64) * 7 % 5 < 2, 1, -1)
    rows, dy = (signs * LIMIT).astype(np.int32), (signs * 32767).astype(np.int16)
    gamma = np.full(64, 256, np.int16)
    yield Extreme([(rows, gamma, dy, np.zeros_like(rows))], {"b": 3, "e": 0}, "a gradient of gamma that no int32 holds")


def rounding_edges() -> Iterator[Extreme]:
    """Ordinary small rows, among whose quotients are ties, and updates that two roundings would round elsewhere.

    Some have three leading dimensions.
    """
    i = np.arange(64 * 33).reshape(64, 33)
    rows, dy = ((i * i * 7 + i // 3) % 61 - 30).astype(np.int32), ((i * i * 11 + i // 5) % 601 - 300).astype(np.int16)
    for b, e in ((3, 0), (3, 9), (1, 10)):
        purpose = "small rows with many ties, which two roundings would round elsewhere"
        yield Extreme([(rows, np.full(33, 256, np.int16), dy, np.zeros_like(rows))], {"b": b, "e": e}, purpose)
    few, few_dy = rows[:12].reshape(2, 2, 3, 33), dy[:12].reshape(2, 2, 3, 33)
    purpose = "small rows with many ties, under three leading dimensions"
    yield Extreme([(few, np.full(33, 256, np.int16), few_dy, np.zeros_like(few))], {"b": 3, "e": 0}, purpose)


def quotient_edges() -> Iterator[Extreme]:
    """Rows whose sum of products is a tie of the quotient, or one less: one more, or one less, rounds elsewhere."""
    for x, gamma, dy, parameters in (
        ([-60250, 111355], [-8799, -12566], [30549, -23000], {"b": 2, "e": -15}),
        ([-1514, -1482], [7050, 1319], [12095, -22750], {"b": 0, "e": -10}),
    ):
        rows = np.array([x], np.int32)
        call = (rows, np.array(gamma, np.int16), np.array([dy], np.int16), np.zeros_like(rows))
        yield Extreme([call], parameters, "a sum of products that is a tie of its quotient, or one less")


def divisor_edges() -> Iterator[Extreme]:
    """Rows whose sum of squares is one less than a tie of the divisor, or a tie: one more, or one less, is another."""
    x = np.array([[-4542, -4298, -7581, 4217, -4300], [3549, 19114, 18767, -15707, 4779]], np.int32)
    gamma = np.array([11080, -32436, 2841, 20480, -29754], np.int16)
    dy = np.array([[-9878, -32408, 21438, -13042, 12207], [-27576, -15603, 9822, 8511, -31678]], np.int16)
    purpose = "a sum of squares that is a tie of the divisor, or one less"
    yield Extreme([(x, gamma, dy, np.zeros_like(x))], {"b": 3, "e": -16}, purpose)


def edges() -> Iterator[Extreme]:
    yield from sum_edges()
    yield from rounding_edges()
    yield from quotient_edges()
    yield from divisor_edges()


PLANS = {
    "bitshift_norm_backward": Plan(
        sizes={"D": (*ROW_SIZES, 257)},
        parameters={"b": MANTISSAS, "e": (0, *range(-16, 32))},
        extremes=extremes,
        edges=edges,
        large=LARGE,
    )
}
