"""Custom ops: what PyTorch checks of each, the golden integers, symbolic sizes, and errors that name the op."""

import importlib
import inspect
import pickle
import subprocess
import sys
from random import Random

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.symbolic_shapes import DimDynamic, ShapeEnv, StatelessSymbolicContext

from mamba_integer import spec
from mamba_integer.backends.torch import custom_ops
from mamba_integer.conformance.engine.cases import Case, draw_case
from mamba_integer.spec.contract import DomainError, trusted_values

X = torch.tensor([256, -256], dtype=torch.int16)


def overload(op: str):
    return getattr(torch.ops.mamba_integer, op).default


def filled_case(op: str) -> Case:
    """Return a drawn case without an empty array."""
    cases = (draw_case(op, Random(seed)) for seed in range(100))
    return next(case for case in cases if all(array.size for array in case.arrays))


def strided(array: np.ndarray, device: str) -> torch.Tensor:
    """Return the array as each second element of a larger tensor, along every axis."""
    larger = torch.zeros(tuple(2 * size for size in array.shape), dtype=getattr(torch, str(array.dtype)), device=device)
    view = larger[tuple(slice(None, None, 2) for _ in array.shape)]
    return view.copy_(torch.tensor(array))


def as_tuple(results):
    return results if isinstance(results, tuple) else (results,)


@pytest.mark.parametrize("op", spec.OPS)
def test_pytorch_finds_no_fault(op, device):
    """No result aliases an input, no input is written, and fake results have the real shapes, dtypes and strides."""
    case = filled_case(op)
    parameters = custom_ops.as_signed(op, case.parameters)
    for convert in (torch.tensor, strided):
        arrays = tuple(convert(array, device=device) for array in case.arrays)
        torch.library.opcheck(overload(op), arrays, parameters, test_utils=("test_schema", "test_faketensor"))


@pytest.mark.parametrize("op", spec.OPS)
def test_integers_are_the_golden_ones(op, device):
    for case in (filled_case(op), draw_case(op, Random(1))):
        arrays = (torch.tensor(array, device=device) for array in case.arrays)
        results = as_tuple(getattr(custom_ops, op)(*arrays, **case.parameters))
        for result, golden in zip(results, as_tuple(spec.OPS[op](*case.arrays, **case.parameters)), strict=True):
            assert custom_ops.to_numpy(result).dtype == golden.dtype
            assert result.shape == golden.shape and result.is_contiguous()
            assert np.array_equal(custom_ops.to_numpy(result), golden)


@pytest.mark.parametrize("op", spec.OPS)
def test_sizes_may_be_symbols(op):
    """A contract's size expressions, such as ``K/4`` and ``2*P``, take symbols; ``2^m`` makes a number of one."""
    case = filled_case(op)
    parameters = custom_ops.as_signed(op, case.parameters)
    real = as_tuple(overload(op)(*map(torch.tensor, case.arrays), **parameters))
    with FakeTensorMode(shape_env=ShapeEnv()) as mode:
        fakes = [mode.from_tensor(torch.tensor(array), symbolic_context=symbols(array)) for array in case.arrays]
        traced = as_tuple(overload(op)(*fakes, **parameters))
    for fake, result in zip(traced, real, strict=True):
        assert fake.dtype == result.dtype
        assert tuple(map(int, fake.shape)) == tuple(result.shape)


def symbols(array: np.ndarray) -> StatelessSymbolicContext:
    return StatelessSymbolicContext(dynamic_sizes=[DimDynamic.DYNAMIC] * array.ndim)


def test_a_compiled_function_recompiles_for_no_batch():
    compiled = torch.compile(lambda x: custom_ops.squareplus(x, f=8, offset=256), fullgraph=True, backend="eager")
    torch._dynamo.mark_dynamic(X, 0)
    compiled(X)
    with torch.compiler.set_stance("fail_on_recompile"):
        longer = torch.tensor([256, 0, -256], dtype=torch.int16)
        assert compiled(longer).tolist() == spec.squareplus(longer.numpy(), f=8, offset=256).tolist()


