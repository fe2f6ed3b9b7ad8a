"""Training checkpoints: a run goes on from one as if never interrupted, and from no other."""

import json
import os
import struct
from dataclasses import replace

import numpy as np
import pytest

from mamba_integer.backends import load
from mamba_integer.backends.files.container import CheckpointError
from mamba_integer.backends.files.training import (
    TrainingError,
    load_training,
    save_training,
    training_hash,
)
from mamba_integer.spec.ops import learning_rate
from mamba_integer.spec.training import Run, train_step
from mamba_integer.spec.version import SPEC_VERSION


def test_a_checkpoint_goes_on_as_if_never_written(micro, tmp_path):
    run, state = micro.trained(steps=3)
    training = micro.training()
    save_training(tmp_path / "t", training, run, state)
    other = Run(micro.config, micro.options, load("numba"))
    state = load_training(tmp_path / "t", training, other)
    for step in range(3, micro.options.steps):
        state, _ = train_step(other, state, micro.corpus.batch(5, step, range(3), 8))
    assert training_hash(training, other, state) == micro.golden_hash


def test_checkpoint_of_another_run(micro, tmp_path):
    run, state = micro.trained(steps=1)
    training = micro.training()
    save_training(tmp_path / "t", training, run, state)
    for other, message in (
        (replace(training, options=replace(micro.options, seed=6)), "option seed"),
        (replace(training, config=replace(micro.config, dt_rank=3)), "config dt_rank"),
        (replace(training, corpus_sha256="0" * 64), "corpus"),
    ):
        with pytest.raises(TrainingError, match=message):
            load_training(tmp_path / "t", other, run)


def test_hostile_checkpoints(micro, tmp_path):
    run, state = micro.trained(steps=1)
    training, path = micro.training(), tmp_path / "t"
    save_training(path, training, run, state)
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[-5] ^= 1
    for content in (
        b"",
        whole[:100],
        whole[:-1],
        bytes(flipped),
        whole.replace(SPEC_VERSION.encode(), b"9.9.9"),
        b"x" * 4096,
    ):
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match="t: "):
            load_training(path, training, run)


def test_a_full_disk_leaves_the_last_checkpoint(micro, tmp_path, monkeypatch):
    run, state = micro.trained(steps=1)
    training, path = micro.training(), tmp_path / "t"
    digest = save_training(path, training, run, state)

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    after, _ = train_step(run, state, micro.corpus.batch(5, 1, range(3), 8))
    with pytest.raises(OSError, match="No space left"):
        save_training(path, training, run, after)
    monkeypatch.undo()
    assert training_hash(training, run, load_training(path, training, run)) == digest
    assert os.listdir(tmp_path) == ["t"]


def test_a_schedule_may_change_ahead_alone(micro, tmp_path):
    run, state = micro.trained(steps=2)
    save_training(tmp_path / "t", micro.training(), run, state)
    rates = [int(rate) for rate in learning_rate(np.arange(6, dtype=np.int32), **micro.options.schedule)]
    assert rates[0] == rates[1] > rates[2]
    good = [{"steps": 2}, {"last_rate": 0}, {"steps": 2, "last_rate": 0}, {"steps": 600, "warmup": 1}]
    for change in good:
        other = replace(micro.options, **change)
        assert load_training(tmp_path / "t", micro.training(other), run).step == 2
    for change, message in (
        ({"steps": 1, "warmup": 0}, "found 1, but the run has done 2 steps"),
        ({"rate": 1 << 12}, f"its step 0 had learning rate {rates[0]}, by the options asked for it has {1 << 12}"),
        ({"warmup": 2}, f"its step 0 had learning rate {rates[0]}, by the options asked for it has {rates[0] // 2}"),
        ({"warmup": 0}, f"its step 1 had learning rate {rates[1]}"),
        ({"steps": 600, "decay": 0}, "option decay"),
        ({"steps": 600, "gradient_bits": 8}, "option gradient_bits"),
    ):
        with pytest.raises(TrainingError, match=message):
            load_training(tmp_path / "t", micro.training(replace(micro.options, **change)), run)
    run, state = micro.trained(steps=3)
    save_training(tmp_path / "t", micro.training(), run, state)
    with pytest.raises(TrainingError, match=rf"step 2 had learning rate {rates[2]}, .* \d+ .*where last_rate is equal"):
        load_training(tmp_path / "t", micro.training(replace(micro.options, steps=7)), run)


def test_a_key_of_the_description_that_stands_twice(micro, tmp_path):
    run, state = micro.trained(steps=1)
    save_training(tmp_path / "t", micro.training(), run, state)
    content = (tmp_path / "t").read_bytes()
    size = struct.unpack("<Q", content[:8])[0]
    header = json.loads(content[8 : 8 + size])
    options = header["__metadata__"]["options"]
    header["__metadata__"]["options"] = options.replace('"steps":', '"steps": 9, "steps":')
    text = json.dumps(header).encode()
    (tmp_path / "t").write_bytes(struct.pack("<Q", len(text)) + text + content[8 + size :])
    with pytest.raises(CheckpointError, match="'steps' stands twice"):
        load_training(tmp_path / "t", micro.training(), run)
