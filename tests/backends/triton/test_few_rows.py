"""The product of few rows, on an emulation of what it names in Gluon and in PTX: no interpreter of Triton runs it."""

import importlib.util
import sys
from pathlib import Path
from random import Random

import numpy as np
import pytest
import torch

import mamba_integer.backends.triton as triton_backend
from mamba_integer import spec
from mamba_integer.backends.triton import gluon_names
from mamba_integer.conformance.engine.cases import draw_case

from . import gluon_emulator


@pytest.fixture
def few_rows(monkeypatch):
    """Return the module as a new one that the emulator runs."""
    for name in ("gl", "gluon"):
        monkeypatch.setattr(gluon_names, name, getattr(gluon_emulator, name))
    monkeypatch.setattr(gluon_names, "HAS_GLUON", True)
    path = Path(triton_backend.__file__).with_name("few_rows.py")
    name = f"{triton_backend.__name__}.few_rows"
    module_spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(module_spec)
    monkeypatch.setitem(sys.modules, name, module)
    module_spec.loader.exec_module(module)
    monkeypatch.setattr(module, "launch", gluon_emulator.launch)
    return module


@pytest.mark.parametrize(
    "rows, depth, columns", [(2, 64, 32), (8, 300, 7), (9, 4100, 33), (16, 40, 70), (27, 1024, 65)]
)
def test_few_rows_give_the_same_integers(rows, depth, columns, few_rows):
    case = draw_case("ternary_linear", Random(rows), {"K": depth, "N": columns, "...": (rows,)})
    y = torch.empty((rows, columns), dtype=torch.int16)
    few_rows.product(y, *map(torch.tensor, case.arrays), **case.parameters)
    assert np.array_equal(y.numpy(), spec.ternary_linear(*case.arrays, **case.parameters))
