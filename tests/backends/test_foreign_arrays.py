"""An array of another library, or of another device than the first, is an error that names it; so is anything else."""

from random import Random

import numpy as np
import pytest
import torch
from torch._subclasses import FakeTensorMode
from torch.masked import masked_tensor

from mamba_integer import spec
from mamba_integer.backends import load
from mamba_integer.backends.programs import ProgramOps
from mamba_integer.conformance.engine.cases import draw_case
from mamba_integer.spec.contract import DomainError, trusted_values

CUSTOM_OPS = "mamba_integer.backends.torch.custom_ops"
ALLOWED = {
    "golden": "a NumPy array: numpy.asarray",
    "numba": "a NumPy array: numpy.asarray",
    "torch": "a Torch tensor: torch.from_numpy",
    "triton": "a Torch tensor: torch.from_numpy",
    CUSTOM_OPS: "a Torch tensor: torch.from_numpy",
}


def call_of(op, backend):
    case = draw_case(op, Random(0))
    return [backend.load(array) for array in case.arrays], case.parameters


def other_array(array):
    """Return the same integers as an array of the other library."""
    return array.cpu().numpy() if isinstance(array, torch.Tensor) else torch.from_numpy(np.array(array))


@pytest.mark.parametrize("name", ALLOWED)
def test_each_argument_of_another_type_is_named(name):
    backend = load(name)
    for op, contract in spec.OPS.items():
        arrays, parameters = call_of(op, backend)
        for place, tensor in enumerate(contract.inputs):
            foreign = other_array(arrays[place])
            found = "a torch.Tensor" if isinstance(foreign, torch.Tensor) else "a numpy.ndarray"
            for value, text in ((foreign, found), ([1, 2], "a list"), (None, "None"), (3, "an int")):
                message = f"{op}: argument {tensor.name}: found {text}, allowed {ALLOWED[name]}"
                with pytest.raises(DomainError, match=message):
                    backend.call(op, [*arrays[:place], value, *arrays[place + 1 :]], parameters)


@pytest.mark.parametrize("name", ALLOWED)
def test_an_accepted_call_lets_no_foreign_array_pass(name):
    """Checks are remembered: neither those of this backend nor those of another one speak for other arrays."""
    backend = load(name)
    arrays, parameters = call_of("squareplus", backend)
    foreign = other_array(arrays[0])
    load("torch" if isinstance(foreign, torch.Tensor) else "golden").call("squareplus", [foreign], parameters)
    with trusted_values():
        backend.call("squareplus", arrays, parameters)
        with pytest.raises(DomainError, match="squareplus: argument x: found a"):
            backend.call("squareplus", [foreign], parameters)


@pytest.mark.parametrize("name", [None, CUSTOM_OPS])
def test_tensors_of_two_devices_are_an_error(name):
    arrays, parameters = call_of("sigmoid_gate", load(CUSTOM_OPS))
    arrays[1] = arrays[1].to("meta")
    call = load(name).ops.sigmoid_gate if name else lambda *arrays, **p: spec.sigmoid_gate.check(arrays, p)
    message = f"sigmoid_gate: argument z: found device meta, allowed {arrays[0].device}, as x"
    with pytest.raises(DomainError, match=message):
        call(*arrays, **parameters)
    with trusted_values(), pytest.raises(DomainError, match=message):
        call(*arrays, **parameters)


def mapped(array, file, mode="c"):
    """Return the array as a file that is mapped into memory; in mode "r" it can't be written."""
    file.write_bytes(array.tobytes() or b"0")
    return np.memmap(file, array.dtype, mode, shape=array.shape)


@pytest.mark.parametrize("name", ["golden", "numba"])
def test_files_mapped_into_memory_give_the_same_integers(name, tmp_path):
    backend = load(name)
    for op in spec.OPS:
        case = draw_case(op, Random(0))
        want = load("golden").call(op, case.arrays, case.parameters)
        arrays = [mapped(array, tmp_path / f"{op}-{i}") for i, array in enumerate(case.arrays)]
        for result, wanted in zip(backend.call(op, arrays, case.parameters), want, strict=True):
            assert result.dtype == wanted.dtype and np.array_equal(result, wanted), op
    tokens = np.array([[2, 0, 1]], np.int32)
    table = np.arange(6, dtype=np.int16).reshape(3, 2)
    (rows,) = backend.call("embedding", [mapped(tokens, tmp_path / "tokens", "r"), table], {"shift": 0})
    assert np.array_equal(rows, table[tokens])


@pytest.mark.parametrize("name", ["torch", "triton", CUSTOM_OPS])
def test_parameters_of_modules_give_the_same_integers(name):
    backend = load(name)
    for op in spec.OPS:
        arrays, parameters = call_of(op, backend)
        want = backend.call(op, arrays, parameters)
        wrapped = [torch.nn.Parameter(array, requires_grad=False) for array in arrays]
        for result, wanted in zip(backend.call(op, wrapped, parameters), want, strict=True):
            assert type(result) is torch.Tensor and torch.equal(result, wanted), op


