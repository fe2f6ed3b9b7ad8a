"""Training: one hash, whatever computes it, however the batch is cut, whatever interrupts it."""

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mamba_integer import spec
from mamba_integer.backends import load
from mamba_integer.backends.app.loop import Habits, train
from mamba_integer.backends.files.container import CheckpointError
from mamba_integer.backends.files.corpus import CorpusError, prepare_corpus
from mamba_integer.backends.files.folder import MODEL_FILE
from mamba_integer.backends.files.tokenizer import ByteTokenizer, tokenizer_hash
from mamba_integer.backends.files.training import (
    TRAINING_FILE,
    Training,
    TrainingError,
    load_training,
    origin_masters,
    save_training,
    training_hash,
)
from mamba_integer.conformance.mutants.forward import Golden
from mamba_integer.spec.contract import DomainError
from mamba_integer.spec.model import ModelConfig, find_config
from mamba_integer.spec.model.blocks import Network
from mamba_integer.spec.model.formats import FORMATS
from mamba_integer.spec.model.proof import ProofError
from mamba_integer.spec.training import (
    ExponentError,
    Options,
    OptionsError,
    Run,
    initial_state,
    masters_of,
    project,
    prove_step,
    train_step,
)
from mamba_integer.spec.training.backward import Exponents, NetworkBackward
from mamba_integer.spec.training.step import one_pass
from mamba_integer.spec.version import SPEC_VERSION

MICRO = ModelConfig(
    "micro", 256, d_model=8, d_inner=16, n_layer=2, mamba1_d_state=2, mamba2_d_state=4, nheads=2, headdim=8, dt_rank=2
)
OPTIONS = Options(steps=6, batch=3, length=8, seed=5, warmup=1)
TEXT = "It was the best of times, it was the worst of times, it was the age of wisdom …\n" * 12


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "book.txt"
    path.write_text(TEXT)
    return path


@pytest.fixture(scope="module")
def corpus(text, tmp_path_factory):
    return prepare_corpus([text], ByteTokenizer(), tmp_path_factory.mktemp("corpus"))


def training(options, corpus):
    return Training(MICRO, options, tokenizer_hash(ByteTokenizer()), corpus.sha256)


def trained(corpus, options=OPTIONS, steps=None, ops=None, **how):
    """Return the state after some steps, and its run."""
    run = Run(MICRO, options, ops or load("golden"), **how)
    state = initial_state(run)
    for step in range(steps or options.steps):
        ids = corpus.batch(options.seed, step, range(options.batch), options.length)
        state, _ = train_step(run, state, ids)
    return run, state


def hash_of(corpus, options=OPTIONS, **how):
    run, state = trained(corpus, options, **how)
    return training_hash(training(options, corpus), run, state)


@pytest.fixture(scope="module")
def golden_hash(corpus):
    return hash_of(corpus)


@pytest.mark.parametrize("backend", ["numba", "torch"])
@pytest.mark.parametrize("bits", [16, 8])
def test_one_hash_on_every_backend(backend, bits, corpus):
    options = replace(OPTIONS, error_bits=bits)
    assert hash_of(corpus, options, ops=load(backend, "cpu")) == hash_of(corpus, options)


def test_one_hash_in_the_interpreter(corpus):
    steps = {"steps": 2}
    assert hash_of(corpus, ops=load("triton", "cpu"), **steps) == hash_of(corpus, **steps)


def test_fifty_steps_have_one_hash(corpus):
    options = replace(OPTIONS, steps=50)
    hashes = {hash_of(corpus, options, ops=load(name, "cpu")) for name in ("golden", "numba", "torch")}
    assert len(hashes) == 1


@pytest.mark.parametrize("size", [1, 2])
def test_micro_batches_change_nothing(size, corpus, golden_hash):
    assert hash_of(corpus, micro_batch=size) == golden_hash


def test_hash_depends_on_everything(corpus, golden_hash):
    hashes = {golden_hash, hash_of(corpus, steps=5)}
    for change in ({"seed": 6}, {"rate": 4096}, {"batch": 2}, {"error_bits": 8}, {"decay": 0}, {"length": 9}):
        hashes.add(hash_of(corpus, replace(OPTIONS, **change)))
    assert len(hashes) == 8


