"""The commands conform, compare and ops: exit codes, processes, reports, one line for an error."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mamba_integer import spec
from mamba_integer.backends import BackendError, load
from mamba_integer.backends.app import terminal
from mamba_integer.backends.files.atomic import write_json
from mamba_integer.conformance.engine import replay as repeat
from mamba_integer.conformance.engine import run as conformance_run
from mamba_integer.conformance.engine import texts
from mamba_integer.conformance.engine.texts import run_chains
from mamba_integer.conformance.report import Report, Result, Text
from mamba_integer.conformance.reports import files

BROKEN = "mamba_integer.conformance.mutants.forward"
PARTIAL = "mamba_integer.spec.ops.activation"

pytestmark = pytest.mark.xdist_group("waiting")  # one after the other, beside tests that compute


@pytest.mark.parametrize("command", [("conform",), ("compare", "--backends", "golden,quitting")])
def test_a_backend_that_exits_is_no_verdict(command, monkeypatch, cli):
    def exits(name, device):
        raise SystemExit(0)

    monkeypatch.setattr(terminal, "load", exits)
    code, out, err = cli(*command, "--op", "isqrt")
    assert code == 2 and not out and "SystemExit" in err


# The command line, which tells at its end which of the modules it holds that take long to load.
TELLING = """
import atexit, sys
long = {"numba", "hypothesis", "mamba_integer.conformance.engine.judge", "mamba_integer.conformance.engine.cases"}
atexit.register(lambda: print(sorted(long & sys.modules.keys()), file=sys.stderr))
from mamba_integer.backends.app.main import main
main()
"""


def test_exit_codes_of_processes(run_cli, run_process):
    arguments = ("conform", "--backend", PARTIAL, "--op", "squareplus", "--json")
    equal = run_process([sys.executable, "-c", TELLING, *arguments])
    assert equal.code == 0, equal.err
    assert json.loads(equal.out)["complete"] is True
    assert equal.err == "[]\n", "a process that only shares out the cases started with what runs them"
    wrong = run_cli("conform", "--backend", f"{BROKEN}:half_away", "--op", "shift_round")
    assert wrong.code == 1 and "mamba-integer compare --op shift_round" in wrong.out
    unknown = run_cli("conform", "--backend", "nowhere")
    assert unknown.code == 2 and not unknown.out
    assert unknown.err.count("\n") == 1 and "Traceback" not in unknown.err


@pytest.mark.parametrize("command", [("conform", "--backend", "numba"), ("compare", "--backends", "golden,numba")])
def test_uncompiled_kernels_are_refused_with_the_reason(command, run_cli, monkeypatch):
    monkeypatch.setenv("NUMBA_DISABLE_JIT", "1")
    done = run_cli(*command, "--op", "squareplus")
    assert done.code == 2 and not done.out
    assert "NUMBA_DISABLE_JIT is set" in done.err and "internal error" not in done.err


def test_comparing_ends_where_an_op_never_returns(run_cli, monkeypatch, tmp_path):
    (tmp_path / "hanging.py").write_text("def isqrt(v):\n    while True:\n        pass\n")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    done = run_cli("compare", "--op", "isqrt", "--backends", "golden,hanging", "--timeout", "0.5", "--json")
    assert done.code == 1 and json.loads(done.out)["failure"]["kind"] == "timeout"
    assert "hanging.py" in done.err, "stderr shows where the backend stood"


def test_a_module_that_is_no_package_is_a_backend(monkeypatch, tmp_path):
    stranger(tmp_path, "import no_such_module_of_its")
    with pytest.raises(BackendError, match=r"unknown backend 'stranger': .*PYTHONPATH"):
        load("stranger")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(BackendError, match=r"can't be loaded: No module named 'no_such_module_of_its'.*PYTHONPATH"):
        load("stranger:isqrt")
    stranger(tmp_path, "")
    assert load("stranger").names == list(spec.OPS)


@pytest.mark.parametrize(
    "arguments",
    [
        ("conform", "--op", "sqrt"),
        ("conform", "--backend", "no.such.module:attr"),
        ("conform", "--backend", "json"),
        ("conform", "--backend", "./mine.py"),
        ("conform", "--backend", "numba", "--device", "cuda"),
        ("compare", "--op", "isqrt", "--backends", "golden,numba", "--device", "cuda"),
        ("conform", "--preset", "huge"),
        ("conform", "--text", "/no/such/file"),
        ("conform", "--report", "/no/such/folder/report.json"),
        ("conform", "--report", "/tmp", "--op", "isqrt"),
        (
            "conform",
            "--no-such-option",
        ),
        ("conform", "--seed", "x"),
        ("compare", "--op", "isqrt"),
        ("compare", "--op", "isqrt", "--backends", "golden"),
        ("compare", "--op", "isqrt", "--backends", f"golden,{PARTIAL}"),
        ("compare", "--op", "isqrt", "--backends", "golden,numba", "--case", "{"),
        ("compare", "--op", "isqrt", "--backends", "golden,numba", "--case", "[]"),
        ("compare", "--op", "isqrt", "--backends", "golden,numba", "--case", '{"op":"isqrt"}'),
        ("compare", "--op", "isqrt", "--backends", "golden,numba", "--case", '{"op":"isqrt","entry":99,"call":0}'),
        ("compare", "--op", "isqrt", "--backends", "golden,numba", "--case", '{"op":"shift_round","entry":0,"call":0}'),
        ("compare", "--op", "isqrt", "--backends", "golden,numba", "--case", '{"relation":"x","case":{},"place":[]}'),
        ("compare", "--op", "isqrt", "--backends", "golden,numba", "--case", '{"op":"isqrt","exhaustive":"x"}'),
        ("ops", "--op", "sqrt"),
        ("circuit", "sqrt"),
        ("vectors", "export", "/no/such/folder", "--op", "sqrt"),
    ],
)
def test_usage_error_is_one_line_and_code_2(arguments, cli):
    code, out, err = cli(*arguments)
    assert code == 2 and not out
    assert err.startswith("mamba-integer: ") and err.count("\n") == 1 and "internal" not in err


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ('{"op":"isqrt"}', "found no field sizes"),
        ('{"op":"isqrt","entry":0}', "found no field call"),
        ('{"op":"isqrt","entry":0,"call":0,"seed":1}', "found an unknown field seed"),
        ('{"op":"isqrt","exhaustive":"every"}', "exhaustive: found 'every', allowed bytes, digits"),
        ('{"op":"isqrt","far":1,"x":2}', "found an unknown field x"),
    ],
)
def test_a_case_that_is_none_names_the_field(case, message, cli):
    _, _, err = cli("compare", "--op", "isqrt", "--backends", "golden,numba", "--case", case)
    assert err.startswith("mamba-integer: --case: bad case: ") and message in err and "__init__" not in err


def test_an_unknown_op_is_answered_with_the_nearest(cli):
    _, _, err = cli("compare", "--op", "sqareplus", "--backends", "golden,numba")
    assert "unknown op 'sqareplus'; near it are squareplus, squareplus_backward; `mamba-integer ops` lists all" in err


def test_partial_backend_is_no_pass(cli, tmp_path):
    path = tmp_path / "report.json"
    code, out, _ = cli("conform", "--backend", PARTIAL, "--report", str(path), "--json")
    report = json.loads(out)
    assert code == report["exit_code"] == 1
    assert report["passed"] and not report["complete"]
    statuses = {entry["op"]: entry["status"] for entry in report["results"]}
    family = ("squareplus", "algebraic_sigmoid", "sigmoid_gate", "silu_gate")
    assert {statuses.pop(op) for op in family} == {"passed"}
    assert set(statuses.values()) == {"missing"}
    assert report["text"][0]["status"] == "missing"
    assert report == json.loads(path.read_text())
    assert list(tmp_path.iterdir()) == [path]
    assert report["spec_version"] == spec.SPEC_VERSION
    assert {"spec_version", "date", "commit", "modified", "python", "machine", "devices", "versions"} == report[
        "environment"
    ].keys()


def test_a_missing_op_is_answered_with_the_option_that_leaves_it_out(cli):
    chosen = ("--backend", PARTIAL, "--op", "squareplus", "--op", "isqrt", "--preset", "smoke")
    code, out, _ = cli("conform", *chosen)
    assert code == 1 and "--implemented checks only the ops that it has" in out
    code, out, _ = cli("conform", *chosen, "--implemented")
    assert code == 0 and "missing" not in out


def test_a_failure_of_one_case_says_one_case(cli):
    code, out, _ = cli("conform", "--backend", f"{BROKEN}:half_away", "--op", "shift_round", "--no-explain")
    assert code == 1 and "FAILED: " in out and "1 cases" not in out


def test_zero_cases_fail(cli):
    code, out, _ = cli("compare", "--op", "isqrt", "--backends", "golden,numba", "--cases", "0")
    assert code == 1 and "nothing was compared" in out
    code, out, _ = cli("conform", "--backend", PARTIAL, "--op", "isqrt")
    assert code == 1 and "nothing was compared (1 missing)" in out
    code, out, _ = cli("conform", "--backend", PARTIAL, "--op", "isqrt", "--implemented")
    assert code == 1 and "nothing was compared (no backend has an op that was chosen)" in out
    assert Report().exit_code == 1
    assert not Report([Result("isqrt", "x", status="passed")]).passed


def test_interrupted_run_reports_what_it_did(monkeypatch, cli):
    def interrupt(backends, ops, preset, seed, progress, exhaustive, report, jobs, timeout):
        report.results += [Result("isqrt", "numba"), Result("saturate", "numba")]
        report.results[0].status = "passed"
        report.results[0].count("drawn", 5)
        raise KeyboardInterrupt

    monkeypatch.setattr(conformance_run, "conform", interrupt)
    code, out, _ = cli("conform", "--backend", "numba", "--json")
    report = json.loads(out)
    assert code == report["exit_code"] == 130 and report["interrupted"] and not report["complete"]
    assert [entry["status"] for entry in report["results"]] == ["passed", "not run"]


def test_a_run_that_is_interrupted_in_its_last_chain_is_no_pass(monkeypatch, cli, tmp_path):
    """All ops have passed by then: the report has the chains that ended, and its exit code is the command's."""

    def interrupted(backends, jobs, chains, timeout):
        def interrupt(backends):
            raise KeyboardInterrupt

        first, second, last = chains
        return run_chains(backends, 0, {first: say_the_process, second: say_the_process, last: interrupt}, timeout)

    monkeypatch.setattr(texts, "run_chains", interrupted)
    text, report, page, badge = (tmp_path / name for name in ("a text", "report.json", "page.html", "badge.json"))
    text.write_text("It was the best of times")
    files = ("--report", report, "--html", page, "--badge", badge)
    done = cli("conform", "--op", "isqrt", "--text", text, "--preset", "smoke", *files)
    assert done.code == 130 and done.out.splitlines()[-1].startswith("INTERRUPTED: ")
    fields = json.loads(report.read_text())
    assert fields["exit_code"] == 130 and fields["interrupted"] and not fields["complete"]
    assert [entry["status"] for entry in fields["text"] + fields["model"]] == ["passed", "passed", "not run"]
    assert "<p class=partial>INTERRUPTED" in page.read_text()
    assert json.loads(badge.read_text())["color"] == "yellow"


