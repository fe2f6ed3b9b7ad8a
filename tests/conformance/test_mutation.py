"""Mutation testing judges mutants, and can fail: unexplained survivors, stale explanations, loops, a broken judge."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mamba_integer.conformance.engine import case_cache
from mamba_integer.conformance.mutants import kinds
from mamba_integer.conformance.mutants.mutator import mutants

MUTATION = "mamba_integer.conformance.mutants.mutation"
SOURCE = '''"""A module."""
LIMIT = 7


def clamp(x, s):
    """Return x, at most the limit."""
    x = x.astype(int) >> s
    return min(x, LIMIT) if s > 0 else -x
'''


def run(*arguments: str, seconds: int = 300, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=seconds, env=os.environ | environment)


# The mutants of a target take seconds to make, so one process answers several commands or runs code, one per line.
SERVED = f"""
import contextlib, io, json, sys
import typer
from {MUTATION} import main
app = typer.Typer()
app.command()(main)
for line in sys.stdin:
    out, code = io.StringIO(), 0
    first, *others = arguments = json.loads(line)
    try:
        with contextlib.redirect_stdout(out):
            exec(*others) if first == "-c" else app(arguments, standalone_mode=False)
    except SystemExit as exit:
        code = exit.code
    print(json.dumps([code, out.getvalue()]), flush=True)
"""


@pytest.fixture(scope="module")
def judge(start_process):
    """A function that judges mutants with a command's arguments, or runs code; it returns its exit code and stdout."""
    with start_process([sys.executable, "-c", SERVED], stdin=subprocess.PIPE, stderr=None) as process:

        def answer(*arguments) -> tuple[int | str, str]:
            process.stdin.write(json.dumps([*map(str, arguments)]) + "\n")
            process.stdin.flush()
            code, out = json.loads(process.stdout.readline())
            return code, out

        yield answer
        process.stdin.close()
        process.wait(60)  # it removes the kernels that it compiled


def test_every_slip_of_the_hand_is_made_once():
    changes = {f"{mutant.before}  ->  {mutant.after}" for mutant in mutants("clamped", SOURCE)}
    shift, result = "x = x.astype(int) >> s", "return min(x, LIMIT) if s > 0 else -x"
    assert changes == {
        "LIMIT = 7  ->  pass",
        "LIMIT = 7  ->  LIMIT = 8",
        "LIMIT = 7  ->  LIMIT = 6",
        f"{shift}  ->  pass",
        f"{shift}  ->  x = x.astype(int) << s",
        f"{shift}  ->  x = s >> x.astype(int)",
        f"{shift}  ->  x = x.astype(int) >> s + 1",
        f"{shift}  ->  x = x.astype(int) >> s - 1",
        f"{shift}  ->  x = x >> s",
        f"{result}  ->  return min(x, LIMIT)",
        f"{result}  ->  return -x",
        f"{result}  ->  return max(x, LIMIT) if s > 0 else -x",
        f"{result}  ->  return min(x, LIMIT) if s >= 0 else -x",
        f"{result}  ->  return min(x, LIMIT) if s <= 0 else -x",
        f"{result}  ->  return min(x, LIMIT) if s > 1 else -x",
        f"{result}  ->  return min(x, LIMIT) if s > -1 else -x",
        f"{result}  ->  return min(x, LIMIT) if s > 0 else x",
    }


def test_a_statement_is_dropped_or_turned():
    source = "def count(x):\n    n = 0\n    if x:\n        n += 1\n    return n\n"
    changes = {f"{mutant.before}  ->  {mutant.after}" for mutant in mutants("counted", source)}
    wanted = {"if x  ->  if True", "if x  ->  if False", "n += 1  ->  pass", "n += 1  ->  n -= 1", "n = 0  ->  pass"}
    assert wanted <= changes


def test_a_mutant_is_undone_after_it_is_compiled():
    every = list(mutants("clamped", SOURCE))
    results = []
    for mutant in [every[1], *every]:
        scope: dict = {}
        exec(mutant.code("clamped.py"), scope)
        results.append(scope.get("LIMIT"))
    assert results == [8, None, 8, 6] + [7] * (len(every) - 3)


