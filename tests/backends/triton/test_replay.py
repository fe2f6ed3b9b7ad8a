"""A replayed pass of training, and what the backend fuses in it, have the integers of the ops one after the other."""

import numpy as np
import pytest
import torch

from mamba_integer.backends import load
from mamba_integer.backends.triton.launch import replays
from mamba_integer.backends.triton.replay import repeated, replayed
from mamba_integer.spec import ops
from mamba_integer.spec.model import LanguageModel, initial_parameters
from mamba_integer.spec.training import Run


def test_a_replay_reads_arrays_and_integers_anew():
    held = []

    def function(arrays, integers, take):
        assert replays()
        take("a part")
        held.append((arrays["x"].data_ptr(), integers["s"].data_ptr()))
        return load("triton").ops.round_to_int16.kernel(arrays["x"], shift=integers["s"])

    replay = replayed(function)
    for s in (0, 3, 16):
        x = torch.arange(-40, 40, dtype=torch.int32) * 1001
        before = x.clone()
        want = ops.round_to_int16(x.numpy(), shift=s)
        parts = []
        np.testing.assert_array_equal(replay({"x": x}, {"s": s, "unused": -1}, parts.append).numpy(), want)
        assert parts == ["a part"]
        assert torch.equal(x, before) and held[-1] == held[0] != (x.data_ptr(), 0)
    assert not replays()


def test_a_repeated_call_reads_arrays_anew_and_its_results_stay():
    calls = []

    def function(arrays, negative):
        calls.append({name: array.data_ptr() for name, array in arrays.items()})
        return {"y": -arrays["x"] if negative else arrays["x"], "z": arrays["z"].t()}

    call, z = repeated(function), torch.arange(6, dtype=torch.int8).view(2, 3)
    results = [call({"x": torch.full((3,), i), "z": z + i}, i == 3) for i in range(4)]
    assert [result["y"].tolist() for result in results] == [[0] * 3, [1] * 3, [2] * 3, [-3] * 3]
    assert all(torch.equal(result["z"], (z + i).t()) for i, result in enumerate(results))
    assert calls[0] == calls[1] == calls[2] != calls[3]
    assert all(result["z"].is_contiguous() for result in results)


def test_few_shapes_are_kept():
    call = repeated(lambda arrays: {"y": arrays["x"] + 1})
    for size in (1, 2, 3, 4, 1, 5, 6, 1):
        assert call({"x": torch.zeros(size)})["y"].tolist() == [1] * size
    assert [shapes[0][1][0] for *_, shapes in call.replays] == [4, 5, 6, 1]


def test_results_outlast_the_mode_that_they_were_made_in():
    call = repeated(lambda arrays: {"y": arrays["x"] + 1})
    with torch.inference_mode():
        call({"x": torch.zeros(2)})
    call({"x": torch.ones(2)})["y"].add_(1)


def test_calls_of_a_model_are_repeated(micro):
    parameters = initial_parameters(micro.config, 3)
    model, golden = (LanguageModel(micro.config, parameters, load(name, "cpu")) for name in ("triton", "golden"))
    ids = np.random.default_rng(0).integers(0, 256, (2, 2, 3), dtype=np.int32)
    state, want_state = model.new_state(2), golden.new_state(2)
    for piece in ids:  # across the end of a chunk
        logits, state = model.prefill(piece, state)
        want, want_state = golden.prefill(piece, want_state)
        np.testing.assert_array_equal(logits.numpy(), want)
    last, _ = model.prefill(ids[0], state, last_only=True)
    assert last.shape == (2, 256)
    logits, state = model.step(ids[0, :, 0], state)
    want, want_state = golden.step(ids[0, :, 0], want_state)
    np.testing.assert_array_equal(logits.numpy(), want)
    assert all(np.array_equal(array.numpy(), want_state.arrays[name]) for name, array in state.arrays.items())
    assert len(model.repeated.replays) == 3


