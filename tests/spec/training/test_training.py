"""Training: one hash, whatever computes it, however the batch is cut, whatever interrupts it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mamba_integer import spec
from mamba_integer.backends import load
from mamba_integer.conformance.mutants.forward import Golden
from mamba_integer.spec.contract import DomainError
from mamba_integer.spec.model import find_config
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


@pytest.mark.parametrize("backend", ["numba", "torch"])
@pytest.mark.parametrize("bits", [16, 8])
def test_one_hash_on_every_backend(backend, bits, micro):
    options = replace(micro.options, gradient_bits=bits)
    assert micro.hash_of(options, ops=load(backend, "cpu")) == micro.golden_hash_of(options)


def test_one_hash_in_the_interpreter(micro):
    steps = {"steps": 2}
    assert micro.hash_of(ops=load("triton", "cpu"), **steps) == micro.golden_hash_of(**steps)


def test_one_hash_of_several_passes_in_the_interpreter(micro):
    """A step of one pass is replayed, these are not."""
    options = replace(micro.options, steps=2, batch=2, length=4)
    assert micro.hash_of(options, ops=load("triton", "cpu"), micro_batch=1, steps=1) == micro.golden_hash_of(options, 1)


def test_fifty_steps_have_one_hash(micro):
    options = replace(micro.options, steps=50)
    hashes = {micro.hash_of(options, ops=load(name, "cpu")) for name in ("golden", "numba", "torch")}
    assert len(hashes) == 1


@pytest.mark.parametrize("size", [1, 2])
def test_micro_batches_change_nothing(size, micro):
    assert micro.hash_of(micro_batch=size) == micro.golden_hash


def test_hash_depends_on_everything(micro):
    hashes = {micro.golden_hash, micro.golden_hash_of(steps=5)}
    for change in ({"seed": 6}, {"rate": 4096}, {"batch": 2}, {"gradient_bits": 8}, {"decay": 0}, {"length": 9}):
        hashes.add(micro.golden_hash_of(replace(micro.options, **change)))
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
    "ssd_chunk_scan_backward": 1,
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
def test_a_wrong_op_changes_the_hash(op, micro):
    """Each op of training counts: one result of it, its elements in reverse order, changes the hash."""

    def wrong(*arrays, **parameters):
        results = spec.OPS[op].golden(*arrays, **parameters)
        if not isinstance(results, tuple):
            return np.flip(results).copy()
        return tuple(np.flip(r).copy() if i == WRONG[op] else r for i, r in enumerate(results))

    assert micro.hash_of(ops=Golden(**{op: wrong})) != micro.golden_hash


def test_it_learns(micro):
    """Three hundred steps on one sentence leave little to learn."""
    options = Options(steps=300, batch=4, length=16, seed=1, warmup=10, rate=1 << 15, last_rate=1 << 11)
    run = Run(micro.config, options, load("numba"))
    state, losses = initial_state(run), []
    for step in range(options.steps):
        state, metrics = train_step(run, state, micro.corpus.batch(1, step, range(4), 16))
        losses.append(metrics.loss / metrics.tokens / 65536)
    assert losses[0] > 7 and np.mean(losses[-20:]) < 3.5, (losses[0], np.mean(losses[-20:]))


def test_step_changes_nothing_it_is_given(micro):
    run, state = micro.trained(steps=1)
    before = {name: array.copy() for name, array in {**state.masters, **state.momenta}.items()}
    train_step(run, state, micro.corpus.batch(5, 1, range(3), 8))
    assert all(np.array_equal(before[name], array) for name, array in {**state.masters, **state.momenta}.items())


def test_a_step_checks_its_batch(micro):
    run = Run(micro.config, micro.options)
    state = initial_state(run)
    good = micro.corpus.batch(5, 0, range(3), 8)
    for bad in (good[:, 1:], good.astype(np.int64), good[0], good[:0], good + 256, good - 256):
        with pytest.raises(DomainError, match="train_step"):
            train_step(run, state, bad)
    for first in (-1, 1, 2**40, True, np.int64(0)):
        with pytest.raises(DomainError, match="train_step: argument first"):
            train_step(run, state, good, first)
    with pytest.raises(DomainError, match="argument first: found 0 for 6 rows"):
        train_step(run, state, np.concatenate([good, good]))


def test_a_step_is_proved(micro):
    options = replace(micro.options, batch=2**16, length=2**16)
    with pytest.raises((ProofError, DomainError), match="allowed"):
        Run(micro.config, options).prove()
    run = Run(micro.config, options)
    with pytest.raises((ProofError, DomainError), match="allowed"):
        train_step(run, initial_state(run), np.zeros((1, 2**16 + 1), np.int32))


def test_exponents_settle_where_shifts_lead():
    exponents = Exponents({"a": 9, "b": 99, "c": -99, "d": 0}, 16)
    assert exponents.settle("a", {"left": 12, "right": 9}) == 9 and exponents.shifts == {"left": 3, "right": 0}
    assert exponents.settle("b", {"b": 12}) == 12  # no shift to the left
    assert exponents.settle("c", {"c": 12}, most=5) == 7
    with pytest.raises(ExponentError, match="d: found exponents"):
        exponents.settle("d", {"left": 60, "right": 0})


def test_a_step_whose_successor_fails_ends_well(micro, monkeypatch):
    """A backend that replays passes settles the exponents of the next step early, but only that step may fail of it."""
    backend = load("numba")
    monkeypatch.setattr(backend.ops, "replayed", lambda function: function, raising=False)
    run = Run(micro.config, micro.options, backend)
    state, ids = initial_state(run), micro.corpus.batch(5, 0, range(3), 8)
    settle, first = Exponents.settle, state.gradient_exponents

    def settled(exponents, name, *arguments):
        if exponents.wanted != first:
            raise ExponentError(f"{name}: found exponents, allowed others")
        return settle(exponents, name, *arguments)

    monkeypatch.setattr(Exponents, "settle", settled)
    after, _ = train_step(run, state, ids)
    with pytest.raises(ExponentError, match="found exponents"):
        train_step(run, after, ids)


@pytest.mark.parametrize("bits", [{"state": 13}, {"state": 16, "read": 14}, {"state": 12, "read": 12}])
def test_gradients_are_those_of_other_formats(bits, micro):
    """A state's format changes roundings, and the exponents of errors with it, but no gradient's size or direction."""
    passes = []
    for formats in (FORMATS, replace(FORMATS, **bits)):
        run = Run(micro.config, replace(micro.options, batch=8, length=24), load("numba"), formats=formats)
        state = initial_state(run)
        network = Network(run.config, run.formats, run.kernels, project(run.kernels, state.masters, run.masters))
        exponents = Exponents(state.gradient_exponents, 16)
        ids = micro.corpus.batch(5, 0, range(8), 24)
        passes.append(one_pass(run, network, NetworkBackward(network, exponents), exponents, ids, 0, 0)[0])
    for name in passes[0].gradients:
        a, b = (f.gradients[name].astype(float).ravel() / 2.0 ** f.scales[name] for f in passes)
        assert a @ b > 0.9 * np.linalg.norm(a) * np.linalg.norm(b), name
        # A channel's decays have a unit that depends on the state's; all that Lion needs is that it doesn't change.
        assert name.endswith("decay") or 0.9 < np.linalg.norm(a) / np.linalg.norm(b) < 1.1, name


def test_clipped_masters_are_counted(micro):
    run, state = micro.trained(steps=1)
    name = "layers.0.decay"
    pushed = np.full_like(state.masters[name], run.masters[name].high)
    momentum = np.full_like(state.momenta[name], -(1 << 26))
    state = replace(
        state,
        masters=dict(state.masters) | {name: pushed},
        momenta=dict(state.momenta) | {name: momentum},
        momentum_exponents=dict(state.momentum_exponents) | {name: -40},
    )
    after, metrics = train_step(run, state, micro.corpus.batch(5, 1, range(3), 8))
    assert metrics.clipped == pushed.size
    assert np.array_equal(after.masters[name], pushed)


def test_masters_project_to_what_they_were_lifted_from(micro):
    from mamba_integer.spec.model import initial_parameters
    from mamba_integer.spec.training.masters import lifted

    parameters, masters = initial_parameters(micro.config, 3), masters_of(micro.config)
    again = project(spec, {name: lifted(array, masters[name]) for name, array in parameters.items()}, masters)
    for name, array in parameters.items():
        assert np.array_equal(again[name], array) and again[name].dtype == array.dtype, name


def test_gradients_point_where_float_autograd_does(micro, monkeypatch):
    """Every parameter's gradient of a whole pass, against that of the float32 twin with the same weights."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[3]))
    import torch

    from benchmarks.float_training import FloatTraining

    run, state = micro.trained(steps=12, options=replace(micro.options, steps=20, length=48))
    ids = micro.corpus.batch(5, 12, range(3), 48)
    network = Network(micro.config, run.formats, run.kernels, project(run.kernels, state.masters, run.masters))
    exponents = Exponents(state.gradient_exponents, 16)
    passed, _ = one_pass(run, network, NetworkBackward(network, exponents), exponents, ids, 12, 0)
    twin = FloatTraining(micro.config, run.options, ternary=True, device="cpu")
    twin.masters = {
        n: torch.tensor(m / 2.0**24, dtype=torch.float32).requires_grad_() for n, m in state.masters.items()
    }
    smooth = torch.autograd.grad(twin.loss(torch.from_numpy(ids).long()).sum(), list(twin.masters.values()))
    for (name, gradient), want in zip(twin.masters.items(), smooth, strict=True):
        assert gradient.shape == want.shape
        a, b = passed.gradients[name].astype(float).ravel(), want.double().numpy().ravel()
        assert a @ b > 0.97 * np.linalg.norm(a) * np.linalg.norm(b), (
            name,
            a @ b / np.linalg.norm(a) / np.linalg.norm(b),
        )


