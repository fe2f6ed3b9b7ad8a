"""Processes of a run: a hang or a crash costs one op, and a card repeats the calls that its failure needs."""

import json
import os
import shlex
import sys
import tempfile
from pathlib import Path

import pytest

from mamba_integer.conformance.engine import workers
from mamba_integer.conformance.engine.journal import Journal, Note, read
from mamba_integer.conformance.engine.replay import CaseError, parse_sequence

pytestmark = pytest.mark.xdist_group("waiting")  # one after the other, beside tests that compute

SOURCE = """
from mamba_integer.spec import *
from mamba_integer import spec
import time
def shift_round(x, *, s):
    time.sleep(1000)
longest = 0
def bit_length(x):
    global longest
    before, longest = longest, max(longest, x.size)
    return spec.bit_length.golden(x) + np.int32(before > 256 >= x.size > 0)
import numpy as np
"""


# Starts pools, and has another thread hear Ctrl-C at one step of each start: any, and those that wait with a lock.
STARTS = """
import json, os, signal, sys, threading, time
from collections import Counter
from mamba_integer.conformance.engine import workers
signal.signal(signal.SIGINT, signal.default_int_handler)
threading.Thread(target=threading.Event().wait, daemon=True).start()
def start(moment=None):
    steps = []
    def interrupt(frame, event, argument):
        steps.append(frame.f_code.co_name)
        if len(steps) == moment:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.001)
    sys.setprofile(interrupt)
    try:
        with workers.processes(2) as pool:
            pool.submit(int)
    finally:
        sys.setprofile(None)
    return steps
start()
steps = start()
waits = [i for i, name in enumerate(steps, 1) if name in ("wait", "_release_save", "_acquire_restore")]
seen = Counter()
for moment in sorted({*waits, *range(1, len(steps) - 100, len(steps) // 60)}):
    try:
        start(moment)
        seen["nothing"] += 1
    except BaseException as error:
        seen[type(error).__name__] += 1
    whole = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    seen["a signal stays held"] += not whole or signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, ())
print(json.dumps(+seen))
"""


def test_a_hang_ends_and_a_card_repeats_the_calls_that_a_failure_needs(run_cli, monkeypatch, tmp_path):
    (tmp_path / "stateful.py").write_text(SOURCE)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    selected = ("--op", "shift_round", "--op", "bit_length", "--op", "isqrt")
    done = run_cli("conform", "--backend", "stateful", *selected, "--preset", "smoke", "--timeout", "1", "--json")
    results = {entry["op"]: entry for entry in json.loads(done.out)["results"]}
    assert done.code == 1 and results["isqrt"]["status"] == "passed"
    assert results["shift_round"]["failure"]["kind"] == "timeout"
    failure = results["bit_length"]["failure"]
    assert failure["kind"] == "value" and failure["cases_before"] >= 1
    again = run_cli(*shlex.split(failure["repeat"])[1:], "--json")
    assert again.code == 1 and json.loads(again.out)["failure"]["kind"] == "value"


def test_processes_that_are_ended_leave_no_files(tmp_path, monkeypatch):
    """A process that is ended removes nothing, so the run removes what its processes made."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    with workers.processes(1) as pool:
        made = pool.submit(tempfile.mkdtemp).result()
        assert Path(made).is_dir() and tmp_path in Path(made).parents
    assert not list(tmp_path.iterdir())


def test_an_interrupt_at_any_step_of_a_start_is_nothing_else(run_process):
    done = run_process([sys.executable, "-c", STARTS], seconds=120)
    seen = done.json()
    # A thread that has started already isn't waited for: then a start has fewer steps, and some moments never come.
    assert set(seen) <= {"KeyboardInterrupt", "nothing"} and seen["KeyboardInterrupt"] > 50 and not done.err, done


def test_a_sequence_of_cases_is_parsed_whole():
    case = {"op": "isqrt", "entry": 0, "call": 0}
    assert len(parse_sequence(json.dumps([case, case]), "isqrt")) == 2
    assert len(parse_sequence(json.dumps(case), "isqrt")) == 1
    for wrong in ("[]", "[1]", "[{}]", "["):
        with pytest.raises(CaseError):
            parse_sequence(wrong, "isqrt")


def test_a_journal_that_was_cut_keeps_its_whole_lines(tmp_path):
    path = tmp_path / "journal"
    Journal(path).start("3 1")
    with path.open("a") as file:
        file.write('{"op":"isqrt","entry":0,"call":0}\n{"op":"isq')
    assert read(path) == Note("3 1", ['{"op":"isqrt","entry":0,"call":0}'], True)
