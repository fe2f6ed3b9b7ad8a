"""The staged scans, which no interpreter of Triton runs, on an emulation of what they name in Gluon and in PTX."""

from bisect import bisect_left
from random import Random
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import mamba_integer.backends.triton as triton_backend
from mamba_integer import spec
from mamba_integer.backends.triton import scan_backward, staged_scan
from mamba_integer.conformance.engine.cases import draw_case
from mamba_integer.spec.ops.scan import state_range
from mamba_integer.spec.ops.scan_backward import LEAST_LAM

from . import gluon_emulator

MODULES = (
    "staged_steps",
    "staged_sums",
    "staged_products",
    "staged_outputs",
    "staged_gradient",
    "staged_scan",
    "staged_walk",
)
SIZES = [(16, 16, 21), (16, 3, 9), (32, 16, 35), (48, 64, 16), (32, 32, 1)]


@pytest.fixture
def staged(monkeypatch):
    """Return the modules of the scan and of the walk back, as new ones that the emulator runs."""
    modules = gluon_emulator.emulated(monkeypatch, MODULES)
    for module in modules[-2:]:
        monkeypatch.setattr(module, "launch", gluon_emulator.launch)
    return modules[-2:]


@pytest.mark.parametrize("channels, states, length", SIZES)
@pytest.mark.parametrize("seed", range(2))
def test_the_staged_scan_gives_the_same_integers(channels, states, length, seed, staged):
    case = draw_case("selective_scan", Random(seed), {"B": 2, "L": length, "D": channels, "N": states})
    got = staged[0].scan(*map(torch.tensor, case.arrays), **case.parameters)
    for result, wanted in zip(got, spec.selective_scan(*case.arrays, **case.parameters), strict=True):
        assert result.numpy().dtype == wanted.dtype and np.array_equal(result.numpy(), wanted)


@pytest.mark.parametrize("s_v, states, length", [(-8, 16, 41), (-8, 3, 64), (3, 64, 40), (3, 32, 64), (3, 128, 35)])
@pytest.mark.parametrize("convex", (0, 1))
def test_programs_of_twice_as_many_channels(s_v, states, length, convex, staged, monkeypatch):
    monkeypatch.setattr(staged[0], "processors", lambda device: 1)
    assert staged[0].width_of(torch.empty((2, length, 32)), states, outputs=True) == 32
    format_ = {"k": 15, "n_max": 1 << 14, "s_v": s_v, "convex": convex}
    case = draw_case("selective_scan", Random(convex), {"B": 2, "L": length, "D": 32, "N": states} | format_)
    results = staged[0].scan(*map(torch.tensor, case.arrays), **case.parameters)
    for result, wanted in zip(results, spec.selective_scan(*case.arrays, **case.parameters), strict=True):
        assert np.array_equal(result.numpy(), wanted)


@pytest.mark.parametrize("convex", (0, 1))
@pytest.mark.parametrize("s_h, s_y", [(0, 16), (0, 17), (8, 8), (8, 9), (16, 0), (16, 1), (3, 17), (20, 16), (20, 17)])
def test_outputs_of_which_rounding_drops_the_low_half_or_less(s_h, s_y, convex, staged):
    chosen = {"B": 1, "L": 9, "D": 16, "N": 8, "s_v": convex, "s_h": s_h, "s_y": s_y, "k": 9, "n_max": 400}
    case = draw_case("selective_scan", Random(s_h + s_y), chosen | {"convex": convex})
    results = staged[0].scan(*map(torch.tensor, case.arrays), **case.parameters)
    for result, wanted in zip(results, spec.selective_scan(*case.arrays, **case.parameters), strict=True):
        assert np.array_equal(result.numpy(), wanted)


@pytest.mark.parametrize("s_v", (1, 3, 14, 21))
@pytest.mark.parametrize("k, convex", [(15, 0), (15, 1), (9, 0), (9, 1)])
def test_inputs_halfway_between_two_integers_are_rounded_up(s_v, k, convex, staged):
    """Of both signs, and beside them the largest; the state is the input where nothing is kept."""
    unit = 1 << max(s_v - 7, 0)
    odd = min(3 * unit, 32767)
    x = np.resize(np.array([unit, -unit, odd, -odd, 32767, -32767, unit + 1, 1 - unit], np.int16), (1, 8, 16))
    x[:, 4:] = np.roll(x[:, 4:], 1, axis=-1)
    b = np.resize(np.array([1 << min(s_v - 1, 6), -(1 << min(s_v - 1, 6)), 127, -127], np.int8), (1, 8, 4))
    none = np.zeros((1, 8, 16), np.int16), np.zeros((16, 4), np.int16)
    arrays = x, *none, b, b, np.zeros(16, np.int16), np.zeros((1, 16, 4), np.int32)
    format_ = {"k": k, "n_max": 0, "s_v": s_v, "s_h": 0, "s_y": 0, "convex": convex}
    results = staged[0].scan(*map(torch.tensor, arrays), **format_)
    for result, wanted in zip(results, spec.selective_scan(*arrays, **format_), strict=True):
        assert np.array_equal(result.numpy(), wanted)


