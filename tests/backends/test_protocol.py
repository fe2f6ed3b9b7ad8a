"""A backend is found by its name, and nothing else is taken for one."""

import sys
from types import ModuleType

import numpy as np
import pytest

from mamba_integer import spec
from mamba_integer.backends import BackendError, load
from mamba_integer.backends.app.terminal import find_backend


def test_numpy_is_another_name_of_golden():
    assert load("numpy").ops is spec
    assert load("numpy").name == "golden"


@pytest.mark.parametrize("name", ["math", "torch.nn.functional"])
def test_a_module_that_shares_a_name_with_an_op_is_no_backend(name):
    with pytest.raises(BackendError, match=f"module {name} is no backend: none of its functions"):
        load(name)


def argmax(logits):
    return logits.argmax(-1)


def scores_argmax(scores):
    return scores.argmax(-1)


def squareplus(x, **parameters):
    return x


def squareplus_by_name(values, f, offset):
    return values


def squareplus_of_another_library(x, b=4.0):
    return x


@pytest.mark.parametrize(
    ("function", "op", "is_backend"),
    [
        (argmax, "argmax", True),
        (scores_argmax, "argmax", False),
        (squareplus, "squareplus", True),
        (squareplus_by_name, "squareplus", True),
        (squareplus_of_another_library, "squareplus", False),
        (spec.squareplus, "squareplus", True),
    ],
)
def test_a_module_is_a_backend_if_a_function_names_what_the_op_takes(function, op, is_backend, monkeypatch):
    module = ModuleType("partial_backend")
    setattr(module, op, function)
    monkeypatch.setitem(sys.modules, "partial_backend", module)
    if is_backend:
        assert load("partial_backend").names == [op]
    else:
        with pytest.raises(BackendError, match="is no backend: none of its functions"):
            load("partial_backend")


def squareplus_(x, *, f, offset):
    return x


class Held:
    def squareplus(self, x, *, f, offset):
        return x


@pytest.mark.parametrize(
    ("attributes", "says"),
    [
        ({"mine": Held(), "Held": Held}, "its attribute mine has some: holder:mine"),
        ({"Held": Held}, "its class Held has some: name an instance of it, holder:attribute"),
        ({"kernels": ModuleType("holder.kernels"), "spec": spec}, "its module kernels has some: holder.kernels"),
        ({"squareplus_": squareplus_}, "its squareplus_ may be meant for squareplus"),
        ({"spec": spec, "zeros": np.zeros(3), "Held_": 3}, "it is a module, and has no attribute"),
    ],
)
def test_a_module_without_an_op_says_where_ops_are(attributes, says, monkeypatch):
    module = ModuleType("holder")
    vars(module).update(attributes)
    monkeypatch.setitem(sys.modules, "holder", module)
    if "kernels" in attributes:
        module.kernels.squareplus = squareplus_
    with pytest.raises(BackendError, match=f"^backend holder has no op of the specification; {says}"):
        load("holder")


MISSPELT = """
def squareplus_(x, *, f, offset): ...
def selective_scna(x, mod, base, b, c, skip, h, **parameters): ...
def Saturate(x, *, bits): ...
def bit_length(x): ...
def bit_length_(x): ...
def _shift_roundd(x, *, s): ...
def isqrt_kernel(x): ...
"""


def test_a_name_that_is_nearly_an_op_is_warned_of(tmp_path, monkeypatch, capsys):
    """Unless the backend has that op as well, or the name is private, or further away."""
    (tmp_path / "misspelling.py").write_text(MISSPELT)
    monkeypatch.syspath_prepend(tmp_path)
    assert find_backend("misspelling", None).names == ["bit_length"]
    says = "mamba-integer: backend misspelling: found {}, which is no op and is passed over; did you mean {}?"
    meant = {"Saturate": "saturate", "selective_scna": "selective_scan", "squareplus_": "squareplus"}
    assert capsys.readouterr().err.splitlines() == [says.format(*pair) for pair in meant.items()]


def test_a_program_that_names_nearly_an_op_is_warned_of(tmp_path):
    program = tmp_path / "program.sh"
    program.write_text("""#!/bin/sh\nread line\necho '{"name": "mine", "ops": ["isqrt", "saturated"]}'\nread line\n""")
    program.chmod(0o755)
    assert load(f"command:{program}").misspelt == {"saturated": "saturate"}


@pytest.mark.parametrize("name", ["golden", "numba", "torch", "unbounded"])
def test_a_whole_backend_has_no_name_that_is_nearly_an_op(name):
    assert not load(name).misspelt


def test_a_path_and_a_class_are_no_backends_and_the_error_says_what_is(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text("class Ops:\n    def isqrt(self, v):\n        return v\nops = Ops()\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(BackendError, match="found a path, allowed a module: PYTHONPATH=some/folder and mine"):
        load("some/folder/mine.py")
    with pytest.raises(BackendError, match="found a class, allowed an instance"):
        load("mine:Ops")
    assert load("mine:ops").names == ["isqrt"]
