"""Verdicts on mutants: each takes the original's place in a process of its own, and is judged there."""

import atexit
import contextlib
import fnmatch
import importlib
import math
import os
import pkgutil
import select
import shutil
import signal
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

# Before Numba is imported: a kernel that is compiled from a mutant raises where it reads or writes past an array. Only
# kernels with such checks may come from its cache, and the version for one thread is the one that has them.
os.environ["NUMBA_BOUNDSCHECK"] = "1"
os.environ["NUMBA_CACHE_DIR"] = CHECKED_KERNELS = tempfile.mkdtemp(prefix="checked-kernels-")
os.environ["MAMBA_INTEGER_PARALLEL_FROM"] = str(sys.maxsize)

import numba
import numpy as np

from mamba_integer.backends import load
from mamba_integer.backends.stopping import STOPS
from mamba_integer.spec.bounds import Interval
from mamba_integer.spec.contract import OPS, Parameter, Tensor
from mamba_integer.spec.pages import op_section

from .. import oracle
from ..engine import case_cache
from ..engine.extents import extents_hash
from ..engine.layouts import CONTIGUOUS, Placed, place_all
from ..engine.listed import listed
from ..oracle.observe import recording
from ..plans import PLANS
from ..plans.plan import Extreme
from .layer import Layer, closure, loaded
from .mutator import Mutant, mutants, place_of

SPEC, COMPILED = "mamba_integer.spec", "mamba_integer.spec.compiled"
ENGINE = "mamba_integer.conformance.engine"
COMPARISON = f"{ENGINE}.comparison"
BUILT_ON = f"{SPEC}.model", f"{SPEC}.training", COMPILED
# The checked kernels go with this process; the listed cases, which it makes without a mutant, stay for the next.
case_cache.FOLDER = case_cache.SOURCES[0] / "compiled" / "__pycache__"
atexit.register(shutil.rmtree, CHECKED_KERNELS, ignore_errors=True)
TESTS = Path(__file__).resolve().parents[2] / "tests"
LARGEST_MEMORY = 8 << 30
PATIENCE = 20  # how many times as long as its processor time a mutant may take on a busy machine
INSTALLATION = 10  # seconds of a processor's time
SLOWER = 20  # how many times as long as the original a mutant may take for a call
UNCHANGED = "(unchanged)"
ENDLESS, LATE = "no end within its time on a processor", "no end on a machine that may have been busy"
ALONE = "_alone"  # at the end of the name of a kernel's version for one thread
NUMPY = load("golden")
USED_BY_TESTS = "pytest", "mpmath", "hypothesis"
PYTEST = ("-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist")


@dataclass(frozen=True)
class Target:
    """Modules whose mutants are judged in one way: by the ops that a package implements, by tests, or by both."""

    modules: tuple[str, ...]
    layer: str
    implementation: str = ""
    tests: tuple[str, ...] = ()
    part: str = ""
    seconds: int = (
        3  # of a processor's time that a mutant may take for a call or for its tests, beside what a call needs
    )

    @cached_property
    def reach(self) -> Layer:
        """The layer, all of it loaded, but for what is built on it."""
        package = importlib.import_module(self.layer)
        for module in pkgutil.walk_packages(package.__path__, f"{self.layer}."):
            if not module.name.startswith(self.beyond):
                importlib.import_module(module.name)
        return Layer(module for module in loaded(self.layer) if not module.__name__.startswith(self.beyond))

    @property
    def beyond(self) -> tuple[str, ...]:
        return tuple(name for name in BUILT_ON if not self.layer.startswith(name))

    @cached_property
    def every(self) -> list[Mutant]:
        """All mutants of the modules, those of the part that another target judges included."""
        chosen = [n for n in self.reach.modules if any(fnmatch.fnmatch(n, pattern) for pattern in self.modules)]
        return [mutant for name in sorted(chosen) for mutant in mutants(name, self.reach.sources[name])]

    @cached_property
    def mutants(self) -> list[Mutant]:
        return [m for m in self.every if not self.part or (self.part == "computed") == self.is_computed(m)]

    @cached_property
    def computed(self) -> set[str]:
        """The functions and constants that the bodies of ops use; the others only state an op's promises."""
        return closure(set(OPS), lambda name: {other for other in self.reach.used[name] if not self.promises(other)})

    def promises(self, name: str) -> bool:
        """Tell whether a name stands for a part of a contract, or parts."""
        values = [vars(module)[name] for module in self.reach.modules.values() if name in vars(module)]
        parts = [part for value in values for part in (value if isinstance(value, tuple) else (value,))]
        return any(isinstance(part, Parameter | Tensor | Interval) for part in parts)

    @property
    def only_promises(self) -> bool:
        """Tell whether every mutant of the target changes promises alone, and no body of an op."""
        return self.part == "promised"

    def is_computed(self, mutant: Mutant) -> bool:
        return bool(self.reach.changed(mutant) & self.computed)


