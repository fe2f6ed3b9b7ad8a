"""The suite's whole models: equal backends pass, and a bug is named by the first layer and tensor that it spoils."""

import io
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from rich.console import Console

from mamba_integer import spec
from mamba_integer.backends import Backend, load
from mamba_integer.backends.files.source import Source
from mamba_integer.conformance.chains import model as model_cases
from mamba_integer.conformance.mutants import forward as broken
from mamba_integer.conformance.render import show_report
from mamba_integer.conformance.report import Report
from mamba_integer.spec.model.generation import Session, steps

SOURCE = Source.default()
BROKEN = "mamba_integer.conformance.mutants.forward"
STAGES = ["embedding", "layers.0", "layers.1", "head", "repeated", "greedy", "sampled", "state", "decoded"]


def run_one(backend: Backend, case=model_cases.SMALL):
    (text,) = model_cases.run([backend], SOURCE, case)
    return text


@pytest.mark.parametrize("backend", ["golden", "numba", "torch", "unbounded"])
def test_equal_backends_pass(backend):
    text = run_one(load(backend, "cpu"))
    assert text.status == "passed" and not text.message
    assert list(text.stages) == STAGES and text.stages == text.want
    assert text.integers > 40_000


def repeating(monkeypatch, stale=()):
    """Return a backend that repeats calls; a planted bug reads some arrays where the first call left them."""
    backend = load("numba")

    def repeated(function):
        kept = {}

        def call(arrays, *constants):
            key = constants, tuple(array.shape for array in arrays.values())
            first = kept.setdefault(key, dict(arrays))
            return function({n: first[n] if n in stale else array for n, array in arrays.items()}, *constants)

        return call

    monkeypatch.setattr(backend.ops, "repeated", repeated, raising=False)
    return backend


def test_calls_that_come_again_are_compared(monkeypatch):
    text = run_one(repeating(monkeypatch))
    assert text.status == "passed" and list(text.stages) == STAGES


@pytest.mark.parametrize("stale", ["ids", "fill", "lam", "layers.0.scan", "layers.1.conv"])
def test_a_repeated_call_of_another_is_found(stale, monkeypatch):
    text = run_one(repeating(monkeypatch, stale=[stale]))
    assert text.status == "failed" and text.message.startswith("stage repeated (model) is the first that differs")


def wrong(op: str, change):
    return Backend("wrong", broken.Golden(**{op: broken.after(op, change)}))


def off_by_one(result, arrays, parameters):
    return result ^ 1


@pytest.mark.parametrize(("wrong_token", "wrong_state", "tensor"), [(1, 0, "tokens"), (0, 1, "layers.1.conv")])
def test_a_backend_that_decodes_otherwise_than_its_ops_is_found(wrong_token, wrong_state, tensor):
    def decode(model, session, options):
        for one in steps(model, session, options):
            conv = one.state.arrays["layers.1.conv"] ^ wrong_state
            yield Session(
                replace(one.state, arrays={**one.state.arrays, "layers.1.conv": conv}), one.last ^ wrong_token
            )

    text = run_one(Backend("wrong", SimpleNamespace(**vars(spec.ops), decode=decode)))
    assert text.status == "failed" and "stage decoded (model)" in text.message and tensor in text.message


@pytest.mark.parametrize(
    ("op", "stage", "tensor"),
    [
        ("selective_scan", "layers.0 (mamba1 block)", "scan"),
        ("ssd_chunk_scan", "layers.1 (mamba2 block)", "scan"),
        ("argmax", "greedy (head)", "tokens"),
        ("sample", "sampled (head)", "tokens"),
        ("conv1d_step", "greedy (head)", "logits"),
    ],
)
def test_a_bug_is_named_by_stage_and_tensor(op, stage, tensor):
    def change(result, arrays, parameters):
        return (result[0] ^ 1, *result[1:]) if isinstance(result, tuple) else result ^ 1

    text = run_one(wrong(op, change))
    assert text.status == "failed"
    assert text.message.startswith(f"stage {stage} is the first that differs") and f"first {tensor}[" in text.message


def test_a_lost_state_is_found_at_the_end():
    """A wrong state that no later logits show is still a difference."""
    calls = []

    def last_state(result, arrays, parameters):
        calls.append(None)
        y, h, *rest = result
        return y, h ^ np.int32(len(calls) == 2), *rest  # the last of the two steps

    text = run_one(wrong("ssd_chunk_scan_step", last_state))
    assert text.message.startswith("stage state (model) is the first that differs")
    assert "layers.1.scan[" in text.message


def test_a_crash_is_a_failure_and_names_its_layer():
    text = run_one(Backend("crashing", broken.Golden(ssd_chunk_scan=broken.crashing)))
    assert text.status == "failed"
    assert text.message == "stage layers.1 (mamba2 block): crash: RuntimeError: out of shared memory"


def test_a_missing_op_is_missing():
    text = run_one(load("mamba_integer.spec.ops.activation"))
    assert text.status == "missing" and "ssd_chunk_scan_step" in text.message and "squareplus" not in text.message


def test_a_fast_reference_is_held_against_the_golden_one():
    case = replace(model_cases.SMALL, reference="numba")
    assert run_one(load("golden"), case).status == "passed"
    case = replace(case, reference=f"{BROKEN}:scan_rounds")
    text = run_one(load(f"{BROKEN}:scan_rounds"), case)
    assert text.status == "failed" and text.message.startswith("the reference is not golden: stage layers.0")


def test_only_a_gpu_in_a_full_run_gets_the_large_model(monkeypatch):
    ran = []
    monkeypatch.setattr(model_cases, "run", lambda backends, source, case=model_cases.SMALL: ran.append(case) or [])
    here, gpu = Backend("here", spec), Backend("gpu", spec, "cuda:0")
    model_cases.run_all([here], SOURCE, full=True)
    model_cases.run_all([gpu], SOURCE, full=False)
    assert ran == [model_cases.SMALL] * 2
    model_cases.run_all([here, gpu], SOURCE, full=True)
    assert ran[2:] == [model_cases.SMALL, model_cases.MANY_ROWS, model_cases.LARGE]
    assert model_cases.LARGE.config.name == "base" and 2 * model_cases.LARGE.tokens == 512


def test_the_report_counts_models():
    report = Report(models=[run_one(load("numba")), run_one(wrong("argmax", off_by_one))])
    assert not report.passed and [entry["status"] for entry in report.to_dict()["model"]] == ["passed", "failed"]
    console = Console(width=200, record=True, file=io.StringIO())
    show_report(console, report)
    shown = console.export_text()
    assert "stage by stage: model tiny" in shown and "stage greedy (head) is the first that differs" in shown
