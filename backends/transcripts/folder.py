"""Transcripts as folders: ``transcript.json``, the leaves, and a state after every so many calls.

``leaves.bin`` has 40 bytes per leaf: its call (4 bytes, big-endian), its layer's and its op's place (2 bytes each), and
its SHA-256. ``states/N.safetensors`` is the state after N calls. ``transcript.json`` is written last, so a folder
without it is no transcript.
"""

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from mamba_integer.spec.version import SPEC_VERSION

from ..files.atomic import write_json
from ..files.container import LARGEST_HEADER, CheckpointError, load_arrays, read_header, save_arrays
from ..files.hashing import content_hash
from ..files.regular import open_regular, regular_size
from ..files.strict_json import parse_json
from .errors import (
    AlteredError,
    CountError,
    MissingLeafError,
    ReorderedLeafError,
    RepeatedLeafError,
    TranscriptError,
    TruncatedRunError,
)
from .header import (
    MOST_LEAVES,
    Header,
    call_root,
    parse_hash,
    parse_header,
    parse_result,
    run_root,
    segment_root,
    tree_of_call,
)
from .leaf import STATE, Leaf, Place, leaf_digest, tensor_digest
from .request import members
from .tree import Growing, root_of

TRANSCRIPT_FILE, LEAVES_FILE, STATES = "transcript.json", "leaves.bin", "states"
ENTRY = struct.Struct(">IHH32s")
ENTRIES = np.dtype([("call", ">u4"), ("segment", ">u2"), ("op", ">u2"), ("digest", "u1", 32)])
STATE_FORMAT = "mamba-integer/transcript-state"
LARGEST_JSON = 1 << 25


class Writer:
    """Writes a transcript while its run goes on; it holds one hash per level of the tree."""

    def __init__(self, folder: Path, header: Header):
        self.folder, self.header = folder, header
        self.leaves, self.result = 0, list[int]()
        self._leaves_before = 0  # this call
        folder.mkdir(parents=True, exist_ok=True)
        self._file = (folder / LEAVES_FILE).open("wb")
        self._calls = Growing()
        self._segments, self._ops = Growing(), Growing()
        self._place = Place(0, 0, 0)

    def add(self, leaf: Leaf) -> None:
        if leaf.place[:2] != self._place[:2]:
            self._end_segment()
            if leaf.place.call != self._place.call:
                self._end_call()
        self._place = leaf.place
        self._ops.add(leaf.digest)
        self._file.write(ENTRY.pack(*leaf.place, leaf.digest))
        self.leaves += 1

    def check_room(self, call: int) -> None:
        """Raise CountError if a run whose later calls are like this one has more leaves than a transcript may have."""
        of_call = self.leaves - self._leaves_before - self.header.ends_stretch(call)
        self._leaves_before = self.leaves
        expected = self.leaves + of_call * (self.header.request.calls - call - 1)
        if expected > MOST_LEAVES:
            raise CountError(
                f"commit: found a run of about {expected} leaves, allowed {MOST_LEAVES}; run fewer calls, or "
                "commit to one leaf per layer"
            )

    def save_state(self, calls: int, arrays: dict[str, np.ndarray]) -> None:
        save_arrays(self.folder / STATES / f"{calls}.safetensors", arrays, state_header(calls, self.header.run_id))

    def finish(self) -> bytes:
        """Write what names the transcript; return its root."""
        self._end_segment()
        self._end_call()
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        root = run_root(self.header.run_id, self._calls.count, self.result, self._calls.root())
        counts = {"calls": self._calls.count, "leaf_count": self.leaves}
        fields = self.header.to_dict() | counts | {"result": self.result, "root": root.hex()}
        write_json(self.folder / TRANSCRIPT_FILE, fields)
        return root

    def close(self) -> None:
        self._file.close()

    def _end_segment(self) -> None:
        if self._ops.count:
            self._segments.add(segment_root(self._place, self._ops.count, self._ops.root()))
            self._ops = Growing()

    def _end_call(self) -> None:
        if self._segments.count:
            self._calls.add(call_root(self._place.call, self._segments.count, self._segments.root()))
            self._segments = Growing()


