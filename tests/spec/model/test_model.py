"""The model: same integers whole, in pieces, step by step, in any batch, on every backend, and it can't overflow."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from mamba_integer import backends
from mamba_integer.spec import compiled
from mamba_integer.spec.contract import DomainError
from mamba_integer.spec.model import (
    CONFIGS,
    FORMATS,
    ConfigError,
    LanguageModel,
    ModelConfig,
    ProofError,
    initial_parameters,
    join,
    parameter_formats,
    prove,
    state_formats,
)

TINY = replace(CONFIGS["tiny"], chunk_size=4)
PARAMETERS = initial_parameters(TINY, seed=1)
BATCH, LENGTH = 2, 11
IDS = np.random.default_rng(0).integers(0, TINY.vocab_size, (BATCH, LENGTH)).astype(np.int32)

TEXT = (
    b"It was the best of times, it was the worst of times, it was the age of wisdom, it was the age of foolishness, "
    b"it was the epoch of belief, it was the epoch of incredulity, it was the season of Light"
)


def model_on(backend: str) -> LanguageModel:
    return LanguageModel(TINY, PARAMETERS, backends.load(backend, "cpu"))


@pytest.fixture(scope="module")
def whole():
    """Logits and state of the golden model after the whole of IDS."""
    model = model_on("golden")
    return model.prefill(IDS, model.new_state(BATCH))


def assert_same(got, want):
    assert got.dtype == want.dtype and got.shape == want.shape
    assert np.array_equal(got, want), np.argwhere(got != want)[:3]


def assert_same_state(model, state, want):
    state = model.state_to_numpy(state)
    assert state.positions == want.positions
    assert state.arrays.keys() == want.arrays.keys()
    for name in want.arrays:
        assert_same(state.arrays[name], want.arrays[name])


@pytest.mark.parametrize("backend", ["numba", "torch", "triton"])
def test_every_backend_gives_the_golden_logits_and_state(backend, whole):
    model = model_on(backend)
    logits, state = model.prefill(IDS, model.new_state(BATCH))
    assert_same(model.to_numpy(logits), whole[0])
    assert_same_state(model, state, whole[1])


@pytest.mark.parametrize("backend", ["golden", "numba", "torch", "triton"])
def test_steps_give_what_the_whole_gives(backend, whole):
    model = model_on(backend)
    state, steps = model.new_state(BATCH), 2 if backend == "triton" else LENGTH  # Triton's interpreter is slow
    for i in range(steps):
        logits, state = model.step(IDS[:, i], state)
        assert_same(model.to_numpy(logits), whole[0][:, i])
    if steps == LENGTH:
        assert_same_state(model, state, whole[1])


@pytest.mark.parametrize("backend", ["golden", "numba"])
@pytest.mark.parametrize("cuts", [(1,), (3, 4), (5, 5, 10), (0, 11)])
def test_any_chunks_give_what_the_whole_gives(backend, cuts, whole):
    model = model_on(backend)
    state, parts = model.new_state(BATCH), []
    for start, end in zip((0, *cuts), (*cuts, LENGTH), strict=True):
        logits, state = model.prefill(IDS[:, start:end], state)
        parts.append(logits)
    assert_same(np.concatenate(parts, 1), whole[0])
    assert_same_state(model, state, whole[1])


def test_a_state_continues_on_another_backend(whole):
    first, second = model_on("numba"), model_on("torch")
    _, state = first.prefill(IDS[:, :4], first.new_state(BATCH))
    logits, state = second.prefill(IDS[:, 4:], second.state_from_numpy(first.state_to_numpy(state)))
    assert_same(second.to_numpy(logits), whole[0][:, 4:])
    assert_same_state(second, state, whole[1])


def test_last_only_gives_the_last_logits(whole):
    model = model_on("numba")
    logits, state = model.prefill(IDS, model.new_state(BATCH), last_only=True)
    assert_same(logits, whole[0][:, -1])
    assert_same_state(model, state, whole[1])
    with pytest.raises(DomainError, match="last_only"):
        model.prefill(IDS[:, :0], model.new_state(BATCH), last_only=True)


def test_a_row_alone_gives_what_it_gives_in_a_batch(whole):
    model = model_on("numba")
    for row in range(BATCH):
        logits, state = model.prefill(IDS[row : row + 1], model.new_state(1))
        assert_same(logits, whole[0][row : row + 1])
        assert_same_state(model, state, whole[1].select([row]))


def test_rows_at_different_positions_share_a_batch(whole):
    """Rotations depend on a row's own position, not on the batch it is in."""
    model = model_on("numba")
    read = [4, 9]
    states = [model.prefill(IDS[r : r + 1, :n], model.new_state(1))[1] for r, n in enumerate(read)]
    logits, state = model.step(np.array([IDS[0, 4], IDS[1, 9]]), join(states))
    assert state.positions == (5, 10)
    for row, position in enumerate(read):
        assert_same(logits[row], whole[0][row, position])


