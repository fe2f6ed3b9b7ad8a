"""The suite under NVIDIA's compute-sanitizer: each op's cases in a process of its own, on a GPU.

``python -m mamba_integer.conformance.sanitizer --tool memcheck --jobs 8 --json memcheck.json`` exits with 1 where the
tool reports something, an integer differs, or an op does not end in its time.

An op runs twice: first alone, which compiles its kernels, and then under the tool. Each tensor is an allocation of its
own there, so that an access beside it is seen. For initcheck the suite leaves fresh memory as it is; otherwise it fills
it, so that a result which nobody wrote differs.
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
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import typer

from mamba_integer.backends.app.environment import environment
from mamba_integer.backends.app.terminal import find_backend
from mamba_integer.backends.files.atomic import write_atomically
from mamba_integer.spec import OPS
from mamba_integer.spec.contract import UnknownOpError, find_op

from .engine.calls import UNFILLED

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
STATUSES = CLEAN, REPORTED, FAILED, LATE = "clean", "reported", "failed", "late"
COMMAND = "from mamba_integer.backends.app.main import main; main()"


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

    def __str__(self) -> str:
        compared = f"{self.reports} reports, {self.cases:,} cases, {self.integers:,} integers"
        return f"{self.tool:9} {self.op:32} {self.status:9} {compared}, {self.seconds} s"


RUNNING: set[int] = set()  # processes that lead a group


def end(leader: int) -> None:
    with contextlib.suppress(OSError):
        os.killpg(leader, signal.SIGKILL)


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
        RUNNING.add(process.pid)
        try:
            output, _ = process.communicate(timeout=seconds)
            return process.returncode, output
        except subprocess.TimeoutExpired:
            end(process.pid)
            return None, process.communicate()[0]
        finally:
            RUNNING.discard(process.pid)


def judge(program: str, tool: str, op: str, backend: str, device: str, seconds: float) -> Verdict:
    """Run an op's cases alone, and then under a tool."""
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        suite = [sys.executable, "-c", COMMAND, "conform", "--backend", backend, "--device", device, "--op", op]
        suite += ["--no-explain", "--timeout", str(seconds), "--report", str(report)]
        variables = {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"} | ({UNFILLED: "1"} if tool == "initcheck" else {})
        code, output = run(suite, variables, seconds)
        if code == 0:
            report.unlink()
            under = [program, f"--tool={tool}", *WATCHED, *TOOLS[tool], *suite]
            code, output = run(under, variables, seconds)
        found = SUMMARY.findall(output)
        reports = sum(map(int, found))
        total = json.loads(report.read_bytes())["total"] if report.exists() else {"cases": 0, "integers": 0}
    if code is None:
        status = LATE
    elif reports:
        status = REPORTED
    else:
        status = CLEAN if code == 0 and found and total["cases"] else FAILED
    return Verdict(tool, op, status, reports, total["cases"], total["integers"], round(time.monotonic() - start))


def judge_all(
    program: str, tools: Iterable[str], ops: Iterable[str], backend: str, device: str, seconds: float, jobs: int
) -> list[Verdict]:
    """Return the verdict of each tool on each op; say each when it is there."""
    with ThreadPoolExecutor(jobs) as pool:
        waiting = [pool.submit(judge, program, tool, op, backend, device, seconds) for tool in tools for op in ops]
        verdicts = []
        try:
            for one in waiting:
                verdicts.append(one.result())
                print(verdicts[-1], flush=True)
        except BaseException:
            for one in waiting:
                one.cancel()
            while not all(one.done() for one in waiting):  # an op that ran alone would begin anew under its tool
                for leader in list(RUNNING):
                    end(leader)
                time.sleep(0.1)
            raise
    return verdicts


def main(
    tool: Annotated[list[str] | None, typer.Option(help=f"Tool: {', '.join(TOOLS)}. May be repeated.")] = None,
    op: Annotated[list[str] | None, typer.Option(help="Run this op alone. May be repeated.")] = None,
    backend: Annotated[str, typer.Option(help="Backend whose kernels are run.")] = "triton",
    device: Annotated[str, typer.Option(help="Device of the backend.")] = "cuda",
    seconds: Annotated[float, typer.Option(min=1, help="Time of each of an op's two runs.")] = 900,
    jobs: Annotated[int, typer.Option(min=1, help="How many ops run at the same time.")] = 1,
    as_json: Annotated[Path | None, typer.Option("--json", help="Write the verdicts to this file.")] = None,
) -> None:
    """Run the suite's cases under compute-sanitizer; exit with 1 unless every verdict is clean."""
    tools = tool or ["memcheck"]
    if unknown := sorted(set(tools) - set(TOOLS)):
        raise typer.BadParameter(f"found {unknown[0]!r}, allowed {', '.join(TOOLS)}", param_hint="--tool")
    if (program := shutil.which(PROGRAM)) is None:
        raise typer.BadParameter(f"{PROGRAM} is not on PATH; it comes with NVIDIA's CUDA toolkit")
    try:
        ops = [find_op(name).name for name in op] if op else list(OPS)
    except UnknownOpError as error:
        raise typer.BadParameter(str(error), param_hint="--op") from None
    here = environment([find_backend(backend, device)])
    verdicts = judge_all(program, tools, ops, backend, device, seconds, jobs)
    counts = Counter(one.status for one in verdicts)
    print(", ".join(f"{counts[status]} {status}" for status in STATUSES if counts[status]))
    if as_json:
        result = {"environment": here, "verdicts": [asdict(one) for one in verdicts]}
        write_atomically(as_json, (json.dumps(result, indent=1) + "\n").encode())
    if counts[CLEAN] < len(verdicts):
        sys.exit(1)


if __name__ == "__main__":
    typer.run(main)
