"""Mutation testing: the listed cases must tell each mutant of the specification from the original.

``python -m mamba_integer.conformance.mutants.mutation`` judges mutants of the golden ops and their contracts, the
number system, the tables, the Numba twins and the suite's own comparison. A mutant survives if nothing that judges it
fails. One that ``survivors.json`` doesn't explain fails the run, and so does an entry of that file that is killed, or
that the source doesn't have any more.
"""

import json
import sys
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer

from mamba_integer.backends.files.atomic import write_json

from .mutator import Mutant
from .verdicts import TARGETS, Target, Verdict, originals, verdicts

SURVIVORS = Path(__file__).with_name("survivors.json")
FIELDS = "module", "function", "before", "after"
SHOWN_EVERY = 100


def explained(path: Path) -> dict[tuple[str, ...], str]:
    """Return the survivors that are listed, each with the reason that no call can tell it from the original."""
    entries = json.loads(path.read_text()) if path.exists() else []
    return {key_of(entry): entry["reason"] for entry in entries}


def key_of(entry: dict[str, str]) -> tuple[str, ...]:
    return tuple(entry[name] for name in FIELDS)


def as_entry(verdict: Verdict) -> dict[str, Any]:
    entry: dict[str, Any] = dict(zip(FIELDS, verdict.mutant.key, strict=True))
    return entry | {"line": verdict.mutant.line, "status": verdict.status, "reason": verdict.reason}


def check_originals(work: Iterable[tuple[Target, Mutant]], jobs: int) -> None:
    """End the program unless each module survives as it is."""
    for verdict in verdicts(originals(work), jobs):
        if verdict.status != "survived":
            sys.exit(f"mutation: {verdict.mutant.module} fails unchanged: {verdict.status} {verdict.reason}")


def gone(chosen: Iterable[Target], reasons: Iterable[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """Return the survivors that are listed for the targets' modules, but that the modules don't have any more."""
    there = {mutant.key for each in chosen for mutant in each.every}
    modules = {key[0] for key in there}
    return [key for key in reasons if key[0] in modules and key not in there]


def summary(results: list[Verdict]) -> str:
    counts = Counter(verdict.status for verdict in results)
    return ", ".join(f"{count} {status}" for status, count in sorted(counts.items()))


def main(
    target: Annotated[list[str] | None, typer.Option(help=f"Judge these alone: {', '.join(TARGETS)}.")] = None,
    match: Annotated[str, typer.Option(help="Judge the mutants that are printed with this text.")] = "",
    again: Annotated[Path | None, typer.Option(help="Judge those that survived in this file of verdicts.")] = None,
    sample: Annotated[int, typer.Option(min=0, help="Judge so many, drawn by the seed; 0 is all.")] = 0,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    jobs: Annotated[int, typer.Option(min=1, help="How many mutants are judged at a time.")] = 1,
    survivors: Annotated[Path, typer.Option(help="The list of survivors that are explained.")] = SURVIVORS,
    report: Annotated[Path | None, typer.Option("--json", help="Write the verdicts to this file.")] = None,
) -> None:
    """Judge mutants; exit with 1 if one survives unexplained, or if one is explained that is killed or isn't there."""
    chosen = [TARGETS[name] for name in target or TARGETS]
    work = [(each, mutant) for each in chosen for mutant in each.mutants if match in str(mutant)]
    if again:
        alive = {key_of(entry) for entry in json.loads(again.read_text()) if entry["status"] == "survived"}
        work = [(each, mutant) for each, mutant in work if mutant.key in alive]
    if sample:
        work = sorted(work, key=lambda one: one[1].lot(seed))[:sample]
    if not work:
        sys.exit("mutation: no mutant was chosen; see --target, --match and --again")
    check_originals(work, jobs)
    reasons, start = explained(survivors), time.monotonic()
    results: list[Verdict] = []
    unexplained = 0
    for module, function, before, after in gone(chosen, reasons):
        unexplained += 1
        print(
            f"explained in {survivors.name}, but not in the module: {module} {function}: {before}  ->  {after}",
            flush=True,
        )
    for verdict in verdicts(work, jobs):
        results.append(verdict)
        survived, listed = verdict.status == "survived", verdict.mutant.key in reasons
        if survived != listed:
            unexplained += 1
            print(f"{verdict.status}{', though explained' if listed else ''}: {verdict.mutant}", flush=True)
        if len(results) % SHOWN_EVERY == 0 or len(results) == len(work):
            print(f"{len(results)} of {len(work)}, {time.monotonic() - start:.0f} s: {summary(results)}", flush=True)
            if report:  # now and not at the end alone: a run takes an hour, and one that is ended has judged these
                write_json(report, [as_entry(verdict) for verdict in results])
    if unexplained:
        sys.exit(1)


if __name__ == "__main__":
    typer.run(main)
