"""The suite catches what is wrong: null backends, planted bugs, crashes, races; and says so in every form it has."""

import importlib
import io
import itertools
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from random import Random

import numpy as np
import pytest
from rich.console import Console

from mamba_integer import spec
from mamba_integer.backends import Backend, BackendError, load
from mamba_integer.conformance import (
    broken,
    broken_training,
    cli,
    exhaustive,
    model_cases,
    real_text,
    relations,
    repeat,
    terminal,
)
from mamba_integer.conformance import run as conformance_run
from mamba_integer.conformance.card import failure_card
from mamba_integer.conformance.cases import Case, draw_case, extreme_cases
from mamba_integer.conformance.comparison import Failure, check_case, forms, hexadecimal, in_form
from mamba_integer.conformance.exhaustive import CHOSEN, POSTCONDITIONS, ExhaustiveCase
from mamba_integer.conformance.relations import RELATIONS, check_relation, draw_relation
from mamba_integer.conformance.report import Report, Result, write_atomically
from mamba_integer.conformance.run import check_drawn, conform, conform_op

BROKEN = "mamba_integer.conformance.broken"
PARTIAL = "mamba_integer.spec.ops.activation"


COMMAND = [sys.executable, "-c", "from mamba_integer.conformance.cli import main; main()"]


def run(*arguments: str, **options) -> subprocess.CompletedProcess:
    return subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, **options)


def in_process(monkeypatch, capsys, *arguments: str) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["mamba-integer", *arguments])
    with pytest.raises(SystemExit) as exit:
        cli.main()
    out, err = capsys.readouterr()
    return exit.value.code, out, err


def card_text(failure: Failure) -> str:
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(failure_card(failure))
    return console.export_text()


def test_golden_passes_everything():
    report = conform(load("golden"))
    assert not report.failures
    assert report.exit_code == 0 and report.complete
    assert {group for result in report.results for group in result.groups} == {"drawn", "extremes", "large", *RELATIONS}


@pytest.mark.parametrize("name", broken.NULL)
def test_null_backend_fails_every_op(name):
    report = conform(load(f"{BROKEN}:{name}"))
    assert [r.op for r in report.results] == list(spec.OPS)
    assert {r.status for r in report.results} == {"failed"}
    assert report.exit_code == 1
    for failure in report.failures:
        assert failure.case.op in card_text(failure)


@pytest.mark.parametrize("name", broken.BUGS)
def test_planted_bug_fails_its_ops(name):
    report = conform(load(f"{BROKEN}:{name}"), broken.BUGS[name])
    assert {r.op: r.status for r in report.results} == dict.fromkeys(broken.BUGS[name], "failed")
    for op, failure in zip(broken.BUGS[name], report.failures, strict=True):
        card = card_text(failure)
        assert op in card
        assert all(label in card for label in spec.OPS[op].clauses)
        if failure.differs:
            assert hexadecimal(failure.got) in card and hexadecimal(failure.want) in card
            assert hexadecimal(failure.got ^ failure.want) in card


# A race, long sequences, sums beyond int32 or float32, values at an edge: what drawn cases can't repeat or seldom meet.
SELDOM = {"race", "tiles_apart", "weight_wraps", "int8_weight_wraps", "gamma_wraps", "errors_rounded"}
SELDOM |= {"end_saturated", "halves_kept", "masters_rounded", "votes_late", "saturation_unseen"}


def test_a_seed_gives_the_same_cases_whatever_modules_are_loaded(tmp_path, monkeypatch):
    def cases() -> list[str]:
        found = []
        check_drawn(60, 7, partial(draw_case, "selective_scan"), lambda case: found.append(case.to_json()))
        return found

    before = cases()
    (tmp_path / "full_of_integers.py").write_text(f"x = {[*range(200)]}\ny = {[*range(10**6, 10**9, 10**6)]}")
    monkeypatch.syspath_prepend(tmp_path)
    importlib.import_module("full_of_integers")
    assert len(before) == 60 and cases() == before


