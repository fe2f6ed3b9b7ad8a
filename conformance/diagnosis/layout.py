"""Tells whether the layout of an argument alone makes a call wrong, by passing the same integers contiguous.

Each argument is tried alone in its layout. Where none is wrong alone, arguments are made contiguous one after the other
as long as the call stays wrong.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass

from mamba_integer.backends import Backend, UnsupportedError
from mamba_integer.spec.contract import find_op

from ..engine.calls import Caller, check_case
from ..engine.comparison import Failure
from ..engine.layouts import CONTIGUOUS
from ..engine.vector import Vector, as_vector

# A card says this of an argument.
SAYS = {
    "one element in": "starts one element into its storage",
    "columns of a wider array": "is a slice of a wider array's columns",
    "rows of a longer array": "is a slice of a longer array's rows",
    "planes of a longer array": "is a slice of a longer array's planes",
    "each second element": "is each second element of a larger array",
    "each second row": "is each second row of a larger array",
    "each second plane": "is each second plane of a larger array",
    "last axes swapped": "is transposed",
    "first axes swapped": "has its first two axes transposed",
    "axes reversed": "is transposed, all axes reversed",
    "columns backwards": "has a negative stride along its columns",
    "rows backwards": "has a negative stride along its rows",
    "one row repeated": "repeats one row with a stride of 0",
    "one column repeated": "repeats one column with a stride of 0",
    "one element repeated": "repeats one element with strides of 0",
    "all at once": "is strided along every axis",
}


@dataclass(frozen=True)
class LaidOut(Vector):
    """A call whose arguments are passed in layouts."""

    layouts: tuple[str, ...] = ()


def layout_alone(failure: Failure) -> str:
    """Return the arguments whose layout makes a call wrong; none where it is also wrong without it, or right."""
    layouts, backend = getattr(failure.case, "layouts", ()), failure.backend
    chosen = [i for i, layout in enumerate(layouts) if layout != CONTIGUOUS]
    if not chosen:
        return ""
    vector = as_vector(failure.case)

    def wrong(kept: Collection[int]) -> bool:
        mixed = tuple(layout if i in kept else CONTIGUOUS for i, layout in enumerate(layouts))
        return fails(backend, LaidOut(vector.op, vector.arrays, vector.parameters, mixed))

    if not wrong(chosen) or wrong(()):
        return ""
    names = [tensor.name for tensor in find_op(vector.op).inputs]
    alone = [i for i in chosen if wrong([i])]
    needed = alone or together(chosen, wrong)
    told = (f"{names[i]} {SAYS[layouts[i]]}" for i in needed)
    return f"equal on contiguous arrays, wrong only when argument {(' or ' if alone else ' and ').join(told)}"


def together(chosen: list[int], wrong: Callable[[Collection[int]], bool]) -> list[int]:
    """Return the fewest arguments whose layouts make a call wrong, each of which is needed."""
    for i in chosen:
        rest = [other for other in chosen if other != i]
        if wrong(rest):
            return together(rest, wrong)
    return chosen


def fails(backend: Backend, case: LaidOut) -> bool:
    try:
        check_case(Caller(backend), case)
    except Failure:
        return True
    except UnsupportedError:
        return False
    return False
