"""Committing runs: one root on every backend, for any granularity, and a state from which a part is run again."""

from dataclasses import replace

import numpy as np
import pytest

from mamba_integer.backends import load
from mamba_integer.backends.transcripts import folder
from mamba_integer.backends.transcripts.computation import computation_for
from mamba_integer.backends.transcripts.errors import CountError
from mamba_integer.backends.transcripts.folder import check_length, read_transcript
from mamba_integer.backends.transcripts.header import Header
from mamba_integer.backends.transcripts.leaf import PIECE, tensor_digest
from mamba_integer.backends.transcripts.recorder import Recorder
from mamba_integer.backends.transcripts.request import Score, Train
from mamba_integer.backends.transcripts.run import Replay, commit, recorded_calls
from mamba_integer.spec import OPS
from mamba_integer.spec.model import LanguageModel
from mamba_integer.spec.training import Run

GOLDEN = load("golden")


@pytest.mark.parametrize("backend", ["numba", "torch"])
@pytest.mark.parametrize("leaves", ["op", "layer"])
def test_every_backend_has_one_root(backend, leaves, small, tmp_path):
    header = replace(small.header, leaves=leaves)
    roots = {commit(tmp_path / name, header, load(name), small.build) for name in (backend, "golden")}
    assert len(roots) == 1
    transcript = read_transcript(tmp_path / backend)
    check_length(transcript)
    assert transcript.calls == 11 and len(transcript.result) == 8
    assert transcript.root in roots and (transcript.root == small.transcript.root) == (leaves == "op")


def test_the_text_is_that_of_generate(small):
    from mamba_integer.spec.model.generation import generate, read

    model = LanguageModel(small.config, small.parameters)
    session = read(model, [small.request.prompt])
    written = [int(one.last[0]) for one in generate(model, session, small.request.options)]
    assert small.transcript.result == written


def test_leaves_stand_for_each_op_by_its_layer(small):
    leaves = []
    recorder = Recorder(GOLDEN, small.header.run_id, "op", leaves.append)
    computation = small.build(recorder.backend)
    for _ in recorded_calls(small.header, recorder, computation, computation.start(), range(4)):
        pass
    assert [(leaf.place, leaf.digest) for leaf in leaves] == list(small.transcript.leaves(range(4)))
    labels = [list(dict.fromkeys(leaf.label for leaf in leaves if leaf.place.call == call)) for call in (0, 3)]
    assert labels == [["embedding", "layers.0", "layers.1", "head"], [*labels[0], "result", "state"]]
    layer = [leaf.call.op for leaf in leaves if leaf.place[:2] == (3, 2)]
    assert layer[0] == "norm_quantize" and layer[-1] == "residual_add" and "ssd_chunk_scan_step" in layer
    assert all(leaf.call.op in OPS or leaf.label == "state" for leaf in leaves)
    assert not any(leaf.call.inputs or leaf.call.outputs for leaf in leaves)  # memory doesn't grow with the run


def test_every_stretch_runs_again_from_its_state(small):
    replay = Replay(small.header, load("torch"), small.build)
    assert [len(calls) for calls in small.header.stretches] == [4, 4, 3]
    assert not any(replay.check(small.transcript, calls) for calls in reversed(small.header.stretches))


def test_a_run_of_too_many_leaves_is_refused_after_its_first_call(small, tmp_path, monkeypatch):
    leaves = len(small.transcript.entries)
    monkeypatch.setattr(folder, "MOST_LEAVES", leaves)
    commit(tmp_path / "fits", small.header, GOLDEN, small.build)
    monkeypatch.setattr(folder, "MOST_LEAVES", leaves // 2)
    calls = []
    with pytest.raises(CountError, match="run fewer calls, or commit to one leaf per layer"):
        commit(tmp_path / "large", small.header, GOLDEN, small.build, calls.append)
    assert calls == []
    assert not (tmp_path / "large" / "transcript.json").exists()


def test_a_scored_text(small, tmp_path):
    request = Score(small.request.prompt, 4)
    header = Header(small.header.model_sha256, request, "op", 2)
    build = lambda backend: computation_for(request, LanguageModel(small.config, small.parameters, backend))  # noqa: E731
    commit(tmp_path, header, GOLDEN, build)
    transcript = read_transcript(tmp_path)
    from mamba_integer.spec.model.scoring import score

    assert transcript.result[-1] == score(LanguageModel(small.config, small.parameters), request.ids).loss
    replay = Replay(header, GOLDEN, build)
    assert not any(replay.check(transcript, calls) for calls in header.stretches)


def test_a_training_run(micro, tmp_path):
    options = replace(micro.options, steps=3)
    request = Train(micro.config, options, micro.corpus.sha256, "0" * 64)
    header = Header("0" * 64, request, "op", 2)
    build = lambda backend: computation_for(request, Run(micro.config, options, backend), micro.corpus)  # noqa: E731
    commit(tmp_path, header, load("numba"), build)
    transcript = read_transcript(tmp_path)
    assert transcript.calls == 3 and len(transcript.result) == 3
    replay = Replay(header, load("numba"), build)
    assert not any(replay.check(transcript, calls) for calls in header.stretches)


def test_a_digest_tells_dtype_shape_and_every_byte():
    arrays = [np.zeros((2, 3), np.int16), np.zeros((3, 2), np.int16), np.zeros((2, 3), np.uint8), np.zeros(6, np.int16)]
    arrays += [np.zeros(size, np.int8) for size in (0, 1, PIECE - 1, PIECE, PIECE + 1, 130 * PIECE)]
    for size in (1, PIECE + 1, 130 * PIECE):
        for place in {0, size // 2, size - 1}:
            arrays.append(np.zeros(size, np.int8))
            arrays[-1][place] = 1
    assert len({tensor_digest(array) for array in arrays}) == len(arrays)
    view = np.arange(24, dtype=np.int32).reshape(4, 6).T[::-1, 1:3]
    assert tensor_digest(view) == tensor_digest(np.ascontiguousarray(view))