def test_magnitudes_of_a_replay_have_no_table():
    backend, random = load("triton"), np.random.default_rng(0)
    arrays = [
        backend.load(random.integers(-100, 100, size).astype(t)) for size, t in ((5, "i2"), (9000, "i4"), (0, "i1"))
    ]
    want = backend.ops.largest_magnitudes(arrays).tolist()
    assert (
        replayed(lambda arrays, *_: backend.ops.largest_magnitudes(list(arrays.values())))(
            dict(zip("abc", arrays, strict=True)), {"none": 0}, None
        ).tolist()
        == want
    )


@pytest.mark.parametrize("scale", [0, 1, 14])
def test_a_sum_in_a_replay_is_measured_where_it_is_made(scale):
    """Its largest magnitude, beyond the first block and in the last one, which isn't full."""
    random, backend = np.random.default_rng(scale), load("triton").ops
    a, b = (random.integers(-32767, 32768, (2, 9, 130)).astype(np.int16) >> scale for _ in range(2))

    def function(arrays, integers, take):
        results = [backend.saturating_add.kernel(arrays["a"], arrays["b"]), arrays["b"]]
        assert [hasattr(array, "largest") for array in results] == [True, False]
        return results, backend.largest_magnitudes(results)

    replay = replayed(function)
    for part in (a, a >> 1, a):
        results, largest = replay({"a": torch.tensor(part), "b": torch.tensor(b)}, {}, None)
        assert largest.tolist() == [abs(result.numpy().astype(int)).max() for result in results]


@pytest.mark.parametrize(("batch", "length", "channels"), [(1, 1, 1), (2, 18, 5), (3, 2, 300)])
def test_a_convolution_and_its_activation_at_once(batch, length, channels):
    backend, random = load("triton"), np.random.default_rng(length)
    x = random.integers(-32767, 32768, (batch, length, 2 * channels)).astype(np.int16)[..., :channels]
    w = random.integers(-127, 128, (channels, 4)).astype(np.int8)
    bias = random.integers(-(1 << 20), 1 << 20, channels).astype(np.int32)
    state = random.integers(-32767, 32768, (batch, 3, channels)).astype(np.int16)
    rule = {"f": 8, "offset": 150}
    y, want_state = ops.causal_conv1d(x, w, bias, state, s=7)
    got, got_state = backend.ops.activated_conv(*map(backend.load, (x, w, bias, state)), s=7, **rule)
    np.testing.assert_array_equal(got.numpy(), ops.squareplus(y, **rule))
    np.testing.assert_array_equal(got_state.numpy(), want_state)


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize(("rows", "columns", "width"), [(3, 5, 7), (130, 66, 12)])
def test_a_rounded_gradient_of_weights_at_once(bits, rows, columns, width):
    backend, random = load("triton"), np.random.default_rng(rows)
    dy = random.integers(-32767, 32768, (rows, columns)).astype(np.int16)
    q = random.integers(-127, 128, (rows, width)).astype(np.int8)
    e = random.integers(0, 9, rows).astype(np.int32)
    rounding = {"shift": 7, "bits": bits, "seed": 1 << 40 | 5, "step": 9, "stream": 3, "first": 1 << 25}
    rounded = ops.stochastic_round_rows(dy, e, **rounding)
    want = ops.ternary_linear_backward_weight(rounded, q, bits=bits)
    got, largest = backend.ops.rounded_weight_gradient(*map(backend.load, (dy, q, e)), **rounding)
    np.testing.assert_array_equal(got.numpy(), want)
    assert largest.tolist() == ops.largest_magnitude(rounded).tolist()


def test_passes_are_replayed(micro):
    """The hash of all kinds of steps is that of the golden code: see the tests of training."""
    run = Run(micro.config, micro.options, load("triton", "cpu"))
    assert run.replays and run.replay(3) is run.replay(3) is not run.replay(2)
    assert not Run(micro.config, micro.options, load("torch", "cpu")).replays