WRONG = {
    "ternary_linear_backward": 0,
    "ternary_linear_backward_weight": 0,
    "bitshift_norm_backward": 0,
    "residual_add_backward": 0,
    "squareplus_backward": 0,
    "silu_gate_backward": 1,
    "causal_conv1d_backward": 1,
    "selective_scan_backward": 2,
    "ssd_scan_backward": 1,
    "decay_modulate_backward": 0,
    "embedding_backward": 0,
    "cross_entropy_pow2_backward": 0,
    "stochastic_round_rows": 0,
    "rope_inverse": 0,
    "round_to_int16": 0,
    "lion_update": 1,
    "ternary_project": 0,
    "saturating_add": 0,
    "saturate_backward": 0,
}


@pytest.mark.parametrize("op", WRONG)
def test_a_wrong_op_changes_the_hash(op, corpus, golden_hash):
    """Each op of training counts: one result of it, its elements in reverse order, changes the hash."""

    def wrong(*arrays, **parameters):
        results = spec.OPS[op].golden(*arrays, **parameters)
        if not isinstance(results, tuple):
            return np.flip(results).copy()
        return tuple(np.flip(r).copy() if i == WRONG[op] else r for i, r in enumerate(results))

    assert hash_of(corpus, ops=Golden(**{op: wrong})) != golden_hash


def test_it_learns(corpus):
    """Three hundred steps on one sentence leave little to learn."""
    options = Options(steps=300, batch=4, length=16, seed=1, warmup=10, rate=1 << 15, last_rate=1 << 11)
    run = Run(MICRO, options, load("numba"))
    state, losses = initial_state(run), []
    for step in range(options.steps):
        state, metrics = train_step(run, state, corpus.batch(1, step, range(4), 16))
        losses.append(metrics.loss / metrics.tokens / 65536)
    assert losses[0] > 7 and np.mean(losses[-20:]) < 3.5, (losses[0], np.mean(losses[-20:]))


def test_step_changes_nothing_it_is_given(corpus):
    run, state = trained(corpus, steps=1)
    before = {name: array.copy() for name, array in {**state.masters, **state.momenta}.items()}
    train_step(run, state, corpus.batch(5, 1, range(3), 8))
    assert all(np.array_equal(before[name], array) for name, array in {**state.masters, **state.momenta}.items())


def test_a_step_checks_its_batch(corpus):
    run = Run(MICRO, OPTIONS)
    state = initial_state(run)
    good = corpus.batch(5, 0, range(3), 8)
    for bad in (good[:, 1:], good.astype(np.int64), good[0], good[:0], good + 256, good - 256):
        with pytest.raises(DomainError, match="train_step"):
            train_step(run, state, bad)
    for first in (-1, 1, 2**40, True, np.int64(0)):
        with pytest.raises(DomainError, match="train_step: argument first"):
            train_step(run, state, good, first)
    with pytest.raises(DomainError, match="argument first: found 0 for 6 rows"):
        train_step(run, state, np.concatenate([good, good]))


def test_a_step_is_proved(corpus):
    options = replace(OPTIONS, batch=2**16, length=2**16)
    with pytest.raises((ProofError, DomainError), match="allowed"):
        Run(MICRO, options).prove()
    run = Run(MICRO, options)
    with pytest.raises((ProofError, DomainError), match="allowed"):
        train_step(run, initial_state(run), np.zeros((1, 2**16 + 1), np.int32))


def test_exponents_settle_where_shifts_lead():
    exponents = Exponents({"a": 9, "b": 99, "c": -99, "d": 0}, 16)
    assert exponents.settle("a", {"left": 12, "right": 9}) == 9 and exponents.shifts == {"left": 3, "right": 0}
    assert exponents.settle("b", {"b": 12}) == 12  # no shift to the left
    assert exponents.settle("c", {"c": 12}, most=5) == 7
    with pytest.raises(ExponentError, match="d: found exponents"):
        exponents.settle("d", {"left": 60, "right": 0})