@dataclass(frozen=True)
class Transcript:
    """A transcript whose leaves lead to its root. Whether they are right, an audit tells."""

    folder: Path
    header: Header
    calls: int
    result: list[int]
    root: bytes
    entries: np.ndarray

    @cached_property
    def starts(self) -> np.ndarray:
        """The number of the first leaf of each call, and the count of leaves at the end."""
        return np.searchsorted(self.entries["call"], np.arange(self.calls + 1))

    def leaves(self, calls: range) -> Iterator[tuple[Place, bytes]]:
        """Yield the place and the hash of each leaf of these calls."""
        for entry in self.entries[self.starts[calls.start] : self.starts[calls.stop]]:
            yield place_of(entry), entry["digest"].tobytes()

    def segments(self, call: int) -> list[list[bytes]]:
        """Return the hashes of a call's leaves, layer by layer."""
        result: list[list[bytes]] = []
        for place, digest in self.leaves(range(call, call + 1)):
            if place.op == 0:
                result.append([])
            result[-1].append(digest)
        return result

    @cached_property
    def call_roots(self) -> list[bytes]:
        return [tree_of_call(call, self.segments(call)) for call in range(self.calls)]

    def state(self, calls: int, state_bytes: int) -> dict[str, np.ndarray]:
        """Return the state after some calls, which a leaf holds; its arrays have ``state_bytes`` at most.

        Raises
        ------
        TranscriptError
            There is no such state, or it is not the one that was committed to.
        """
        path = self.folder / STATES / f"{calls}.safetensors"
        try:
            header = read_header(path, STATE_FORMAT, ("calls", "run_id"))
            arrays = load_arrays(path, LARGEST_HEADER + state_bytes)
        except CheckpointError as error:
            raise TranscriptError(str(error)) from error
        expected = state_header(calls, self.header.run_id)
        if content_hash(arrays, expected) != header["content_sha256"]:
            raise AlteredError(f"{path}: altered: its content hash is not the one it was written with")
        place, digest = list(self.leaves(range(calls - 1, calls)))[-1]
        outputs = [tensor_digest(arrays[name]) for name in sorted(arrays)]
        if leaf_digest(self.header.run_id, place, STATE, STATE, {}, (), outputs) != digest:
            raise AlteredError(f"{path}: not the state that the transcript committed to after {calls} calls")
        return arrays


def state_header(calls: int, run_id: bytes) -> dict[str, str]:
    return {"format": STATE_FORMAT, "spec_version": SPEC_VERSION, "calls": str(calls), "run_id": run_id.hex()}


def read_transcript(folder: Path) -> Transcript:
    """Read a transcript and check that its leaves stand in order and lead to its root. Nothing of it is executed.

    Raises
    ------
    TranscriptError
        Or one of its kinds (`errors`), which say what is wrong.
    """
    path = folder / TRANSCRIPT_FILE
    header, calls, count, result, root = _read_fields(path)
    entries = _read_entries(folder / LEAVES_FILE, count)
    check_places(folder / LEAVES_FILE, entries)
    calls_of_leaves = int(entries["call"][-1]) + 1
    if calls_of_leaves != calls:
        raise AlteredError(f"{path}: calls: found {calls}, allowed {calls_of_leaves}, those of {LEAVES_FILE}")
    transcript = Transcript(folder, header, calls, result, root, entries)
    if run_root(header.run_id, calls, result, root_of(transcript.call_roots)) != root:
        raise AlteredError(f"{path}: root: found {root.hex()[:16]}, which is not that of the leaves and the result")
    return transcript


def check_length(transcript: Transcript) -> None:
    """Raise TruncatedRunError or CountError unless calls and result are as many as the request asks for."""
    request = transcript.header.request
    for name, count, wanted in (
        ("calls", transcript.calls, request.calls),
        ("integers in the result", len(transcript.result), request.result_length),
    ):
        if count < wanted:
            raise TruncatedRunError(
                f"{transcript.folder}: truncated run: found {count} {name}, its request asks for {wanted}"
            )
        if count > wanted:
            raise CountError(f"{transcript.folder}: found {count} {name}, its request asks for {wanted}")


