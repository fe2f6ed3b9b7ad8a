"""A backend is found by its name, and nothing else is taken for one."""

import sys
from types import ModuleType

import pytest

from mamba_integer import spec
from mamba_integer.backends import BackendError, load


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


def test_a_path_and_a_class_are_no_backends_and_the_error_says_what_is(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text("class Ops:\n    def isqrt(self, v):\n        return v\nops = Ops()\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(BackendError, match="found a path, allowed a module: PYTHONPATH=some/folder and mine"):
        load("some/folder/mine.py")
    with pytest.raises(BackendError, match="found a class, allowed an instance"):
        load("mine:Ops")
    assert load("mine:ops").names == ["isqrt"]
