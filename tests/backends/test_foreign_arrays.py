"""An array of another library, or of another device than the first, is an error that names it; so is anything else."""

from random import Random

import numpy as np
import pytest
import torch

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


@pytest.mark.parametrize("name", ["torch", "triton", CUSTOM_OPS])
def test_tensors_of_two_devices_are_an_error(name):
    backend = load(name)
    arrays, parameters = call_of("sigmoid_gate", backend)
    arrays[1] = arrays[1].to("meta")
    message = f"sigmoid_gate: argument z: found device meta, allowed {arrays[0].device}, as x"
    with pytest.raises(DomainError, match=message):
        backend.call("sigmoid_gate", arrays, parameters)
    with trusted_values(), pytest.raises(DomainError, match=message):
        backend.call("sigmoid_gate", arrays, parameters)


def test_arrays_of_a_subclass_and_numbers_of_numpy_are_accepted(tmp_path):
    parameters = {"f": 8, "offset": 0}
    one = np.int16(5)
    assert spec.squareplus(one, **parameters) == spec.squareplus(np.array([5], np.int16), **parameters)[0]
    mapped = np.memmap(tmp_path / "x", np.int16, "w+", shape=(3,))
    assert spec.compiled.squareplus(mapped, **parameters).tolist() == spec.squareplus(mapped, **parameters).tolist()
    parameter = torch.nn.Parameter(torch.zeros(3, dtype=torch.int16), requires_grad=False)
    assert load("torch").ops.squareplus(parameter, **parameters).shape == (3,)


def test_a_program_takes_numpy_arrays():
    program = ProgramOps.__new__(ProgramOps)
    program.ops = frozenset(spec.OPS)
    with pytest.raises(DomainError, match=r"isqrt: argument v: found a torch.Tensor, allowed a NumPy array"):
        program.isqrt(torch.zeros(3, dtype=torch.int32))
