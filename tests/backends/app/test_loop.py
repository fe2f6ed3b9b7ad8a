"""The training loop: interruptions, longer schedules, and models that are trained further."""

import json
from dataclasses import replace

import pytest

from mamba_integer.backends import load
from mamba_integer.backends.app.loop import Habits, train
from mamba_integer.backends.files.folder import MODEL_FILE
from mamba_integer.backends.files.training import TRAINING_FILE, TrainingError, origin_masters
from mamba_integer.spec.training import Run


def test_the_loop_resumes(micro, tmp_path):
    training, run = micro.training(), Run(micro.config, micro.options, load("numba"))
    habits = Habits(save_every=2, validate_every=3, windows=2)

    class StopError(Exception):
        pass

    def stop(step):
        if step.step == 5:
            raise StopError

    arguments = (run, training, micro.corpus, micro.tokenizer)
    whole = train(*arguments, tmp_path / "a", habits)
    with pytest.raises(StopError):
        train(*arguments, tmp_path / "b", habits, progress=stop)
    assert train(*arguments, tmp_path / "b", habits, resume=True) == whole
    assert train(*arguments, tmp_path / "b", habits, resume=True) == whole
    model = (tmp_path / "a" / MODEL_FILE).read_bytes()
    # As a kill between the last checkpoint's two files, and one within a third, leave them.
    (tmp_path / "b" / MODEL_FILE).unlink()
    (tmp_path / "b" / f".{TRAINING_FILE}.0123").write_bytes(b"part")
    assert train(*arguments, tmp_path / "b", habits, resume=True) == whole
    assert (tmp_path / "b" / MODEL_FILE).read_bytes() == model
    assert not list((tmp_path / "b").glob(".*"))
    logs = [[json.loads(line) for line in (tmp_path / f / "log.jsonl").read_text().splitlines()] for f in "ab"]
    for log in logs:
        assert [line["step"] for line in log] == list(range(1, micro.options.steps + 1))
        for line in log:
            del line["tokens_per_second"]
    assert logs[0] == logs[1]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"steps": 3, "last_rate": 1 << 13}, {"last_rate": 1 << 13}),  # a constant rate
        ({"steps": 3, "warmup": 2}, {"warmup": 2, "steps": 4}),  # the rate has not fallen before step 3
        ({"steps": 5, "warmup": 4}, {"steps": 7, "warmup": 4, "last_rate": 0}),
    ],
)
def test_a_longer_run_ends_at_the_hash_of_one_that_was_planned_so(before, after, micro, tmp_path):
    stopped = 3
    plans = [replace(micro.options, **change) for change in (before, after)]
    folder, habits = tmp_path / "run", Habits(save_every=1, validate_every=9, windows=1)

    class StopError(Exception):
        pass

    def stop(step):
        if step.step == stopped:
            raise StopError

    def go(options, **more):
        run = Run(micro.config, options, load("numba"))
        return train(run, micro.training(options), micro.corpus, micro.tokenizer, folder, habits, **more)

    with pytest.raises(StopError):
        go(plans[0], progress=stop)
    made = go(plans[1], resume=True)
    assert made["step"] == plans[1].steps
    assert made["checkpoint_sha256"] == micro.hash_of(plans[1])
    assert [json.loads(line)["step"] for line in (folder / "log.jsonl").read_text().splitlines()] == [
        *range(1, plans[1].steps + 1)
    ]


def test_a_model_is_trained_on_from_its_own_run_alone(micro, tmp_path):
    training, run, habits = micro.training(), Run(micro.config, micro.options, load("numba")), Habits()
    made = train(run, training, micro.corpus, micro.tokenizer, tmp_path / "a", habits)
    origin, masters = origin_masters(tmp_path / "a", run.masters)
    assert origin == made["checkpoint_sha256"] and masters.keys() == run.masters.keys()
    for config, message in ((micro.config, "masters don't give"), (replace(micro.config, dt_rank=3), "other sizes")):
        options = replace(micro.options, seed=6)
        other, description = Run(config, options, load("numba")), replace(training, config=config, options=options)
        train(other, description, micro.corpus, micro.tokenizer, tmp_path / message, habits)
        (tmp_path / "a" / TRAINING_FILE).write_bytes((tmp_path / message / TRAINING_FILE).read_bytes())
        with pytest.raises(TrainingError, match=message):
            origin_masters(tmp_path / "a", run.masters)
    (tmp_path / "a" / TRAINING_FILE).unlink()
    alone, _ = origin_masters(tmp_path / "a", run.masters)
    assert alone != origin
