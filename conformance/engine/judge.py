"""One op of one backend: every kind of case that it has, until one fails."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import Any

from mamba_integer.backends import Backend, UnsupportedError
from mamba_integer.backends.escapes import text_of

from ..presets import INTERPRETED, PRESETS, Preset
from ..report import Result
from . import replay
from .calls import BetweenCasesError, Caller, names_from, on_cuda, variant_of, variants
from .cases import Case, ExtremeCase, draw_case, draw_sharing, extreme_cases, large_cases, moved_cases, twin
from .comparison import AnyCase, Failure
from .drawing import check_drawn, check_listed
from .exhaustive import exhaustive_cases
from .far_ends import ELEMENTS, FarCase, long_cases, memory_of, out_of_memory, row_cases
from .generated import Listed, first_cases, listed_cases, points_of
from .journal import Journal
from .layouts import CONTIGUOUS, has_layout
from .moved import ONE_IN
from .purposes import purpose_of
from .relations import RELATIONS, draw_relation
from .task import Task

SHARE_BITS = 16  # of a seed, that number the shares
CASES_PER_RELATION_CASE = 6
CASES_PER_SET = 8  # that share the parameters for which a backend compiles an op anew
# Groups of the same few sizes, and so of the same programs: variants run them in the full preset alone, and once.
ONE_SCHEDULE = ("layouts", "pairs")
LONG = 1 << 16  # elements of an argument: too many for each variant of a backend that is interpreted
AGAIN = 3  # cases that run again after all: a result that a backend remembers has been overwritten since
LEAST_ELEMENTS = 1 << 20  # of a call of many rows
LARGE_RUNS = 3  # of each large case, in the full preset of each listed one, where it may race: anywhere but on a CPU


def run_task(task: Task, journal: Journal, title: str = "") -> list[Result]:
    """Run a task; return a result for each of its backends."""
    results = []
    for position, backend in enumerate(task.backends):
        journal.start(f"{title} {position}")
        if task.many_rows:
            results.append(conform_rows(backend, task.op, task.many_rows, journal))
            continue
        rules = task.preset, task.seed, task.exhaustive, task.share, task.shares
        results.append(conform_op(backend, task.op, *rules, journal))
    return results


def preset_for(backend: Backend, preset: str) -> Preset:
    """Return a preset, with fewer and smaller cases for a backend that says it is interpreted, and up to which cost."""
    largest = int(getattr(backend.ops, "interpreted", 0))
    if not largest:
        return PRESETS[preset]
    few = INTERPRETED[preset]
    return replace(few, cost=min(few.cost, largest * few.repetitions))


@dataclass
class Judge:
    """Checker of the cases of one op on one backend; it counts them."""

    backend: Backend
    result: Result
    journal: Journal

    def __post_init__(self) -> None:
        self.caller = Caller(self.backend)

    @contextmanager
    def noting_failures(self) -> Iterator[None]:
        """End the block at the first failure, which is the result's."""
        try:
            yield
        except Failure as failure:
            failure.history = tuple(self.journal.cases)
            self.result.status, self.result.failure = "failed", failure
        except BetweenCasesError as error:
            self.result.status = "failed"
            self.result.notes.append(str(error))

    def check(self, case: AnyCase) -> int | None:
        """Return the number of integers compared in a case, or None where the backend leaves the case out."""
        with self.journal.running(case):
            try:
                return replay.check(self.caller, case)
            except UnsupportedError as reason:
                self.result.skip(text_of(reason))
                return None

    def check_and_count(self, group: str, case: AnyCase) -> None:
        self.result.count(group, self.check(case))

    def check_list(self, group: str, case: AnyCase, purpose: str = "") -> bool:
        """Check a case that isn't drawn; return whether it was compared."""
        try:
            compared = check_listed(self.check, case)
            self.result.count(group, compared)
            return compared is not None
        except Failure as failure:
            self.result.count(group, failure.compared)
            failure.purpose = purpose or purpose_of(case)
            raise

    def draw(self, group: str, examples: int, seed: int, make: Callable[..., AnyCase]) -> None:
        try:
            check_drawn(examples, seed, make, partial(self.check_and_count, group))
        except Failure as failure:
            self.result.count(group, failure.compared)
            raise

    def check_generated(self, listed: Listed, case: Case | None, variant: str = "") -> None:
        """Check a case made from the contract, and note its points; none where the arrays lack a layout."""
        if case is None:
            self.result.impossible.update(listed.points)
            return
        lacking = [name for name in case.layouts if not has_layout(self.backend, name)]
        if len(lacking) == len([name for name in case.layouts if name != CONTIGUOUS]) > 0:
            for point in listed.points:
                self.result.lacking.add(point)
            return
        if self.check_list(listed.group + variant, case, "; ".join(listed.points)):
            self.result.points.update(listed.points)


def conform_op(
    backend: Backend,
    op: str,
    preset: str = "minimal",
    run_seed: int = 0,
    exhaustive: bool = False,
    share: int = 0,
    shares: int = 1,
    journal: Journal | None = None,
) -> Result:
    """Hold a backend's op against the golden op on listed and drawn cases, and against itself: one of ``shares``."""
    result = Result(op, backend.name, backend.device)
    if not backend.has(op):
        result.status = "missing"
        return result
    judge = Judge(backend, result, journal or Journal())
    with judge.noting_failures():
        _conform(judge, op, preset, run_seed, exhaustive, share, shares)
        # A later share may have nothing left to draw; the first always compares something.
        result.status = "passed" if share and not result.skipped else result.verdict
    return result


