"""The suite's training steps: equal backends pass, and a bug is named by the first layer and tensor that it spoils."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from mamba_integer import spec
from mamba_integer.backends import Backend, load
from mamba_integer.backends.files.source import Source
from mamba_integer.conformance.chains import ranks
from mamba_integer.conformance.chains import training as training_cases
from mamba_integer.conformance.mutants import forward as broken
from mamba_integer.spec.training import Run, step

SOURCE = Source.default()
BROKEN = "mamba_integer.conformance.mutants.forward"
FORWARD = ["embedding", "layers.0", "layers.1", "head"]
BACKWARDS = [f"{layer} backwards" for layer in ("head", "norm", "layers.1", "layers.0", "embedding")]
RANKS = [f"unobserved, {way}" for way in ("row by row", "rank 0 of 2", "rank 1 of 2")]


def stages_of(case):
    of_step = [*FORWARD, *BACKWARDS, "update", "unobserved", *(RANKS if case.rows > 1 else [])]
    return [f"step {step} {stage}" for step in range(1, case.steps + 1) for stage in of_step]


def run_one(backend: Backend, case=training_cases.SMALL):
    (text,) = training_cases.run([backend], SOURCE, case)
    return text


@pytest.mark.parametrize("case", [training_cases.SMALL, training_cases.NARROW], ids=lambda case: case.name)
@pytest.mark.parametrize("backend", ["golden", "numba", "torch", "unbounded"])
def test_equal_backends_pass(backend, case):
    text = run_one(load(backend, "cpu"), case)
    assert text.status == "passed" and not text.message and text.stages == text.want
    assert list(text.stages) == stages_of(case)
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


class Graph:
    """A replay as a device has it: what is replayed reads arrays and integers, and leaves results, in the same places.

    A planted bug changes one thing: ``fresh`` arrays and integers are all that a call copies, and ``leaves`` says what
    a call leaves of the result before.
    """

    def __init__(self, function, fresh=lambda name: True, leaves=lambda before, new: new):
        self.function, self.fresh, self.leaves = function, fresh, leaves
        self.inputs = {}, {}
        self.held = {}

    def kept(self, name, array):
        before = self.held.setdefault(name, np.zeros_like(array))
        before[...] = self.leaves(before.copy(), array)
        return before

    def __call__(self, arrays, integers, take):
        for held, new in zip(self.inputs, (arrays, integers), strict=True):
            held |= {name: value for name, value in new.items() if name not in held or self.fresh(name)}
        parts = []
        backward_pass, losses, rest = self.function(*self.inputs, parts.append)
        for part in parts:
            take({name: self.kept(name, gradient) for name, gradient in part.items()})
        largest = enumerate(backward_pass.largest)
        backward_pass.largest = [self.kept(f"largest {i}", array) for i, array in largest]
        return backward_pass, self.kept("losses", losses), {name: self.kept(name, rest[name]) for name in rest}


def replaying(monkeypatch, **bug):
    backend = load("numba")
    monkeypatch.setattr(backend.ops, "replayed", lambda function: Graph(function, **bug), raising=False)
    return backend


@pytest.mark.parametrize("piece", [1, 300, step.PIECE])
def test_results_that_last_until_the_next_replay_suffice(piece, monkeypatch):
    monkeypatch.setattr(step, "PIECE", piece)
    text = run_one(replaying(monkeypatch), replace(training_cases.SMALL, rows=3))
    assert text.status == "passed" and "step 2 unobserved, rank 1 of 2" in text.stages


@pytest.mark.parametrize(
    ("bug", "stage"),
    [
        ({"leaves": lambda before, new: before + new}, "step 1 unobserved, row by row"),  # sums that aren't cleared
        ({"leaves": lambda before, new: before if before.any() else new}, "step 1 unobserved, row by row"),
        ({"fresh": lambda name: name not in ("read", "target")}, "step 1 unobserved, row by row"),  # one row twice
        ({"fresh": lambda name: name != "first"}, "step 1 unobserved, row by row"),  # the rounding of the first row
        ({"fresh": lambda name: name != "step"}, "step 2 unobserved"),
        ({"fresh": lambda name: name != "head"}, "step 2 unobserved"),  # the masters of the step before
    ],
)
def test_a_wrong_replay_is_found(bug, stage, monkeypatch):
    text = run_one(replaying(monkeypatch, **bug))
    assert text.status == "failed" and text.message.startswith(f"stage {stage} (optimizer) is the first that differs")


@pytest.mark.parametrize(
    ("planted", "stage"),
    [
        # Sums that a replay overwrites before they are added, and ranks that are not added at all.
        ({"copied": lambda run, array: array}, "unobserved, row by row"),
        ({"first": 0}, "unobserved, row by row"),
    ],
)
def test_a_step_that_uses_replays_wrongly_is_found(planted, stage, monkeypatch):
    if "copied" in planted:
        monkeypatch.setattr(Run, "copied", planted["copied"])
    else:
        whole = step.whole_pass
        monkeypatch.setattr(
            step,
            "whole_pass",
            lambda run, arrays, integers, take: whole(run, arrays, {**integers, step.FIRST: 0}, take),
        )
    text = run_one(replaying(monkeypatch))
    assert text.status == "failed" and text.message.startswith(f"stage step 1 {stage} (optimizer) is the first")


def test_a_rank_that_keeps_its_sums_to_itself_is_found(monkeypatch):
    monkeypatch.setattr(ranks.Sums, "totals", lambda sums: sums.arrays)
    text = run_one(replaying(monkeypatch))
    assert text.status == "failed"
    assert text.message.startswith("stage step 1 unobserved, rank 0 of 2 (optimizer) is the first that differs")


def test_ranks_of_which_one_fails_all_end():
    meeting = ranks.Meeting(3)

    def work(rank):
        member = ranks.Member(meeting, rank)
        every, _ = member.sums().settle(np.array([rank, -rank]))
        assert every.tolist() == [[0, 0], [1, -1], [2, -2]]
        if rank == 1:
            raise ValueError("no memory")
        return member.sum([np.array([rank])])

    with pytest.raises(ValueError, match="no memory"):
        meeting.results([partial(work, rank) for rank in range(3)])
    works = [lambda rank=rank: ranks.Member(meeting, rank).sum([np.array([rank])])[0].item() for rank in range(3)]
    assert meeting.results(works) == [3, 3, 3]
