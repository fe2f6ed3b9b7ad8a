"""Backends that hang or die outside a case, and what they leave behind: each command ends, and says what it saw."""

import json
import os
import shlex
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import product
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
SPEECHLESS = """
class Speechless(Exception):
    def __str__(self):
        raise ValueError("no")
def isqrt(v):
    raise Speechless
"""
INTERRUPTING = """
def isqrt(v):
    raise KeyboardInterrupt
"""
# Its own time limit disarms that of the suite.
DISARMING = """
def isqrt(v):
    signal.signal(signal.SIGALRM, signal.SIG_IGN)
    signal.alarm(0)
    time.sleep(1000)
"""
RAISING = """
def variants(op):
    raise RuntimeError("no variants")
"""
COMPILED = """
def compiled_for(op):
    return [3]
"""
UNENDING = """
class Unending:
    def __del__(self):
        time.sleep(1000)
unending = Unending()
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
SHORT = ("--op", "isqrt", "--timeout", "1")
COMMANDS = {
    "conform": ("conform", "--backend", "stranger", "--preset", "smoke", *SHORT),
    "compare": ("compare", "--backends", "golden,stranger", *SHORT),
}
CASE = {"op": "isqrt", "entry": 0, "call": 0}
SOURCES = {
    "account": WRONG_THEN_HANGING,
    "device": DEVICE,
    "variants": VARIANTS,
    "dying account": WRONG_THEN_DYING,
    "disarming": DISARMING,
    "interrupting": INTERRUPTING,
    "speechless": SPEECHLESS,
}
AT_ONCE = 6  # commands that wait, each for a second or more, beside the other tests of this module

pytestmark = pytest.mark.xdist_group("waiting")  # one after the other, beside tests that compute
each_command = pytest.mark.parametrize("command", COMMANDS)


def write_backend(folder: Path, source: str) -> str:
    """Write the backend ``stranger`` to a folder; return the PYTHONPATH with which processes find it."""
    folder.mkdir(exist_ok=True)
    (folder / "stranger.py").write_text(HEAD + source)
    return os.pathsep.join((str(folder), os.environ.get("PYTHONPATH", "")))


@pytest.fixture
def stranger(monkeypatch, tmp_path):
    """A function that writes the backend ``stranger``, which processes of this test find."""
    return lambda source: monkeypatch.setenv("PYTHONPATH", write_backend(tmp_path, source))


@pytest.fixture(scope="module", autouse=True)
def waiting(run_cli, tmp_path_factory):
    """The outcomes of commands that hang for a while, as futures."""
    folder = tmp_path_factory.mktemp("waiting")
    # As they are now: the tests beside which these run change them.
    variables = {
        (source, command): os.environ | {"PYTHONPATH": write_backend(folder / f"{source}-{command}", SOURCES[source])}
        for source, command in product(SOURCES, COMMANDS)
    }

    def run(source: str, command: str):
        options = () if source.endswith("account") else ("--json",)
        return run_cli(*COMMANDS[command], *options, env=variables[source, command])

    with ThreadPoolExecutor(AT_ONCE) as pool:
        yield {pair: pool.submit(run, *pair) for pair in variables}


def test_comparing_says_which_case_ended_the_process(stranger, run_cli):
    stranger(DYING)
    failure = json.loads(run_cli(*COMMANDS["compare"], "--case", json.dumps(CASE), "--json").out)["failure"]
    assert failure["kind"] == "crash" and "signal 11" in failure["message"]
    assert json.loads(failure["case"]).items() >= CASE.items()


@pytest.mark.parametrize(
    ("source", "note"),
    [(RAISING, "variants('isqrt'): RuntimeError: no variants"), (COMPILED, "compiled_for('isqrt'): found 3, allowed")],
    ids=["variants", "compiled_for"],
)
def test_a_backend_that_tells_nonsense_fails_its_op_alone(source, note, stranger, run_cli):
    stranger(source)
    done = run_cli(*COMMANDS["conform"], "--backend", "numba", "--timeout", "60", "--json")
    wrong, right = json.loads(done.out)["results"]
    assert done.code == 1 and wrong["status"] == "failed" and right["status"] == "passed"
    assert f"backend stranger: {note}" in wrong["notes"][-1]


def test_an_object_that_never_ends_keeps_no_command(stranger, run_process):
    stranger(UNENDING)
    code = "from mamba_integer.backends.app import main; main.SECONDS_TO_END = 0.1; main.main()"
    done = run_process([sys.executable, "-c", code, *COMMANDS["conform"], "--timeout", "60", "--json"])
    assert done.code == -signal.SIGALRM and json.loads(done.out)["passed"], done


def test_a_run_leaves_nothing_where_its_user_stands(run_cli, tmp_path):
    done = run_cli("conform", "--backend", "numba", "--op", "isqrt", "--preset", "smoke", cwd=tmp_path)
    assert done.code == 0 and not list(tmp_path.iterdir())


def test_comparing_needs_no_stderr(run_process):
    command = [sys.executable, "-c", "from mamba_integer.backends.app.main import main; main()", "compare"]
    words = shlex.join([*command, "--op", "isqrt", "--backends", "golden,numba", "--cases", "3", "--json"])
    assert run_process(["sh", "-c", f"{words} 2>&-"]).json()["equal"]


@each_command
def test_a_closed_terminal_ends_a_command_quietly(command, stranger, start_cli, monkeypatch, tmp_path):
    stranger(STARTING)
    monkeypatch.setenv("CHILDREN", str(tmp_path / "children"))
    with start_cli(*COMMANDS[command], "--timeout", "600") as process:
        while not (tmp_path / "children").exists():
            assert process.poll() is None
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGHUP)
        _, err = process.communicate()
    assert process.returncode == 128 + signal.SIGHUP and not err.strip(), err


@each_command
def test_threads_and_exit_handlers_of_a_backend_keep_no_command(command, stranger, run_process):
    stranger(LEAVING)
    code = "from mamba_integer.backends.app import main; main.SECONDS_TO_END = 0.1; main.main()"
    done = run_process([sys.executable, "-c", code, *COMMANDS[command], "--timeout", "60", "--json"])
    assert done.code == 0 and json.loads(done.out), done.err


def running(process: int) -> bool:
    path = Path(f"/proc/{process}/stat")
    return path.exists() and path.read_text().split()[2] != "Z"


@each_command
def test_processes_that_a_backend_started_end_with_its_own(command, stranger, run_cli, monkeypatch, tmp_path):
    stranger(STARTING)
    monkeypatch.setenv("CHILDREN", str(tmp_path / "children"))
    assert run_cli(*COMMANDS[command]).code == 1
    children = [int(line) for line in (tmp_path / "children").read_text().split()]
    assert children and not any(map(running, children))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@each_command
def test_a_stopped_command_leaves_no_process_and_no_file(command, number, stranger, start_cli, monkeypatch, tmp_path):
    stranger(STARTING)
    children, temporary = tmp_path / "children", tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setenv("CHILDREN", str(children))
    monkeypatch.setenv("TMPDIR", str(temporary))
    with start_cli(*COMMANDS[command], "--timeout", "600") as process:
        while not (children.exists() and children.read_text().endswith("\n")):
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(number)
        _, err = process.communicate()
        assert process.returncode == 128 + number and not err.strip(), err
    assert not list(temporary.iterdir()) and not any(map(running, map(int, children.read_text().split())))


@pytest.mark.parametrize(
    ("source", "kind", "message"),
    [
        ("speechless", "crash", "Speechless: an error whose text raises ValueError (at "),
        ("interrupting", "crash", "KeyboardInterrupt: "),
        ("disarming", "timeout", "no result came within 1 s"),
    ],
)
@each_command
def test_an_op_may_do_anything(command, source, kind, message, waiting):
    done = waiting[source, command].result()
    shown = json.loads(done.out)
    failure = shown["failure"] if command == "compare" else shown["results"][0]["failure"]
    assert done.code == 1 and failure["kind"] == kind and failure["message"].startswith(message), failure


@each_command
def test_an_account_that_dies_costs_the_account_alone(command, waiting):
    done = waiting["dying account", command].result()
    assert done.code == 1 and "isqrt on stranger" in done.out, done
    assert "isqrt: no explanation: the process died (signal 11" in done.err


@each_command
def test_an_account_that_hangs_costs_the_account_alone(command, waiting):
    done = waiting["account", command].result()
    assert done.code == 1 and "isqrt on stranger" in done.out, done
    assert "isqrt: no explanation: no result came within 10 s" in done.err


def test_a_hang_between_two_cases_fails_the_op(waiting):
    done = waiting["variants", "conform"].result()
    (result,) = json.loads(done.out)["results"]
    assert done.code == 1 and result["status"] == "failed" and not result["failure"]
    assert "no result came within 10 s" in result["notes"][0]


@pytest.mark.parametrize("pair", [("variants", "compare"), ("device", "compare"), ("device", "conform")])
def test_a_hang_outside_the_cases_is_an_error(pair, waiting):
    done = waiting[pair].result()
    assert done.code == 2 and not done.out and "stranger" in done.err and "within 10" in done.err, done.err
