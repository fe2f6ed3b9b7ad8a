"""Cases as a stranger may write them: each number is checked before any integer is drawn or any array is made."""

from collections.abc import Mapping
from math import prod
from typing import Any

from mamba_integer.backends.programs.wire import MOST_DIMENSIONS, shown
from mamba_integer.spec.contract import find_op

from ..plans import PLANS
from .cases import Case, ExtremeCase, case_of, listed
from .comparison import AnyCase
from .dimensions import ROWS
from .exhaustive import GROUPS, ExhaustiveCase
from .far_ends import ELEMENTS, FarCase
from .layouts import LAYOUTS
from .patterns import PATTERNS
from .relations import RELATIONS, RelationCase
from .vector import MOST_INTEGERS, parse_vector

LARGEST_SEED = 2**64 - 1
FAR = 2**63 - 1


def as_case(fields: Mapping[str, Any], op: str) -> AnyCase:
    """Return the case of an op that these fields describe; its arrays have sizes that a machine can hold.

    Raises
    ------
    ValueError
        A field is missing, unknown, of another type or outside its range; a `DomainError` where the op says so.
    """
    if "inputs" in fields:
        return parse_vector(fields)
    if "relation" in fields:
        return _relation(fields, op)
    if "exhaustive" in fields:
        _one_of("exhaustive", fields["exhaustive"], GROUPS)
        case = case_of(ExhaustiveCase, fields)
        _whole("start", case.start, -FAR, FAR)
        _names("parameters", case.parameters, [parameter.name for parameter in find_op(op).parameters])
        return case
    if "far" in fields:
        return _far(case_of(FarCase, fields), op)
    if "entry" in fields:
        return _extreme(case_of(ExtremeCase, fields), op)
    return _drawn(fields, op)


def _drawn(fields: Mapping[str, Any], op: str) -> Case:
    for name in ("leading", "patterns", "layouts"):
        if not isinstance(fields.get(name, []), list):
            raise ValueError(f"{name}: found {shown(repr(fields[name]))}, allowed a list")
    case, inputs = Case.from_fields(fields), find_op(op).inputs
    for name, values, known, counts in (
        ("patterns", case.patterns, PATTERNS, (len(inputs),)),
        ("layouts", case.layouts, LAYOUTS, (0, len(inputs))),
    ):
        if len(values) not in counts:
            raise ValueError(f"{name}: found {len(values)}, allowed {len(inputs)}, one for each input")
        for value in values:
            _one_of(name, value, known)
    _whole("seed", case.seed, 0, LARGEST_SEED)
    check_size(case)
    return case


def check_size(case: Case) -> None:
    """Raise ValueError unless a case has the sizes and parameters of its op, in the op's domain, and no huge array."""
    contract = find_op(case.op)
    _names("sizes", case.sizes, PLANS[case.op].sizes)
    _names("parameters", case.parameters, [parameter.name for parameter in contract.parameters])
    if len(case.leading) > MOST_DIMENSIONS:
        raise ValueError(f"leading: found {len(case.leading)} dimensions, allowed {MOST_DIMENSIONS}")
    sizes = [*case.sizes.items(), *(("leading", size) for size in case.leading)]
    for name, size in sizes:
        low, high = contract.sizes.get(name, (0, MOST_INTEGERS))
        _whole(name, size, low, min(high, MOST_INTEGERS))
    for name, value in case.parameters.items():
        if type(value) is not int:
            raise ValueError(f"{name}: found {shown(repr(value))}, allowed an integer")
    contract.check_bounds(case.at)
    for tensor in (*contract.inputs, *contract.outputs):
        if (count := prod(case.shape(tensor))) > MOST_INTEGERS:
            raise ValueError(f"{tensor.name}: found sizes of {count} integers, allowed {MOST_INTEGERS}")


def _relation(fields: Mapping[str, Any], op: str) -> RelationCase:
    written = case_of(RelationCase, {"place": [], **fields})
    _one_of("relation", written.relation, {name for name, kind in RELATIONS.items() if kind.needs(op) is not None})
    if not isinstance(written.place, list):
        raise ValueError(f"place: found {shown(repr(written.place))}, allowed a list")
    for one in written.place:
        _whole("place", one, 0, MOST_INTEGERS)
    return RelationCase(written.relation, _drawn(fields["case"], op), tuple(written.place))


def _far(case: FarCase, op: str) -> FarCase:
    _one_of("far", case.far, [*PLANS[op].sizes, ROWS])
    _whole("size", case.size, 0, MOST_INTEGERS)
    _whole("elements", case.elements, 0, ELEMENTS)
    check_size(case.case)
    return case


def _extreme(case: ExtremeCase, op: str) -> ExtremeCase:
    _whole("entry", case.entry, 0, len(listed(op)) - 1)
    _whole("call", case.call, 0, len(listed(op)[case.entry].calls) - 1)
    if case.turned is not None:
        _whole("turned", case.turned, 0, MOST_INTEGERS)
    return case


def _whole(name: str, value: Any, low: int, high: int) -> None:
    if type(value) is not int or not low <= value <= high:
        allowed = f"an integer from {low} to {high}" if low < high else f"{low} alone"
        raise ValueError(f"{name}: found {shown(repr(value))}, allowed {allowed}")


def _one_of(name: str, value: Any, known: Any) -> None:
    if not isinstance(value, str) or value not in known:
        allowed = ", ".join(sorted(known)) or "none for this op"
        raise ValueError(f"{name}: found {shown(repr(value))}, allowed {allowed}")


def _names(name: str, value: Any, known: Any) -> None:
    if not isinstance(value, dict) or value.keys() != set(known):
        allowed = f"an object of {', '.join(known)}" if known else "an empty object"
        raise ValueError(f"{name}: found {shown(repr(value))}, allowed {allowed}")