def test_a_sample_is_drawn_by_the_text_of_each_mutant():
    """So a change of one module leaves the mutants of another in the sample, and another seed draws others."""
    every = sorted(mutants("clamped", SOURCE), key=lambda mutant: mutant.lot(1))
    changed = [mutant for mutant in mutants("clamped", SOURCE.replace("LIMIT = 7", "LIMIT = 5")) if mutant.line != 2]
    changed.sort(key=lambda mutant: mutant.lot(1))
    assert [mutant.key for mutant in changed] == [mutant.key for mutant in every if mutant.line != 2]
    assert sorted(every, key=lambda mutant: mutant.lot(2)) != every != list(mutants("clamped", SOURCE))


def test_a_sample_of_the_golden_code_is_killed_or_explained(judge):
    code, out = judge("--target", "golden", "--match", "ops.linear:", "--sample", 12, "--seed", 7)
    assert code == 0, out
    assert "\n12 of 12" in out


def test_a_write_past_the_end_of_a_result_is_seen(judge):
    """``max`` for ``min`` fills the bytes after a row: no comparison sees it, bounds that are checked do."""
    code, out = judge("--target", "numba", "--match", "max(4 * j + 4, w.shape[1])")
    assert code == 0 and "1 crashed" in out, out


def test_an_unexplained_survivor_and_a_stale_explanation_fail(judge, tmp_path: Path):
    match = ["--target", "golden", "--match", "gradient_exponent: rise = "]
    listed, report = tmp_path / "listed.json", tmp_path / "verdicts.json"
    listed.write_text("[]")
    code, out = judge(*match, "--survivors", listed, "--json", report)
    assert code == 1 and "survived: mamba_integer.spec.ops.optimizer" in out
    verdicts = json.loads(report.read_text())
    survivors = [verdict for verdict in verdicts if verdict["status"] == "survived"]
    killed = [verdict for verdict in verdicts if verdict["status"] == "killed"]
    assert len(survivors) == 1 and len(killed) > 5
    listed.write_text(json.dumps([*survivors, killed[0], killed[1] | {"before": "renamed = 1"}]))
    report.write_text(json.dumps([*survivors, killed[0] | {"status": "survived"}]))
    code, out = judge(*match, "--survivors", listed, "--again", report)
    assert code == 1 and out.count("though explained") == 1 and out.count("not in the module") == 1


def test_a_run_goes_on_where_the_last_one_ended(judge, tmp_path: Path):
    file = tmp_path / "verdicts.jsonl"
    three = ["--target", "golden", "--match", "ops.linear:", "--sample", 3, "--remember", file]
    code, out = judge(*three, "--minutes", 1e-6)
    assert "no mutant was judged" in code and "3 of 3 are left" in out and not file.exists()
    code, first = judge(*three)
    assert code == 0 and "\n3 of 3" in first and "earlier" not in first
    code, again = judge(*three)
    assert code == 0 and "3 of 3 were judged by an earlier run" in again
    assert again.split("s: ")[-1] == first.split("s: ")[-1]
    *lines, one, other = file.read_text().splitlines()
    assert len(lines) == 2  # of the module as it is, and of the first mutant
    file.write_text("\n".join([*lines, one[:-9], other.replace('"content": "', '"content": "of another source ')]))
    code, out = judge(*three)
    assert code == 0 and "1 of 3 were judged by an earlier run" in out and out.splitlines()[-1].startswith("3 of 3")


DECIDING = """
from pathlib import Path
from mamba_integer.conformance.mutants import memory
from mamba_integer.conformance.mutants.verdicts import COMPILED, TARGETS
target, module = TARGETS["numba"], COMPILED + ".rotation"
files = {"/".join(path.parts[-2:]) for path in memory.sources(target, module)}
used = {"compiled/rotation.py", "compiled/transform.py", "compiled/threads.py", "ops/scan.py", "engine/cases.py"}
print(files >= used, "compiled/scan.py" in files)
hashes = {memory.deciding(target, module), memory.deciding(target, COMPILED + ".scan")}
source = Path("rule.py")
memory.JUDGES = (source,)
for text in ("LIMIT = 7", "LIMIT = 8"):
    source.write_text(text)
    memory.deciding.cache_clear()
    hashes.add(memory.deciding(target, module))
print(len(hashes))
"""