@pytest.mark.parametrize("name", broken.BUGS)
def test_listed_cases_alone_find_every_bug(name):
    backend = load(f"{BROKEN}:{name}")
    for op in broken.BUGS[name]:
        with pytest.raises(Failure):
            for case in extreme_cases(op):
                check_case(backend, case)


@pytest.mark.parametrize("name", [name for name in broken.BUGS if name not in SELDOM])
def test_drawn_cases_alone_find_every_bug_and_repeat_it(name):
    backend = load(f"{BROKEN}:{name}")
    for op in broken.BUGS[name]:
        with pytest.raises(Failure) as found:
            check_drawn(300, 0, partial(draw_case, op), partial(check_case, backend))
        again = repeat.parse(found.value.case.to_json(), op)
        with pytest.raises(Failure) as repeated:
            repeat.check(backend, again)
        assert str(repeated.value) == str(found.value)


def test_failing_case_is_shrunk():
    def wrong_beyond_a_thousand(x, **parameters):
        y = spec.squareplus.golden(x, **parameters)
        return y + (np.abs(x) > 1000).astype(np.int16)

    backend = Backend("wrong", broken.Golden(squareplus=wrong_beyond_a_thousand))
    with pytest.raises(Failure) as found:
        check_drawn(100, 0, partial(draw_case, "squareplus"), partial(check_case, backend))
    assert found.value.case.leading == (1,)


@pytest.mark.parametrize("seconds", [0, 0.05, 0.2])
def test_shrinking_that_is_stopped_is_not_reported_as_unstable(seconds, monkeypatch):
    monkeypatch.setattr(conformance_run, "SHRINKING_SECONDS", seconds)
    backend = load(f"{BROKEN}:half_away")
    with pytest.raises(Failure) as found:
        check_drawn(100, 0, partial(draw_case, "sigmoid_gate"), partial(check_case, backend))
    assert found.value.kind == "value"


def test_what_is_right_most_times_is_found_on_a_gpu():
    calls = []

    def rarely_wrong(result, arrays, parameters):
        calls.append(arrays[0].size)
        return result ^ (calls.count(70001) == 2 and arrays[0].size == 70001)

    ops = broken.Golden(bit_length=broken.after("bit_length", rarely_wrong))
    assert conform_op(Backend("sound", ops), "bit_length", 5).status == "passed"
    calls.clear()
    result = conform_op(Backend("racing", ops, "gpu"), "bit_length", 5)
    assert result.status == "failed" and result.failure.kind == "unstable"


def test_race_is_reported_as_unstable():
    calls = iter(range(10**6))

    def racing(x, *, s):
        return spec.shift_round.golden(x, s=s) + np.int32(next(calls) == 5)

    backend = Backend("racing", broken.Golden(shift_round=racing))
    with pytest.raises(Failure) as found:
        check_drawn(100, 0, partial(draw_case, "shift_round"), partial(check_case, backend))
    assert found.value.kind == "unstable"


class Panic(BaseException):
    """What a runtime that isn't Python's may raise."""


@pytest.mark.parametrize("error", [SystemExit(0), Panic("at line 3")])
def test_whatever_an_op_raises_is_a_crash(error):
    def give_up(*arrays, **parameters):
        raise error

    backend = Backend("quitting", broken.Golden(causal_conv1d=give_up, conv1d_step=give_up, unpack_trits=give_up))
    (failure,) = conform(backend, ["causal_conv1d"]).failures
    assert failure.kind == "crash" and type(error).__name__ in failure.message
    with pytest.raises(Failure, match=type(error).__name__):
        check_drawn(5, 0, partial(draw_relation, "steps", "causal_conv1d"), partial(check_relation, backend))
    with pytest.raises(Failure, match=type(error).__name__):
        ExhaustiveCase("unpack_trits", "invalid bytes", {"K": 5}).check(backend)
    (text,) = real_text.run([backend], real_text.Source.default())
    assert text.status == "failed" and type(error).__name__ in text.message
    (text,) = model_cases.run([backend], real_text.Source.default())
    assert text.status == "failed" and type(error).__name__ in text.message


