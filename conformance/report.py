"""Report of a run: its results, complete or partial, and the machine."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mamba_integer import spec
from mamba_integer.backends.app.main import EQUAL, MISMATCH

from .engine.comparison import Failure

if TYPE_CHECKING:  # a process that explains nothing starts without the diagnosis
    from .diagnosis.explanation import Explanation

FINISHED = ("passed", "failed", "known", "stale")
MOST_REASONS = 20  # different ones that are kept of an op's skipped cases


@dataclass
class Result:
    """Result of one op on one backend; ``groups`` counts its cases by kind, ``shares`` the parts still to run."""

    op: str
    backend: str
    device: str = "cpu"
    status: str = "not run"  # passed, failed, missing, partial, skipped, known, stale, not run
    groups: Counter[str] = field(default_factory=Counter)
    integers: int = 0
    skipped: Counter[str] = field(default_factory=Counter)  # cases that the backend left out, by its reason
    failure: Failure | None = None
    explanation: "Explanation | None" = None
    notes: list[str] = field(default_factory=list)  # what was run otherwise than the preset says
    known: str = ""  # why this op needn't pass
    shares: int = 0
    points: Counter[str] = field(default_factory=Counter)  # what the listed cases cover, and how often
    lacking: set[str] = field(default_factory=set)  # points of layouts that the backend's arrays don't have
    impossible: set[str] = field(default_factory=set)  # points of which no case is in the op's domain

    @property
    def cases(self) -> int:
        return self.groups.total()

    def add(self, share: "Result") -> None:
        """Take in one more share of the op's cases; the first failure of a share is the op's."""
        self.shares -= 1
        self.groups += share.groups
        self.integers += share.integers
        self.skipped += share.skipped
        self.notes += share.notes
        self.points.update(share.points)
        self.lacking |= share.lacking
        self.impossible |= share.impossible
        self.failure = self.failure or share.failure
        if self.status != "failed":
            ended = share.status if share.status in ("failed", "missing") else self.verdict
            self.status = ended if ended == "failed" or not self.shares else "not run"

    @property
    def verdict(self) -> str:
        """The status of an op whose cases have all run without a failure."""
        if self.skipped:
            return "partial" if self.integers else "skipped"
        return "passed" if self.integers else "failed"

    @property
    def coverpoints(self) -> dict[str, int]:
        """The number of listed cases that covered each point that a case can cover."""
        return {point: count for point, count in self.points.items() if count or point not in self.impossible}

    @property
    def missed(self) -> list[str]:
        """The points that no case covered, but for layouts that the backend's arrays don't have."""
        return [point for point, count in self.coverpoints.items() if not count and point not in self.lacking]

    def count(self, group: str, integers: int | None) -> None:
        """Count one case; None for its integers says that it was skipped."""
        if integers is not None:
            self.groups[group] += 1
            self.integers += integers

    def skip(self, reason: str) -> None:
        known = reason in self.skipped or len(self.skipped) < MOST_REASONS
        self.skipped[reason if known else "other reasons"] += 1

    def to_dict(self) -> dict[str, Any]:
        return {
            "op": self.op,
            "backend": self.backend,
            "device": self.device,
            "status": self.status,
            "cases": self.cases,
            "groups": dict(self.groups),
            "integers": self.integers,
            "skipped": dict(self.skipped),
            "notes": self.notes,
            "known": self.known,
            "coverpoints": self.coverpoints,
            "layouts_lacking": sorted(self.lacking),
            "failure": self.failure.to_dict() if self.failure else None,
            "explanation": self.explanation.to_dict() if self.explanation else None,
        }


@dataclass
class Text:
    """The digests of one backend's stages on real text: of one block, or of a model. ``want`` are the right ones."""

    backend: str
    source: str
    status: str = "not run"
    message: str = ""
    stages: dict[str, str] = field(default_factory=dict)
    want: dict[str, str] = field(default_factory=dict)
    integers: int = 0

    def lacks(self, ops: Sequence[str]) -> "Text":
        self.status, self.message = "missing", f"no {', '.join(ops)}"
        return self

    def to_dict(self) -> dict[str, Any]:
        return dict(vars(self))


@dataclass
class Report:
    """The results of a run, one for each selected op and backend, in the order in which they run.

    ``stopped`` is the exit code of a run that a signal ended: it is neither complete nor a pass, whatever it found.
    """

    results: list[Result] = field(default_factory=list)
    texts: list[Text] = field(default_factory=list)
    models: list[Text] = field(default_factory=list)
    stopped: int | None = None

    @property
    def statuses(self) -> list[str]:
        return [result.status for result in self.results] + [text.status for text in (*self.texts, *self.models)]

    @property
    def compared(self) -> int:
        return sum(result.integers for result in self.results)

    @property
    def passed(self) -> bool:
        """Whether the run ended, compared something, and found all of it equal (ops may be missing)."""
        return not self.interrupted and self.compared > 0 and not self.unequal

    @property
    def unequal(self) -> bool:
        """Whether something failed, or passed that was known to fail."""
        return bool({"failed", "stale"} & set(self.statuses))

    @property
    def complete(self) -> bool:
        """Whether every selected op, and every chain of ops, ran on every backend."""
        return not self.interrupted and bool(self.results) and all(status in FINISHED for status in self.statuses)

    @property
    def interrupted(self) -> bool:
        return self.stopped is not None

    @property
    def exit_code(self) -> int:
        """0 only where everything that was selected ran and was equal: a missing op is no pass."""
        if self.stopped is not None:
            return self.stopped
        return EQUAL if self.passed and self.complete else MISMATCH

    @property
    def failures(self) -> list[Failure]:
        return [result.failure for result in self.results if result.failure]

    def to_dict(self) -> dict[str, Any]:
        selected = list(dict.fromkeys(result.op for result in self.results))
        return {
            "spec_version": spec.SPEC_VERSION,
            "passed": self.passed,
            "complete": self.complete,
            "interrupted": self.interrupted,
            "exit_code": self.exit_code,
            "whole_specification": set(selected) == set(spec.OPS),
            "total": {
                "ops": len(selected),
                "ops_of_specification": len(spec.OPS),
                "cases": sum(result.cases for result in self.results),
                "coverpoints": sum(len(result.coverpoints) - len(result.lacking) for result in self.results),
                "coverpoints_missed": sum(len(result.missed) for result in self.results),
                "integers": self.compared + sum(text.integers for text in (*self.texts, *self.models)),
                "statuses": dict(Counter(self.statuses)),
            },
            "results": [result.to_dict() for result in self.results],
            "text": [text.to_dict() for text in self.texts],
            "model": [text.to_dict() for text in self.models],
        }
