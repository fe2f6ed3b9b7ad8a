"""Backends that hang or die outside a case, and what they leave behind: each command ends, and says what it saw."""

import json
import os
import signal
import sys
import time
from pathlib import Path

import pytest

HEAD = """
import atexit, os, signal, subprocess, sys, threading, time
from mamba_integer import spec
from mamba_integer.spec import *
golden = spec.OPS["isqrt"].golden
"""
# Wrong in the first call; in a smaller one, which an account makes of it, it hangs.
WRONG_THEN_HANGING = """
sizes = []
def isqrt(v):
    sizes.append(v.size)
    if v.size < sizes[0]:
        time.sleep(1000)
    return golden(v) + 1
"""
WRONG_THEN_DYING = WRONG_THEN_HANGING.replace("time.sleep(1000)", "os.kill(os.getpid(), signal.SIGSEGV)")
DYING = """
def isqrt(v):
    os.kill(os.getpid(), signal.SIGSEGV)
"""
VARIANTS = """
def variants(op):
    time.sleep(1000)
"""
DEVICE = """
def default_device():
    time.sleep(1000)
"""
LEAVING = """
threading.Thread(target=time.sleep, args=[1000]).start()
atexit.register(time.sleep, 1000)
"""
STARTING = """
def isqrt(v):
    child = subprocess.Popen(["sleep", "1000"])
    with open(os.environ["CHILDREN"], "a") as file:
        file.write(f"{child.pid}\\n")
    time.sleep(1000)
"""
SHORT = ("--op", "isqrt", "--timeout", "0.5")
CONFORM = ("conform", "--backend", "stranger", "--preset", "smoke", *SHORT)
COMPARE = ("compare", "--backends", "golden,stranger", *SHORT)
CASE = {"op": "isqrt", "entry": 0, "call": 0}


@pytest.fixture
def stranger(monkeypatch, tmp_path):
    """A function that writes the backend ``stranger``, which processes of this test find."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    return lambda source: (tmp_path / "stranger.py").write_text(HEAD + source)


@pytest.mark.parametrize(
    ("source", "reason"), [(WRONG_THEN_HANGING, "no result came"), (WRONG_THEN_DYING, "signal 11")]
)
@pytest.mark.parametrize("command", [CONFORM, COMPARE], ids=["conform", "compare"])
def test_an_account_that_hangs_or_dies_costs_the_account_alone(command, source, reason, stranger, run_cli):
    stranger(source)
    done = run_cli(*command)
    assert done.code == 1 and "isqrt on stranger" in done.out, done
    assert "isqrt: no explanation: " in done.err and reason in done.err


def test_comparing_says_which_case_ended_the_process(stranger, run_cli):
    stranger(DYING)
    failure = json.loads(run_cli(*COMPARE, "--case", json.dumps(CASE), "--json").out)["failure"]
    assert (
        failure["kind"] == "crash"
        and "signal 11" in failure["message"]
        and json.loads(failure["case"]).items() >= CASE.items()
    )


@pytest.mark.parametrize("command", [CONFORM, COMPARE], ids=["conform", "compare"])
@pytest.mark.parametrize("source", [VARIANTS, DEVICE], ids=["variants", "default_device"])
def test_a_hang_between_cases_ends(command, source, stranger, run_cli):
    stranger(source)
    done = run_cli(*command, "--json")
    if source is VARIANTS and command is CONFORM:
        (result,) = json.loads(done.out)["results"]
        assert done.code == 1 and result["status"] == "failed" and not result["failure"]
        assert "no result came within 5 s" in result["notes"][0]
    else:
        assert done.code == 2 and not done.out and "stranger" in done.err and "within 5" in done.err, done.err


@pytest.mark.parametrize("command", [CONFORM, COMPARE], ids=["conform", "compare"])
def test_threads_and_exit_handlers_of_a_backend_keep_no_command(command, stranger, run_process):
    stranger(LEAVING)
    code = "from mamba_integer.backends.app import main; main.SECONDS_TO_END = 0.1; main.main()"
    done = run_process([sys.executable, "-c", code, *command, "--timeout", "60", "--json"])
    assert done.code == 0 and json.loads(done.out), done.err


def running(process: int) -> bool:
    path = Path(f"/proc/{process}/stat")
    return path.exists() and path.read_text().split()[2] != "Z"


@pytest.mark.parametrize("command", [CONFORM, COMPARE], ids=["conform", "compare"])
def test_processes_that_a_backend_started_end_with_its_own(command, stranger, run_cli, monkeypatch, tmp_path):
    stranger(STARTING)
    monkeypatch.setenv("CHILDREN", str(tmp_path / "children"))
    assert run_cli(*command).code == 1
    children = [int(line) for line in (tmp_path / "children").read_text().split()]
    assert children and not any(map(running, children))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("command", [CONFORM, COMPARE], ids=["conform", "compare"])
def test_a_stopped_command_leaves_no_process_and_no_file(command, number, stranger, start_cli, monkeypatch, tmp_path):
    stranger(STARTING)
    children, temporary = tmp_path / "children", tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setenv("CHILDREN", str(children))
    monkeypatch.setenv("TMPDIR", str(temporary))
    with start_cli(*command, "--timeout", "600") as process:
        while not (children.exists() and children.read_text().endswith("\n")):
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(number)
        _, err = process.communicate()
        assert process.returncode == 128 + number and not err.strip(), err
    assert not list(temporary.iterdir()) and not any(map(running, map(int, children.read_text().split())))
