"""The products of a step with the ops around them are the compositions of golden ops, integer by integer."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mamba_integer.backends.triton import step_products, step_sliced, step_wide
from mamba_integer.backends.triton.launch import launch, words
from mamba_integer.backends.triton.planes import dealt
from mamba_integer.spec import ops
from mamba_integer.spec.integers import RESIDUAL_BITS

SIZES = st.tuples(st.sampled_from([1, 2, 18]), st.sampled_from([4, 36, 512, 2180]), st.integers(1, 40))
EDGE = st.booleans()
FEW = 2  # rows that the kernels for few rows are tried with
RESIDUAL = (1 << (RESIDUAL_BITS - 1)) - 1
KINDS = torch.int8, torch.int32


class Inputs:
    """Arrays of one draw: uniform, or at the ends of their ranges."""

    def __init__(self, seed: int, edge: bool, device: str):
        self.source, self.edge, self.device = np.random.default_rng(seed), edge, device
        self.golden: dict[str, np.ndarray] = {}

    def array(self, dtype, high, *shape, low=None):
        low = -high if low is None else low
        drawn = self.source.integers(low, high + 1, shape)
        return np.where(drawn * 2 > low + high, high, low).astype(dtype) if self.edge else drawn.astype(dtype)

    def weights(self, columns, depth):
        return ops.pack_ternary(self.array(np.int8, 1, columns, depth))

    def on_device(self, *arrays):
        return [torch.tensor(array, device=self.device) for array in arrays]


def assert_equal(result, want):
    got = result.cpu().numpy()
    assert got.dtype == want.dtype
    assert np.array_equal(got, want)


def in_blocks(q, w):
    """Return quantised rows as the product for many rows reads them: in blocks, a plane for each digit of a byte."""
    size = step_wide.block_of(w)["BYTES"]
    padded = torch.nn.functional.pad(q, (0, step_wide.quantised_pitch(w) - q.shape[1]))
    return padded.view(len(q), -1, size, 4).swapaxes(2, 3).reshape(padded.shape)


def multiply_wide(results, q, e, w, taps=(None, None), **constants):
    """Multiply quantised rows; those that a convolution follows have taps."""
    programs, constants = step_wide.wide_launch(len(q), w, taps != (None, None), **constants)
    q = in_blocks(q, w)
    launch(step_wide.wide_kernel, programs, results, (q, e, w, *taps), q.shape[1], **constants)


def multiply_sliced(y, x, w, depth, **constants):
    """Quantise and multiply the first elements of each row, added to y or written there."""
    largest = x[:, :depth].to(torch.int32).abs().amax(1)
    cleared = torch.ones_like(largest)
    programs, constants = step_sliced.sliced_launch(len(x), dealt(w), depth // 2, ADDS="bits" in constants, **constants)
    inputs = words(x), largest, dealt(w)
    launch(step_sliced.sliced_kernel, programs, (y, cleared), inputs, x.shape[1] // 2, **constants)
    assert not cleared.any()


def multiply_narrow(kernel, results, inputs, w, rows, depth, *integers, **constants):
    """Run a kernel for few rows: inputs without the weights, which come before the taps."""
    packed = step_products.weight_words(w)
    programs, tile = step_products.product_launch(rows, len(w), depth)
    inputs = [packed if array is w else array for array in inputs]
    launch(kernel, programs, results, inputs, *integers, **constants, **tile)


@pytest.fixture
def draw(monkeypatch):
    for module in (step_products, step_sliced):
        monkeypatch.setattr(module, "PROGRAMS", 1)  # large tiles: a program is what costs time in the interpreter
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return lambda seed, edge: Inputs(seed, edge, device)


def examples(count):
    return settings(max_examples=count, deadline=None)


def test_enter(draw):
    scale, squareplus, norm = {"num": 181, "shift": 13}, {"f": 8, "offset": 256}, {"b": 3, "s": 4}

    @examples(6)
    @given(SIZES, st.integers(0, 99), EDGE, st.integers(0, 22))
    def check(sizes, seed, edge, s):
        rows, depth, channels = sizes
        inputs = draw(seed, edge)
        r, gamma = inputs.array(np.int32, RESIDUAL, rows, depth), inputs.array(np.int16, 999, depth)
        w, taps = inputs.weights(2 * channels, depth), inputs.array(np.int8, 127, channels, 4)
        bias = inputs.array(np.int32, 1 << 24, channels)
        state = inputs.array(np.int16, 32767, rows, 3, channels)
        q, e = ops.norm_quantize(r, gamma, **norm)
        xz = ops.ternary_linear(q, e, w, **scale)
        x, after = ops.conv1d_step(xz[:, :channels], taps, bias, state, s=s)
        want = np.concatenate([ops.squareplus(x, **squareplus), xz[:, channels:]], axis=1)
        constants = {**scale, "s_conv": s, **squareplus}
        w, taps, bias, q, e, r, gamma = inputs.on_device(w, taps, bias, q, e, r, gamma)
        for wide in (True, False) if rows <= FEW else (True,):
            result = torch.empty(xz.shape, dtype=torch.int16, device=w.device)
            (moved,) = inputs.on_device(state)
            if wide:
                largest = torch.zeros(rows, dtype=torch.int32, device=w.device)
                multiply_wide((result, moved, largest), q, e, w, (taps, bias), **constants)
                assert_equal(largest, np.abs(want[:, :channels].astype(np.int32)).max(1))
            else:
                arrays = (r, gamma, w, taps, bias)
                kernel = step_products.enter_kernel
                multiply_narrow(kernel, (result, moved), arrays, w, rows, depth, **norm, **constants)
            assert_equal(result, want)
            assert_equal(moved, after)

    check()


def test_project(draw):
    @examples(8)
    @given(SIZES, st.integers(0, 99), EDGE, st.sampled_from([(181, 15), (32767, 9), (3, 8), (9, 40)]))
    def check(sizes, seed, edge, ratio):
        rows, depth, columns = sizes
        scale = dict(zip(("num", "shift"), ratio, strict=True))
        inputs = draw(seed, edge)
        x, w = inputs.array(np.int16, 32767, rows, 2 * depth), inputs.weights(columns, depth)
        quantised = ops.quantize_rows(x[:, :depth])
        want = ops.ternary_linear(*quantised, w, **scale)
        x, w = inputs.on_device(x, w)
        wide, narrow = (torch.empty(want.shape, dtype=torch.int16, device=w.device) for _ in range(2))
        multiply_wide((wide, None, None), *inputs.on_device(*quantised), w, **scale)
        assert_equal(wide, want)
        multiply_sliced(wide.zero_(), x, w, depth, **scale)
        assert_equal(wide, want)
        if rows > FEW:
            return
        multiply_narrow(step_products.project_kernel, (narrow,), (x, w), w, rows, depth, 2 * depth, **scale)
        assert_equal(narrow, want)

    check()


@pytest.mark.parametrize(
    ("rows", "columns", "depth", "size"),
    [(1, 3072, 768, 32), (8, 3072, 768, 128), (8, 768, 1536, 64), (8, 80, 1536, 4), (8, 16384, 4096, 32)],
)
def test_a_program_for_few_rows_has_the_columns_that_it_holds(rows, columns, depth, size):
    assert step_products.product_launch(rows, columns, depth)[1]["COLUMNS"] == size


def test_leave(draw):
    scale, gate = {"num": 181, "shift": 15}, {"num": 724, "shift": 10}

    @examples(6)
    @given(SIZES, st.integers(0, 99), EDGE)
    def check(sizes, seed, edge):
        rows, depth, columns = sizes
        inputs = draw(seed, edge)
        r, x = inputs.array(np.int32, RESIDUAL, rows, columns), inputs.array(np.int16, 32767, rows, depth)
        w, (q, e) = inputs.weights(columns, depth), ops.quantize_rows(x)
        want = ops.residual_add(r, ops.ternary_linear(q, e, w, **scale), **gate)
        constants = {**scale, "gate_num": gate["num"], "gate_shift": gate["shift"], "bits": RESIDUAL_BITS}
        x, w = inputs.on_device(x, w)
        wide, narrow = inputs.on_device(r, r)
        multiply_sliced(wide, x, w, depth, **constants)
        assert_equal(wide, want)
        if rows > FEW:
            return
        multiply_narrow(step_products.leave_kernel, (narrow,), (x, w), w, rows, depth, **constants)
        assert_equal(narrow, want)

    check()