@pytest.mark.parametrize("backend", ["golden", "numba", "torch", "triton"])
def test_a_state_is_not_changed_by_reading_from_it(backend):
    model = model_on(backend)
    _, state = model.prefill(IDS[:, :1], model.new_state(BATCH))
    before = model.state_to_numpy(state).convert(np.copy)
    model.step(IDS[:, 1], state)
    model.prefill(IDS[:, 1:2], state)
    assert_same_state(model, state, before)


def test_rotation_and_position_matter(whole):
    still = LanguageModel(replace(TINY, rotate=False), PARAMETERS, compiled)
    logits, _ = still.prefill(IDS, still.new_state(BATCH))
    assert_same(logits[:, 0], whole[0][:, 0])
    assert not np.array_equal(logits[:, 1:], whole[0][:, 1:])


@pytest.mark.parametrize("name", CONFIGS)
def test_no_input_and_no_length_overflows(name):
    config = CONFIGS[name]
    rows = prove(config)
    assert {row.layer for row in rows} == {"embedding", "head"} | {f"layers.{i}" for i in range(config.n_layer)}
    for row in rows:
        assert np.iinfo(row.dtype).min < row.bound.low and row.bound.high <= np.iinfo(row.dtype).max


@pytest.mark.parametrize(
    "planted",
    [
        {"state": 22},  # the product of x and B takes 22 bits: the scan's state passes 2**31
        {"read": 22},  # bits that the state doesn't have
        {"mantissa": 5},
        {"gain": 24},
        {"activation": 15},
    ],
)
def test_a_format_that_is_too_large_fails_the_proof(planted):
    with pytest.raises((ProofError, DomainError)):
        prove(TINY, replace(FORMATS, **planted))


def test_an_argument_that_may_leave_its_domain_fails_the_proof(monkeypatch):
    from mamba_integer.spec.model import proof

    real = proof.parameter_formats

    def wider(config, formats):
        result = real(config, formats)
        result["layers.0.conv_bias"] = replace(result["layers.0.conv_bias"], high=(1 << 24) + 1)
        return result

    monkeypatch.setattr(proof, "parameter_formats", wider)
    with pytest.raises(ProofError, match="bias"):
        prove(TINY)


def test_observed_values_lie_within_the_proved_bounds():
    bounds = {(row.layer, row.tensor): row for row in prove(TINY)}
    seen = set()

    def check(layer, name, array):
        row = bounds[layer, name]
        assert str(array.dtype) == row.dtype
        assert row.bound.low <= array.min() and array.max() <= row.bound.high
        seen.add((layer, name))

    model = model_on("numba")
    model.prefill(IDS, model.new_state(BATCH), observe=check)
    assert seen == bounds.keys()


def test_activations_are_alive_through_all_layers():
    """On text, after 24 layers no tensor of the fresh base model is dead or saturated everywhere."""
    config = CONFIGS["base"]
    model = LanguageModel(config, initial_parameters(config, seed=0), compiled)
    bounds = {row.tensor: row.bound for row in prove(replace(config, n_layer=2))}
    ids = np.frombuffer(TEXT, np.uint8)[None, :128].astype(np.int32)

    def alive(layer, name, array):
        values = np.abs(array.astype(np.int64))
        assert np.mean(values > 0) > 0.3, (layer, name)
        assert np.mean(values >= bounds[name].high) < 0.2, (layer, name)
        assert np.unique(array).size > 16, (layer, name)

    logits, _ = model.prefill(ids, model.new_state(1), observe=alive)
    assert np.unique(logits[0].argmax(-1)).size > 8


def test_initial_parameters_are_the_seeds_alone():
    again, other = initial_parameters(TINY, seed=1), initial_parameters(TINY, seed=2)
    formats = parameter_formats(TINY)
    assert list(again) == list(formats)
    for name in again:
        assert_same(again[name], PARAMETERS[name])
    assert all(np.any(again[n] != other[n]) for n in again if formats[n].digits or n == "embedding")