def stranger(folder: Path, source: str) -> dict[str, str]:
    """Write the module ``stranger``, a backend that other processes find too; return their environment."""
    (folder / "stranger.py").write_text(f"from mamba_integer.spec import *\nfrom mamba_integer import spec\n{source}")
    return os.environ | {"PYTHONPATH": os.pathsep.join((str(folder), os.environ.get("PYTHONPATH", "")))}


HANGING = """
import os, time
from pathlib import Path
def isqrt(v):
    Path(__file__).with_name(str(os.getpid())).touch()
    time.sleep(1000)
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_run_takes_its_processes_with_it(number, code, start_cli, tmp_path):
    environment = stranger(tmp_path, HANGING)
    arguments = ["conform", "--backend", "stranger", "--op", "isqrt", "--op", "saturate", "--jobs", "2"]
    path = tmp_path / "report.json"
    with start_cli(*arguments, "--preset", "full", "--report", path, env=environment) as process:
        while len(workers := [int(file.name) for file in tmp_path.iterdir() if file.name.isdigit()]) < 2:
            assert process.poll() is None
            time.sleep(0.01)
        os.killpg(process.pid, number)
        _, err = process.communicate()
        assert process.returncode == code and not err.strip()
        assert json.loads(path.read_text())["interrupted"]
        for worker in workers:
            with pytest.raises(ProcessLookupError):
                os.kill(worker, 0)


@pytest.mark.parametrize("seconds", [0, 0.1, 0.2, 0.3])
def test_a_run_that_is_interrupted_as_its_processes_start_says_so(seconds, start_cli, tmp_path):
    environment, path = stranger(tmp_path, HANGING), tmp_path / "report.json"
    ops = ("--op", "isqrt", "--op", "saturate", "--op", "bit_length")  # a process for each
    arguments = ["conform", "--backend", "stranger", *ops, "--jobs", "3", "--report", path]
    with start_cli(*arguments, env=environment) as process:
        while not workers_of(process):
            assert process.poll() is None
            time.sleep(0.01)
        time.sleep(seconds)
        os.killpg(process.pid, signal.SIGINT)
        _, err = process.communicate()
        assert process.returncode == 130 and not err.strip(), err
        assert json.loads(path.read_text())["interrupted"] and not workers_of(process)


def workers_of(process) -> list[str]:
    listed = subprocess.run(["pgrep", "-g", str(process.pid), "-f", "spawn_main"], capture_output=True, text=True)
    return listed.stdout.split()


CRASHING = """
import os, signal
def saturate(x, *, bits):
    if x.size > 5:
        os.kill(os.getpid(), signal.SIGSEGV)
    return spec.OPS["saturate"].golden(x, bits=bits)
