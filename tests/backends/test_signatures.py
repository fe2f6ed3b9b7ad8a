"""Editors and help() show each backend's op with its real arguments and its meaning, both from the contract."""

import importlib
import inspect
import pydoc

import pytest

from mamba_integer import spec
from mamba_integer.spec.contract import implements

PACKAGES = ("spec.compiled", "backends.torch", "backends.triton", "backends.torch.custom_ops")


@pytest.mark.parametrize("package", PACKAGES)
@pytest.mark.parametrize("op", sorted(spec.OPS))
def test_an_op_of_a_backend_shows_what_its_contract_says(package, op):
    module, entry = importlib.import_module(f"mamba_integer.{package}"), spec.OPS[op]
    shown = inspect.signature(getattr(module, op)).parameters.values()
    wanted = inspect.signature(entry).parameters.values()
    assert [(p.name, p.kind, p.default) for p in shown] == [(p.name, p.kind, p.default) for p in wanted]
    assert all(p.annotation is int for p in shown if p.kind is p.KEYWORD_ONLY)
    text = inspect.getdoc(getattr(module, op))
    assert inspect.getdoc(entry).startswith(f"{text}\n\n") and f"{entry.outputs[0].name} : " in text
    assert "Examples" not in text  # which are of NumPy arrays


def test_help_shows_the_arguments_and_the_formula():
    from mamba_integer.backends import torch

    text = pydoc.plain(pydoc.render_doc(torch.saturate))
    assert "saturate(x, /, *, bits: int)" in text and "Clamp x to the symmetric range" in text
    assert "bits : int in [2, 32]" in text and "C1: y is the integer" in text


def test_a_kernel_of_a_user_keeps_its_types_and_its_docstring():
    @implements(spec.saturate)
    def saturate(x: "Mine", **parameters) -> "Mine":  # noqa: F821
        """Mine."""

    assert str(inspect.signature(saturate)) == "(x: 'Mine', /, *, bits: int) -> 'Mine'" and saturate.__doc__ == "Mine."