def test_bad_parameters_are_named():
    name = "layers.0.in_proj"
    invalid = PARAMETERS[name].copy()
    invalid[0, 0] = 0b10
    masked = np.ma.array(PARAMETERS[name], mask=True)
    for bad in (invalid, PARAMETERS[name][1:], PARAMETERS[name].astype(np.int8), masked, [1], None):
        with pytest.raises(DomainError, match=name):
            LanguageModel(TINY, PARAMETERS | {name: bad})
    with pytest.raises(DomainError, match="extra"):
        LanguageModel(TINY, PARAMETERS | {"extra": invalid})
    with pytest.raises(DomainError, match="head"):
        LanguageModel(TINY, {n: a for n, a in PARAMETERS.items() if n != "head"})
    with pytest.raises(DomainError, match="argument parameters: found a list, allowed a dict of arrays by name: emb"):
        LanguageModel(TINY, [1])
    with pytest.raises(DomainError, match="argument config: found a str, allowed a ModelConfig"):
        LanguageModel("tiny", PARAMETERS)


def test_tokens_of_the_backend_are_plain():
    model = model_on("torch")
    for bad, found in (
        (torch.tensor(IDS).to_sparse(), "layout torch.sparse_coo, allowed torch.strided"),
        (torch.tensor(IDS, device="meta"), "a meta or fake tensor, allowed a tensor with values"),
        (torch.nested.nested_tensor(list(torch.tensor(IDS))), "a nested tensor, allowed a plain torch.Tensor"),
    ):
        with pytest.raises(DomainError, match=f"prefill: argument ids: found {found}"):
            model.prefill(bad, model.new_state(BATCH))


def test_bad_tokens_and_states_are_named():
    model = model_on("numba")
    state = model.new_state(BATCH)
    outside = IDS.copy()
    outside[1, 3] = TINY.vocab_size
    for bad in (outside, IDS.astype(np.int64), IDS[0], IDS[:1], IDS.tolist(), np.ma.array(IDS, mask=True)):
        with pytest.raises(DomainError, match="ids"):
            model.prefill(bad, state)
    with pytest.raises(DomainError, match="ids"):
        model.step(IDS, state)
    with pytest.raises(DomainError, match=r"prefill: argument ids: found a torch\.Tensor, allowed a NumPy array"):
        model.prefill(torch.tensor(IDS), state)
    for call in (lambda: model.step(IDS[:, 0], {}), lambda: model.state_from_numpy({})):
        with pytest.raises(DomainError, match="argument state: found a dict, allowed a State: new_state"):
            call()
    with pytest.raises(DomainError, match=r"argument state\.arrays: found a list, allowed a dict of arrays by name"):
        model.step(IDS[:, 0], replace(state, arrays=[]))
    name = "layers.1.scan"
    high = state_formats(TINY, BATCH)[name].high
    too_large = replace(state, arrays=dict(state.arrays) | {name: np.full_like(state.arrays[name], high + 1)})
    with pytest.raises(DomainError, match=name):
        model.state_from_numpy(too_large)
    with pytest.raises(DomainError, match="position"):
        model.step(IDS[:, 0], replace(state, positions=(0, 1 << 30)))


def test_configs_are_validated_and_survive_plain_data():
    for config in CONFIGS.values():
        assert ModelConfig.from_dict(config.to_dict()) == config
    good = TINY.to_dict()
    missing = {k: v for k, v in good.items() if k != "nheads"}
    for field, bad in (
        ("nheads", good | {"nheads": 3}),
        ("nheads", missing),
        ("color", good | {"color": 1}),
        ("n_layer", good | {"n_layer": 0}),
        ("n_layer", good | {"n_layer": True}),
        ("vocab_size", good | {"vocab_size": 65537}),
        ("pattern", good | {"pattern": ["mamba1", "attention"]}),
        ("pattern", good | {"pattern": []}),
        ("mamba2_d_state", good | {"mamba2_d_state": 15}),
        ("rotate", good | {"rotate": 1}),
        ("chunk_size", good | {"chunk_size": 48}),
        ("name", good | {"name": 7}),
        ("name", good | {"name": "a\x1b[2J"}),
    ):
        with pytest.raises(ConfigError) as error:
            ModelConfig.from_dict(bad)
        assert error.value.field == field
