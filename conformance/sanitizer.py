"""The suite under NVIDIA's compute-sanitizer: each op's cases in a process of its own, on a GPU.

``python -m mamba_integer.conformance.sanitizer --tool memcheck --jobs 8 --json memcheck.json`` exits with 1 where the
tool reports something, an integer differs, or an op does not end in its time.

An op runs twice: first alone, which compiles its kernels, and then under the tool. ``--shares`` cuts an op's cases into
parts that run so at the same time, and ``--first`` runs a few of these alone. Each tensor is an allocation of its own
there, so that an access beside it is seen. For initcheck the suite leaves fresh memory as it is; otherwise it fills it,
so that a result that nobody wrote differs.
"""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Annotated

import typer

from mamba_integer.backends.app.arguments import chosen_ops, time_limit
from mamba_integer.backends.app.environment import environment
from mamba_integer.backends.app.outputs import output_file
from mamba_integer.backends.app.terminal import find_backend
from mamba_integer.backends.files.atomic import write_atomically
from mamba_integer.backends.programs.process import kill_group, watch
from mamba_integer.spec.contract import UnknownOpError

from .engine.calls import UNFILLED
from .engine.judge import conform_op

PROGRAM = "compute-sanitizer"
# Options of each tool beside its name. The compiler's processes are not watched: they take most of the time otherwise.
WATCHED = "--target-processes=all", "--target-processes-filter=regex:python", "--print-limit=20"
TOOLS = {
    "memcheck": ("--leak-check=no",),
    "racecheck": ("--racecheck-report=analysis",),
    "initcheck": (),
    "synccheck": (),
}
SUMMARY = re.compile(r"(?:ERROR|RACECHECK) SUMMARY: (\d+) ")
STATUSES = CLEAN, REPORTED, FAILED, LATE = "clean", "reported", "failed", "late"  # the last that is met counts
MARK = "========="  # begins each line of the tool
SHOWN = 20  # lines
COMMAND = f"import sys; from {__spec__.name} import compare; compare(*sys.argv[1:])"


@dataclass(frozen=True)
class Verdict:
    """Counts a tool's reports on an op, and the cases and integers that were compared meanwhile."""

    tool: str
    op: str
    status: str
    reports: int
    cases: int
    integers: int
    seconds: int
    output: str  # what was said, unless all is clean: its beginning where the tool reports, its end otherwise

    def __str__(self) -> str:
        compared = f"{self.reports} reports, {self.cases:,} cases, {self.integers:,} integers"
        line = f"{self.tool:9} {self.op:32} {self.status:9} {compared}, {self.seconds} s"
        return "\n  ".join([line, *self.output.splitlines()])


RUNNING: set[subprocess.Popen] = set()  # each leads a group


def run(arguments: list[str], variables: dict[str, str], seconds: float) -> tuple[int | None, str]:
    """Run a command; return its exit code and output. End it, and all that it started, after its time: no exit code."""
    with subprocess.Popen(
        arguments,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env=os.environ | variables,
        start_new_session=True,
    ) as process:
        watcher = watch(process.pid)
        RUNNING.add(process)
        try:
            output, _ = process.communicate(timeout=seconds)
            return process.returncode, output
        except subprocess.TimeoutExpired:
            kill(process)
            return None, process.communicate()[0]
        finally:
            RUNNING.discard(process)
            kill_group(process, watcher)


def kill(leader: subprocess.Popen) -> None:
    with contextlib.suppress(OSError):
        os.killpg(leader.pid, signal.SIGKILL)


def compare(backend: str, device: str, op: str, share: str, shares: str, path: str) -> None:
    """Compare a share of an op's cases; write how many they were, and exit with 1 where they differ."""
    result = conform_op(find_backend(backend, device), op, share=int(share), shares=int(shares))
    write_atomically(Path(path), json.dumps({"cases": result.cases, "integers": result.integers}).encode())
    if result.status != "passed":
        sys.exit(f"{result.status}: {result.failure}")


