"""The purpose of each case that isn't drawn, in words: from its plan, else made from the case."""

from functools import singledispatch

from mamba_integer.spec.contract import find_op

from .. import oracle
from ..oracle.observe import recording
from .cases import Case, ExtremeCase
from .comparison import AnyCase
from .exhaustive import ExhaustiveCase
from .far_ends import FarCase

MOST_ENDS = 4  # that are told


@singledispatch
def purpose_of(case: AnyCase) -> str:
    """Return the purpose of a listed case, or an empty text for a case of another kind."""
    return ""


@purpose_of.register
def _(case: Case) -> str:
    sizes = ", ".join(f"{name}={size}" for name, size in case.sizes.items())
    leading = f"leading {case.leading}" if case.leading else ""
    return f"ordinary values at a model's sizes: {', '.join(filter(None, (sizes, leading)))}"


@purpose_of.register
def _(case: ExtremeCase) -> str:
    return case.written_purpose or f"the ends of proved widths: {'; '.join(attained(case)[:MOST_ENDS])}"


@purpose_of.register
def _(case: FarCase) -> str:
    return f"arrays of more than {case.elements} elements" if case.elements else f"size {case.far}={case.size}"


@purpose_of.register
def _(case: ExhaustiveCase) -> str:
    return f"every input there is, in the group {case.exhaustive}"


def attained(case: ExtremeCase) -> list[str]:
    """Return the intermediates that reach an end of their proved width in a call, and the end."""
    contract, ends = find_op(case.op), []
    widths = contract.widths(contract.check(case.arrays, case.parameters))
    with recording() as record:
        getattr(oracle, case.op)(*case.arrays, **case.parameters)
    for name, (least, greatest) in record.items():
        proved = widths[name].range
        if proved.low == proved.high:
            ends.append(f"the only {name}, {least}")
            continue
        ends += [f"the greatest {name}, {greatest}"] if greatest == proved.high else []
        ends += [f"the least {name}, {least}"] if least == proved.low else []
    return sorted(ends, key=lambda end: end.startswith("the only"))