@pytest.mark.parametrize("command", [("conform",), ("compare", "--backends", "golden,quitting")])
def test_a_backend_that_exits_is_no_verdict(command, monkeypatch, capsys):
    def exits(name, device):
        raise SystemExit(0)

    monkeypatch.setattr(terminal, "load", exits)
    code, out, err = in_process(monkeypatch, capsys, *command, "--op", "isqrt")
    assert code == 2 and not out and "SystemExit" in err


def test_exhaustive_finds_the_needle():
    backend = load(f"{BROKEN}:needle")
    assert conform(backend, ["isqrt"]).exit_code == 0
    (failure,) = conform(backend, ["isqrt"], exhaustive=True).failures
    assert failure.count == 1 and failure.want == 30011
    with pytest.raises(Failure):
        repeat.check(backend, repeat.parse(failure.case.to_json(), "isqrt"))


def test_accepted_invalid_byte_is_a_failure():
    backend = Backend("trusting", broken.Golden(unpack_ternary=spec.unpack_ternary.golden))
    (failure,) = conform(backend, ["unpack_ternary"], exhaustive=True).failures
    assert failure.kind == "accepted"
    assert conform(load("golden"), ["unpack_ternary"], exhaustive=True).exit_code == 0


@pytest.mark.parametrize("op", POSTCONDITIONS)
def test_postconditions_of_every_int32(op):
    """The check that a GPU runs on all of int32 holds for the golden result and for no neighbour of it."""
    import torch

    (x,) = ExhaustiveCase(op, "edges").arrays
    for parameters in CHOSEN.get(op, [{}]):
        wide = torch.tensor(x).long()
        y = torch.tensor(spec.OPS[op].golden(x, **parameters)).long()
        for offset in (-1, 0, 1):
            right = POSTCONDITIONS[op](wide, y + offset, **parameters)
            assert bool(right.all()) if offset == 0 else not bool(right.any())


def test_block_of_int32_on_torch(monkeypatch):
    monkeypatch.setattr(exhaustive, "BLOCK", 1 << 12)
    torch = load("torch", "cpu")
    case = ExhaustiveCase("isqrt", "int32", {}, 1 << 20)
    assert case.check(torch) == 1 << 12

    class Wrong:
        def __getattr__(self, name):
            return getattr(torch.ops, name)

        def isqrt(self, v):
            return torch.ops.isqrt(v) + (v == (1 << 20) + 77).int()

    with pytest.raises(Failure) as found:
        case.check(Backend("wrong", Wrong()))
    assert (found.value.count, found.value.index) == (1, (77,))
    assert found.value.want == 1024 and found.value.got == 1025


def offset_first(op: str):
    def change(results, arrays, parameters):
        first, *rest = results if isinstance(results, tuple) else (results,)
        return (first ^ 1, *rest) if rest else first ^ 1

    return broken.after(op, change)


RELATED = {
    "chunks": ("causal_conv1d", "causal_conv1d", broken.forget_state("causal_conv1d", 3)),
    "backward chunks": (
        "selective_scan_backward",
        "selective_scan_backward",
        broken.forget_state("selective_scan_backward", 8),
    ),
    "steps": ("causal_conv1d", "conv1d_step", offset_first("conv1d_step")),
    "alone": ("quantize_rows", "quantize_rows", broken.after("quantize_rows", broken.exponent_of_batch)),
    "micro-batches": (
        "stochastic_round_rows",
        "stochastic_round_rows",
        broken_training.ignoring_first("stochastic_round_rows"),
    ),
    "inverse": ("rope", "rope_inverse", offset_first("rope_inverse")),
    "composite": ("norm_quantize", "quantize_rows", offset_first("quantize_rows")),
}