def bit_length(x):
    os._exit(0)
"""


def test_an_op_that_ends_its_process_has_failed_and_the_others_go_on(run_cli, tmp_path):
    environment = stranger(tmp_path, CRASHING)
    ops = ("isqrt", "saturate", "bit_length", "shift_round")
    selected = [word for op in ops for word in ("--op", op)]
    done = run_cli("conform", "--backend", "stranger", *selected, "--jobs", "2", "--json", env=environment)
    results = {entry["op"]: entry for entry in json.loads(done.out)["results"]}
    assert done.code == 1 and not done.err.strip()
    assert [results[op]["status"] for op in ops] == ["passed", "failed", "failed", "passed"]
    failure = results["saturate"]["failure"]
    assert failure["kind"] == "crash" and "signal 11" in failure["message"]
    assert repeat.parse(failure["case"], "saturate").arrays[0].size > 5
    assert "exit code 0" in results["bit_length"]["failure"]["message"]


HOSTILE = """
def isqrt(v):
    raise RuntimeError("gone\\x1b[2J\\x07\\x9b31m\\u202e")
"""


@pytest.mark.parametrize(
    "command", [("conform", "--backend", "stranger"), ("compare", "--backends", "golden,stranger")]
)
def test_what_a_backend_says_is_shown_and_never_obeyed(command, run_cli, tmp_path):
    done = run_cli(*command, "--op", "isqrt", env=stranger(tmp_path, HOSTILE))
    assert done.code == 1 and r"RuntimeError: gone\x1b[2J\x07\x9b31m\u202e" in done.out
    assert all(c.isprintable() or c == "\n" for c in done.out + done.err)


def end_process(backends):
    os._exit(3)


def test_a_text_that_ends_its_process_has_failed():
    chains = {"a text": end_process, "another": say_the_process}
    before, *_, last = run_chains([load("golden"), load("numba")], 2, chains)
    assert {text.status for each in before.values() for text in each} == {"not run"}
    ((ended, again), (passed, other)) = last.values()
    assert (ended.source, ended.status, ended.message) == ("a text", "failed", "the process died")
    assert [text.backend for text in (ended, again, passed, other)] == ["golden", "numba"] * 2
    assert len({str(os.getpid()), passed.message, other.message}) == 3


def test_one_backend_runs_its_chains_in_as_many_processes_as_there_are_jobs():
    chains = {name: say_the_process for name in ("a text", "another", "a third")}
    *_, last = run_chains([load("golden")], 2, chains)
    assert list(last) == list(chains)
    first, second, third = (text.message for (text,) in last.values())
    assert first == third != second


def test_a_text_that_never_ends_is_ended_in_time():
    *_, last = run_chains([load("golden")], 1, {"a text": sleep_on}, timeout=0.1)
    ((late,),) = last.values()
    assert (late.status, late.message) == ("failed", "no result within 1 s")


def say_the_process(backends):
    return [Text(backend.name, "another", "passed", str(os.getpid())) for backend in backends]


def sleep_on(backends):
    time.sleep(60)


PRINTING = """
import ctypes
print("a banner")
def saturate(x, *, bits):
    print("cycle 1")
    os.write(1, b"straight to the descriptor")
    ctypes.CDLL(None).puts(b"from C")
    return spec.OPS["saturate"].golden(x, bits=bits)