TARGETS = {
    "integers": Target((f"{SPEC}.integers",), SPEC, f"{SPEC}.ops", ("spec/test_number_system.py",), seconds=20),
    "golden": Target((f"{SPEC}.ops.*",), SPEC, f"{SPEC}.ops", part="computed"),
    "contracts": Target((f"{SPEC}.ops.*",), SPEC, f"{SPEC}.ops", part="promised"),
    "philox": Target((f"{SPEC}.philox",), SPEC, f"{SPEC}.ops", ("spec/test_philox.py",), seconds=20),
    "tables": Target((f"{SPEC}.tables.*",), SPEC, tests=("spec/test_tables.py",), seconds=8),
    # Beside the ops, the words of test data, which no op draws, and products as processors compute them that lack an
    # instruction of this one.
    "numba": Target(
        (f"{COMPILED}.*",), COMPILED, COMPILED, ("spec/test_philox.py", "spec/compiled/test_products.py"), seconds=60
    ),
    "comparison": Target((COMPARISON,), ENGINE, tests=("conformance/test_comparison.py",), seconds=60),
}


def originals(work: Iterable[tuple[Target, Mutant]]) -> Iterator[tuple[Target, Mutant]]:
    """Yield a mutant of each module that changes nothing, which must survive: else it is the judge that is broken."""
    for target, mutant in {(target, mutant.module): (target, mutant) for target, mutant in work}.values():
        parent, name, index, _ = mutant.change
        right = place_of(parent, name, index)
        yield target, replace(mutant, function=UNCHANGED, before="", after="", change=(parent, name, index, right))


@dataclass(frozen=True)
class Verdict:
    """``killed`` by a difference, ``crashed`` or out of time (killed as well), or ``survived``."""

    target: Target
    mutant: Mutant
    status: str
    reason: str = ""


@dataclass(frozen=True)
class Call:
    """A listed call of an op; its results by the specification as it is, and how long that took, are made at need."""

    op: str
    arrays: tuple[np.ndarray, ...]
    parameters: dict[str, int]
    layouts: tuple[str, ...] = ()

    def placed(self) -> list[Placed]:
        """Return new arguments, as they lie in memory."""
        return place_all(NUMPY, self.arrays, self.layouts or (CONTIGUOUS,) * len(self.arrays))

    @cached_property
    def timed(self) -> tuple[tuple[np.ndarray, ...], float]:
        """The results, and the seconds of a processor's time that they took."""
        start = time.process_time()
        results = as_tuple(OPS[self.op].golden(*self.arrays, **self.parameters))
        return results, time.process_time() - start

    @property
    def want(self) -> tuple[np.ndarray, ...]:
        return self.timed[0]


@dataclass(frozen=True)
class Extent:
    """Calls that together attain the bounds of an op, and the ends that each intermediate has in them."""

    extreme: Extreme
    record: dict[str, tuple[int, int]]


def as_tuple(result: Any) -> tuple[Any, ...]:
    return result if isinstance(result, tuple) else (result,)


class Listed(dict[str, tuple[list[Call], list[Extent]]]):
    """Judge of an op: its listed calls, the small ones first, and its extents. It is made once, in the parent."""

    def __missing__(self, op: str) -> tuple[list[Call], list[Extent]]:
        calls = [call_of(op, case) for case in listed(op)]
        calls.sort(key=lambda call: sum(array.size for array in call.arrays))
        self[op] = calls, [extent_of(op, extreme) for extreme in PLANS[op].extremes()]
        return self[op]


def call_of(op: str, case: Any) -> Call:
    for array in case.arrays:
        array.flags.writeable = False
    return Call(op, case.arrays, dict(case.parameters), getattr(case, "layouts", ()))


def extent_of(op: str, extreme: Extreme) -> Extent:
    with recording() as record:
        for arrays in extreme.calls:
            getattr(oracle, op)(*arrays, **extreme.parameters)
    return Extent(extreme, record)


LISTED = Listed()


class Stated(dict[str, tuple[str, str]]):
    """By op, its part of the reference pages and its proved ranges, as the specification is; tests compare both."""

    def __missing__(self, op: str) -> tuple[str, str]:
        self[op] = op_section(OPS[op]), extents_hash(OPS[op])
        return self[op]


