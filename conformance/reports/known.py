"""Known failures: a file that names ops which needn't pass yet, and fails the run once one of them does."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mamba_integer import spec
from mamba_integer.backends.files.regular import read_regular
from mamba_integer.backends.files.text import lines_of

from ..report import Report, Result

LARGEST_FILE = 1 << 20


class KnownFailuresError(ValueError):
    """A file of known failures that can't be read, or a line in it that names no op or gives no reason."""


@dataclass(frozen=True)
class Known:
    """One line: an op, the backend that it is about (every one, if empty), and the reason."""

    op: str
    backend: str
    reason: str


def read_known(path: Path) -> list[Known]:
    """Read lines of the form ``op: reason`` or ``op on backend: reason``; ``#`` starts a comment line."""
    try:
        text = read_regular(path, LARGEST_FILE).decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise KnownFailuresError(f"{path}: {getattr(error, 'strerror', None) or 'not UTF-8'}") from error
    entries = []
    for number, line in enumerate(lines_of(text), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        subject, _, reason = line.partition(": ")
        op, _, backend = subject.strip().partition(" on ")
        if op not in spec.OPS:
            raise KnownFailuresError(f"{path}: line {number}: {op!r} is no op of the specification")
        if not reason.strip():
            raise KnownFailuresError(f"{path}: line {number}: no reason: write '{op}: why it may fail'")
        entries.append(Known(op, backend.strip(), reason.strip()))
    return entries


def apply_known(report: Report, entries: list[Known]) -> None:
    """Mark listed results that don't pass as ``known``, and listed results that pass as ``stale``."""
    for result in report.results:
        for entry in entries:
            if not result.known and names(entry, result) and result.status != "not run":
                result.status = "stale" if result.status == "passed" else "known"
                result.known = entry.reason


def names(entry: Known, result: Result) -> bool:
    return result.op == entry.op and entry.backend in ("", result.backend)


def counts(report: Report) -> Mapping[str, int]:
    """Return the number of ops of the specification that each backend passes."""
    backends = dict.fromkeys(result.backend for result in report.results)
    passed = [(result.backend, result.op) for result in report.results if result.status == "passed"]
    return {backend: sum(backend == one for one, _ in passed) for backend in backends}
