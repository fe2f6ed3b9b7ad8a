"""A folder of exported vectors: written, and checked together with the answers that a stranger put into it."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mamba_integer import spec
from mamba_integer.backends import Backend
from mamba_integer.backends.files.atomic import new_folder, write_json
from mamba_integer.backends.programs.wire import PROTOCOL

from ..diagnosis.trial import Answer
from ..engine.comparison import Failure, compare
from ..engine.vector import Vector, VectorError, root_of, vectors_of
from .formats import FORMATS, LINES
from .manifest import MANIFEST, check_drawn, read_manifest


@dataclass
class Check:
    """Content of a folder: right vectors, and answers to them."""

    vectors: int = 0
    right: int = 0
    integers: int = 0
    left_out: Counter[str] = field(default_factory=Counter)
    failures: list[Failure] = field(default_factory=list)
    returned: dict[str, list[Answer]] = field(default_factory=dict)  # by op, answers of the right form
    missing: dict[str, list[int]] = field(default_factory=dict)  # by op, the vectors that no answer is of
    repeated: dict[str, list[int]] = field(default_factory=dict)  # by op, the vectors that several answers are of

    @property
    def answers(self) -> int:
        return self.right + len(self.failures) + self.left_out.total()

    @property
    def all_right(self) -> bool:
        return self.right == self.vectors and not self.missing and not self.repeated

    def count(self, op: str, vectors: int, answered: Counter[int]) -> None:
        """Note an op's vectors, and those of them that have no answer or several."""
        self.vectors += vectors
        for kind, numbers in (
            (self.missing, [i for i in range(vectors) if not answered[i]]),
            (self.repeated, [i for i in range(vectors) if answered[i] > 1]),
        ):
            if numbers:
                kind[op] = numbers


def export(folder: Path, ops: Iterable[str], preset: str, seed: int, kind: str) -> dict[str, Any]:
    """Write the vectors of ops to a new or empty folder; return its manifest."""
    with new_folder(folder) as place:
        hashes: dict[str, list[str]] = {}
        for op in ops:
            vectors = list(vectors_of(op, preset, seed))
            for form in dict.fromkeys((LINES, FORMATS[kind])):
                form.write(place, op, vectors)
            hashes[op] = [vector.sha256 for vector in vectors]
        manifest = {
            "spec_version": spec.SPEC_VERSION,
            "protocol": PROTOCOL,
            "format": kind,
            "preset": preset,
            "seed": seed,
            "root": root_of([one for op in hashes.values() for one in op]),
            "vectors": hashes,
        }
        write_json(place / MANIFEST, manifest)
        return manifest


def check(folder: Path) -> Check:
    """Check that a folder's vectors are the specification's, and compare its answers with the right results.

    Raises
    ------
    VectorError
        A file can't be read, or a vector isn't what it was when it was exported.
    """
    manifest = read_manifest(folder / MANIFEST)
    form, checked = FORMATS[manifest["format"]], Check()
    for op, hashes in manifest["vectors"].items():
        answered: Counter[int] = Counter()
        try:
            vectors = LINES.read(folder, op)
            if [vector.sha256 for vector in vectors] != hashes:
                raise VectorError(f"{op}: the vectors aren't those of {MANIFEST}, or their right results have changed")
            check_drawn(op, vectors, manifest)
            for one in dict.fromkeys((LINES, form)):
                one.verify(folder, op, vectors)
                for i, answer in one.answers(folder, op, vectors):
                    answered[i] += 1
                    check_answer(checked, vectors[i], answer, Backend(str(folder), None), place_of(op, i))
        except OSError as error:
            raise VectorError(f"{error.filename}: {error.strerror}") from error
        checked.count(op, len(vectors), answered)
    return checked


def place_of(op: str, i: int) -> str:
    return f"vector {i}: line {i + 2} of {op}.requests.jsonl, folder {op}/{i} of other formats"


def check_answer(checked: Check, vector: Vector, answer: Any, backend: Backend, place: str) -> None:
    if isinstance(answer, str):
        checked.left_out[f"{vector.op} {answer}"] += 1
        return
    try:
        checked.integers += compare(backend, vector, answer, vector.results)
        checked.right += 1
    except Failure as failure:
        failure.purpose = place
        checked.failures.append(failure)
        if not failure.differs:
            return
    checked.returned.setdefault(vector.op, []).append(Answer(vector, tuple(map(np.asarray, answer))))
