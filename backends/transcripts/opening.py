"""Openings: one leaf of a transcript with its arrays and its path to the root, as one safetensors file.

An opening is all that a referee needs beside the specification: neither the model nor the rest of the run.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mamba_integer.spec.contract import OPS
from mamba_integer.spec.version import SPEC_VERSION

from ..files.container import CheckpointError, load_arrays, read_header, save_arrays
from ..files.hashing import content_hash
from ..files.strict_json import parse_json
from .errors import AlteredError, CountError, TranscriptError
from .folder import Transcript, named
from .header import (
    MOST_LEAVES,
    Header,
    call_root,
    parse_hash,
    parse_header,
    parse_result,
    run_root,
    segment_root,
    segment_roots,
)
from .leaf import Leaf, OpCall, Place, leaf_digest, tensor_digest
from .recorder import BY_OP
from .tree import path_length, path_of, root_by_path

OPENING_FORMAT = "mamba-integer/opening"
OPENINGS = "openings"
LARGEST_OPENING = 1 << 30
FIELDS = ("header", "result", "root", "place", "label", "op", "parameters", "counts", "path")
LONGEST_NAME = 256


@dataclass(frozen=True)
class Opening:
    """A leaf with its arrays, which is proved to lie under a root."""

    header: Header
    root: bytes
    leaf: Leaf
    inputs: list[bytes]  # the digests of its inputs


def opening_path(folder: Path, place: Place) -> Path:
    return folder / OPENINGS / f"{place.call}.{place.segment}.{place.op}.safetensors"


def save_opening(path: Path, transcript: Transcript, leaf: Leaf, store: Any) -> None:
    """Write the opening of a leaf whose call's arrays are those of a backend."""
    contract, place = OPS[leaf.call.op], leaf.place
    arrays = {f"input.{t.name}": store(a) for t, a in zip(contract.inputs, leaf.call.inputs, strict=True)}
    arrays |= {f"output.{t.name}": store(a) for t, a in zip(contract.outputs, leaf.call.outputs, strict=True)}
    segments = transcript.segments(place.call)
    ops = segments[place.segment]
    roots = segment_roots(place.call, segments)
    paths = path_of(ops, place.op), path_of(roots, place.segment), path_of(transcript.call_roots, place.call)
    fields = {
        "header": transcript.header.to_dict(),
        "result": transcript.result,
        "root": transcript.root.hex(),
        "place": list(place),
        "label": leaf.label,
        "op": leaf.call.op,
        "parameters": {name: str(value) for name, value in leaf.call.parameters.items()},
        "counts": [len(ops), len(segments), transcript.calls],
        "path": [[one.hex() for one in path] for path in paths],
    }
    save_arrays(path, arrays, opening_header(fields))


def opening_header(fields: dict[str, Any]) -> dict[str, str]:
    texts = {name: json.dumps(value, sort_keys=True) for name, value in fields.items()}
    return {"format": OPENING_FORMAT, "spec_version": SPEC_VERSION, **texts}


def read_opening(path: Path) -> Opening:
    """Read an opening and check that its leaf leads to the root that it names. Nothing of it is executed.

    Raises
    ------
    TranscriptError
        Or one of its kinds, which say what is wrong.
    """
    try:
        texts = read_header(path, OPENING_FORMAT, FIELDS)
        arrays = load_arrays(path, LARGEST_OPENING)
    except CheckpointError as error:
        raise TranscriptError(str(error)) from error
    try:
        fields = {name: parse_json(texts[name]) for name in FIELDS}
    except ValueError as error:
        raise TranscriptError(f"{path}: its header is no JSON: {error}") from error
    if content_hash(arrays, opening_header(fields)) != texts["content_sha256"]:
        raise AlteredError(f"{path}: altered: its content hash is not the one it was written with")
    return named(path, lambda: parse_opening(fields, arrays))


