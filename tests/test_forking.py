"""A command that was forked is like one that was started."""

import json
import os
import signal
import socket
import subprocess
from array import array

import pytest

from tests.conftest import nursery
from tests.forking import Fork, Nursery

TELL = """
import json, os, sys
from pathlib import Path
Path("told.json").write_text(json.dumps({
    "folder": os.getcwd(), "arguments": sys.argv, "session": os.getsid(0) == os.getpid(),
    "here": os.environ.get("CHILDREN"), "path": sys.path[:2], "open": len(os.listdir("/proc/self/fd")),
}))
raise ImportError("told")
"""


@pytest.mark.parametrize("arguments", [("--version",), ("ops", "--op", "nosuch"), ("generate", "--tokens", "2")])
def test_it_says_the_same(arguments, run_cli):
    assert run_cli(*arguments) == run_cli(*arguments, fresh=True)


def test_it_has_the_same_surroundings(run_cli, monkeypatch, tmp_path):
    (tmp_path / "telling.py").write_text(TELL)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setenv("CHILDREN", "none")
    told = []
    for fresh in (False, True):
        assert run_cli("conform", "--backend", "telling", cwd=tmp_path, fresh=fresh).code == 2
        told.append(json.loads((tmp_path / "told.json").read_text()))
    assert told[0] == told[1] and told[0]["folder"] == str(tmp_path) and told[0]["session"], told


def test_a_kill_is_seen(start_cli, tmp_path):
    with start_cli("conform", "--backend", "golden", "--preset", "full", cwd=tmp_path) as process:
        assert process.poll() is None
        process.kill()
        assert process.wait() == process.poll() == -signal.SIGKILL


def test_a_signal_to_one_whose_end_was_not_told_yet_is_no_error():
    with subprocess.Popen(["true"]) as process:
        process.wait(60)
    ours, theirs = socket.socketpair()
    with ours, theirs, open(os.devnull) as nothing:
        theirs.sendall(array("i", [process.pid]).tobytes())
        fork = Fork(ours, nothing, nothing)
        fork.kill()
        theirs.sendall(array("i", [7]).tobytes())
        assert fork.wait() == fork.poll() == 7


def test_variables_that_libraries_read_once_need_a_fresh_process(monkeypatch):
    assert not nursery().refused(dict(os.environ) | {"CHILDREN": "1"})
    monkeypatch.setenv("NUMBA_NUM_THREADS", "1")
    assert nursery().refused(dict(os.environ)) == {"NUMBA_NUM_THREADS"}


def test_a_nursery_that_has_ended_keeps_no_test_waiting():
    ended = Nursery("raise SystemExit", dict(os.environ))
    ended.process.wait(60)
    with pytest.raises(OSError):
        ended.start(["--version"], dict(os.environ), ".")