def test_a_verdict_is_forgotten_when_what_decides_it_changes(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = run("-c", DECIDING)
    assert done.stdout.split() == ["True", "False", "4"], done.stdout + done.stderr


KERNEL = """
@njit
def scaled(x, n):
    return np.int32(x * np.uint64(n))
@partial(spread, lightness=8)
def each(x):
    return np.int64(x / 3)
@partial(spread, lightness=1 / 4)
def heavy(x):
    return x
@implements(ops.scale)
def scale(x, *, n):
    y = each(np.ascontiguousarray(x).reshape(-1))
    return np.int32(y.reshape(-1, 1))
"""


def test_a_kernel_may_have_mutants_of_some_kinds():
    every = list(mutants("mamba_integer.spec.compiled.scaling", KERNEL))
    reasons = {mutant.after: kinds.kind_of(mutant) for mutant in every}
    assert {after: reason for after, reason in reasons.items() if reason} == {
        "return x * np.uint64(n)": kinds.CAST,
        "@partial(spread, lightness=9) each(x)": kinds.LIGHTNESS,
        "@partial(spread, lightness=7) each(x)": kinds.LIGHTNESS,
        "@partial(spread, lightness=2 / 4) heavy(x)": kinds.LIGHTNESS,
        "@partial(spread, lightness=0 / 4) heavy(x)": kinds.LIGHTNESS,
        "@partial(spread, lightness=1 / 5) heavy(x)": kinds.LIGHTNESS,
        "@partial(spread, lightness=1 / 3) heavy(x)": kinds.LIGHTNESS,
        "y = each(x.reshape(-1))": kinds.STRIDES,
        "y = each(np.ascontiguousarray(x).reshape(-2))": kinds.UNKNOWN,
        "return np.int32(y.reshape(-2, 1))": kinds.UNKNOWN,
    }
    assert {"return np.int32(x * n)", "return y.reshape(-1, 1)", "return x / 3"} <= set(reasons)
    assert not any(map(kinds.kind_of, mutants("mamba_integer.spec.ops.scaling", KERNEL)))


ENDLESS = """
from dataclasses import replace
from mamba_integer.conformance.mutants import verdicts
target = replace(verdicts.TARGETS["golden"], modules=("*.ops.transform",), seconds=1)
endless = [m for m in target.mutants if m.before == "half *= 2"]
print(*(verdict.status for verdict in verdicts.verdicts([(target, endless[0])], 1)))
"""
BROKEN = """
from mamba_integer.conformance.mutants import mutation, verdicts
call = verdicts.LISTED["saturate"][0][-1]
call.want[0][...] ^= 1
try:
    mutation.main(["golden"], "saturate: ", survivors=mutation.SURVIVORS)
finally:
    call.want[0][...] ^= 1
"""


def test_a_loop_without_an_end_is_ended(judge):
    assert judge("-c", ENDLESS) == (0, "timeout\n")


def test_a_judge_that_fails_the_original_judges_nothing(judge):
    code, _ = judge("-c", BROKEN)
    assert "fails unchanged: killed" in code  # a text, with which a process exits with 1


def test_no_mutant_is_a_failure(judge):
    code, _ = judge("--target", "philox", "--match", "no such text")
    assert "no mutant was chosen" in code  # a text, with which a process exits with 1


@pytest.fixture
def checked_kernels(tmp_path: Path) -> Path:
    """A folder for kernels with checks and their cases; it stays until any source of the specification changes."""
    if case_cache.FOLDER is None:
        return tmp_path
    folder = case_cache.FOLDER / f"checked-{case_cache.deciding_hash()}"
    for other in case_cache.FOLDER.glob("checked-*"):
        if other != folder:
            shutil.rmtree(other, ignore_errors=True)
    return folder


def test_kernels_stay_inside_their_arrays(checked_kernels: Path):
    """The listed cases of some ops, with each index of each kernel checked; `make mutation` has all ops."""
    environment = {"NUMBA_BOUNDSCHECK": "1", "NUMBA_CACHE_DIR": str(checked_kernels)}
    environment["MAMBA_INTEGER_PARALLEL_FROM"] = str(sys.maxsize)
    ops = [word for op in ("pack_ternary", "unpack_trits", "embedding_backward") for word in ("--op", op)]
    command = "from mamba_integer.backends.app.main import main; main()"
    done = run("-c", command, "conform", "--backend", "numba", *ops, **environment)
    assert done.returncode == 0, done.stdout + done.stderr
