"""Plans of ``spec.ops.residual``."""

from collections.abc import Iterator

import numpy as np

from .activation import ENDS, EVERY, FLAT, closest
from .plan import LONG_FLAT, Extreme, Plan, ties

LIMIT = 2**23 - 1
RESIDUAL_ENDS = np.array([-LIMIT, 0, LIMIT], np.int32)
GATES = (1, 0, -1, 2, 3, 1024, -1023, 16384, 32767, -32767)


def extremes() -> Iterator[Extreme]:
    r, x = (np.ascontiguousarray(a) for a in np.meshgrid(RESIDUAL_ENDS, ENDS))
    for num in (-32767, -1, 0, 1, 32767):
        for shift in (0, 1, 15, 30):
            yield Extreme([(r, x)], {"num": num, "shift": shift})


def edges() -> Iterator[Extreme]:
    """Ties of either sign, as odd numerators leave them, added to zero and to what they bring just past the ends."""
    near = np.array([-LIMIT, 1 - LIMIT, 0, LIMIT - 1, LIMIT])
    for num, shift in ((1, 1), (-3, 4), (32767, 15)):
        r, x = np.meshgrid(near, ties(shift, 2, 32767))
        purpose = "ties of either sign, added to zero and to both ends"
        yield Extreme([(r.astype(np.int32), x.astype(np.int16))], {"num": num, "shift": shift}, purpose)
    for num, shift in ((32767, 20), (-32749, 18)):
        nearly = closest(abs(EVERY * num % (1 << shift) - (1 << (shift - 1))), 40).astype(np.int16)
        call = np.zeros(nearly.shape, np.int32), nearly
        yield Extreme([call], {"num": num, "shift": shift}, "products so near to ties that a float32 errs")


PLANS = {
    "residual_add": Plan(
        parameters={"num": GATES, "shift": range(31)}, leading=FLAT, extremes=extremes, edges=edges, large=LONG_FLAT
    )
}
