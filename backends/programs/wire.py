"""Lines and tensors as a program or a vector file writes them: integers in decimal strings, or in raw files.

All of it may come from a stranger: nothing is executed, and nothing is allocated before its size is known to be right.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from mamba_integer.spec.bounds import DTYPE_RANGE
from mamba_integer.spec.contract import find_op, known_size, trusted_values

from ..escapes import escaped
from ..files.strict_json import kind_of, parse_json

PROTOCOL = 1
INLINE = 64  # integers of a tensor that stand in its line; more of them come in a file
LONGEST_LINE = 1 << 20
MOST_DIMENSIONS = 16
MOST_INTEGERS = 1 << 28
SHOWN = 60  # characters of a stranger's text that a message repeats
INTEGER = re.compile(r"-?[0-9]{1,20}")
DTYPES = ("int8", "uint8", "int16", "int32", "int64")


class WireError(ValueError):
    """A line or a tensor that breaks the protocol."""


@dataclass(frozen=True)
class Form:
    """The name, dtypes and shape that an op's contract gives one result."""

    name: str
    dtypes: tuple[str, ...]
    shape: tuple[int, ...]


def result_forms(op: str, arrays: Sequence[Any], parameters: Mapping[str, int]) -> list[Form]:
    """Return the forms of the results of a call, whose shapes and dtypes must be in the op's domain."""
    contract = find_op(op)
    with trusted_values():
        at = contract.check(arrays, parameters)
    forms = []
    for tensor in contract.outputs:
        names = tensor.shape.split()
        leading = at.leading if "..." in names else ()
        shape = (*leading, *(known_size(name, at) for name in names if name != "..."))
        forms.append(Form(tensor.name, tensor.dtypes, shape))
    return forms


def shown(text: object) -> str:
    """Return a stranger's text in printable characters, cut where it is long."""
    safe = escaped(str(text)[: 4 * SHOWN])
    return safe if len(safe) <= SHOWN else f"{safe[:SHOWN]}..."


def parse_line(line: bytes) -> dict[str, Any]:
    """Return the JSON object of one line.

    Raises
    ------
    WireError
        The line is too long or is no JSON object, has a float in it, or a name twice.
    """
    if len(line) > LONGEST_LINE:
        raise WireError(f"a line of {len(line)} bytes, at most {LONGEST_LINE} are allowed")
    try:
        fields = parse_json(line, floats=False)
    except ValueError as error:
        raise WireError(
            f"a line that isn't JSON of integers ({error}): {shown(line.decode(errors='replace'))!r}"
        ) from error
    if not isinstance(fields, dict):
        raise WireError(f"a line that is {kind_of(fields)}, not an object: {shown(fields)}")
    return fields


def format_line(fields: Mapping[str, Any]) -> bytes:
    """Return an object as the canonical bytes of one line: ASCII, names sorted, no spaces, a newline at the end."""
    return json.dumps(fields, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode() + b"\n"


def format_parameters(parameters: Mapping[str, int]) -> dict[str, str]:
    return {name: str(value) for name, value in parameters.items()}


def parse_parameters(fields: Any) -> dict[str, int]:
    if not isinstance(fields, dict):
        raise WireError(f"parameters are {shown(fields)}, want an object of decimal strings")
    return {name: parse_integer(name, value) for name, value in fields.items()}


def parse_integer(name: str, value: Any) -> int:
    if not isinstance(value, str) or not INTEGER.fullmatch(value):
        raise WireError(f"{shown(name)} is {shown(repr(value))}, want an integer as a decimal string")
    return int(value)


def format_tensor(name: str, array: np.ndarray, folder: Path | None, path: str) -> dict[str, Any]:
    """Return a tensor's fields; one of many integers is written to ``path`` in ``folder``, if there is a folder."""
    fields = {"name": name, "dtype": array.dtype.name, "shape": list(array.shape)}
    if folder is None or array.size <= INLINE:
        return fields | {"data": " ".join(map(str, array.ravel().tolist()))}
    (folder / path).parent.mkdir(parents=True, exist_ok=True)
    (folder / path).unlink(missing_ok=True)  # some file systems wait for the disk where a file is written over
    (folder / path).write_bytes(np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes())
    return fields | {"path": path}


def parse_tensor(fields: Any, name: str, paths: Mapping[str, Path]) -> np.ndarray:
    """Return the array of a tensor's fields; ``paths`` are the files that it may name.

    Raises
    ------
    WireError
        A field is missing or isn't what the protocol says; the data don't fit the shape or the dtype.
    """
    if not isinstance(fields, dict):
        raise WireError(f"{name} is {shown(repr(fields))}, want an object with dtype, shape and data or path")
    if fields.get("name", name) != name:
        raise WireError(f"a tensor is named {shown(repr(fields['name']))} where {name} belongs")
    dtype, shape = fields.get("dtype"), fields.get("shape")
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise WireError(f"{name} has dtype {shown(repr(dtype))}, want one of {', '.join(DTYPES)}")
    if not isinstance(shape, list) or len(shape) > MOST_DIMENSIONS or any(type(n) is not int or n < 0 for n in shape):
        raise WireError(f"{name} has shape {shown(repr(shape))}, want a list of sizes")
    if max(shape, default=0) > MOST_INTEGERS or prod(shape) > MOST_INTEGERS:
        raise WireError(f"{name} has shape {shown(shape)}, at most {MOST_INTEGERS} integers are allowed")
    if ("data" in fields) == ("path" in fields):
        raise WireError(f"{name} needs either data or path")
    values = (
        _data(fields["data"], name, dtype) if "data" in fields else _file(fields["path"], name, dtype, shape, paths)
    )
    if values.size != prod(shape):
        raise WireError(f"{name} has {values.size} integers, but its shape {shape} has room for {prod(shape)}")
    return values.reshape(shape)


def _data(data: Any, name: str, dtype: str) -> np.ndarray:
    if not isinstance(data, str):
        raise WireError(f"the data of {name} are {kind_of(data)}, want decimal integers in one string")
    words = data.split(" ") if data else []
    for i, word in enumerate(words):
        if not INTEGER.fullmatch(word):
            raise WireError(f"integer {i} of {name} is {shown(repr(word))}, want a decimal integer")
    values, holds = [int(word) for word in words], DTYPE_RANGE[dtype]
    for i, value in enumerate(values):
        if not holds.low <= value <= holds.high:
            raise WireError(f"integer {i} of {name} is {value}, which {dtype} doesn't hold")
    return np.array(values, dtype)


def _file(path: Any, name: str, dtype: str, shape: Sequence[int], paths: Mapping[str, Path]) -> np.ndarray:
    if not isinstance(path, str) or path not in paths:
        raise WireError(f"{name} is in the file {shown(repr(path))}, which isn't the one asked for")
    wanted = prod(shape) * np.dtype(dtype).itemsize
    try:
        if not paths[path].is_file():
            raise WireError(f"the file of {name} isn't there: {shown(path)}")
        if (size := paths[path].stat().st_size) != wanted:
            raise WireError(f"the file of {name} has {size} bytes, want {wanted} for {dtype}{list(shape)}")
        return np.fromfile(paths[path], np.dtype(dtype).newbyteorder("<")).astype(dtype)
    except OSError as error:
        raise WireError(f"the file of {name} can't be read: {error.strerror}") from error
