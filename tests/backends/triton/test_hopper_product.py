"""The host's choices for products on Hopper: a scale of another shift, tiles by what there is to do, equal parts.

The kernels themselves run on a GPU alone, where the suite judges them; they are compiled in `test_compilation`.
"""

import numpy as np
import pytest
import torch

from mamba_integer.backends.triton import hopper_product, hopper_requant, hopper_weight, linear_backward, staged_scan
from mamba_integer.backends.triton.planes import PLANE, dealt
from mamba_integer.backends.triton.ternary_product import scale_of
from mamba_integer.backends.triton.turned_values import turned_values
from mamba_integer.spec import ops
from mamba_integer.spec.ops.linear import EXPONENT, ternary_linear_widths


@pytest.mark.parametrize("num, shift", [(1, 0), (32767, 0), (181, 15), (181, 16), (32767, 47)])
def test_another_scale_is_of_the_same_ratio_and_fits(num, shift):
    factor, higher, _ = scale_of(ternary_linear_widths, num, shift, K=1)
    assert factor << shift == num << higher and factor < 1 << 31 and higher > EXPONENT.high


def form(K, num, shift):
    return scale_of(ternary_linear_widths, num, shift, K=K)[2]


def test_the_form_of_the_arithmetic_is_bounded_by_the_contract():
    # The largest sum times the numerator and half of 2**shift, 127 K num + 2**(shift - 1), on either side of 2**31.
    assert form(4096, 4128, 17) == 32 and form(4096, 4129, 17) == 64
    assert form(1, 1, 31) == 32 and form(1, 1, 32) == 64
    # The largest result, 127 K num 2**15 / 2**shift, beyond 2**30.
    assert form(1, 2**8, 0) == 32 and form(1, 2**9, 0) == 0
    assert form(4096, 32767, 20) == 64 and form(4096, 32767, 18) == 0


@pytest.mark.parametrize("down, across, most", [(32, 32, 132), (64, 3, 132), (1, 130, 132), (3, 1, 3), (9, 2, 18)])
def test_programs_take_whole_groups_of_rows_at_once(down, across, most):
    grouped, programs = hopper_requant.shared_out(down, across, most)
    assert 1 <= grouped <= down and 0 < programs <= most and programs % (grouped * across) == 0


