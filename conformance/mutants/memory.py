"""Verdicts that are remembered in a file: a mutant is judged once, unless it or what judges it has changed since."""

import contextlib
import hashlib
import json
from functools import cache
from pathlib import Path

from mamba_integer.spec import compiled

from ..engine.case_cache import CONFORMANCE, SOURCES
from .layer import Layer, closure, path_of
from .mutator import Mutant
from .verdicts import COMPILED, LATE, TESTS, Target, Verdict

JUDGES = (
    *SOURCES,
    CONFORMANCE / "oracle",
    *(CONFORMANCE / "mutants" / f"{n}.py" for n in ("layer", "mutator", "verdicts")),
)


KERNELS = Path(compiled.__file__).resolve().parent


class Memory:
    """The verdicts of earlier runs, one per line; without a path there are none, and none are written."""

    def __init__(self, path: Path | None):
        self.path, self.known = path, dict[str, tuple[str, str]]()
        for line in path.read_text().splitlines() if path and path.exists() else ():
            with contextlib.suppress(ValueError, KeyError, TypeError):  # a line that was cut is a mutant to judge again
                entry = json.loads(line)
                self.known[entry["content"]] = entry["status"], entry["reason"]

    def verdict(self, target: Target, mutant: Mutant) -> Verdict | None:
        told = self.known.get(content(target, mutant))
        return Verdict(target, mutant, *told) if told else None

    def add(self, verdict: Verdict) -> None:
        """Remember a verdict; not that of a mutant which may have been late because others kept the processor."""
        if self.path is None or verdict.reason == LATE:
            return
        entry = {"content": content(verdict.target, verdict.mutant), "mutant": str(verdict.mutant)}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a") as file:
            file.write(json.dumps(entry | {"status": verdict.status, "reason": verdict.reason}) + "\n")


def content(target: Target, mutant: Mutant) -> str:
    """Return the hash of a mutant's text and of all that decides its verdict."""
    text = "\0".join((deciding(target, mutant.module), str(mutant.line), *mutant.key))
    return hashlib.sha256(text.encode()).hexdigest()


@cache
def deciding(target: Target, module: str) -> str:
    """Return the hash of the sources on which the verdicts of a module's mutants depend."""
    told = hashlib.sha256()
    for path in sorted(sources(target, module)):
        text = path.read_bytes()
        told.update(f"\n{path.name} {len(text)}\n".encode() + text)
    return told.hexdigest()


def sources(target: Target, module: str) -> set[Path]:
    """Return the files of all that judges a module's mutants; of kernels, those alone that are used with it."""
    files = {path for root in JUDGES for path in ([root] if root.is_file() else root.rglob("*.py"))}
    files -= set(KERNELS.rglob("*.py"))
    if target.layer == COMPILED:
        files |= {Path(path_of(target.reach.modules[name])).resolve() for name in related(target.reach, module)}
    return files | {TESTS / test for test in target.tests}


def related(layer: Layer, module: str) -> set[str]:
    """Return the modules that a change of one reaches, with all that they import; packages only gather names."""
    packages = {name for name, each in layer.modules.items() if hasattr(each, "__path__")}
    return closure(set(layer.stale(module)) - packages, lambda name: layer.imported[name] - packages)
