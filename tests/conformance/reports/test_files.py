"""The files of a run that is stopped while they are written, or while the result is printed."""

import json
import os
import signal
import threading

import pytest

from mamba_integer.conformance import render
from mamba_integer.conformance.reports import badge, files

SELECTED = ("conform", "--backend", "numba", "--op", "isqrt", "--preset", "smoke", "--no-explain")


def stopped_once(function, number):
    """Return a function that is stopped at its first call."""
    calls = []

    def call(*arguments):
        calls.append(arguments)
        if len(calls) == 1:
            os.kill(os.getpid(), number)
            threading.Event().wait(60)
        return function(*arguments)

    return call


@pytest.mark.parametrize("place", [(files, "page"), (files, "junit"), (badge, "badge"), (render, "show_report")])
def test_all_that_is_written_agrees_with_the_exit_code(place, monkeypatch, cli, tmp_path):
    module, name = place
    monkeypatch.setattr(module, name, stopped_once(getattr(module, name), signal.SIGTERM))
    paths = {option: tmp_path / option for option in ("report", "html", "junit", "badge")}
    done = cli(*SELECTED, *(word for option, path in paths.items() for word in (f"--{option}", path)))
    report = json.loads(paths["report"].read_text())
    assert done.code == report["exit_code"] == 143
    assert report["interrupted"] and not report["passed"] and not report["complete"]
    assert "INTERRUPTED: " in paths["html"].read_text() and "<testsuite" in paths["junit"].read_text()
    assert json.loads(paths["badge"].read_text())["message"].startswith("interrupted after 1 of ")
    assert sorted(tmp_path.iterdir()) == sorted(paths.values())


def test_known_failures_are_marked_once(monkeypatch, cli, tmp_path):
    known, report = tmp_path / "known", tmp_path / "report"
    known.write_text("isqrt: it never passed\nisqrt on numba: it never passed there\n")
    monkeypatch.setattr(render, "show_report", stopped_once(render.show_report, signal.SIGTERM))
    cli(*SELECTED, "--known-failures", known, "--report", report)
    (result,) = json.loads(report.read_text())["results"]
    assert result["status"] == "stale", "a listed op that passes"