STATED = Stated()


def run_calls(target: Target, op: str) -> list[Call]:
    """Return the listed calls of an op to run; for a mutant that changes promises alone, the smallest."""
    calls, _ = LISTED[op]
    return calls[:1] if target.only_promises else calls


def judge_ops(target: Target, ops: Sequence[str]) -> str:
    """Compare the promises and results of ops, as their modules stand now; return the first difference, or nothing."""
    judges = (judge_promises, judge_calls) if target.only_promises else (judge_calls, judge_promises)
    return next((told for judge_op in judges for op in ops if (told := judge_op(target, op))), "")


def judge_calls(target: Target, op: str) -> str:
    """Run the listed calls of an op."""
    contract = sys.modules[f"{SPEC}.contract"].OPS[op]
    function = vars(sys.modules[f"{target.implementation}.{contract.family}"])[op]
    for i, call in enumerate(run_calls(target, op)):
        want, seconds = call.timed
        allow(target.seconds + SLOWER * seconds)
        placed = call.placed()
        views = [argument.view for argument in placed]
        contract.check(views, call.parameters)
        results = as_tuple(getattr(function, "golden", function)(*views, **call.parameters))
        if difference := differs(results, want, views):
            return f"{op}, call {i}: {difference}"
        if not all(np.array_equal(argument.loaded, argument.buffer) for argument in placed):
            return f"{op}, call {i}: an input is changed, or what lies beside it"
    return ""


def judge_promises(target: Target, op: str) -> str:
    """Ask the contract of an op for its page, its widths, and which calls are in its domain."""
    if target.implementation != f"{SPEC}.ops":
        return ""
    contract, (calls, extents) = sys.modules[f"{SPEC}.contract"].OPS[op], LISTED[op]
    allow(target.seconds)
    page, extents_of_op = STATED[op]
    if op_section(contract) != page:
        return f"{op}: what its page states"
    if extents_hash(contract) != extents_of_op:
        return f"{op}: a proved range"
    for extent in extents:
        at = contract.check(extent.extreme.calls[0], extent.extreme.parameters)
        if name := unattained(contract.widths(at), extent.record):
            return f"{op}: width of {name}"
    for call in calls:
        contract.check(call.arrays, call.parameters)
    return ""


def allow(seconds: float) -> None:
    """Let this process take a number of seconds more of processor time; after that the system ends it."""
    import resource

    _, most = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(time.process_time() + seconds), most))


def differs(results: tuple[Any, ...], wanted: tuple[np.ndarray, ...], inputs: Sequence[np.ndarray]) -> str:
    if len(results) != len(wanted):
        return f"{len(results)} results"
    for result, want in zip(results, wanted, strict=True):
        if not isinstance(result, np.ndarray | np.generic) or result.dtype != want.dtype or result.shape != want.shape:
            return f"{type(result).__name__} {getattr(result, 'dtype', '')} {getattr(result, 'shape', '')}"
        if not np.array_equal(result, want):
            return f"{int((result != want).sum())} of {want.size} integers"
        if any(np.may_share_memory(result, array) for array in inputs):
            return "a result that shares its memory with an input"
    return ""


def unattained(widths: Any, record: dict[str, tuple[int, int]]) -> str:
    """Return the first intermediate whose proved range isn't what was seen, or nothing."""
    if widths.keys() != record.keys():
        return f"{widths.keys() ^ record.keys()}"
    for name, ends in record.items():
        proved = widths[name].range
        exact = ends == (proved.low, proved.high)
        if not (exact if widths[name].attained else all(end in proved for end in ends)):
            return name
    return ""


def judge_tests(files: Sequence[str]) -> str:
    """Run files of tests in this process; return their outcome, or an empty text if they passed."""
    import pytest

    status = pytest.main([*PYTEST, *(str(TESTS / file) for file in files)]) if files else pytest.ExitCode.OK
    return "" if status == pytest.ExitCode.OK else f"tests: {pytest.ExitCode(status).name}"


def ops_of(target: Target, mutant: Mutant) -> list[str]:
    """Return the ops that a mutant may change, those of its own module first."""
    if not target.implementation:
        return []
    family = mutant.module.rsplit(".", 1)[-1]
    if mutant.function == UNCHANGED:
        return [op for op in OPS if OPS[op].family == family]
    reached, stale = target.reach.reached(mutant), target.reach.stale(mutant.module)
    ops = [op for op in OPS if f"{target.implementation}.{OPS[op].family}" in stale and {op, f"@{op}"} & reached]
    return sorted(ops, key=lambda op: OPS[op].family != family)