@pytest.mark.parametrize("relation", RELATIONS)
def test_each_relation_finds_its_bug(relation):
    """The bug is in one op; the relation shows it without the golden op."""
    op, wrong, function = RELATED[relation]
    right, backend = load("golden"), Backend("wrong", broken.Golden(**{wrong: function}))
    for seed in range(20):
        check_drawn(1, seed, partial(draw_relation, relation, op), partial(check_relation, right))
    with pytest.raises(Failure) as found:
        check_drawn(100, 0, partial(draw_relation, relation, op), partial(check_relation, backend))
    assert RELATIONS[relation].says in str(found.value)
    with pytest.raises(Failure):
        repeat.check(backend, repeat.parse(found.value.case.to_json(), op))


MALFORMED = {
    "1 results, want 2": lambda y, state: y,
    "y is a NoneType, want an array": lambda y, state: (None, state),
    "y has dtype int64, want int16": lambda y, state: (y.astype(np.int64), state),
    "y has shape": lambda y, state: (y.reshape(-1), state),
    "RuntimeError: out of shared memory": lambda y, state: broken.crashing(),
}


@pytest.mark.parametrize("message", MALFORMED)
def test_what_a_relation_cannot_compute_with_is_a_failure(message):
    step = broken.after("conv1d_step", lambda results, *_: MALFORMED[message](*results))
    backend = Backend("malformed", broken.Golden(conv1d_step=step))
    (failure,) = conform(backend, ["causal_conv1d"]).failures
    assert failure.message.startswith(f"{RELATIONS['steps'].says}; conv1d_step: {message}")
    assert conform(backend, ["conv1d_step"]).failures


def test_a_relation_that_raises_is_a_failure(monkeypatch):
    def sides(self, call, case):
        raise ValueError("no way on from here")
        yield

    monkeypatch.setattr(relations.Steps, "sides", sides)
    with pytest.raises(Failure, match="step by step equals the whole; ValueError: no way on"):
        check_drawn(5, 0, partial(draw_relation, "steps", "ssd_scan"), partial(check_relation, load("golden")))


def test_every_contract_states_the_forms_of_its_results():
    source = Random(5)
    for op, contract in spec.OPS.items():
        case = draw_case(op, source)
        results = contract.golden(*case.arrays, **case.parameters)
        results = results if isinstance(results, tuple) else (results,)
        assert in_form(load("golden"), case, results, forms(op, case.arrays, case.parameters))


def test_an_array_that_hides_its_integers_is_no_array():
    hidden = broken.after("isqrt", lambda result, *_: np.ma.masked_all(result.shape, np.int32))
    (failure,) = conform(Backend("masked", broken.Golden(isqrt=hidden)), ["isqrt"]).failures
    assert failure.kind == "result" and "MaskedArray" in failure.message


def test_a_malformed_reference_is_a_failure():
    listed = broken.after("isqrt", lambda result, *_: result.tolist())
    reference = Backend("lists", broken.Golden(isqrt=listed))
    with pytest.raises(Failure, match="isqrt on lists: result"):
        check_case(load("golden"), draw_case("isqrt", Random(1)), reference)


def test_every_relation_is_used():
    """Each relation says something of an op; sequences are cut and stepped, batches cut, composites composed."""
    used = {name: [op for op in spec.OPS if relation.needs(op) is not None] for name, relation in RELATIONS.items()}
    assert all(used.values())
    backward = {name for name in spec.OPS if "_backward" in name}
    assert backward <= set(used["micro-batches"])
    timed = {name: op for name, op in spec.OPS.items() if any("L" in tensor.shape.split() for tensor in op.inputs)}
    stateful = {name for name, op in timed.items() if len(op.outputs) > 1} - backward
    assert set(used["chunks"]) == set(used["steps"]) == stateful
    assert set(used["backward chunks"]) == {f"{name}_backward" for name in stateful if name.endswith("scan")}
    assert set(used["composite"]) == {name for name, op in spec.OPS.items() if op.composed_of}