def conform_rows(backend: Backend, op: str, processes: int, journal: Journal) -> Result:
    """Hold an op against the golden one where arrays of many rows fill a GPU, which ``processes`` share."""
    result = Result(op, backend.name, backend.device, "passed")
    if not backend.has(op):
        result.status = "missing"
        return result
    judge = Judge(backend, result, journal)
    with judge.noting_failures():
        for case in row_cases(op, memory_of(backend) // processes, backend):
            check_rows_that_fit(judge, case)
    return result


def check_rows_that_fit(judge: Judge, case: FarCase) -> None:
    """Check a call of many rows; where the memory that others share has no room for it, one of half as many."""
    while True:
        try:
            for _ in range(LARGE_RUNS):
                judge.check_list("far ends", case)
        except Failure as failure:
            if not out_of_memory(failure) or case.elements < LEAST_ELEMENTS:
                raise
            judge.result.groups["far ends"] -= 1
            case = replace(case, elements=case.elements // 2)
        else:
            break
    if case.elements < ELEMENTS:
        judge.result.notes.append(
            f"far ends: {case.elements:,} elements of {ELEMENTS:,}: the domain or the memory ends"
        )


def _conform(judge: Judge, op: str, preset: str, run_seed: int, exhaustive: bool, share: int, shares: int) -> None:
    def part(cases: Iterable[Any]) -> Iterator[Any]:
        return islice(cases, share, None, shares)

    backend = judge.backend
    numbers = preset_for(backend, preset)
    generated = partial(listed_cases, op, numbers, share, shares)
    judge.result.points = Counter(dict.fromkeys(points_of(op), 0))
    for listed, case in first_cases(op, numbers) if share == 0 else ():
        judge.check_generated(listed, case)
    for case in part(extreme_cases(op, numbers.extremes)):
        judge.check_list("extremes", case)
    for case in part(moved_cases(op, numbers.extremes)) if has_layout(backend, ONE_IN) else ():
        judge.check_list("extremes", case)
    for large in part(large_cases(op, run_seed, not numbers.thin)):
        for _ in range(1 if backend.device == "cpu" else LARGE_RUNS):
            judge.check_list("large", large)
        if not numbers.thin:
            judge.check_list("large", twin(large))
    again = preset == "full" and backend.device != "cpu"
    for run in range(LARGE_RUNS if again else 1):
        for listed, case in generated():
            if run == 0 or listed.group not in ONE_SCHEDULE:
                judge.check_generated(listed, case)
    # All in one share: the twin that they are compared with is first held against all that is listed.
    last = share == shares - 1
    for far in long_cases(op) if last and preset == "full" and on_cuda(backend) else ():
        for _ in range(LARGE_RUNS):
            judge.check_list("far ends", far)
    for case in islice(part(extreme_cases(op, numbers.extremes)), AGAIN):
        judge.check_list("again", case)
    for name in variants(backend, op):
        _conform_variant(
            judge, numbers, name, lambda: part(short_of(numbers, extreme_cases(op, numbers.extremes))), generated
        )
    most = PRESETS[preset].share
    examples = min(most, numbers.drawn - share * most)
    if examples > 0:
        _draw(judge, op, examples, (run_seed << SHARE_BITS) + share)
    for every in part(exhaustive_cases(op, backend)) if exhaustive else ():
        judge.check_list(f"exhaustive {every.exhaustive}", every)


def short_of(numbers: Preset, cases: Iterable[ExtremeCase]) -> Iterator[ExtremeCase]:
    """Yield the cases; those of long arrays only where all that is listed is taken."""
    return (case for case in cases if not (numbers.thin and max(array.size for array in case.arrays) > LONG))


def _draw(judge: Judge, op: str, examples: int, own_seed: int) -> None:
    backend, make = judge.backend, partial(draw_case, op)
    if shared := names_from(backend, "compiled_for", op):
        make = partial(draw_sharing, op, shared, -(-examples // CASES_PER_SET), own_seed)
    judge.draw("drawn", examples, own_seed, make)
    for name, relation in RELATIONS.items():
        needed = relation.needs(op)
        if needed is not None and all(backend.has(other) for other in needed):
            few = -(-examples // CASES_PER_RELATION_CASE)
            judge.draw(name, few, own_seed, partial(draw_relation, name, make))


def _conform_variant(
    judge: Judge,
    numbers: Preset,
    name: str,
    extremes: Callable[[], Iterable[AnyCase]],
    generated: Callable[[], Iterable[tuple[Listed, Case | None]]],
) -> None:
    """Check the listed cases again where the backend takes other paths, more than once where they may race."""
    try:
        with variant_of(judge.backend, name):
            for run in range(numbers.repetitions):
                for case in extremes():
                    judge.check_list(f"extremes, {name}", case)
                for listed, made in generated():
                    if listed.group not in ONE_SCHEDULE or (run == 0 and numbers.repetitions > 1):
                        judge.check_generated(listed, made, f", {name}")
    except Failure as failure:
        failure.variant = name
        raise