def judge(target: Target, mutant: Mutant, ops: Sequence[str]) -> str:
    """Install a mutant and judge it; nothing else may run in this process after that."""
    compile_anew(set() if mutant.function == UNCHANGED else target.reach.reached(mutant))
    stale = target.reach.stale(mutant.module)
    for op in [name for name, contract in OPS.items() if contract.golden.__module__ in stale]:
        del OPS[op]  # its module defines it anew
    target.reach.install(mutant)
    told = judge_ops(target, ops)
    allow(target.seconds)
    return told or judge_tests(target.tests)


def compile_anew(changed: set[str]) -> None:
    """Let kernels that a mutant changes be compiled without the cache, which knows them by their place in a file."""
    compile_kernel: Any = numba.njit

    def njit(*functions: Callable, cache: bool = False, **options: Any) -> Any:
        names = {name for function in functions for name in (function.__name__, function.__name__.removesuffix(ALONE))}
        return compile_kernel(*functions, **options | {"cache": cache and bool(functions) and not names & changed})

    numba.njit = njit  # type: ignore[assignment]
    if f"{COMPILED}.cache" in sys.modules:
        sys.modules[f"{COMPILED}.cache"].njit = njit  # type: ignore[attr-defined]


@dataclass(frozen=True)
class Trial:
    """A process that judges a mutant."""

    process: int
    target: Target
    mutant: Mutant
    deadline: float

    def end(self) -> bool:
        """End the process if it hasn't ended; return whether its time was up."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.process, signal.SIGKILL)
        _, status = os.waitpid(self.process, 0)
        return os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGXCPU


def verdicts(work: Iterable[tuple[Target, Mutant]], jobs: int) -> Iterator[Verdict]:
    """Judge mutants, ``jobs`` of them at a time; one that takes too long is ended."""
    trials: dict[int, Trial] = {}
    waiting = iter(work)
    try:
        while True:
            while len(trials) < jobs and (next_one := next(waiting, None)):
                reading, trial = start(*next_one)
                trials[reading] = trial
            if not trials:
                return
            patience = max(0, min(trial.deadline for trial in trials.values()) - time.monotonic())
            ready, _, _ = select.select(list(trials), [], [], patience)
            late = [r for r, trial in trials.items() if trial.deadline <= time.monotonic() and r not in ready]
            for reading in (*ready, *late):
                status, _, reason = (os.read(reading, 4096) if reading in ready else b"").decode().partition(" ")
                trial = trials.pop(reading)
                os.close(reading)
                if trial.end() or reading in late:
                    status, reason = "timeout", LATE if reading in late else ENDLESS
                yield Verdict(trial.target, trial.mutant, status or "crashed", reason)
    finally:
        for trial in trials.values():
            trial.end()


def start(target: Target, mutant: Mutant) -> tuple[int, Trial]:
    """Start a process that judges a mutant; return where its verdict can be read, and the process."""
    ops, seconds = ops_of(target, mutant), 0.0
    _ = target.reach.codes, target.reach.order  # made here, once, and what all tests import
    for name in USED_BY_TESTS if target.tests else ():
        importlib.import_module(name)
    for op in ops:
        _ = STATED[op]
        seconds += sum(call.timed[1] for call in run_calls(target, op))
    reading, writing = os.pipe()
    process = os.fork()
    if process == 0:
        serve(target, mutant, ops, writing)
    os.close(writing)
    return reading, Trial(process, target, mutant, time.monotonic() + PATIENCE * (target.seconds + seconds))


def serve(target: Target, mutant: Mutant, ops: Sequence[str], writing: int) -> None:
    """Judge in this process, write the verdict and end it, whatever happens."""
    import resource

    try:
        for number in STOPS:
            signal.signal(number, signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_DATA, (LARGEST_MEMORY, LARGEST_MEMORY))
        allow(INSTALLATION)
        warnings.simplefilter("ignore")
        np.seterr(divide="raise")
        case_cache.FOLDER = None  # no other process may read cases that a mutant has made
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        os.dup2(nowhere, 2)
        try:
            reason = judge(target, mutant, ops)
            said = f"killed {reason}" if reason else "survived"
        except BaseException as error:
            said = f"crashed {type(error).__name__}: {error}"
        os.write(writing, said.encode("ascii", "replace")[:4096])
    finally:
        os._exit(0)