def test_a_step_of_every_config_is_proved():
    for name, rows, length in (("tiny", 8, 256), ("verse", 16, 1024), ("base", 8, 2048)):
        bounds = prove_step(find_config(name), Options(steps=9, batch=rows, length=length, warmup=1))
        assert set(bounds) == set(masters_of(find_config(name)))


@pytest.mark.parametrize("bits", [16, 8])
def test_what_a_pass_finds_lies_within_the_proof(bits, micro):
    options = replace(micro.options, gradient_bits=bits)
    run, state = micro.trained(options, steps=3)
    bounds, exponents = prove_step(micro.config, options), Exponents(state.gradient_exponents, bits)
    network = Network(micro.config, run.formats, run.kernels, project(run.kernels, state.masters, run.masters))
    ids = micro.corpus.batch(5, 3, range(3), 8)
    passed, _ = one_pass(run, network, NetworkBackward(network, exponents), exponents, ids, 3, 0)
    for name, bound in bounds.items():
        gradient = passed.gradients[name]
        assert gradient.any() and int(gradient.min()) in bound and int(gradient.max()) in bound


@pytest.mark.parametrize(
    ("size", "message"), [({"batch": 1 << 16, "length": 1 << 16}, "."), ({"batch": 1 << 10, "length": 1 << 11}, "conv")]
)
def test_a_batch_that_may_overflow_is_refused(size, message, micro):
    with pytest.raises((DomainError, ProofError), match=message):
        prove_step(find_config("tiny"), replace(micro.options, **size))


@pytest.mark.parametrize("change", [{"steps": 0}, {"batch": True}, {"rate": -1}, {"warmup": 9}, {"gradient_bits": 12}])
def test_options_are_validated(change, micro):
    with pytest.raises(OptionsError, match=next(iter(change))):
        replace(micro.options, **change)
