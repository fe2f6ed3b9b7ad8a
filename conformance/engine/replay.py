"""Checks any case again from its JSON, as the command of a failure card does."""

from typing import Any

from mamba_integer.backends import Backend
from mamba_integer.backends.files.strict_json import parse_json
from mamba_integer.backends.programs.wire import shown
from mamba_integer.spec import DomainError
from mamba_integer.spec.contract import find_op

from .calls import Caller, as_caller, check_case
from .comparison import AnyCase
from .exhaustive import ExhaustiveCase
from .far_ends import FarCase
from .foreign import as_case
from .relations import RelationCase


class CaseError(ValueError):
    """A text that describes no case of an op."""


def parse(text: str, op: str) -> AnyCase:
    """Parse the JSON that ``to_json`` of any kind of case wrote.

    Raises
    ------
    CaseError
        The text isn't JSON of a case, or the case isn't of this op or outside its domain.
    """
    return case_from(_json(text), op)


def parse_sequence(text: str | bytes, op: str) -> list[AnyCase]:
    """Parse one case, or a list of cases that run one after the other.

    Raises
    ------
    CaseError
        As for `parse`.
    """
    fields = _json(text)
    if fields == []:
        raise CaseError("bad case: an empty list of cases")
    return [case_from(one, op) for one in (fields if isinstance(fields, list) else [fields])]


def parse_any(text: str) -> AnyCase:
    """Parse a case of whatever op it names.

    Raises
    ------
    CaseError
        As for `parse`.
    UnknownOpError
        There is no op of that name.
    """
    fields = _json(text)
    return case_from(fields, find_op(op_of(fields)).name)


def case_from(fields: Any, op: str) -> AnyCase:
    """Return the case of an op that the fields of its JSON describe.

    Raises
    ------
    CaseError
        As for `parse`.
    """
    if (found := op_of(fields)) != op:
        raise CaseError(f"the case is of the op {shown(found)}, not {op}")
    try:
        case = as_case(fields, op)
        if not (isinstance(case, ExhaustiveCase) and case.exhaustive == "invalid bytes"):
            find_op(op).check(case.arrays, case.parameters)
    except (DomainError, ValueError) as error:
        raise CaseError(f"bad case: {error}") from error
    except (LookupError, TypeError, AttributeError, ArithmeticError, MemoryError) as error:
        raise CaseError(f"bad case: {type(error).__name__}: {error}") from error
    return case


def op_of(fields: Any) -> str:
    """Return the name of the op that a case names, or the case in a relation."""
    inner = fields.get("case", fields) if isinstance(fields, dict) else None
    op = inner.get("op") if isinstance(inner, dict) else None
    if not isinstance(op, str):
        raise CaseError("bad case: found no field op, allowed the JSON of one case, as a failure card prints it")
    return op


def _json(text: str | bytes) -> Any:
    try:
        return parse_json(text)
    except ValueError as error:
        raise CaseError(f"bad case: no JSON: {error}") from error


def check(backend: Caller | Backend, case: AnyCase, reference: Caller | Backend | None = None) -> int:
    """Check a case of any kind; a relation and an exhaustive group need no reference but the specification."""
    caller = as_caller(backend)
    if isinstance(case, FarCase):
        return case.check(caller)
    if isinstance(case, RelationCase | ExhaustiveCase):
        return case.check(caller.backend)
    return check_case(caller, case, reference)