def parse_opening(fields: dict[str, Any], arrays: dict[str, np.ndarray]) -> Opening:
    header = parse_header(fields["header"])
    if header.leaves != BY_OP:
        raise TranscriptError(f"leaves: found {header.leaves}, allowed {BY_OP}: a layer's leaf holds no inputs")
    place = Place(*integers("place", fields["place"], 3, 0))
    counts = integers("counts", fields["counts"], 3, 1)
    label, op = (fields[name] for name in ("label", "op"))
    if not isinstance(label, str) or len(label) > LONGEST_NAME or not label.isprintable():
        raise TranscriptError(f"label: found {label!r:.80}, allowed at most {LONGEST_NAME} characters")
    if not isinstance(op, str) or op not in OPS:
        raise TranscriptError(f"op: found {op!r:.80}, allowed an op of the specification")
    call = OpCall(op, parameters_of(op, fields["parameters"]), *arrays_of(op, arrays))
    inputs, outputs = ([tensor_digest(array) for array in side] for side in (call.inputs, call.outputs))
    digest = leaf_digest(header.run_id, place, label, op, call.parameters, inputs, outputs)
    root = parse_hash("root", fields["root"])
    result = parse_result(fields["result"], counts[2], header.request)
    if run_root(header.run_id, counts[2], result, root_above(digest, place, counts, fields["path"])) != root:
        raise AlteredError(f"root: found {root.hex()[:16]}, to which the leaf and its path don't lead")
    return Opening(header, root, Leaf(place, label, call, digest), inputs)


def root_above(digest: bytes, place: Place, counts: list[int], path: Any) -> bytes:
    """Return the root of the tree of calls in which a leaf has this place."""
    positions = place.op, place.segment, place.call
    if not isinstance(path, list) or len(path) != len(counts):
        raise CountError(f"path: found {path!r:.80}, allowed {len(counts)} lists of hashes")
    for level, (one, position, count) in enumerate(zip(path, positions, counts, strict=True)):
        if position >= count:
            raise CountError(f"place: found {position}, allowed 0 to {count - 1}")
        length = path_length(position, count)
        if not isinstance(one, list) or len(one) != length:
            raise CountError(f"path: found {one!r:.80}, allowed {length} hashes")
        digest = root_by_path(digest, position, count, [parse_hash("path", text) for text in one])
        if level == 0:
            digest = segment_root(place, count, digest)
        elif level == 1:
            digest = call_root(place.call, count, digest)
    return digest


def integers(name: str, values: Any, count: int, least: int) -> list[int]:
    if not isinstance(values, list) or len(values) != count:
        raise CountError(f"{name}: found {values!r:.80}, allowed {count} integers")
    if any(type(one) is not int or not least <= one <= MOST_LEAVES for one in values):
        raise CountError(f"{name}: found {values!r:.80}, allowed integers of [{least}, {MOST_LEAVES}]")
    return values


def parameters_of(op: str, fields: Any) -> dict[str, int]:
    """Return the parameters of an op, whose integers are text: they may have 64 bits."""
    names = {parameter.name for parameter in OPS[op].parameters}
    if not isinstance(fields, dict) or fields.keys() != names:
        raise TranscriptError(f"parameters: found {fields!r:.80}, allowed an object of {sorted(names)}")
    for name, text in fields.items():
        digits = text.removeprefix("-") if isinstance(text, str) else ""
        if not digits.isascii() or not digits.isdigit() or len(digits) > 20 or str(int(text)) != text:
            raise TranscriptError(f"parameters: {name}: found {text!r:.80}, allowed an integer of 64 bits as text")
    return {name: int(text) for name, text in fields.items()}


def arrays_of(op: str, arrays: dict[str, np.ndarray]) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Return the inputs and the outputs of an op among the arrays of an opening."""
    contract = OPS[op]
    sides = (("input", contract.inputs), ("output", contract.outputs))
    names = [[f"{side}.{tensor.name}" for tensor in tensors] for side, tensors in sides]
    wanted = {*names[0], *names[1]}
    if arrays.keys() != wanted:
        raise TranscriptError(f"arrays: found {sorted(arrays)!r:.200}, allowed {sorted(wanted)}")
    return [arrays[name] for name in names[0]], [arrays[name] for name in names[1]]
