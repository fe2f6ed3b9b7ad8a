"""Signals that stop a process: none is lost, none leaves half a file, and the exit code tells which it was."""

import os
import signal
import sys
import threading

import pytest

from mamba_integer.backends.stopping import Stopped, exit_code, stoppable, unstopped, within

FINALIZER = """
import os, signal, time
from mamba_integer.backends.stopping import exit_code, stoppable
class Late:
    def __del__(self):
        os.kill(os.getpid(), signal.{name})
        time.sleep(1)
signal.signal(signal.SIGINT, signal.default_int_handler)
try:
    with stoppable():
        late = Late()
        del late
        time.sleep(100)
except KeyboardInterrupt as error:
    print(exit_code(error))
"""


@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 143), ("SIGHUP", 129)])
def test_a_signal_that_comes_in_a_finalizer_is_not_lost(name, code, run_process):
    done = run_process([sys.executable, "-c", FINALIZER.format(name=name)], seconds=60)
    assert (done.out, done.err) == (f"{code}\n", "")


def test_an_error_of_a_finalizer_is_still_shown(capsys):
    class Broken:
        def __del__(self):
            raise ValueError("a broken finalizer")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "unraisablehook", sys.__unraisablehook__)
        with stoppable():
            broken = Broken()
            del broken
    assert "a broken finalizer" in capsys.readouterr().err


def test_a_signal_that_was_ignored_stays_so():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stoppable():
            assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
            with pytest.raises(Stopped) as stopped:
                os.kill(os.getpid(), signal.SIGTERM)
                threading.Event().wait(60)
            assert exit_code(stopped.value) == 143
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_signal_waits_for_the_end_of_a_block():
    done = []
    with pytest.raises(Stopped), stoppable(), unstopped():
        os.kill(os.getpid(), signal.SIGTERM)
        done.append(True)
    assert done


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