def test_exit_codes_of_processes():
    equal = run("conform", "--backend", PARTIAL, "--op", "squareplus", "--json")
    assert equal.returncode == 0, equal.stderr
    assert json.loads(equal.stdout)["complete"] is True
    wrong = run("conform", "--backend", f"{BROKEN}:half_away", "--op", "shift_round")
    assert wrong.returncode == 1 and "mamba-integer compare --op shift_round" in wrong.stdout
    unknown = run("conform", "--backend", "nowhere")
    assert unknown.returncode == 2 and not unknown.stdout
    assert unknown.stderr.count("\n") == 1 and "Traceback" not in unknown.stderr


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
    ],
)
def test_usage_error_is_one_line_and_code_2(arguments, monkeypatch, capsys):
    code, out, err = in_process(monkeypatch, capsys, *arguments)
    assert code == 2 and not out
    assert err.startswith("mamba-integer: ") and err.count("\n") == 1 and "internal" not in err


def test_partial_backend_is_no_pass(monkeypatch, capsys, tmp_path):
    path = tmp_path / "report.json"
    code, out, _ = in_process(monkeypatch, capsys, "conform", "--backend", PARTIAL, "--report", str(path), "--json")
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
    assert {"date", "commit", "modified", "python", "machine", "devices", "versions"} == report["environment"].keys()


def test_zero_cases_fail(monkeypatch, capsys):
    code, out, _ = in_process(
        monkeypatch, capsys, "compare", "--op", "isqrt", "--backends", "golden,numba", "--cases", "0"
    )
    assert code == 1 and "nothing was compared" in out
    code, out, _ = in_process(monkeypatch, capsys, "conform", "--backend", PARTIAL, "--op", "isqrt")
    assert code == 1 and "nothing was compared" in out
    assert Report().exit_code == 1
    assert not Report([Result("isqrt", "x", status="passed")]).passed


def test_interrupted_run_reports_what_it_did(monkeypatch, capsys):
    def interrupt(backends, ops, examples, seed, progress, exhaustive, report, jobs):
        report.results += [Result("isqrt", "numba"), Result("saturate", "numba")]
        report.results[0].status = "passed"
        report.results[0].count("drawn", 5)
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "conform", interrupt)
    code, out, _ = in_process(monkeypatch, capsys, "conform", "--backend", "numba", "--json")
    report = json.loads(out)
    assert code == 130 and report["interrupted"] and not report["complete"]
    assert [entry["status"] for entry in report["results"]] == ["passed", "not run"]


def stranger(folder: Path, source: str) -> dict[str, str]:
    """Write the module ``stranger``, a backend that other processes find too; return their environment."""
    (folder / "stranger.py").write_text(f"from mamba_integer.spec import *\nfrom mamba_integer import spec\n{source}")
    return os.environ | {"PYTHONPATH": str(folder)}


HANGING = """
import os, time
from pathlib import Path
def isqrt(v):
    Path(__file__).with_name(str(os.getpid())).touch()
    time.sleep(1000)
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_run_takes_its_processes_with_it(number, code, tmp_path):
    environment = stranger(tmp_path, HANGING)
    arguments = ["conform", "--backend", "stranger", "--op", "isqrt", "--op", "saturate", "--jobs", "2"]
    path = tmp_path / "report.json"
    command = [*COMMAND, *arguments, "--preset", "full", "--report", str(path)]
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True, process_group=0) as process:
        while len(found := [int(file.name) for file in tmp_path.iterdir() if file.name.isdigit()]) < 2:
            assert process.poll() is None
            time.sleep(0.01)
        os.killpg(process.pid, number)
        _, err = process.communicate(timeout=20)
    assert process.returncode == code and not err.strip()
    assert json.loads(path.read_text())["interrupted"]
    for worker in found:
        with pytest.raises(ProcessLookupError):
            os.kill(worker, 0)


CRASHING = """
import os, signal
def saturate(x, *, bits):
    if x.size > 5:
        os.kill(os.getpid(), signal.SIGSEGV)
    return spec.OPS["saturate"].golden(x, bits=bits)
