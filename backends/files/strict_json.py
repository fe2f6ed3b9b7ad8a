"""JSON of files that others may have written: one meaning or none."""

import json
import math
from collections import Counter
from typing import Any

SHOWN = 60  # characters of a number or a key that a message repeats
DEEPEST = 100  # objects and lists inside one another


def parse_json(text: str | bytes, floats: bool = True) -> Any:
    """Return the value of a JSON text; without ``floats``, each number in it is an integer.

    Raises
    ------
    ValueError
        The text is no JSON or not UTF-8, is nested too deep, holds a key that stands twice in one object, a number that
        JSON or Python doesn't have, or half a character.
    """
    try:
        text = text.decode("utf-8-sig") if isinstance(text, bytes) else text
        text.encode()
        value = json.loads(
            text,
            object_pairs_hook=_object,
            parse_constant=_no_number,
            parse_int=_integer,
            parse_float=_float if floats else _no_integer,
        )
        _check_depth(value)
        if "\\u" in text:
            json.dumps(value, ensure_ascii=False).encode()
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 at byte {error.start}") from None
    except UnicodeEncodeError:
        raise ValueError("half of a surrogate pair stands alone, which is no character") from None
    except RecursionError:
        raise ValueError(f"nested too deep, allowed {DEEPEST} objects and lists inside one another") from None
    return value


def kind_of(value: Any) -> str:
    """Return the kind of a JSON value, with its article, for a message that says what was found."""
    kinds = {dict: "an object", list: "a list", str: "a string", bool: "a boolean", type(None): "null"}
    return kinds.get(type(value), "a number")


def _check_depth(value: Any) -> None:
    level, depth = [value], 0
    while level := [one for one in level if isinstance(one, dict | list)]:
        if depth == DEEPEST:
            raise RecursionError
        level, depth = [inner for one in level for inner in (one.values() if isinstance(one, dict) else one)], depth + 1


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        (name, _), *_ = Counter(name for name, _ in pairs).most_common(1)
        raise ValueError(f"key {_cut(repr(name))} stands twice")
    return fields


def _integer(digits: str) -> int:
    try:
        return int(digits)
    except ValueError:
        raise ValueError(f"an integer of {len(digits)} digits is too long") from None


def _float(digits: str) -> float:
    if not math.isfinite(number := float(digits)):
        raise ValueError(f"{_cut(digits)} is too large for a number")
    return number


def _no_integer(digits: str) -> Any:
    raise ValueError(f"{_cut(digits)} is no integer")


def _no_number(name: str) -> Any:
    raise ValueError(f"{name} is no JSON number")


def _cut(text: str) -> str:
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."
