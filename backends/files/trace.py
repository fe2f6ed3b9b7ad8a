"""Traces: one SHA-256 per layer and call of a model, so that two runs can find where they differ by exchanging hashes.

A trace is a text file of JSON lines. Its first line names the model; one line per layer and call follows, in the order
of computation. A layer's hash is that of the names and hashes of its tensors. The line also holds the first 16 digits
of each tensor's hash.
"""

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

from mamba_integer.spec.model.language_model import LanguageModel
from mamba_integer.spec.model.state import State
from mamba_integer.spec.version import SPEC_VERSION

from .hashing import tensor_hash
from .regular import open_regular
from .strict_json import parse_json

FORMAT = "mamba-integer/trace"
SHOWN = 16
LARGEST_LINE = 1 << 16
FIELDS = {"call": int, "positions": list, "length": int, "layer": str, "sha256": str, "tensors": dict}


class TraceError(ValueError):
    """A file that is no trace: names the file, the line and the fault."""


@dataclass(frozen=True)
class Parting:
    """The first place where traces a and b differ. ``tensor`` is empty where one trace ends or makes another call."""

    line: int
    place: str
    tensor: str
    a: str
    b: str


class Traced:
    """A model that also hands one record per layer and call to ``write``."""

    def __init__(self, model: LanguageModel, write: Callable[[dict[str, Any]], None]):
        self.model, self.write, self.calls = model, write, 0

    def __getattr__(self, name: str):
        return getattr(self.model, name)

    def prefill(self, ids, state: State, last_only: bool = False):
        return self._traced(ids.shape[1], state, lambda see: self.model.prefill(ids, state, last_only, see))

    def step(self, ids, state: State):
        return self._traced(1, state, lambda see: self.model.step(ids, state, see))

    def _traced(self, length: int, state: State, call: Callable):
        layers: dict[str, dict[str, str]] = {}

        def see(layer: str, name: str, array: Any) -> None:
            layers.setdefault(layer, {})[name] = tensor_hash(self.model.to_numpy(array))

        result = call(see)
        for layer, tensors in layers.items():
            digest = hashlib.sha256(json.dumps(tensors).encode()).hexdigest()
            short = {name: hash_[:SHOWN] for name, hash_ in tensors.items()}
            where = {"call": self.calls, "positions": list(state.positions), "length": length, "layer": layer}
            self.write(where | {"sha256": digest, "tensors": short})
        self.calls += 1
        return result


def header(checkpoint_sha256: str) -> dict[str, str]:
    """Return the first record of a trace."""
    return {"format": FORMAT, "spec_version": SPEC_VERSION, "checkpoint_sha256": checkpoint_sha256}


def read_trace(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the records of a trace, its header first.

    Raises
    ------
    TraceError
        The file is missing or no trace.
    """
    try:
        with open_regular(path) as file:
            number = 0
            while line := file.readline(LARGEST_LINE):
                number += 1
                record = parse_json(line)
                fields = {"format": str, "spec_version": str, "checkpoint_sha256": str} if number == 1 else FIELDS
                if not isinstance(record, dict) or any(type(record.get(f)) is not t for f, t in fields.items()):
                    raise TraceError(f"{path}: line {number} is no record of a trace")
                if number == 1 and record["format"] != FORMAT:
                    raise TraceError(f"{path}: not a trace: format {record['format']!r}")
                yield record
    except OSError as error:
        raise TraceError(f"{path}: can't be read: {error.strerror}") from error
    except ValueError as error:
        if isinstance(error, TraceError):
            raise
        raise TraceError(f"{path}: not a trace: line {number} is no JSON: {error}") from error
    if not number:
        raise TraceError(f"{path}: not a trace: it is empty")


def diff_traces(a: Path, b: Path) -> Parting | None:
    """Return the first place where two traces differ, or None if they are equal.

    Raises
    ------
    TraceError
        A file is no trace.
    """
    for line, (one, other) in enumerate(zip_longest(read_trace(a), read_trace(b)), 1):
        if one == other:
            continue
        if one is None or other is None:
            ends = ["ends before" if record is None else "goes on" for record in (one, other)]
            return Parting(line, place(one or other), "", *ends)
        if line == 1:
            field = next((f for f in header("") if one.get(f) != other.get(f)), "other fields")
            return Parting(line, "header", field, str(one.get(field)), str(other.get(field)))
        if place(one) != place(other):
            return Parting(line, place(one), "", place(one), place(other))
        names = dict.fromkeys((*one["tensors"], *other["tensors"]))
        tensor = next((n for n in names if one["tensors"].get(n) != other["tensors"].get(n)), "")
        shown = [str(record["tensors"].get(tensor) if tensor else record["sha256"]) for record in (one, other)]
        return Parting(line, place(one), tensor, *shown)
    return None


def place(record: dict[str, Any]) -> str:
    """Return in words where a record of a trace is."""
    if "layer" not in record:
        return "header"
    starts = ", ".join(map(str, record["positions"]))
    many = f"{record['length']} tokens from" if record["length"] != 1 else "token"
    return f"call {record['call']}, {many} {starts}, {record['layer']}"
