"""Checks any case again from its JSON, as the command of a failure card does."""

import json

from mamba_integer.backends import Backend
from mamba_integer.spec import DomainError
from mamba_integer.spec.contract import find_op

from .calls import Caller, as_caller, check_case
from .cases import Case, case_of, parse_case
from .comparison import AnyCase
from .exhaustive import GROUPS, ExhaustiveCase
from .far_ends import FarCase
from .relations import RELATIONS, RelationCase
from .vector import parse_vector


class CaseError(ValueError):
    """A text that describes no case of an op."""


def parse(text: str, op: str) -> AnyCase:
    """Parse the JSON that ``to_json`` of any kind of case wrote.

    Raises
    ------
    CaseError
        The text isn't JSON of a case, or the case isn't of this op or outside its domain.
    """
    try:
        case = _parse(text)
        if case.op != op:
            raise CaseError(f"the case is of the op {case.op}, not {op}")
        if not (isinstance(case, ExhaustiveCase) and case.exhaustive == "invalid bytes"):
            find_op(op).check(case.arrays, case.parameters)
    except CaseError:
        raise
    except (DomainError, ValueError) as error:
        raise CaseError(f"bad case: {error}") from error
    except (LookupError, TypeError, AttributeError, ArithmeticError, MemoryError) as error:
        raise CaseError(f"bad case: {type(error).__name__}: {error}") from error
    return case


def _parse(text: str) -> AnyCase:
    fields = json.loads(text)
    if not isinstance(fields, dict):
        raise CaseError("bad case: not a JSON object")
    if "inputs" in fields:
        return parse_vector(fields)
    if "relation" in fields:
        inner = parse_case(json.dumps(fields["case"]))
        if fields["relation"] not in RELATIONS or not isinstance(inner, Case):
            raise CaseError(f"bad case: relations are {', '.join(RELATIONS)}")
        return case_of(RelationCase, fields | {"case": inner, "place": tuple(fields["place"])})
    if "exhaustive" in fields:
        if fields["exhaustive"] not in GROUPS:
            raise CaseError(f"bad case: exhaustive groups are {', '.join(GROUPS)}")
        return case_of(ExhaustiveCase, fields)
    if "far" in fields:
        return case_of(FarCase, fields)
    return parse_case(text)


def parse_sequence(text: str, op: str) -> list[AnyCase]:
    """Parse one case, or a list of cases that run one after the other.

    Raises
    ------
    CaseError
        As for `parse`.
    """
    if not text.lstrip().startswith("["):
        return [parse(text, op)]
    try:
        cases = json.loads(text)
    except json.JSONDecodeError as error:
        raise CaseError(f"bad case: {error}") from error
    if not cases:
        raise CaseError("bad case: an empty list of cases")
    return [parse(json.dumps(case), op) for case in cases]


def check(backend: Caller | Backend, case: AnyCase, reference: Caller | Backend | None = None) -> int:
    """Check a case of any kind; a relation and an exhaustive group need no reference but the specification."""
    caller = as_caller(backend)
    if isinstance(case, FarCase):
        return case.check(caller)
    if isinstance(case, RelationCase | ExhaustiveCase):
        return case.check(caller.backend)
    return check_case(caller, case, reference)
