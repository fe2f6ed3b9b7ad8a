"""Mutation testing: the listed cases must tell each mutant of the specification from the original.

``python -m mamba_integer.conformance.mutants.mutation`` judges mutants of the golden ops and their contracts, the
number system, the tables, the Numba twins and the suite's own comparison. A mutant survives if nothing that judges it
fails. One that ``survivors.json`` doesn't explain fails the run, and so does an entry of that file that is killed, or
that the source doesn't have any more; kernels have mutants of a few kinds that may survive (``kinds``). With
``--remember`` a run goes on where the last one ended.
"""

import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path
from typing import Annotated, Any

import typer

from mamba_integer.backends.app.outputs import output_file
from mamba_integer.backends.files.atomic import write_json

from .kinds import kind_of
from .memory import Memory
from .mutator import Mutant
from .verdicts import TARGETS, Target, Verdict, originals, verdicts

SURVIVORS = Path(__file__).with_name("survivors.json")
FIELDS = "module", "function", "before", "after"
SHOWN_EVERY = 20  # seconds

Work = tuple[Target, Mutant]


def explained(path: Path) -> dict[tuple[str, ...], str]:
    """Return the survivors that are listed, each with the reason that no call can tell it from the original."""
    entries = json.loads(path.read_text()) if path.exists() else []
    return {key_of(entry): entry["reason"] for entry in entries}


def key_of(entry: dict[str, str]) -> tuple[str, ...]:
    return tuple(entry[name] for name in FIELDS)


def as_entry(verdict: Verdict) -> dict[str, Any]:
    entry: dict[str, Any] = dict(zip(FIELDS, verdict.mutant.key, strict=True))
    return entry | {"line": verdict.mutant.line, "status": verdict.status, "reason": verdict.reason}


def check_originals(work: Iterable[Work], memory: Memory, jobs: int, in_time: Callable[[Any], bool]) -> None:
    """End the program unless each module survives as it is."""
    unknown = [one for one in originals(work) if memory.verdict(*one) is None]
    if unknown:
        print(f"first {len(unknown)} modules are judged as they are", flush=True)
    for count, verdict in enumerate(verdicts(takewhile(in_time, unknown), jobs), 1):
        print(f"{count} of {len(unknown)}: {verdict.mutant.module} as it is: {verdict.status}", flush=True)
        if verdict.status != "survived":
            sys.exit(f"mutation: {verdict.mutant.module} fails unchanged: {verdict.status} {verdict.reason}")
        memory.add(verdict)


def gone(chosen: Iterable[Target], reasons: Iterable[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """Return the survivors that are listed for the targets' modules, but that the modules don't have any more."""
    there = {mutant.key for each in chosen for mutant in each.every}
    modules = {key[0] for key in there}
    return [key for key in reasons if key[0] in modules and key not in there]


@dataclass
class Run:
    """The verdicts of a run, and the number of them that ``reasons``, the explained survivors, contradict."""

    reasons: Mapping[tuple[str, ...], str]
    chosen: int
    report: Path | None
    start: float = field(default_factory=time.monotonic)
    shown: float = 0
    results: list[Verdict] = field(default_factory=list)
    wrong: int = 0

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.start

    def complain(self, text: str) -> None:
        self.wrong += 1
        print(text, flush=True)

    def add(self, verdict: Verdict) -> None:
        self.results.append(verdict)
        survived, listed = verdict.status == "survived", verdict.mutant.key in self.reasons
        if survived != listed and not (survived and kind_of(verdict.mutant)):
            self.complain(f"{verdict.status}{', though explained' if listed else ''}: {verdict.mutant}")

    def show(self) -> None:
        """Print the progress of the run, and write its report so far."""
        counts = Counter(verdict.status for verdict in self.results)
        said = ", ".join(f"{count} {status}" for status, count in sorted(counts.items()))
        print(f"{len(self.results)} of {self.chosen}, {self.seconds:.0f} s: {said}", flush=True)
        self.shown = self.seconds
        if self.report:
            write_json(self.report, [as_entry(verdict) for verdict in self.results])


def main(
    target: Annotated[list[str] | None, typer.Option(help=f"Judge these alone: {', '.join(TARGETS)}.")] = None,
    match: Annotated[str, typer.Option(help="Judge the mutants that are printed with this text.")] = "",
    again: Annotated[Path | None, typer.Option(help="Judge those that survived in this file of verdicts.")] = None,
    sample: Annotated[int, typer.Option(min=0, help="Judge so many, drawn by the seed; 0 is all.")] = 0,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    jobs: Annotated[int, typer.Option(min=1, help="How many mutants are judged at a time.")] = 1,
    minutes: Annotated[float, typer.Option(min=0, help="Start no mutant after so many minutes; 0 is no limit.")] = 0,
    remember: Annotated[
        Path | None, typer.Option(help="Read earlier verdicts from this file, and add new ones.")
    ] = None,
    survivors: Annotated[Path, typer.Option(help="The list of survivors that are explained.")] = SURVIVORS,
    report: Annotated[
        Path | None, typer.Option("--json", help="Write the verdicts to this file.", callback=output_file)
    ] = None,
) -> None:
    """Judge mutants; exit with 1 if one survives unexplained, or if one is explained that is killed or isn't there."""
    chosen = [TARGETS[name] for name in dict.fromkeys(target or TARGETS)]
    work = [(each, mutant) for each in chosen for mutant in each.mutants if match in str(mutant)]
    if again:
        alive = {key_of(entry) for entry in json.loads(again.read_text()) if entry["status"] == "survived"}
        work = [(each, mutant) for each, mutant in work if mutant.key in alive]
    if sample:
        work = sorted(work, key=lambda one: one[1].lot(seed))[:sample]
    if not work:
        sys.exit("mutation: no mutant was chosen; see --target, --match and --again")
    run, memory = Run(explained(survivors), len(work), report), Memory(remember)
    for key in gone(chosen, run.reasons):
        run.complain(
            f"explained in {survivors.name}, but not in the module: {' '.join(key[:2])}: {'  ->  '.join(key[2:])}"
        )
    remembered = {id(one): verdict for one in work if (verdict := memory.verdict(*one))}
    for verdict in remembered.values():
        run.add(verdict)
    waiting = [one for one in work if id(one) not in remembered]
    if remembered:
        print(f"{len(remembered)} of {len(work)} were judged by an earlier run", flush=True)

    def in_time(_: Work) -> bool:
        return not minutes or run.seconds < 60 * minutes

    check_originals(waiting, memory, jobs, in_time)
    for verdict in verdicts(takewhile(in_time, waiting), jobs):
        memory.add(verdict)
        run.add(verdict)
        if run.seconds - run.shown > SHOWN_EVERY:
            run.show()
    run.show()
    if left := len(work) - len(run.results):
        print(f"the time is up: {left} of {len(work)} are left; the same command with --remember goes on with them")
    if not run.results:
        sys.exit("mutation: no mutant was judged; see --minutes")
    if run.wrong:
        print(f"{run.wrong} verdicts or explanations are wrong: kill each such mutant, or list it in {survivors}")
        sys.exit(1)


if __name__ == "__main__":
    typer.run(main)
