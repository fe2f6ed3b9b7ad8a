"""Comparison of backends on cases of one op, in a process of its own: a hang or a crash there is a failure as well."""

import faulthandler
import signal
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mamba_integer.backends import Backend, BackendError, UnsupportedError
from mamba_integer.backends.escapes import text_of

from ..presets import LONGER
from . import replay
from .apart import Apart, Ended
from .calls import Caller, variant_of, variants
from .comparison import AnyCase, Failure
from .journal import Journal, alarm, read
from .workers import ended, why

STDERR = 2
Parts = Callable[[], Iterable[Sequence[AnyCase]]]


@dataclass
class Comparison:
    """The outcome of cases: the integers compared, the cases that a backend left out, and the first failure."""

    integers: int = 0
    skipped: Counter[str] = field(default_factory=Counter)  # cases by reason
    failure: Failure | None = None

    def add(self, other: "Comparison") -> None:
        self.integers += other.integers
        self.skipped += other.skipped
        self.failure = other.failure


@dataclass(frozen=True)
class Rules:
    """The op, the reference and the limits that all cases of a comparison share."""

    op: str
    reference: Backend
    variant: str
    timeout: float


def compare_backends(
    rules: Rules, others: Sequence[Backend], parts: Parts, progress: Callable[[int], None]
) -> Comparison:
    """Compare backends with the reference until one fails; tell the number of cases of each part that has run.

    Each backend gets the parts anew.

    Raises
    ------
    BackendError
        The process of a backend ended where it ran none of the cases.
    """
    total = Comparison()
    with tempfile.TemporaryDirectory() as folder, Apart() as process:
        journal = Path(folder, "journal")
        for other in others:
            for part in parts():
                journal.unlink(missing_ok=True)
                try:
                    total.add(process.run(_compare, journal, rules, other, part))
                except Ended as error:
                    total.failure = _ending(journal, rules, other, error)
                if total.failure:
                    total.failure.reference = rules.reference.name
                    return total
                progress(len(part))
    return total


def variants_of(rules: Rules, others: Sequence[Backend]) -> set[str]:
    """Return the names of the variants that one of the backends has of the op."""
    known: set[str] = set()
    with Apart() as process:
        for other in others:
            try:
                known.update(process.run(_variants, rules, other))
            except Ended as error:
                raise BackendError(f"backend {other.name}: variants(): {why(error.code, rules.timeout)}") from None
    return known


def _variants(rules: Rules, other: Backend) -> tuple[str, ...]:
    with alarm(rules.timeout):
        return variants(other, rules.op)


def _ending(journal: Path, rules: Rules, other: Backend, error: Ended) -> Failure:
    """Return the failure of a case that ended its process."""
    if not journal.exists() or not (note := read(journal)).running:
        raise BackendError(f"backend {other.name}: before or between cases {why(error.code, LONGER * rules.timeout)}")
    failure = ended(other, rules.op, note.cases, error.code, rules.timeout)
    if rules.reference.name != "golden":
        failure.message += f"; {rules.reference.name} ran in it too"
    return failure


def _compare(path: Path, rules: Rules, other: Backend, cases: Sequence[AnyCase]) -> Comparison:
    faulthandler.register(signal.SIGALRM, file=STDERR, chain=True)  # an alarm also shows where the backend stood
    done, journal = Comparison(), Journal(path, rules.timeout)
    caller, wanted = Caller(other), Caller(rules.reference)
    with alarm(LONGER * rules.timeout):
        journal.start(other.name)
        with variant_of(other, rules.variant if rules.variant in variants(other, rules.op) else ""):
            for case in cases:
                try:
                    with journal.running(case):
                        done.integers += replay.check(caller, case, wanted)
                except UnsupportedError as reason:
                    done.skipped[text_of(reason)] += 1
                except Failure as failure:
                    done.failure = failure
                    break
    return done
