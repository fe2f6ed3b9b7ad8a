"""Listed cases on disk, beside the kernels that Numba has compiled there.

The search for the cases at which each op says something takes a processor a minute, in each process anew. A file holds
what is listed for an op: the group, points and cost of each plan, and the cases that were made of plans so far. It is
JSON, so to read it runs no code. Its first line has the hash of all that decides the cases, and the hash of the other
line. Where one of them differs, or where there is no folder to write to, cases are made anew.
"""

import contextlib
import hashlib
import json
import os
import platform
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path

import numpy as np

from mamba_integer import spec
from mamba_integer.backends.files.atomic import write_atomically
from mamba_integer.spec.contract import OPS

from .bases import Listed
from .cases import Case

CONFORMANCE = Path(__file__).resolve().parents[1]
SOURCES = (
    Path(spec.__file__).resolve().parent,
    CONFORMANCE / "engine",
    CONFORMANCE / "plans",
    CONFORMANCE / "presets.py",
)
GOLDEN = {name: contract.golden for name, contract in OPS.items()}


def kernels_folder() -> Path | None:
    """Return where Numba keeps any of its kernels, so that NUMBA_CACHE_DIR moves the cases too; None where it can't.

    Numba needn't be loaded to tell the place where it keeps them most often: beside their sources.
    """
    beside = SOURCES[0] / "compiled" / "__pycache__"
    if not os.environ.get("NUMBA_CACHE_DIR") and os.access(beside, os.W_OK):
        return beside
    from mamba_integer.spec.compiled.philox import _stream_words

    cached = getattr(_stream_words, "stats", None)
    return Path(cached.cache_path) if cached and cached.cache_path else None


FOLDER: Path | None = kernels_folder()

Row = tuple[str, tuple[str, ...], int]


@cache
def deciding_hash() -> str:
    """Return the hash of the sources and versions that decide which cases are listed."""
    told = hashlib.sha256(f"{platform.python_version()} {np.__version__}".encode())
    for root in SOURCES:
        for path in sorted(root.rglob("*.py")) if root.is_dir() else [root]:
            content = path.read_bytes()
            told.update(f"\n{root.name} {path.relative_to(root)} {len(content)}\n".encode() + content)
    return told.hexdigest()


class Listing:
    """All that is listed for an op; ``plan`` makes it anew, where it or one of its cases isn't on disk."""

    def __init__(self, op: str, line: int, plan: Callable[[str, int], tuple[Listed, ...]]):
        self.op, self.name, self.anew = op, f"cases-{op}-{line}.json", cache(partial(plan, op, line))
        rows, self.cases = read(self.name)
        self.rows: list[Row] = rows or [(one.group, one.points, one.cost) for one in self.anew()]
        self.plans = tuple(Listed(*row, partial(self.made, i)) for i, row in enumerate(self.rows))
        self.written = len(self.cases)

    def made(self, position: int) -> Case | None:
        if position not in self.cases:
            case = self.anew()[position].make()
            if OPS[self.op].golden is not GOLDEN.get(self.op):  # as tests and mutants replace it
                return case
            self.cases[position] = case
        return self.cases[position]

    def save(self) -> None:
        """Write the cases made since the last write, together with those that other processes have written."""
        if FOLDER is None or len(self.cases) == self.written:
            return
        self.cases = read(self.name)[1] | self.cases
        self.written = len(self.cases)
        cases = {position: case and case.written for position, case in sorted(self.cases.items())}
        content = json.dumps([self.rows, cases], separators=(",", ":")).encode()
        with contextlib.suppress(OSError):
            write_atomically(FOLDER / self.name, heading(content) + content)


def heading(content: bytes) -> bytes:
    return f"{deciding_hash()} {hashlib.sha256(content).hexdigest()}\n".encode()


def read(name: str) -> tuple[list[Row], dict[int, Case | None]]:
    """Return the rows and the cases of a file; none if it isn't there, is of other sources, or isn't whole."""
    try:
        first, _, content = (FOLDER / name).read_bytes().partition(b"\n") if FOLDER else (b"", b"", b"")
    except OSError:
        return [], {}
    if first + b"\n" != heading(content):
        return [], {}
    rows, cases = json.loads(content)
    made = {int(position): fields and Case.from_fields(fields) for position, fields in cases.items()}
    return [(group, tuple(points), cost) for group, points, cost in rows], made
