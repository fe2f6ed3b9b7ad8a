"""Signals that stop a process: none is lost, none leaves half a file, and the exit code tells which it was."""

import os
import signal
import sys
import threading

import pytest

from mamba_integer.backends import stopping
from mamba_integer.backends.stopping import STOPS, exit_code, ignore_stops, obey_stops, unstopped, within

FINALIZER = """
import os, signal, time
from mamba_integer.backends import stopping
from mamba_integer.backends.stopping import exit_code, obey_stops
class Late:
    def __del__(self):
        os.kill(os.getpid(), signal.{name})
        time.sleep(1)
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)
obey_stops()
try:
    late = Late()
    del late
    time.sleep(100)
except KeyboardInterrupt:
    print(exit_code())
"""


@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 143), ("SIGHUP", 129)])
def test_a_signal_that_comes_in_a_finalizer_is_not_lost(name, code, run_process):
    done = run_process([sys.executable, "-c", FINALIZER.format(name=name)], seconds=60)
    assert (done.out, done.err) == (f"{code}\n", "")


def test_an_error_of_a_finalizer_is_still_shown(capsys):
    class Broken:
        def __del__(self):
            raise ValueError("a broken finalizer")

    obey_stops()
    broken = Broken()
    del broken
    assert "a broken finalizer" in capsys.readouterr().err


def raise_and_wait(number):
    os.kill(os.getpid(), number)
    threading.Event().wait(60)


def test_each_signal_has_its_exit_code_and_ignored_ones_stay_so(monkeypatch):
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    obey_stops()
    monkeypatch.setattr(stopping, "SECONDS_TO_END", 0.0)
    for number, code in ((signal.SIGTERM, 143), (signal.SIGINT, 130)):
        with pytest.raises(KeyboardInterrupt):
            raise_and_wait(number)
        assert exit_code() == code
    assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN


def test_a_second_signal_leaves_time_to_clean_up():
    obey_stops()
    with pytest.raises(KeyboardInterrupt):
        raise_and_wait(signal.SIGTERM)
    for number in STOPS:
        os.kill(os.getpid(), number)
    assert exit_code() == 143


def test_a_signal_waits_for_the_end_of_a_block():
    done = []
    obey_stops()
    with pytest.raises(KeyboardInterrupt), unstopped():
        os.kill(os.getpid(), signal.SIGTERM)
        done.append(True)
    assert done and exit_code() == 143


def test_a_signal_after_the_verdict_changes_nothing():
    ignore_stops()
    for number in STOPS:
        os.kill(os.getpid(), number)


def test_a_block_has_its_time():
    with pytest.raises(ValueError, match="late"), within(0.05, ValueError("late")):
        threading.Event().wait(60)
    with within(60, ValueError("late")):
        pass
    assert signal.getitimer(signal.ITIMER_REAL)[0] == 0


def test_the_command_line_is_ready_for_signals_before_it_loads_a_library(run_process):
    code = """
import sys
from mamba_integer.backends.app import main
print(sorted({"numpy", "numba", "typer", "mamba_integer.spec"} & set(sys.modules)))
"""
    assert run_process([sys.executable, "-c", code]).out == "[]\n"


def test_the_names_of_the_package_are_those_of_the_protocol():
    from mamba_integer import backends
    from mamba_integer.backends import protocol

    assert all(getattr(backends, name) is getattr(protocol, name) for name in backends.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        backends.nothing  # noqa: B018