def bit_length(x):
    os._exit(0)
"""


def test_an_op_that_ends_its_process_has_failed_and_the_others_go_on(tmp_path):
    environment = stranger(tmp_path, CRASHING)
    ops = ("isqrt", "saturate", "bit_length", "shift_round")
    selected = [word for op in ops for word in ("--op", op)]
    done = run("conform", "--backend", "stranger", *selected, "--jobs", "2", "--json", env=environment)
    results = {entry["op"]: entry for entry in json.loads(done.stdout)["results"]}
    assert done.returncode == 1 and not done.stderr.strip()
    assert [results[op]["status"] for op in ops] == ["passed", "failed", "failed", "passed"]
    failure = results["saturate"]["failure"]
    assert failure["kind"] == "crash" and "signal 11" in failure["message"]
    assert repeat.parse(failure["case"], "saturate").arrays[0].size > 5
    assert "exit code 0" in results["bit_length"]["failure"]["message"]


def end_process(backends):
    os._exit(3)


def test_a_text_that_ends_its_process_has_failed():
    (text,) = conformance_run.run_texts([load("golden")], 2, "a text", end_process)
    assert (text.source, text.status, text.message) == ("a text", "failed", "the process died")


def test_a_listed_case_that_passes_when_repeated_is_unstable():
    calls = iter(range(10**6))
    once = broken.after("saturate", lambda result, *_: result + np.int32(next(calls) == 0))
    (failure,) = conform(Backend("once", broken.Golden(saturate=once)), ["saturate"]).failures
    assert failure.kind == "unstable" and "passed when it was repeated" in failure.message


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
def test_json_is_alone_on_stdout(command, tmp_path):
    chosen = ("--backends", "golden,stranger") if command == ("compare",) else ("--backend", "stranger")
    done = run(*command, *chosen, "--op", "saturate", "--json", env=stranger(tmp_path, PRINTING))
    assert done.returncode == 0 and json.loads(done.stdout)
    assert all(printed in done.stderr for printed in ("a banner", "cycle 1", "straight to", "from C"))


def test_killed_run_leaves_what_it_found(monkeypatch, capsys, tmp_path):
    """A kill lets no code run, so what was there before the last op is what stays."""
    path, seen = tmp_path / "report.json", []

    def keep(path, fields):
        seen.append(fields)
        write_atomically(path, fields)

    monkeypatch.setattr(cli, "write_atomically", keep)
    selected = ("--backend", "numba", "--op", "isqrt", "--op", "saturate")
    in_process(monkeypatch, capsys, "conform", *selected, "--report", str(path))
    statuses = [[entry["status"] for entry in fields["results"]] for fields in seen]
    assert statuses == [["passed", "not run"], ["passed", "passed"], ["passed", "passed"]]
    assert [fields["interrupted"] for fields in seen] == [True, True, False]
    assert json.loads(path.read_text()) == seen[-1]


def test_printed_command_repeats_the_failure(monkeypatch, capsys):
    name = f"{BROKEN}:half_away"
    _, out, _ = in_process(monkeypatch, capsys, "conform", "--backend", name, "--op", "sigmoid_gate")
    command = next(line for line in out.splitlines() if line.startswith("mamba-integer compare"))
    code, out, _ = in_process(monkeypatch, capsys, *shlex.split(command)[1:], "--json")
    repeated = json.loads(out)
    assert code == 1 and not repeated["equal"]
    assert repeated["failure"]["op"] == "sigmoid_gate" and repeated["failure"]["repeat"] == command


def test_compare_takes_any_reference(monkeypatch, capsys):
    names = f"{BROKEN}:half_away,golden"
    code, out, _ = in_process(monkeypatch, capsys, "compare", "--op", "shift_round", "--backends", names, "--json")
    failure = json.loads(out)["failure"]
    assert code == 1
    assert (failure["backend"], failure["reference"]) == ("golden", f"{BROKEN}:half_away")


def test_ops_lists_every_clause(monkeypatch, capsys):
    code, out, _ = in_process(monkeypatch, capsys, "ops", "--json")
    assert code == 0
    listed = {name: entry["clauses"] for name, entry in json.loads(out)["ops"].items()}
    assert listed == {name: dict(op.clauses) for name, op in spec.OPS.items()}
    code, out, _ = in_process(monkeypatch, capsys, "ops")
    assert code == 0 and all(clause.split()[0] in out for o in spec.OPS.values() for clause in o.clauses.values())


@pytest.mark.parametrize("command", [("conform",), ("compare",), ("ops",)])
def test_help_has_an_example(command, monkeypatch, capsys):
    code, out, _ = in_process(monkeypatch, capsys, *command, "--help")
    assert code == 0 and f"mamba-integer {command[0]} -" in " ".join(out.split())


def test_report_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "report.json"
    write_atomically(path, {"a": 1})
    with pytest.raises(TypeError):
        write_atomically(path, {"a": object()})
    assert json.loads(path.read_text()) == {"a": 1}


def test_real_text_is_equal_on_numba_and_finds_the_first_wrong_stage():
    source = real_text.Source.default()
    assert b"Beautiful is better than ugly." in source.data
    right, wrong = real_text.run([load("numba"), load(f"{BROKEN}:scan_rounds")], source)
    assert right.status == "passed" and right.stages == right.want and len(right.want) == 17
    assert wrong.status == "failed" and wrong.message.startswith("stage scan (selective_scan) is the first")
    assert wrong.stages["dt_proj"] == wrong.want["dt_proj"] and wrong.stages["residual"] != wrong.want["residual"]


def test_real_text_stages_carry_information():
    """No stage of the chain is dead: each has many values, few of them saturated."""
    golden = Backend("golden", spec)
    for stage, _, (result, *_) in real_text.stages(golden.run, real_text.Source.default().data):
        assert len(np.unique(result)) > 20, stage
        limit = np.iinfo(result.dtype).max
        assert (np.abs(result.astype(np.int64)) == limit).mean() < 0.05, stage


def test_real_text_from_a_file(tmp_path):
    path = tmp_path / "text"
    path.write_bytes(b"To be, or not to be" * 100)
    assert real_text.Source.of_file(path).data == path.read_bytes()[: real_text.LONGEST]
    path.write_bytes(b"")
    with pytest.raises(ValueError, match="empty"):
        real_text.Source.of_file(path)


def test_inputs_are_arrays_even_without_dimensions():
    source = Random(7)
    for op in (name for name, op in spec.OPS.items() if any(tensor.shape == "..." for tensor in op.inputs)):
        cases = [*(draw_case(op, source) for _ in range(20)), *itertools.islice(extreme_cases(op), 5)]
        assert all(type(array) is np.ndarray for case in cases for array in case.arrays), op
    case = Case("saturate", {}, (), {"bits": 8}, ("uniform",), 1, strided=True)
    kinds = []
    check_case(
        Backend("kinds", broken.Golden(saturate=lambda x, bits: kinds.append(type(x)) or x.clip(-127, 127))), case
    )
    assert kinds == [np.ndarray]


def test_card_says_that_inputs_are_views():
    for strided in (False, True):
        case = Case("saturate", {}, (2,), {"bits": 8}, ("uniform",), 1, strided)
        assert ("strided views" in card_text(Failure(load("golden"), case, "value", "differs"))) == strided


def test_case_survives_json():
    source = Random(3)
    for op in spec.OPS:
        case = draw_case(op, source)
        again = repeat.parse(case.to_json(), op)
        assert again == case
        assert all(np.array_equal(a, b) for a, b in zip(again.arrays, case.arrays, strict=True))
