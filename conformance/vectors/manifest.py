"""The manifest of a folder of vectors, which a stranger may have written: it claims nothing that isn't checked."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mamba_integer import spec
from mamba_integer.backends.files.regular import read_regular
from mamba_integer.backends.files.strict_json import kind_of, parse_json
from mamba_integer.backends.programs.wire import PROTOCOL, shown

from ..engine.vector import Vector, VectorError, root_of, vectors_of
from ..presets import PRESETS
from .formats import FORMATS

MANIFEST = "vectors.json"


def is_whole(value: Any, low: int = 0) -> bool:
    return type(value) is int and value >= low


def is_one_of(value: Any, known: Mapping[str, Any]) -> bool:
    return isinstance(value, str) and value in known


def is_list_of_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) for one in value)


def are_hashes(value: Any) -> bool:
    return isinstance(value, dict) and bool(value) and all(map(is_list_of_texts, value.values()))


FIELDS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "spec_version": (lambda value: value == spec.SPEC_VERSION, repr(spec.SPEC_VERSION)),
    "protocol": (lambda value: is_whole(value) and value == PROTOCOL, str(PROTOCOL)),
    "format": (lambda value: is_one_of(value, FORMATS), ", ".join(FORMATS)),
    "preset": (lambda value: is_one_of(value, PRESETS), ", ".join(PRESETS)),
    "seed": (is_whole, "an integer from 0 on"),
    "root": (lambda value: isinstance(value, str), "a SHA-256"),
    "vectors": (are_hashes, "a list of hashes for each of one op or more"),
}
ORIGIN = ("preset", "seed")  # a manifest may lack them: later plans draw other vectors, and those here stay right


def read_manifest(path: Path) -> dict[str, Any]:
    """Return the fields of a manifest, each of its type, with the root of its hashes.

    Raises
    ------
    VectorError
        The file can't be read, or a field is missing, unknown or wrong.
    """
    try:
        fields = parse_json(read_regular(path))
    except OSError as error:
        raise VectorError(f"{path}: {error.strerror}: no vectors were exported here") from error
    except ValueError as error:
        raise VectorError(f"{path}: not JSON: {error}") from error
    if not isinstance(fields, dict):
        raise VectorError(f"{path}: not the manifest of vectors: found {kind_of(fields)}, allowed an object")
    for name, (holds, allowed) in FIELDS.items():
        if (name in fields or name not in ORIGIN) and not holds(fields.get(name)):
            raise VectorError(f"{path}: {name}: found {shown(repr(fields.get(name)))}, allowed {allowed}")
    if unknown := [name for name in fields if name not in FIELDS]:
        raise VectorError(f"{path}: found an unknown field {shown(repr(unknown[0]))}, allowed {', '.join(FIELDS)}")
    if unknown := [op for op in fields["vectors"] if op not in spec.OPS]:
        raise VectorError(f"{path}: unknown op {shown(repr(unknown[0]))}")
    root = root_of([one for op in fields["vectors"].values() for one in op])
    if fields["root"] != root:
        raise VectorError(f"{path}: root: found {shown(repr(fields['root']))}, allowed {root!r}, that of its hashes")
    return fields


def check_drawn(op: str, vectors: Sequence[Vector], manifest: Mapping[str, Any]) -> None:
    """Raise VectorError unless the calls are those that the manifest's preset and seed stand for."""
    if any(name not in manifest for name in ORIGIN):
        return
    preset, seed = manifest["preset"], manifest["seed"]
    drawn = list(vectors_of(op, preset, seed))
    if len(drawn) != len(vectors) or not all(map(Vector.asks_the_same, drawn, vectors)):
        raise VectorError(
            f"{MANIFEST}: preset and seed: found {preset!r} and {seed}, which stand for other vectors of {op}, allowed "
            "those that they were exported with; without the two fields the vectors alone are checked"
        )
