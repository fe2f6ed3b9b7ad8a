"""The suite under a tool that watches memory. A program that only runs what it is given stands for the tool."""

import json
import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
import typer

from mamba_integer.conformance import sanitizer
from mamba_integer.conformance.engine import calls

# It leaves out its own options, and says what the test wants.
STAND_IN = """#!/bin/sh
while [ "${{1#--}}" != "$1" ]; do shift; done
{before}
"$@"
code=$?
{after}
exit $code
"""
# In place of the suite: two cases in the first share, twenty in the next one.
SUITE = """
import json, pathlib, sys
share, shares, path = sys.argv[-3:]
pathlib.Path(path).write_text(json.dumps({"cases": 2 * 10 ** int(share), "integers": 3 * int(shares)}))
"""


@pytest.fixture
def judged(tmp_path, monkeypatch):
    """A function that runs the command on one op, and returns its exit code and its verdict."""

    def run(before: str = "", after: str = 'echo "========= ERROR SUMMARY: 0 errors"', **options):
        program = tmp_path / sanitizer.PROGRAM
        program.write_text(STAND_IN.format(before=before, after=after))
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
        file, code = tmp_path / "verdicts.json", 0
        try:
            seconds, shares, first = options.get("seconds", 300), options.get("shares", 1), options.get("first")
            backend = options.get("backend", "golden")
            sanitizer.main(["memcheck"], ["isqrt"], backend, "cpu", seconds, 1, shares, first, file)
        except SystemExit as end:
            code = end.code
        return code, json.loads(file.read_text())["verdicts"][0]

    return run


def test_an_op_that_nothing_is_said_of_is_clean(judged):
    code, verdict = judged()
    assert (code, verdict["status"], verdict["reports"]) == (0, "clean", 0)
    assert verdict["cases"] > 100 and verdict["integers"] > 100 and not verdict["output"]


def test_the_worst_share_is_the_ops(judged, monkeypatch):
    monkeypatch.setattr(sanitizer, "COMMAND", SUITE)
    said = 'case "$*" in *" 1 3 "*) echo "========= found here"; echo "========= ERROR SUMMARY: 1 error";; *) {};; esac'
    code, verdict = judged(after=said.format('echo "========= ERROR SUMMARY: 0 errors"'), shares=3)
    assert (code, verdict["status"], verdict["reports"]) == (1, "reported", 1)
    assert (verdict["cases"], verdict["integers"]) == (222, 27)
    assert "found here" in verdict["output"]


def test_the_first_shares_run_alone(judged, monkeypatch, capfd):
    monkeypatch.setattr(sanitizer, "COMMAND", SUITE)
    code, verdict = judged(shares=3, first=2)
    assert (code, verdict["cases"], verdict["integers"]) == (0, 22, 18)
    said = capfd.readouterr().err
    assert "share 2 of 3: memcheck" in said and "share 3" not in said


def test_a_wrong_integer_fails(judged, tmp_path, monkeypatch):
    wrong = "from mamba_integer.spec import *\ndef isqrt(v):\n    return v"
    (tmp_path / "stranger.py").write_text(wrong)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=":")
    monkeypatch.syspath_prepend(str(tmp_path))
    code, verdict = judged(backend="stranger")
    assert (code, verdict["status"]) == (1, "failed") and "isqrt" in verdict["output"]


@pytest.mark.parametrize(
    ("before", "after", "status"),
    [
        ("", 'echo "========= ERROR SUMMARY: 3 errors"', "reported"),
        ("", 'echo "========= RACECHECK SUMMARY: 2 hazards displayed (1 errors, 1 warnings)"', "reported"),
        ("", "", "failed"),  # the tool did not watch
        ("shift $#; set -- true", 'echo "========= ERROR SUMMARY: 0 errors"', "failed"),  # nothing is compared
        ("", 'code=9; echo "========= ERROR SUMMARY: 0 errors"', "failed"),
    ],
    ids=["errors", "hazards", "a silent tool", "no case", "an exit code"],
)
def test_all_else_fails(judged, monkeypatch, before, after, status):
    monkeypatch.setattr(sanitizer, "COMMAND", SUITE)
    code, verdict = judged(before, after)
    assert (code, verdict["status"]) == (1, status)


def test_an_op_that_does_not_end_is_ended(judged, monkeypatch):
    monkeypatch.setattr(sanitizer, "COMMAND", SUITE)
    code, verdict = judged("sleep 600", seconds=1)
    assert (code, verdict["status"], verdict["integers"]) == (1, "late", 0)


def test_an_op_that_is_ended_leaves_no_files(judged, monkeypatch, tmp_path):
    monkeypatch.setattr(sanitizer, "COMMAND", SUITE)
    monkeypatch.setattr(sanitizer.tempfile, "tempdir", str(tmp_path))
    assert judged(f"mktemp -d > {tmp_path}/made; kill -KILL $$")[1]["status"] == "failed"
    made = Path((tmp_path / "made").read_text().strip())
    assert tmp_path in made.parents and not made.exists()


def test_what_runs_ends_with_the_command(tmp_path, start_process, monkeypatch):
    """It may be killed: then nothing stays behind that keeps the GPU."""
    program, note = tmp_path / sanitizer.PROGRAM, tmp_path / "leader"
    program.write_text(f"#!/bin/sh\necho $$ > {note}.new; mv {note}.new {note}; sleep 600 & sleep 600\n")
    program.chmod(0o755)
    code = f"from mamba_integer.conformance import sanitizer; sanitizer.run([{str(program)!r}], {{}}, 300)"
    with start_process([sys.executable, "-c", code]) as process:
        while not note.exists():
            assert process.poll() is None
            time.sleep(0.01)
        process.kill()
        leader = int(note.read_text())
        for _ in range(1000):
            if subprocess.run(["pgrep", "-g", str(leader)], stdout=subprocess.DEVNULL).returncode:
                break
            time.sleep(0.02)
        else:
            os.killpg(leader, signal.SIGKILL)
            pytest.fail("it stayed")


def test_an_interrupt_ends_what_runs(tmp_path, monkeypatch):
    program = tmp_path / sanitizer.PROGRAM
    before = 'case "$*" in *saturate*) sleep 600;; esac'
    program.write_text(STAND_IN.format(before=before, after='echo "========= ERROR SUMMARY: 0 errors"'))
    program.chmod(0o755)
    monkeypatch.setattr(sanitizer, "COMMAND", SUITE)

    def interrupt(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("builtins.print", interrupt)
    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        sanitizer.judge_all(str(program), ["memcheck"], ["isqrt", "saturate", "argmax"], "golden", "cpu", 300, 2)
    assert time.monotonic() - start < 100 and not sanitizer.RUNNING


def test_a_tool_that_is_missing_or_unknown_is_named(monkeypatch):
    with pytest.raises(typer.BadParameter, match="memtest"):
        sanitizer.main(["memtest"])
    monkeypatch.setenv("PATH", "")
    with pytest.raises(typer.BadParameter, match="CUDA toolkit"):
        sanitizer.main(["memcheck"])


def test_memory_is_left_as_it_is_for_a_tool_that_watches_its_use(monkeypatch):
    import torch

    before = torch.get_deterministic_debug_mode()
    with calls.filled_memory():
        assert torch.get_deterministic_debug_mode() != before
    monkeypatch.setenv(calls.UNFILLED, "1")
    with calls.filled_memory():
        assert torch.get_deterministic_debug_mode() == before