import os
"""


@pytest.mark.parametrize("command", [("conform",), ("conform", "--jobs", "2"), ("compare",)])
def test_json_is_alone_on_stdout(command, run_cli, tmp_path):
    chosen = ("--backends", "golden,stranger") if command == ("compare",) else ("--backend", "stranger")
    done = run_cli(*command, *chosen, "--op", "saturate", "--json", env=stranger(tmp_path, PRINTING))
    assert done.code == 0 and json.loads(done.out)
    assert all(printed in done.err for printed in ("a banner", "cycle 1", "straight to", "from C"))


def test_killed_run_leaves_what_it_found(monkeypatch, cli, tmp_path):
    """A kill lets no code run, so what was there before the last op is what stays."""
    path, seen = tmp_path / "report.json", []

    def keep(path, fields):
        seen.append(fields)
        write_json(path, fields)

    monkeypatch.setattr(files, "write_json", keep)
    selected = ("--backend", "numba", "--op", "saturate", "--op", "isqrt")
    cli("conform", *selected, "--report", str(path))
    statuses = [[entry["status"] for entry in fields["results"]] for fields in seen]
    assert statuses == [["passed", "not run"], ["passed", "passed"], ["passed", "passed"]]
    assert [fields["interrupted"] for fields in seen] == [True, True, False]
    assert json.loads(path.read_text()) == seen[-1]


def test_printed_command_repeats_the_failure(cli):
    name = f"{BROKEN}:half_away"
    _, out, _ = cli("conform", "--backend", name, "--op", "sigmoid_gate")
    command = next(line for line in out.splitlines() if line.startswith("mamba-integer compare"))
    code, out, _ = cli(*shlex.split(command)[1:], "--json")
    repeated = json.loads(out)
    assert code == 1 and not repeated["equal"]
    assert repeated["failure"]["op"] == "sigmoid_gate" and repeated["failure"]["repeat"] == command


def test_compare_takes_any_reference(cli):
    names = f"{BROKEN}:half_away,golden"
    code, out, _ = cli("compare", "--op", "shift_round", "--backends", names, "--json")
    failure = json.loads(out)["failure"]
    assert code == 1
    assert (failure["backend"], failure["reference"]) == ("golden", f"{BROKEN}:half_away")


def test_ops_lists_every_clause(cli):
    code, out, _ = cli("ops", "--json")
    assert code == 0
    listed = {name: entry["clauses"] for name, entry in json.loads(out)["ops"].items()}
    assert listed == {name: dict(op.clauses) for name, op in spec.OPS.items()}
    code, out, _ = cli("ops")
    assert code == 0 and all(clause.split()[0] in out for o in spec.OPS.values() for clause in o.clauses.values())


@pytest.mark.parametrize("command", [("conform",), ("compare",), ("ops",)])
def test_help_has_an_example(command, cli):
    code, out, _ = cli(*command, "--help")
    assert code == 0 and f"mamba-integer {command[0]} -" in " ".join(out.split())


def test_report_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "report.json"
    write_json(path, {"a": 1})
    with pytest.raises(TypeError):
        write_json(path, {"a": object()})
    assert json.loads(path.read_text()) == {"a": 1}