def _read_fields(path: Path) -> tuple[Header, int, int, list[int], bytes]:
    try:
        with open_regular(path) as file:
            text = file.read(LARGEST_JSON + 1)
    except OSError as error:
        raise TranscriptError(f"{path}: can't be read: {error.strerror or error}") from error
    if len(text) > LARGEST_JSON:
        raise CountError(f"{path}: more than {LARGEST_JSON} bytes, allowed {LARGEST_JSON}")
    try:
        fields = parse_json(text)
    except ValueError as error:
        raise TranscriptError(f"{path}: no transcript: no JSON: {error}") from error
    return named(path, lambda: _parse_fields(fields))


def _parse_fields(fields: Any) -> tuple[Header, int, int, list[int], bytes]:
    totals = ("calls", "leaf_count", "result", "root")
    rest = {name: fields[name] for name in totals if name in fields} if isinstance(fields, dict) else {}
    header = parse_header({k: v for k, v in fields.items() if k not in rest} if isinstance(fields, dict) else fields)
    calls, count, result, root = members(rest, *totals, kind=False)
    for name, value, most in (("calls", calls, MOST_LEAVES), ("leaf_count", count, MOST_LEAVES)):
        if type(value) is not int or not 1 <= value <= most:
            raise CountError(f"{name}: found {value!r:.80}, allowed 1 to {most}")
    return header, calls, count, parse_result(result, calls, header.request), parse_hash("root", root)


def named(path: Path, parse: Any) -> Any:
    """Return what ``parse`` returns; its errors name the file."""
    try:
        return parse()
    except TranscriptError as error:
        raise type(error)(f"{path}: {error}") from error


def _read_entries(path: Path, count: int) -> np.ndarray:
    try:
        size = regular_size(path)
        if size != count * ENTRY.size:
            raise CountError(f"{path}: found {size} bytes, allowed {count * ENTRY.size}: {ENTRY.size} per leaf")
        return np.fromfile(path, ENTRIES, count)
    except OSError as error:
        raise TranscriptError(f"{path}: can't be read: {error.strerror or error}") from error


def check_places(path: Path, entries: np.ndarray) -> None:
    """Raise the named error of a leaf that stands twice, is missing, or is out of order."""
    places = np.stack([entries[name].astype(np.int64) for name in Place._fields], 1)
    wrong = first_gap(places)
    if wrong is None:
        return
    order = np.lexsort(places.T[::-1])
    ordered = places[order]
    twice = np.flatnonzero((ordered[1:] == ordered[:-1]).all(1))
    kind: type[TranscriptError]
    if twice.size:
        number, says, kind = int(order[twice[0] + 1]), "stands twice, allowed once", RepeatedLeafError
    elif (gap := first_gap(ordered)) is not None:
        number, says, kind = int(order[gap]), "stands after a gap, allowed without one", MissingLeafError
    else:
        number, says, kind = wrong, "stands at another's place, allowed in order", ReorderedLeafError
    raise kind(f"{path}: leaf {number}: {place_of(entries[number]).name} {says}")


def first_gap(places: np.ndarray) -> int | None:
    """Return the number of the first place that doesn't follow the one before it; the first is 0, 0, 0.

    The next op follows, or the first op of the next layer or of the first layer of the next call.
    """
    steps = np.diff(places, axis=0, prepend=[[-1, 0, 0]])
    call, segment, op = steps.T
    _, at_segment, at_op = places.T
    next_op = (call == 0) & (segment == 0) & (op == 1)
    next_segment = (call == 0) & (segment == 1) & (at_op == 0)
    next_call = (call == 1) & (at_segment == 0) & (at_op == 0)
    follows = next_op | next_segment | next_call
    return None if follows.all() else int(np.argmin(follows))


def place_of(entry: Any) -> Place:
    return Place(int(entry["call"]), int(entry["segment"]), int(entry["op"]))
