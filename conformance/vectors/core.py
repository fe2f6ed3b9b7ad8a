"""The frozen core: vectors whose bytes lie in the package, so that a change of the specification can't go unseen.

Inputs that were once frozen stay; their right results may change only with the specification's version.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

from mamba_integer import spec
from mamba_integer.backends.files.atomic import write_atomically, write_json
from mamba_integer.backends.files.regular import read_regular
from mamba_integer.backends.files.strict_json import kind_of, parse_json
from mamba_integer.backends.programs.wire import INLINE, WireError, parse_line

from ..engine.cases import draw_case, extreme_cases
from ..engine.vector import Vector, VectorError, as_vector, parse_vector, root_of
from .formats import lines_of

CORE = Path(__file__).parent / "core"
MANIFEST = "manifest.json"
MOST_BYTES = 2_000_000
LONGEST_VECTOR = 4_000
PER_OP = 12  # vectors of each op, half of them listed in its plan and half drawn
MOST_DRAWN = 150  # drawn cases that are tried for an op
FLOOR = 500  # vectors that the core has at least: fewer mean that something is missing


def freeze(core: Path = CORE, ops: tuple[str, ...] = (), anew: bool = False) -> dict[str, Any]:
    """Keep every frozen vector, add some for each op that has too few, and write the new manifest.

    ``anew``, and another version of the specification, lets right results change, and drops the vectors of what the
    specification no longer has.

    Raises
    ------
    VectorError
        A frozen vector has another right result, or left its op's domain, under the same version.
    """
    core.mkdir(exist_ok=True)
    manifest = core / MANIFEST
    if not anew and manifest.exists() and stored(core).get("spec_version") == spec.SPEC_VERSION:
        verify(core)
    for path in core.glob("*.jsonl"):
        if path.stem not in spec.OPS:
            path.unlink()
    hashes = {}
    for op in sorted(spec.OPS):
        vectors = {vector.sha256: vector for vector in remaining(core, op)}
        for vector in small_vectors(op) if not ops or op in ops else ():
            if len(vectors) >= PER_OP:
                break
            vectors.setdefault(vector.sha256, vector)
        if vectors:
            write_atomically(core / f"{op}.jsonl", b"".join(vector.line for vector in vectors.values()))
            hashes[op] = list(vectors)
    fields = describe(hashes)
    write_json(manifest, fields)
    return fields


def stored(core: Path) -> dict[str, Any]:
    try:
        fields = parse_json(read_regular(core / MANIFEST))
    except ValueError as error:
        raise VectorError(f"{MANIFEST}: no JSON: {error}; --anew writes it from the vectors beside it") from error
    if not isinstance(fields, dict):
        raise VectorError(f"{MANIFEST}: found {kind_of(fields)}, allowed an object")
    return fields


def describe(hashes: dict[str, list[str]]) -> dict[str, Any]:
    every = [one for op in hashes.values() for one in op]
    return {"spec_version": spec.SPEC_VERSION, "root": root_of(every), "count": len(every), "vectors": hashes}


def small_vectors(op: str) -> Iterator[Vector]:
    """Yield vectors of few integers: as many that the plan lists, spread over it, as drawn ones."""
    listed = [as_vector(case) for case in extreme_cases(op)]
    short = [vector for vector in listed if is_short(vector)]
    yield from short[:: -(-len(short) // (PER_OP // 2)) or 1]
    drawn = (as_vector(draw_case(op, Random(f"frozen {op} {i}"))) for i in range(MOST_DRAWN))
    yield from filter(is_short, drawn)


def is_short(vector: Vector) -> bool:
    """Whether a vector has a result, and no more integers than a line may have."""
    if any(array.size > INLINE for array in vector.arrays):
        return False
    sizes = [result.size for result in vector.results]
    return sum(sizes) > 0 and max(sizes) <= INLINE and len(vector.line) <= LONGEST_VECTOR


def remaining(core: Path, op: str) -> Iterator[Vector]:
    """Yield the frozen vectors of an op that are still in its domain."""
    path = core / f"{op}.jsonl"
    for line in lines_of(path) if path.exists() else ():
        with contextlib.suppress(VectorError):
            yield parse_vector(parse_line(line))


def read(core: Path, op: str) -> Iterator[Vector]:
    """Yield the frozen vectors of an op, their results computed anew."""
    path = core / f"{op}.jsonl"
    for line in lines_of(path) if path.exists() else ():
        try:
            yield parse_vector(parse_line(line))
        except WireError as error:
            raise VectorError(f"{path.name}: {error}") from error


def verify(core: Path = CORE) -> dict[str, Any]:
    """Compute every frozen vector anew and compare bytes and hashes; return the manifest.

    Raises
    ------
    VectorError
        A vector is missing, was changed, or is no longer what the specification says.
    """
    try:
        manifest = stored(core)
        hashes = {}
        for path in sorted(core.glob("*.jsonl")):
            lines, vectors = list(lines_of(path)), list(read(core, path.stem))
            for i, (line, vector) in enumerate(zip(lines, vectors, strict=True)):
                if line + b"\n" != vector.line:
                    raise VectorError(f"{path.name}: line {i + 1} isn't what the specification gives")
            hashes[path.stem] = [vector.sha256 for vector in vectors]
    except OSError as error:
        raise VectorError(f"{error.filename}: {error.strerror}") from error
    if manifest != describe(hashes):
        raise VectorError(f"{MANIFEST}: its version, root, count or hashes aren't those of the vectors beside it")
    if manifest["count"] < FLOOR:
        raise VectorError(f"{manifest['count']} frozen vectors, want {FLOOR} at least")
    return manifest


def promote(vector: Vector, core: Path = CORE) -> bool:
    """Add a vector to the frozen core; return whether it is new."""
    frozen = list(read(core, vector.op))
    if vector.sha256 in {one.sha256 for one in frozen}:
        return False
    write_atomically(core / f"{vector.op}.jsonl", b"".join(one.line for one in [*frozen, vector]))
    hashes = {path.stem: [one.sha256 for one in read(core, path.stem)] for path in sorted(core.glob("*.jsonl"))}
    write_json(core / MANIFEST, describe(hashes))
    return True
