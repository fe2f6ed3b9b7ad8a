"""Paths of our own backends: each path that a call may take must be run by a listed case.

``python -m mamba_integer.conformance.paths`` runs the Numba backend twice, each kernel on one thread and on all of
them, and compares the results every time, the second way more than once: a race shows in few runs. Of the Triton
backend it takes down how kernels would be launched (tiles, warps, constants that a size decides) without running them,
for the listed cases and for sizes from all over the domain. It exits with 1 if a path is taken by no listed case.
"""

import contextlib
import re
import sys
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from functools import cache
from itertools import product
from types import SimpleNamespace
from typing import Annotated, Any

import typer

from mamba_integer.backends import UnsupportedError, load
from mamba_integer.backends.app.arguments import chosen_ops
from mamba_integer.spec.contract import OPS, DomainError, Op, known_size, trusted_values

from .engine import replay
from .engine.calls import variant_of, variants
from .engine.comparison import Failure
from .engine.listed import listed
from .engine.workers import processes

REPETITIONS = 3  # of the cases on all threads
FAR = 1 << 16  # the largest size that is tried where the contract has no bound
COARSE = (1, 16, 20, 640)  # 640 is whole tiles and whole swizzled rows
PLAIN, HOPPER = 0, 90  # targets: one without kernels of its own, and the one that has the most
# Constants of a kernel that follow from a parameter or are a size: each value is no path of its own.
NO_CHOICE = {"WIDTH", "up", "down", "fine", "coarse", "limit", "Q"}
NO_CHOICE |= {"DEPTH", "PADDED", "CARRIED_SHIFT", "WEIGHT_BITS", "CARRIED_BITS", "SUM_BITS", "GRADIENT_BITS"}

TRITON = "mamba_integer.backends.triton"

Launch = tuple[str, tuple[tuple[str, Any], ...]]


def numba_paths(ops: Iterable[str], repetitions: int = REPETITIONS) -> dict[tuple[str, str], int]:
    """Run the listed cases of ops on one thread, and then on all; count the runs of each version of each kernel.

    Raises
    ------
    Failure
        A result isn't the specification's.
    """
    from mamba_integer.spec.compiled import threads

    backend = load("numba")
    before = dict(threads.RUNS)
    for op in ops:
        with threads.spreading_from(sys.maxsize):
            for case in listed(op):
                replay.check(backend, case)
        with threads.spreading_from(0):
            for _ in range(repetitions):
                for case in listed(op):
                    replay.check(backend, case)
    return {path: runs - before.get(path, 0) for path, runs in threads.RUNS.items()}


@contextlib.contextmanager
def launches(op: str) -> Iterator[set[Launch]]:
    """Record the launches inside the block, and launch nothing."""
    from triton.runtime.jit import KernelInterface

    taken: set[Launch] = set()

    def launch(kernel: Any, grid: Any) -> Any:
        return lambda *arguments, **options: taken.add((kernel.__name__, chosen(OPS[op], kernel, options)))

    right = KernelInterface.__getitem__
    KernelInterface.__getitem__ = launch  # type: ignore[method-assign, assignment]
    try:
        yield taken
    finally:
        KernelInterface.__getitem__ = right  # type: ignore[method-assign]


def chosen(contract: Op, kernel: Any, options: Mapping[str, Any]) -> tuple[tuple[str, Any], ...]:
    """Return the constants of a launch that are neither a parameter nor a size of the op."""
    known = decided(contract, kernel)
    return tuple(sorted((name, value) for name, value in options.items() if name not in known))


@cache
def decided(contract: Op, kernel: Any) -> set[str]:
    """Return what of a launch isn't chosen: parameters, sizes and arguments that aren't constants."""
    arguments = set(kernel.arg_names)
    constants = {name for name, kind in kernel.fn.__annotations__.items() if "constexpr" in str(kind)}
    known = {p.name for p in contract.parameters} | {name for t in contract.inputs for name in names_of(t.shape)}
    return known | NO_CHOICE | (arguments - constants)


@cache
def names_of(shape: str) -> tuple[str, ...]:
    return (*re.findall(r"[A-Za-z]+", shape),)


def listed_launches(op: str, wanted: Collection[Launch] | None = None) -> set[Launch]:
    """Return the launches of kernels for the listed cases of an op; end when the wanted ones are among them.

    Cases of the same sizes, dtypes and parameters are looked at once.
    """
    backend = load("triton")
    calls = dict.fromkeys((case.forms, tuple(case.parameters.items())) for case in listed(op))
    with launches(op) as taken, trusted_values():
        for name in ("", *variants(backend, op)):
            with variant_of(backend, name):
                for forms, parameters in calls:
                    with contextlib.suppress(Exception):  # a call that can't be launched is the suite's to report
                        backend.call(op, without_memory(forms), dict(parameters))
                    if wanted is not None and taken.issuperset(wanted):
                        return taken
    return taken


def possible_launches(op: str) -> set[Launch]:
    """Return the launches of kernels for sizes and parameters from all over the domain, on arrays without memory."""
    contract, backend = OPS[op], load("triton")
    with launches(op) as taken, trusted_values():
        for at, dtypes in calls_of(contract):
            shapes = [shape_of(tensor.shape, at) for tensor in contract.inputs]
            with contextlib.suppress(DomainError, UnsupportedError):
                arrays = without_memory(zip(shapes, dtypes, strict=True))
                backend.call(op, arrays, {p.name: getattr(at, p.name) for p in contract.parameters})
    return taken


