"""The conformance run: hypothesis draws cases op by op, a failing case is shrunk, everything is counted."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from mamba_integer.backends import Backend
from mamba_integer.spec import OPS

from .cases import draw_case, extreme_cases
from .comparison import Failure, check_case

PRESETS = {"minimal": 25, "full": 300}


@dataclass
class Result:
    """What one op did on one backend."""

    op: str
    backend: str
    status: str = "missing"  # passed, failed, missing
    cases: int = 0
    integers: int = 0
    failure: Failure | None = None

    def to_dict(self) -> dict[str, Any]:
        return {
            "op": self.op,
            "backend": self.backend,
            "status": self.status,
            "cases": self.cases,
            "integers": self.integers,
            "failure": self.failure.to_dict() if self.failure else None,
        }


@dataclass
class Report:
    """The results of a run. It passed if something was compared, everything compared was equal, and cases were many."""

    results: list[Result] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        return any(r.cases for r in self.results) and all(r.status != "failed" for r in self.results)


def conform_op(backend: Backend, op: str, examples: int, run_seed: int = 0) -> Result:
    """Compare a backend's op with the golden op on ``examples`` drawn cases."""
    result = Result(op, backend.name)
    if not backend.has(op):
        return result

    def count(compared: int) -> None:
        result.cases += 1
        result.integers += compared

    @seed(run_seed)
    @settings(
        max_examples=examples,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=(Phase.generate, Phase.shrink),
        report_multiple_bugs=False,
    )
    @given(st.randoms(use_true_random=False))
    def compare_drawn_cases(random):
        count(check_case(backend, draw_case(op, random)))

    try:
        for case in extreme_cases(op):
            count(check_case(backend, case))
        compare_drawn_cases()
    except Failure as failure:
        result.status, result.failure = "failed", failure
    else:
        result.status = "passed" if result.integers else "failed"
    return result


def conform(
    backend: Backend,
    ops: Iterable[str] | None = None,
    examples: int = PRESETS["minimal"],
    run_seed: int = 0,
    progress: Callable[[Result], None] = lambda result: None,
) -> Report:
    """Run the suite for a backend; without ``ops``, for all of the specification."""
    report = Report()
    for op in ops or OPS:
        report.results.append(conform_op(backend, op, examples, run_seed))
        progress(report.results[-1])
    return report