def judge(program: str, tool: str, task: list[str], seconds: float) -> Verdict:
    """Run a share of an op's cases alone, and then under a tool; ``task`` is what `compare` takes before a path."""
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "counts.json"
        command = [sys.executable, "-c", COMMAND, *task, str(path)]
        # A process that is ended removes nothing, so its temporary files go with the folder.
        variables = {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1", "TMPDIR": folder}
        if tool == "initcheck":
            variables[UNFILLED] = "1"
        code, output = run(command, variables, seconds)
        if code == 0:
            path.unlink()
            code, output = run([program, f"--tool={tool}", *WATCHED, *TOOLS[tool], *command], variables, seconds)
        counts = json.loads(path.read_bytes()) if path.exists() else {"cases": 0, "integers": 0}
    summaries = SUMMARY.findall(output)
    reports, lines = sum(map(int, summaries)), output.splitlines()
    if code is None:
        status = LATE
    elif reports:
        status, lines = REPORTED, [line for line in lines if line.startswith(MARK)][:SHOWN]
    else:
        status = CLEAN if code == 0 and summaries and counts["cases"] else FAILED
    said = "" if status == CLEAN else "\n".join(lines[-SHOWN:])
    return Verdict(tool, task[2], status, reports, **counts, seconds=round(time.monotonic() - start), output=said)


def total(shares: list[Verdict]) -> Verdict:
    """Return the verdict of an op from those of its shares: the worst of them, and the sums of what they count."""
    worst = max(shares, key=lambda one: STATUSES.index(one.status))
    sums = {name: sum(getattr(one, name) for one in shares) for name in ("reports", "cases", "integers", "seconds")}
    return replace(worst, **sums)


def judge_all(
    program: str,
    tools: Iterable[str],
    ops: Iterable[str],
    backend: str,
    device: str,
    seconds: float,
    jobs: int,
    shares: int = 1,
    first: int | None = None,
) -> list[Verdict]:
    """Return the verdict of each tool on each op, from all shares of its cases or the first few; say each at once."""
    with ThreadPoolExecutor(jobs) as pool:
        chosen = range(min(first or shares, shares))

        def told(tool: str, op: str, share: int) -> Verdict:
            verdict = judge(program, tool, [backend, device, op, str(share), str(shares)], seconds)
            if shares > 1:  # an op's own verdict may be long in coming
                print(f"share {share + 1} of {shares}: {verdict}", file=sys.stderr, flush=True)
            return verdict

        def submit(tool: str, op: str, share: int) -> Future[Verdict]:
            return pool.submit(told, tool, op, share)

        waiting = [[submit(tool, op, share) for share in chosen] for tool in tools for op in ops]
        verdicts = []
        try:
            for parts in waiting:
                verdicts.append(total([part.result() for part in parts]))
                print(verdicts[-1], flush=True)
        except BaseException:
            for part in chain.from_iterable(waiting):
                part.cancel()
            while not all(part.done() for part in chain.from_iterable(waiting)):
                for leader in list(RUNNING):  # an op that ran alone would begin anew under its tool
                    kill(leader)
                time.sleep(0.1)
            raise
    return verdicts


def main(
    tool: Annotated[list[str] | None, typer.Option(help=f"Tool: {', '.join(TOOLS)}. May be repeated.")] = None,
    op: Annotated[list[str] | None, typer.Option(help="Run this op alone. May be repeated.")] = None,
    backend: Annotated[str, typer.Option(help="Backend whose kernels are run.")] = "triton",
    device: Annotated[str, typer.Option(help="Device of the backend.")] = "cuda",
    seconds: Annotated[float, typer.Option(callback=time_limit, help="Time of each of a part's two runs.")] = 900,
    jobs: Annotated[int, typer.Option(min=1, help="How many processes run at the same time.")] = 1,
    shares: Annotated[int, typer.Option(min=1, help="Into how many parts an op's cases are cut, a process each.")] = 1,
    first: Annotated[int | None, typer.Option(min=1, help="Run only so many of the parts, from the first on.")] = None,
    as_json: Annotated[
        Path | None, typer.Option("--json", help="Write the verdicts to this file.", callback=output_file)
    ] = None,
) -> None:
    """Run the suite's cases under compute-sanitizer; exit with 1 unless every verdict is clean."""
    tools = list(dict.fromkeys(tool or ["memcheck"]))
    if unknown := sorted(set(tools) - set(TOOLS)):
        raise typer.BadParameter(f"found {unknown[0]!r}, allowed {', '.join(TOOLS)}", param_hint="--tool")
    if (program := shutil.which(PROGRAM)) is None:
        raise typer.BadParameter(f"{PROGRAM} is not on PATH; it comes with NVIDIA's CUDA toolkit")
    try:
        ops = chosen_ops(op)
    except UnknownOpError as error:
        raise typer.BadParameter(str(error), param_hint="--op") from None
    here = environment([find_backend(backend, device)])
    verdicts = judge_all(program, tools, ops, backend, device, seconds, jobs, shares, first)
    counts = Counter(one.status for one in verdicts)
    print(", ".join(f"{counts[status]} {status}" for status in STATUSES if counts[status]))
    if as_json:
        result = {
            "environment": here,
            "parts": [min(first or shares, shares), shares],
            "verdicts": [asdict(one) for one in verdicts],
        }
        write_atomically(as_json, (json.dumps(result, indent=1) + "\n").encode())
    if counts[CLEAN] < len(verdicts):
        sys.exit(1)


if __name__ == "__main__":
    typer.run(main)