def without_memory(forms: Iterable[tuple[tuple[int, ...], str]]) -> list[Any]:
    """Return arrays of shapes and dtypes alone, which is all that a launch is chosen by."""
    import torch

    return [torch.empty(shape, dtype=getattr(torch, dtype), device="meta") for shape, dtype in forms]


def calls_of(contract: Op) -> Iterator[tuple[Any, tuple[str, ...]]]:
    """Yield sizes and parameters of calls, with the dtypes of their inputs."""
    names = sorted({name for tensor in contract.inputs for name in names_of(tensor.shape)})
    names += ["..."] if any("..." in tensor.shape for tensor in contract.inputs) else []
    bounds = {name: bound_of(contract, name) for name in names}
    grids = [dict(zip(names, sizes, strict=True)) for sizes in product(COARSE, repeat=len(names))]
    grids += [{n: size if n == name else 3 for n in names} for name in names for size in powers(bounds[name])]
    for sizes in grids:
        if all(sizes[name] <= bounds[name] for name in names):
            for end in ("low", "high"):
                at = SimpleNamespace(**{name: size for name, size in sizes.items() if name != "..."})
                at.leading = (sizes.get("...", 1),)
                for parameter in contract.parameters:
                    if parameter.name not in sizes:
                        setattr(at, parameter.name, getattr(parameter.range(at), end))
                yield from ((at, dtypes) for dtypes in product(*(tensor.dtypes for tensor in contract.inputs)))


def bound_of(contract: Op, name: str) -> int:
    if f"2^{name}" in " ".join(tensor.shape for tensor in contract.inputs):
        return min(contract.sizes.get(name, (0, 12))[1], 12)
    return min(contract.sizes.get(name, (0, FAR))[1], FAR)


def powers(bound: int) -> list[int]:
    """Return powers of two and their neighbours, up to a bound."""
    return [size for j in range(18) for size in (2**j - 1, 2**j, 2**j + 1) if 0 < size <= bound]


def shape_of(shape: str, at: Any) -> tuple[int, ...]:
    names = shape.split()
    leading = at.leading if "..." in names else ()
    return (*leading, *(known_size(name, at) for name in names if name != "..."))


def shown(launch: Launch) -> str:
    name, constants = launch
    return f"{name}({', '.join(f'{key}={value}' for key, value in constants)})"


def by_op(function: Callable[[list[str]], Any], ops: Iterable[str], jobs: int) -> list[Any]:
    """Return a function's results for each op alone; where jobs are several, processes share the ops."""
    each = [[op] for op in ops]
    if jobs == 1:
        return list(map(function, each))
    with processes(jobs) as pool:
        return list(pool.map(function, each))


def numba_runs(ops: Iterable[str], jobs: int = 1) -> dict[str, int]:
    """Count the runs of each version of each kernel by the listed cases of ops."""
    from mamba_integer.spec.compiled import threads

    load("numba")  # the counters know a kernel once it is defined
    total = Counter(dict.fromkeys(threads.RUNS, 0))
    for counts in by_op(numba_paths, ops, jobs):
        total.update(counts)
    return {f"{kernel}, {version}": runs for (kernel, version), runs in total.items()}


@contextlib.contextmanager
def targeting(architecture: int) -> Iterator[list[int]]:
    """Choose kernels inside the block as for a GPU of an architecture; note in a list each choice that asks for it."""
    load("triton")
    modules = [vars(module) for name, module in sys.modules.items() if name.startswith(TRITON)]
    usual = [(names, names["architecture"]) for names in modules if "architecture" in names]
    asked: list[int] = []

    def answer() -> int:
        asked.append(architecture)
        return architecture

    try:
        for names, _ in usual:
            names["architecture"] = answer
        yield asked
    finally:
        for names, function in usual:
            names["architecture"] = function


def launches_taken(ops: Iterable[str]) -> dict[str, int]:
    """Return, for each possible launch, 1 if a listed case takes it, else 0."""
    taken: dict[str, int] = {}
    for op in ops:
        known: set[Launch] = set()
        for architecture in (PLAIN, HOPPER):
            with targeting(architecture) as asked:
                possible = possible_launches(op) - known
                by_cases = listed_launches(op, possible) if possible else set()
            taken |= {f"{op}: {shown(launch)}": launch in by_cases for launch in possible}
            known |= possible
            if not asked:  # then every target has the same launches
                break
    return taken


def triton_launches(ops: Iterable[str], jobs: int = 1) -> dict[str, int]:
    return {path: runs for taken in by_op(launches_taken, ops, jobs) for path, runs in taken.items()}


def untaken(paths: Mapping[str, int]) -> list[str]:
    return sorted(path for path, runs in paths.items() if not runs)


BACKENDS = {"numba": numba_runs, "triton": triton_launches}


def main(
    backend: Annotated[list[str] | None, typer.Option(help=f"Of these alone: {', '.join(BACKENDS)}.")] = None,
    op: Annotated[list[str] | None, typer.Option(help="Run these ops alone.")] = None,
    jobs: Annotated[int, typer.Option(min=1, help="How many processes share the ops.")] = 1,
) -> None:
    """Exit with 1 if a path of a backend is taken by no listed case, or a result is wrong."""
    wrong = 0
    for name in dict.fromkeys(backend or BACKENDS):
        try:
            paths = BACKENDS[name](chosen_ops(op), jobs)
        except Failure as failure:
            print(failure)
            sys.exit(1)
        missing = untaken(paths)
        wrong += len(missing)
        print(f"{name}: {len(paths) - len(missing)} of {len(paths)} paths are taken by a listed case")
        for path in missing:
            print(f"  none takes {path}")
        sys.stdout.flush()
    if wrong:
        sys.exit(1)


if __name__ == "__main__":
    typer.run(main)