@pytest.mark.parametrize("bits", [{"state": 13}, {"state": 16, "read": 14}, {"state": 12, "read": 12}])
def test_gradients_are_those_of_other_formats(bits, corpus):
    """A state's format changes roundings, and the exponents of errors with it, but no gradient's size or direction."""
    found = []
    for formats in (FORMATS, replace(FORMATS, **bits)):
        run = Run(MICRO, replace(OPTIONS, batch=8, length=24), load("numba"), formats=formats)
        state = initial_state(run)
        network = Network(run.config, run.formats, run.kernels, project(run.kernels, state.masters, run.masters))
        exponents = Exponents(state.error_exponents, 16)
        ids = corpus.batch(5, 0, range(8), 24)
        found.append(one_pass(run, network, NetworkBackward(network, exponents), exponents, ids, 0, 0)[0])
    for name in found[0].gradients:
        a, b = (f.gradients[name].astype(float).ravel() / 2.0 ** f.scales[name] for f in found)
        assert a @ b > 0.9 * np.linalg.norm(a) * np.linalg.norm(b), name
        # A channel's decays have a unit that depends on the state's; all that Lion needs is that it doesn't change.
        assert name.endswith("decay") or 0.9 < np.linalg.norm(a) / np.linalg.norm(b) < 1.1, name


def test_clipped_masters_are_counted(corpus):
    run, state = trained(corpus, steps=1)
    name = "layers.0.decay"
    pushed = np.full_like(state.masters[name], run.masters[name].high)
    momentum = np.full_like(state.momenta[name], -(1 << 26))
    state = replace(
        state,
        masters=dict(state.masters) | {name: pushed},
        momenta=dict(state.momenta) | {name: momentum},
        momentum_exponents=dict(state.momentum_exponents) | {name: -40},
    )
    after, metrics = train_step(run, state, corpus.batch(5, 1, range(3), 8))
    assert metrics.clipped == pushed.size
    assert np.array_equal(after.masters[name], pushed)


def test_masters_project_to_what_they_were_lifted_from():
    from mamba_integer.spec.model import initial_parameters
    from mamba_integer.spec.training.masters import lifted

    parameters, how = initial_parameters(MICRO, 3), masters_of(MICRO)
    again = project(spec, {name: lifted(array, how[name]) for name, array in parameters.items()}, how)
    for name, array in parameters.items():
        assert np.array_equal(again[name], array) and again[name].dtype == array.dtype, name


