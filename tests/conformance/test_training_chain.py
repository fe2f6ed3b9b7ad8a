"""The suite's training steps: equal backends pass, and a bug is named by the first layer and tensor that it spoils."""

from dataclasses import replace

import numpy as np
import pytest

from mamba_integer import spec
from mamba_integer.backends import Backend, load
from mamba_integer.backends.files.source import Source
from mamba_integer.conformance.chains import training as training_cases
from mamba_integer.conformance.mutants import forward as broken

SOURCE = Source.default()
BROKEN = "mamba_integer.conformance.mutants.forward"
FORWARD = ["embedding", "layers.0", "layers.1", "head"]
BACKWARDS = [f"{layer} backwards" for layer in ("head", "norm", "layers.1", "layers.0", "embedding")]
STAGES = [f"step {step} {stage}" for step in (1, 2) for stage in [*FORWARD, *BACKWARDS, "update", "unobserved"]]


def run_one(backend: Backend, case=training_cases.SMALL):
    (text,) = training_cases.run([backend], SOURCE, case)
    return text


@pytest.mark.parametrize("case", [training_cases.SMALL, training_cases.NARROW], ids=lambda case: case.name)
@pytest.mark.parametrize("backend", ["golden", "numba", "torch", "unbounded"])
def test_equal_backends_pass(backend, case):
    text = run_one(load(backend, "cpu"), case)
    assert text.status == "passed" and not text.message and text.stages == text.want
    assert list(text.stages) == STAGES[: 11 * case.steps]
    assert text.integers > 50_000


def last_bit_flipped(result, arrays, parameters):
    return (result[0] ^ 1, *result[1:]) if isinstance(result, tuple) else result ^ 1


@pytest.mark.parametrize(
    ("op", "stage", "tensor"),
    [
        ("selective_scan", "step 1 layers.0 (mamba1 block)", "scan"),
        ("ssd_chunk_scan_backward", "step 1 layers.1 backwards (mamba2 block)", "gradient of layers.1.x"),
        ("silu_gate_backward", "step 1 layers.1 backwards (mamba2 block)", "gradient of layers.1.scan"),
        ("causal_conv1d_backward", "step 1 layers.1 backwards (mamba2 block)", "gradient of layers.1.xz"),
        ("ternary_linear_backward_weight", "step 1 head backwards (model)", "gradient of head"),
        ("embedding_backward", "step 1 embedding backwards (model)", "gradient of embedding"),
        ("lion_update", "step 1 update (optimizer)", "master of embedding"),
    ],
)
def test_a_bug_is_named_by_stage_and_tensor(op, stage, tensor):
    text = run_one(Backend("wrong", broken.Golden(**{op: broken.after(op, last_bit_flipped)})))
    assert text.status == "failed"
    assert text.message.startswith(f"stage {stage} is the first that differs") and f"first {tensor}[" in text.message


def test_what_only_a_second_step_shows_is_found():
    def without_momentum(result, arrays, parameters):
        w, m, clipped = result
        return (w, m, clipped) if not arrays[1].any() else (w, m ^ 1, clipped)

    text = run_one(Backend("wrong", broken.Golden(lion_update=broken.after("lion_update", without_momentum))))
    assert text.message.startswith("stage step 2 update (optimizer) is the first that differs")
    assert "first momentum of" in text.message


def test_a_crash_is_a_failure_and_names_its_layer():
    text = run_one(Backend("crashing", broken.Golden(ssd_chunk_scan_backward=broken.crashing)))
    assert text.status == "failed"
    assert text.message == "stage step 1 layers.1 backwards (mamba2 block): crash: RuntimeError: out of shared memory"


def test_a_backend_without_the_ops_of_training_lacks_them():
    text = run_one(load("mamba_integer.spec.ops.activation"))
    assert text.status == "missing" and "lion_update" in text.message and "squareplus," not in text.message


def test_a_fast_reference_is_held_against_the_golden_ops():
    assert run_one(load("golden"), replace(training_cases.SMALL, reference="numba")).status == "passed"
    wrong = f"{BROKEN}:ties_rise"
    text = run_one(load(wrong), replace(training_cases.SMALL, reference=wrong))
    assert text.status == "failed" and text.message.startswith("the reference is not golden: stage step 1 ")


def test_only_a_gpu_in_a_full_run_gets_the_large_model(monkeypatch):
    ran = []
    small, narrow, large = training_cases.SMALL, training_cases.NARROW, training_cases.LARGE
    monkeypatch.setattr(training_cases, "run", lambda backends, source, case=small: ran.append(case) or [])
    here, gpu = Backend("here", spec), Backend("gpu", spec, "cuda:0")
    training_cases.run_all([gpu], SOURCE, full=False)
    training_cases.run_all([here], SOURCE, full=True)
    assert ran == [small, small, narrow]
    training_cases.run_all([here, gpu], SOURCE, full=True)
    assert ran[3:] == [small, narrow, large]


def test_steps_that_nobody_observes_are_held_against_the_others(monkeypatch):
    """A backend that computes them in a way of its own, and wrongly."""
    backend = load("numba")

    def replayed(function):
        def wrong(arrays, integers):
            backward_pass, losses = function(arrays, integers)
            return backward_pass, losses + np.int32(integers["step"])

        return wrong

    monkeypatch.setattr(backend.ops, "replayed", replayed, raising=False)
    text = run_one(backend)
    assert text.status == "failed"
    assert text.message.startswith("stage step 2 unobserved (optimizer) is the first that differs")
