"""The description of a transcript: what was run, how it was committed, and the root over all of it."""

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from mamba_integer.spec.version import SPEC_VERSION

from .errors import CountError, RequestError, TranscriptError, VersionError
from .leaf import Place
from .recorder import LEAVES
from .request import MOST_CALLS, MOST_VOCABULARY, Generate, Request, check_count, check_sha256, members, parse_request
from .tree import root_of

FORMAT = "mamba-integer/transcript"
RUN, SEGMENT, CALL, ROOT = (f"mamba-integer/{name}\0".encode() for name in ("run", "segment", "call", "root"))
FIELDS = ("format", "spec_version", "model_sha256", "request", "leaves", "every")
MOST_LEAVES = 1 << 24


@dataclass(frozen=True)
class Header:
    """All that determines every leaf of an honest transcript.

    ``leaves`` says whether there is one for each op or for each layer; after each ``every`` calls, and after the last,
    a leaf holds the state from which the next call goes on.
    """

    model_sha256: str
    request: Request
    leaves: str
    every: int

    @cached_property
    def run_id(self) -> bytes:
        """The hash that each leaf holds, so that no leaf of one run is a leaf of another."""
        return hashlib.sha256(RUN + json.dumps(self.to_dict(), sort_keys=True).encode()).digest()

    @property
    def stretches(self) -> list[range]:
        """The calls between two states, which an audit runs again together."""
        calls = self.request.calls
        return [range(start, min(start + self.every, calls)) for start in range(0, calls, self.every)]

    def ends_stretch(self, call: int) -> bool:
        return (call + 1) % self.every == 0 or call + 1 == self.request.calls

    def to_dict(self) -> dict[str, Any]:
        values = FORMAT, SPEC_VERSION, self.model_sha256, self.request.to_dict(), self.leaves, self.every
        return dict(zip(FIELDS, values, strict=True))


def parse_header(fields: Any) -> Header:
    """Return the header that ``to_dict`` gave.

    Raises
    ------
    VersionError, CountError, RequestError, TranscriptError
        The fields are of another version of the specification, or no header.
    """
    if not isinstance(fields, dict) or fields.get("format") != FORMAT:
        other = fields.get("format") if isinstance(fields, dict) else fields
        raise TranscriptError(f"format: found {other!r:.80}, allowed {FORMAT!r}")
    if fields.get("spec_version") != SPEC_VERSION:
        raise VersionError(f"specification version: found {fields.get('spec_version')!r:.80}, allowed {SPEC_VERSION!r}")
    _, _, model, request, leaves, every = members(fields, *FIELDS, kind=False)
    check_sha256("model_sha256", model)
    if leaves not in LEAVES:
        raise TranscriptError(f"leaves: found {leaves!r:.80}, allowed {' or '.join(LEAVES)}")
    check_count("every", every, MOST_CALLS)
    return Header(model, parse_request(request), leaves, every)


def same_request(a: Header, b: Header) -> None:
    """Raise RequestError unless the headers are equal: only then do two transcripts answer one question."""
    one, other = (dict(flat("", header.to_dict())) for header in (a, b))
    for name in sorted({*one, *other}):
        if one.get(name) != other.get(name):
            values = f"{one.get(name)!r:.80} and {other.get(name)!r:.80}"
            raise RequestError(f"two different requests: {name}: {values}; a dispute needs two runs of one request")


def flat(prefix: str, value: Any) -> list[tuple[str, Any]]:
    if not isinstance(value, dict):
        return [(prefix, value)]
    return [pair for name, one in value.items() for pair in flat(f"{prefix}.{name}" if prefix else name, one)]


def segment_root(place: Place, count: int, root: bytes) -> bytes:
    return hashlib.sha256(SEGMENT + f"{place.call} {place.segment} {count}\n".encode() + root).digest()


def call_root(call: int, count: int, root: bytes) -> bytes:
    return hashlib.sha256(CALL + f"{call} {count}\n".encode() + root).digest()


def run_root(run_id: bytes, calls: int, result: list[int], root: bytes) -> bytes:
    return hashlib.sha256(ROOT + run_id + f"{calls} {json.dumps(result)}\n".encode() + root).digest()


def segment_roots(call: int, segments: list[list[bytes]]) -> list[bytes]:
    """Return the root of each layer of a call from its leaves."""
    return [segment_root(Place(call, i, 0), len(ops), root_of(ops)) for i, ops in enumerate(segments)]


def tree_of_call(call: int, segments: list[list[bytes]]) -> bytes:
    """Return the root of a call from the leaves of each of its layers."""
    return call_root(call, len(segments), root_of(segment_roots(call, segments)))


def parse_hash(name: str, value: Any) -> bytes:
    check_sha256(name, value)
    return bytes.fromhex(value)


def parse_result(result: Any, most: int, request: Request) -> list[int]:
    """Return the integers of a run's result: the tokens written, or the loss after each call."""
    limit = MOST_VOCABULARY if isinstance(request, Generate) else 1 << 62
    if not isinstance(result, list) or any(type(one) is not int or not 0 <= one < limit for one in result):
        raise RequestError(f"result: found {result!r:.80}, allowed a list of integers of [0, {limit - 1}]")
    if len(result) > most:
        raise CountError(f"result: found {len(result)} integers, allowed {most} at most")
    return result