def test_gradients_point_where_float_autograd_does(corpus, monkeypatch):
    """Every parameter's gradient of a whole pass, against that of the float32 twin with the same weights."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[3]))
    import torch

    from benchmarks.float_training import FloatTraining

    run, state = trained(corpus, steps=12, options=replace(OPTIONS, steps=20, length=48))
    ids = corpus.batch(5, 12, range(3), 48)
    network = Network(MICRO, run.formats, run.kernels, project(run.kernels, state.masters, run.masters))
    exponents = Exponents(state.error_exponents, 16)
    found, _ = one_pass(run, network, NetworkBackward(network, exponents), exponents, ids, 12, 0)
    twin = FloatTraining(MICRO, run.options, ternary=True, device="cpu")
    twin.masters = {
        n: torch.tensor(m / 2.0**24, dtype=torch.float32).requires_grad_() for n, m in state.masters.items()
    }
    smooth = torch.autograd.grad(twin.loss(torch.from_numpy(ids).long()).sum(), list(twin.masters.values()))
    for (name, gradient), want in zip(twin.masters.items(), smooth, strict=True):
        assert gradient.shape == want.shape
        a, b = found.gradients[name].astype(float).ravel(), want.double().numpy().ravel()
        assert a @ b > 0.97 * np.linalg.norm(a) * np.linalg.norm(b), (
            name,
            a @ b / np.linalg.norm(a) / np.linalg.norm(b),
        )


def test_a_step_of_every_config_is_proved():
    for name, rows, length in (("tiny", 8, 256), ("verse", 16, 1024), ("base", 8, 2048)):
        bounds = prove_step(find_config(name), Options(steps=9, batch=rows, length=length, warmup=1))
        assert set(bounds) == set(masters_of(find_config(name)))


@pytest.mark.parametrize("bits", [16, 8])
def test_what_a_pass_finds_lies_within_the_proof(bits, corpus):
    options = replace(OPTIONS, error_bits=bits)
    run, state = trained(corpus, options, steps=3)
    bounds, exponents = prove_step(MICRO, options), Exponents(state.error_exponents, bits)
    network = Network(MICRO, run.formats, run.kernels, project(run.kernels, state.masters, run.masters))
    ids = corpus.batch(5, 3, range(3), 8)
    found, _ = one_pass(run, network, NetworkBackward(network, exponents), exponents, ids, 3, 0)
    for name, bound in bounds.items():
        gradient = found.gradients[name]
        assert gradient.any() and int(gradient.min()) in bound and int(gradient.max()) in bound


@pytest.mark.parametrize(
    ("size", "message"), [({"batch": 1 << 16, "length": 1 << 16}, "."), ({"batch": 1 << 10, "length": 1 << 11}, "conv")]
)
def test_a_batch_that_may_overflow_is_refused(size, message):
    with pytest.raises((DomainError, ProofError), match=message):
        prove_step(find_config("tiny"), replace(OPTIONS, **size))


# --- data ---


def test_batches_are_a_function_of_seed_step_and_row(corpus):
    whole = corpus.batch(5, 7, range(4), 8)
    assert np.array_equal(whole[2:], corpus.batch(5, 7, range(2, 4), 8))
    assert not np.array_equal(whole, corpus.batch(5, 8, range(4), 8))
    assert not np.array_equal(whole, corpus.batch(6, 7, range(4), 8))
    assert np.array_equal(whole[:, 1:9], np.stack([row[1:] for row in whole]))


def test_corpus_splits_at_nine_tenths(corpus):
    data = TEXT.encode()
    assert bytes(corpus.train.astype(np.uint8)) + bytes(corpus.validation.astype(np.uint8)) == data
    assert len(corpus.validation) <= len(data) // 10 + 3


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "no text"), (b"\xff\xfe\x00", "not UTF-8"), (b"text\0text", "NUL"), (None, "can't be read")],
)
def test_text_that_is_none(content, message, tmp_path):
    path = tmp_path / "book.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CorpusError, match=message):
        prepare_corpus([path], ByteTokenizer(), tmp_path / "run")


def test_gzipped_text_and_damaged_gzip(tmp_path):
    import gzip

    path = tmp_path / "book.txt.gz"
    path.write_bytes(gzip.compress(TEXT.encode()))
    assert len(prepare_corpus([path], ByteTokenizer(), tmp_path / "run").train)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(CorpusError, match=r"book\.txt\.gz"):
        prepare_corpus([path], ByteTokenizer(), tmp_path / "run2")


def test_corpus_shorter_than_a_sequence(corpus):
    with pytest.raises(CorpusError, match="allowed 1001 or more"):
        corpus.check(1000)


def test_changed_text_and_damaged_tokens(text, tmp_path):
    prepare_corpus([text], ByteTokenizer(), tmp_path)
    other = tmp_path / "other.txt"
    other.write_text(TEXT + "more")
    with pytest.raises(CorpusError, match="the text changed"):
        prepare_corpus([other], ByteTokenizer(), tmp_path)
    (tmp_path / "tokens.bin").write_bytes(b"\0" * 8)
    with pytest.raises(CorpusError, match=r"tokens\.bin"):
        prepare_corpus([text], ByteTokenizer(), tmp_path)
    (tmp_path / "corpus.json").unlink()
    made = prepare_corpus([text], ByteTokenizer(), tmp_path)
    about = json.loads((tmp_path / "corpus.json").read_text())
    for train_tokens in ("x", -1, 10**9, True):
        (tmp_path / "corpus.json").write_text(json.dumps(about | {"train": train_tokens}))
        with pytest.raises(CorpusError, match="train: found"):
            prepare_corpus([text], ByteTokenizer(), tmp_path)
    (tmp_path / "corpus.json").write_text(json.dumps(about))
    assert prepare_corpus([text], ByteTokenizer(), tmp_path).sha256 == made.sha256


@pytest.mark.parametrize("change", [{"steps": 0}, {"batch": True}, {"rate": -1}, {"warmup": 9}, {"error_bits": 12}])
def test_options_are_validated(change):
    with pytest.raises(OptionsError, match=next(iter(change))):
        replace(OPTIONS, **change)


# --- checkpoints ---


def test_a_checkpoint_goes_on_as_if_never_written(corpus, golden_hash, tmp_path):
    run, state = trained(corpus, steps=3)
    own = training(OPTIONS, corpus)
    save_training(tmp_path / "t", own, run, state)
    other = Run(MICRO, OPTIONS, load("numba"))
    state = load_training(tmp_path / "t", own, other)
    for step in range(3, OPTIONS.steps):
        state, _ = train_step(other, state, corpus.batch(5, step, range(3), 8))
    assert training_hash(own, other, state) == golden_hash


def test_checkpoint_of_another_run(corpus, tmp_path):
    run, state = trained(corpus, steps=1)
    own = training(OPTIONS, corpus)
    save_training(tmp_path / "t", own, run, state)
    for other, message in (
        (replace(own, options=replace(OPTIONS, seed=6)), "option seed"),
        (replace(own, config=replace(MICRO, dt_rank=3)), "config dt_rank"),
        (replace(own, corpus_sha256="0" * 64), "corpus"),
    ):
        with pytest.raises(TrainingError, match=message):
            load_training(tmp_path / "t", other, run)


def test_hostile_checkpoints(corpus, tmp_path):
    run, state = trained(corpus, steps=1)
    own, path = training(OPTIONS, corpus), tmp_path / "t"
    save_training(path, own, run, state)
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
            load_training(path, own, run)


def test_a_full_disk_leaves_the_last_checkpoint(corpus, tmp_path, monkeypatch):
    run, state = trained(corpus, steps=1)
    own, path = training(OPTIONS, corpus), tmp_path / "t"
    digest = save_training(path, own, run, state)

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    after, _ = train_step(run, state, corpus.batch(5, 1, range(3), 8))
    with pytest.raises(OSError, match="No space left"):
        save_training(path, own, run, after)
    monkeypatch.undo()
    assert training_hash(own, run, load_training(path, own, run)) == digest
    assert os.listdir(tmp_path) == ["t"]


def test_the_loop_resumes(corpus, tmp_path):
    own, run = training(OPTIONS, corpus), Run(MICRO, OPTIONS, load("numba"))
    habits = Habits(save_every=2, validate_every=3, windows=2)

    class StopError(Exception):
        pass

    def stop(step):
        if step.step == 5:
            raise StopError

    arguments = (run, own, corpus, ByteTokenizer())
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
        assert [line["step"] for line in log] == list(range(1, OPTIONS.steps + 1))
        for line in log:
            del line["tokens_per_second"]
    assert logs[0] == logs[1]


def test_a_model_is_trained_on_from_its_own_run_alone(corpus, tmp_path):
    own, run, habits = training(OPTIONS, corpus), Run(MICRO, OPTIONS, load("numba")), Habits()
    made = train(run, own, corpus, ByteTokenizer(), tmp_path / "a", habits)
    origin, masters = origin_masters(tmp_path / "a", run.masters)
    assert origin == made["checkpoint_sha256"] and masters.keys() == run.masters.keys()
    for config, message in ((MICRO, "differs"), (replace(MICRO, dt_rank=3), "other sizes")):
        options = replace(OPTIONS, seed=6)
        other = Run(config, options, load("numba"))
        train(other, replace(own, config=config, options=options), corpus, ByteTokenizer(), tmp_path / message, habits)
        (tmp_path / "a" / TRAINING_FILE).write_bytes((tmp_path / message / TRAINING_FILE).read_bytes())
        with pytest.raises(TrainingError, match=message):
            origin_masters(tmp_path / "a", run.masters)
    (tmp_path / "a" / TRAINING_FILE).unlink()
    alone, _ = origin_masters(tmp_path / "a", run.masters)
    assert alone != origin