def test_numbers_of_numpy_are_accepted():
    parameters = {"f": 8, "offset": 0}
    assert spec.squareplus(np.int16(5), **parameters) == spec.squareplus(np.array([5], np.int16), **parameters)[0]


class Strange(np.ndarray):
    """A subclass that may compute anything."""


@pytest.mark.parametrize("name", ["golden", "numba"])
def test_a_subclass_of_numpys_array_is_named(name):
    """An accepted plain array of the same shape speaks for none of them."""
    backend, x = load(name), np.arange(-3, 3, dtype=np.int16)
    parameters = {"f": 8, "offset": 0}
    others = (
        (np.ma.array(x, mask=x > 0), "a numpy.ma.MaskedArray"),
        (np.ma.array(np.full(6, -32768, np.int16), mask=True), "a numpy.ma.MaskedArray"),
        (x.reshape(2, 3).view(np.matrix), "a numpy.matrix"),
        (x.view(np.recarray), "a numpy.rec.recarray"),
        (x.view(Strange), f"a {__name__}.Strange"),
    )
    for other, found in others:
        backend.call("squareplus", [np.zeros(other.shape, np.int16)], parameters)
        message = (
            rf"squareplus: argument x: found {found}, allowed a plain numpy.ndarray: numpy.asarray\(x\); of a masked"
        )
        with pytest.raises(DomainError, match=message):
            backend.call("squareplus", [other], parameters)
        with trusted_values(), pytest.raises(DomainError, match=message):
            backend.call("squareplus", [other], parameters)


@pytest.mark.parametrize("name", ["torch", "triton"])
def test_a_masked_array_is_not_loaded(name):
    with pytest.raises(DomainError, match=r"argument array: found a numpy\.ma\.MaskedArray, allowed a plain"):
        load(name).load(np.ma.array([1, 2], mask=[True, False]))


class StrangeTensor(torch.Tensor):
    """A subclass that may compute anything."""


X = torch.arange(-3, 3, dtype=torch.int16)


def partial_tensors():
    """Return tensors that an op can't read as they are, each with what its error says."""
    return (
        (X.as_subclass(StrangeTensor), "a .*StrangeTensor, allowed a plain torch.Tensor: Tensor.as_subclass"),
        (masked_tensor(X, X > 0), "a .*MaskedTensor, allowed a plain .* MaskedTensor.to_tensor"),
        (X.to_sparse(), r"layout torch.sparse_coo, allowed torch.strided: Tensor.to_dense\(\)"),
        (X.reshape(2, 3).to_sparse_csr(), r"layout torch.sparse_csr, allowed torch.strided: Tensor.to_dense\(\)"),
        (torch.nested.nested_tensor([X, X]), "a nested tensor, allowed a plain torch.Tensor"),
        (torch.nested.nested_tensor([X, X[:2]], layout=torch.jagged), "a nested tensor, allowed a plain torch.Tensor"),
    )


def tensors_without_values():
    return X.to("meta"), FakeTensorMode().from_tensor(X)


@pytest.mark.filterwarnings("ignore:.*(prototype|beta):UserWarning")
@pytest.mark.parametrize("name", ["torch", "triton", CUSTOM_OPS])
def test_a_tensor_that_is_not_plain_is_named(name):
    """An accepted plain tensor of the same shape speaks for none of them."""
    ops, parameters = load(name).ops, {"f": 8, "offset": 0}
    for plain in (X, X.reshape(2, 3)):
        ops.squareplus(plain, **parameters)
    for other, message in partial_tensors():
        with pytest.raises(DomainError, match=f"squareplus: argument x: found {message}"):
            ops.squareplus(other, **parameters)
        with trusted_values(), pytest.raises(DomainError, match=f"squareplus: argument x: found {message}"):
            ops.squareplus(other, **parameters)


@pytest.mark.parametrize("name", ["torch", "triton"])
def test_values_that_are_not_there_cannot_be_checked(name):
    """Where values are trusted, a tensor without any tells how kernels would be launched."""
    for tensor in tensors_without_values():
        with pytest.raises(DomainError, match=r"argument x: found a meta or fake tensor, allowed .*: .*custom_ops"):
            load(name).ops.squareplus(tensor, f=8, offset=0)


def test_custom_ops_give_the_shapes_of_meta_and_fake_tensors():
    for other in tensors_without_values():
        result = load(CUSTOM_OPS).ops.squareplus(other, f=8, offset=0)
        assert result.shape == other.shape and type(result) is type(other) and result.device == other.device


def test_a_program_takes_numpy_arrays():
    program = ProgramOps.__new__(ProgramOps)
    program.ops = frozenset(spec.OPS)
    with pytest.raises(DomainError, match=r"isqrt: argument v: found a torch.Tensor, allowed a NumPy array"):
        program.isqrt(torch.zeros(3, dtype=torch.int32))