@pytest.mark.parametrize("rows, depth", [(1, 1), (5, 300), (17, 128), (40, 1025)])
def test_dealt_digits_lie_in_planes(rows, depth):
    digits = np.random.default_rng(0).integers(-1, 2, (rows, depth)).astype(np.int8)
    planes = dealt(torch.tensor(ops.pack_ternary(digits))).numpy()
    padded = np.zeros((rows, -(-depth // (4 * PLANE)) * 4 * PLANE), np.int8)
    padded[:, :depth] = digits
    blocks = planes.reshape(rows, -1, PLANE)
    for i in range(4):
        codes = (blocks >> (2 * i)) & 3
        assert np.array_equal((codes.astype(np.int8) ^ 2) - 2, padded.reshape(rows, -1, 4, PLANE)[:, :, i])


def kind(rows, depth, columns):
    tiles = hopper_product.tiles_for(rows * depth * columns)
    return hopper_product.tile_of(rows, columns, 132, tiles)[:4]


def test_tiles_keep_all_multiprocessors_busy():
    assert kind(4096, 4096, 8192) == (128, 128, 4, 2)
    assert kind(8192, 768, 1536) == (128, 128, 4, 1)
    assert kind(2048, 768, 3072) == (128, 64, 5, 1)
    assert kind(8192, 3072, 768) == (128, 64, 6, 2)
    assert kind(128, 512, 4096) == kind(1, 1, 1) == (64, 64, 6, 1)


def test_tiles_of_one_group_leave_room_for_another_program():
    for tile in hopper_product.TILES:
        shared = tile.stages * (tile.rows * 128 + tile.groups * tile.columns * 32)
        shared += 2 * tile.groups * tile.rows * tile.columns + 2048  # results, barriers and what the device keeps
        assert shared * (3 - tile.groups) <= 228 * 1024


@pytest.mark.parametrize("width", [5, 16])
def test_results_are_stored_in_rows_of_whole_words(width):
    y = torch.zeros((2, 3, width), dtype=torch.int16)
    with hopper_product.whole_words(y, width) as results:
        assert results.shape == (6, -(-width // 8) * 8)
        results.copy_(torch.arange(results.numel()).view(results.shape))
    assert y[1, 2].tolist() == list(range(5 * results.shape[1], 5 * results.shape[1] + width))


@pytest.mark.parametrize("tiles, steps", [(144, 128), (1, 1), (1, 8), (1000, 16), (6, 512), (300, 600), (5, 1000)])
def test_whole_tiles_and_parts_balance_the_programs(tiles, steps):
    whole, length = linear_backward.shared_out(tiles, steps, 132)
    assert 0 <= whole <= tiles and whole % 132 == 0
    assert 0 < length <= linear_backward.LONGEST_SUM and length % linear_backward.DEPTH == 0
    parts = -(-steps * linear_backward.DEPTH // length)
    busiest = whole // 132 * steps + -(-(tiles - whole) * parts // 132) * length / linear_backward.DEPTH
    assert busiest <= -(-tiles // 132) * steps and (steps <= 512 or whole == 0)


@pytest.mark.parametrize("rows, depth", [(1, 1), (5, 300), (130, 17), (300, 129)])
@pytest.mark.parametrize("in_planes", [False, True])
def test_turned_digits_are_packed_along_their_new_rows(rows, depth, in_planes):
    digits = np.random.default_rng(0).integers(-1, 2, (rows, depth)).astype(np.int8)
    turned, sums = linear_backward.turn_packed(torch.tensor(ops.pack_ternary(digits)), depth, in_planes)
    packed = torch.tensor(ops.pack_ternary(np.ascontiguousarray(digits.T)))
    assert np.array_equal(turned.numpy(), (dealt(packed) if in_planes else packed).numpy())
    assert np.array_equal(sums.numpy(), digits.sum(0))


@pytest.mark.parametrize("rows, columns", [(1, 1), (130, 70), (300, 64), (256, 133)])
def test_rows_are_dealt_as_pairs_that_lie_eight_apart(rows, columns):
    x = np.random.default_rng(0).integers(-127, 128, (rows, columns)).astype(np.int8)
    depth, cleared = -(-rows // 128) * 128, 2 * columns
    dw = torch.ones((5, columns), dtype=torch.int64)
    turned, sums = turned_values(torch.tensor(x), depth, dw, cleared)
    assert dw.sum(1).tolist() == [0, 0, *[columns] * 3]
    padded = np.zeros((depth, columns), np.int8)
    padded[:rows] = x
    pairs = padded.reshape(-1, 2, 4, 2, columns)  # [.., which eight, which pair of them, which of the pair]
    assert np.array_equal(turned.numpy(), pairs.transpose(0, 2, 1, 3, 4).reshape(-1, columns).T)
    assert np.array_equal(sums.numpy(), x.sum(0, dtype=np.int64))


@pytest.mark.parametrize("down, across, most", [(24, 4, 132), (24, 8, 132), (1, 1, 132), (6, 50, 132), (3, 7, 1)])
def test_lanes_of_programs_take_all_tiles_side_by_side(down, across, most):
    lanes, teams = hopper_weight.lanes_of(down, across, most)
    assert 1 <= lanes <= across and 1 <= lanes * teams <= most
    assert down * -(-across // lanes) / teams <= down * across / most


@pytest.mark.parametrize("channels, states", [(16, 16), (1536, 16), (1536, 32), (48, 64), (1536, 128)])
def test_a_program_of_the_staged_scan_has_whole_channels_and_at_most_16_warps(channels, states):
    columns = staged_scan.channels_of(channels, states, staged_scan.FEW_STATES)
    assert channels % columns == 0
    assert states // staged_scan.states_of_warp(states) * (columns // staged_scan.CHANNELS) <= 16