@pytest.mark.parametrize("convex", (0, 1))
def test_the_walk_back_of_a_known_k(convex, staged, monkeypatch):
    monkeypatch.setattr(scan_backward, "staged_walk", staged[1])
    monkeypatch.setattr(staged[1], "suits", lambda x, states: True)
    chosen = {"B": 2, "L": 21, "D": 16, "N": 16, "k": 15, "n_max": 1 << 14, "s_v": 0, "convex": convex}
    case = draw_case("selective_scan_backward", Random(convex), chosen)
    results = scan_backward.selective_scan_backward(*map(torch.tensor, case.arrays), **case.parameters)
    for result, wanted in zip(results, spec.selective_scan_backward(*case.arrays, **case.parameters), strict=True):
        assert np.array_equal(result.numpy(), wanted)


def test_arrays_seen_through_a_transpose(staged):
    case = draw_case("selective_scan", Random(1), {"B": 2, "L": 9, "D": 16, "N": 16})
    arrays = map(torch.tensor, case.arrays)
    arrays = [array if array.ndim < 2 else array.mT.contiguous().mT for array in arrays]
    results = staged[0].scan(*arrays, **case.parameters)
    for result, wanted in zip(results, spec.selective_scan(*case.arrays, **case.parameters), strict=True):
        assert result.is_contiguous() and np.array_equal(result.numpy(), wanted)


@pytest.mark.parametrize("channels, states, length", SIZES)
@pytest.mark.parametrize("seed", range(2))
def test_the_staged_walk_back_gives_the_same_integers(channels, states, length, seed, staged, monkeypatch):
    monkeypatch.setattr(scan_backward, "staged_walk", staged[1])
    monkeypatch.setattr(staged[1], "suits", lambda x, states: True)
    case = draw_case("selective_scan_backward", Random(seed), {"B": 2, "L": length, "D": channels, "N": states})
    got = scan_backward.selective_scan_backward(*map(torch.tensor, case.arrays), **case.parameters)
    for result, wanted in zip(got, spec.selective_scan_backward(*case.arrays, **case.parameters), strict=True):
        assert result.numpy().dtype == wanted.dtype and np.array_equal(result.numpy(), wanted)


@pytest.mark.parametrize("shape, width", [((1, 16384, 1536), 16), ((8, 16384, 1536), 32), ((1, 512, 1536), 32)])
def test_a_long_sequence_of_few_channels_takes_more_programs(shape, width):
    assert staged_scan.width_of(torch.empty(shape, device="meta"), 16, outputs=True) == width


@pytest.mark.parametrize("batch, width", [(1, 16), (2, 32), (4, 16), (8, 32)])
@pytest.mark.parametrize("states", [64, 128])
def test_programs_of_many_states_are_wide_where_that_halves_their_rounds(batch, width, states):
    """Of 132 processors: 96, 192, 384 and 768 narrow programs take 1, 2, 3 and 6 rounds, wide ones 1, 1, 2 and 3."""
    x = torch.empty((batch, 512, 1536), device="meta")
    assert staged_scan.width_of(x, states, outputs=True) == width
    assert staged_scan.width_of(x, states, outputs=False) == 16


def test_programs_of_most_states_stay_narrow_where_a_processor_has_little_room(monkeypatch):
    monkeypatch.setattr(staged_scan, "has_little_room", lambda: True)
    x = torch.empty((2, 512, 1536), device="meta")
    assert [staged_scan.width_of(x, states, outputs=True) for states in (64, 128)] == [32, 16]


def test_states_of_a_convex_scan_are_less_than_their_bias(staged):
    bias = triton_backend.staged_steps.BIAS
    for s_v in range(-8, 23):
        states = state_range(SimpleNamespace(k=15, n_max=(1 << 15) - 1, s_v=s_v, convex=1))
        assert -bias < states.low and states.high < bias


def test_the_low_half_of_most_states_fits_beside_the_largest_skip():
    assert staged_scan.MOST_STATES * 127 * 65535 + 32767**2 < 1 << 31


@pytest.mark.parametrize("k", range(1, 16))
def test_no_gradient_of_a_state_is_the_least_int32(k):
    """The walk back holds its opposite."""
    for s_g in range(23):

        def least(n_max, s_g=s_g):
            return LEAST_LAM(SimpleNamespace(k=k, n_max=n_max, s_g=s_g))

        longest = bisect_left(range((1 << k) - 1), 1 << 31, key=lambda n_max: -least(n_max))
        assert least(longest) != -1 << 31