def test_a_value_out_of_range_is_an_error_unless_trusted():
    low = torch.tensor([-32768], dtype=torch.int16)
    with pytest.raises(DomainError, match="squareplus: argument x: found -32768"):
        custom_ops.squareplus(low, f=8, offset=0)
    with trusted_values():
        custom_ops.squareplus(low, f=8, offset=0)
    overload("squareplus")(low, f=8, offset=0, trusted=True)


@pytest.mark.parametrize("trusted", [False, True])
def test_a_wrong_kind_of_call_is_an_error_when_traced_and_when_called(trusted):
    with pytest.raises(DomainError, match="squareplus: argument x: found dtype int32, allowed int16"):
        overload("squareplus")(X.int(), f=8, offset=0, trusted=trusted)
    with FakeTensorMode() as mode, pytest.raises(DomainError, match="squareplus: argument f: found 99"):
        overload("squareplus")(mode.from_tensor(X), f=99, offset=0, trusted=trusted)


def test_none_is_no_tensor_when_traced_and_when_called():
    with pytest.raises(DomainError, match="squareplus: argument x: found None, allowed a Torch tensor"):
        overload("squareplus")(None, f=8, offset=0)
    with FakeTensorMode() as mode, pytest.raises(DomainError, match="sigmoid_gate: argument z: found None, allowed a"):
        overload("sigmoid_gate")(mode.from_tensor(X), None, f=8)


def test_tensors_of_two_devices_are_an_error():
    with pytest.raises(DomainError, match="sigmoid_gate: argument z: found device meta, allowed cpu, as x"):
        custom_ops.sigmoid_gate(X, X.to("meta"), f=8)


def test_a_seed_has_all_64_bits():
    e, seed = torch.zeros(1, dtype=torch.int32), (1 << 64) - 1
    parameters = {"shift": 4, "bits": 8, "step": 0, "stream": 0, "first": 0}
    golden = spec.stochastic_round_rows(X[None].numpy(), e.numpy(), seed=seed, **parameters).tolist()
    assert custom_ops.stochastic_round_rows(X[None], e, seed=seed, **parameters).tolist() == golden
    assert overload("stochastic_round_rows")(X[None], e, seed=-1, **parameters).tolist() == golden
    for outside in (-1, 1 << 64):
        with pytest.raises(DomainError, match=f"stochastic_round_rows: argument seed: found {outside}"):
            custom_ops.stochastic_round_rows(X[None], e, seed=outside, **parameters)


def test_kernels_follow_the_device(monkeypatch):
    triton, eager = (importlib.import_module(f"mamba_integer.backends.{name}") for name in ("triton", "torch"))
    monkeypatch.setattr(custom_ops, "kernel_of", custom_ops.kernel_of.__wrapped__)
    assert custom_ops.kernel_of("rope", "cuda") is triton.rope.kernel
    assert custom_ops.kernel_of("rope", "xpu") is eager.rope.kernel
    monkeypatch.setattr(custom_ops, "find_spec", lambda name: None)
    assert custom_ops.kernel_of("rope", "cuda") is eager.rope.kernel


def test_registering_again_changes_nothing():
    before = overload("squareplus")
    again = custom_ops.register(spec.squareplus)
    assert overload("squareplus") is before
    assert again(X, f=8, offset=256).tolist() == before(X, f=8, offset=256).tolist()


def test_the_torch_backend_alone_registers_nothing():
    code = "import torch, mamba_integer.backends.torch; assert not hasattr(torch.ops.mamba_integer, 'squareplus')"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_a_function_says_what_it_takes():
    assert str(inspect.signature(custom_ops.squareplus)) == "(x, /, *, f: int, offset: int)"
    assert pickle.loads(pickle.dumps(custom_ops.squareplus)) is custom_ops.squareplus
    with pytest.raises(AttributeError, match="no attribute 'softplus'"):
        _ = custom_ops.softplus
