"""The product of few rows, on an emulation of what it names in Gluon and in PTX: no interpreter of Triton runs it."""

from random import Random

import numpy as np
import pytest
import torch

from mamba_integer import spec
from mamba_integer.conformance.engine.cases import draw_case

from . import gluon_emulator


@pytest.fixture
def few_rows(monkeypatch):
    """Return the module as a new one that the emulator runs."""
    module = gluon_emulator.emulated(monkeypatch, ("staged_steps", "few_rows"))[-1]
    monkeypatch.setattr(module, "launch", gluon_emulator.launch)
    return module


@pytest.mark.parametrize(
    "rows, depth, columns",
    [
        (1, 64, 32),
        (8, 320, 7),
        (9, 4160, 33),
        (16, 8192, 70),
        (27, 1024, 65),
        (32, 4160, 40),
        (5, 64, 200),
        (9, 1088, 65),
        (13, 2112, 70),
        (3, 16448, 2),
    ],
)
@pytest.mark.parametrize("programs", (2, 128))
def test_few_rows_give_the_same_integers(rows, depth, columns, programs, few_rows, monkeypatch):
    monkeypatch.setattr(few_rows, "PROGRAMS", programs)
    case = draw_case("ternary_linear", Random(rows), {"K": depth, "N": columns, "...": (rows,)})
    y = torch.empty((rows, columns), dtype=torch.int16)
    num, shift = case.parameters["num"], case.parameters["shift"]
    few_rows.product(y, *map(torch.tensor, case.arrays), num, shift, (1 << shift) >> 1)
    assert np.array_equal(y.numpy(), spec.ternary_linear(*case.arrays, **case.parameters))


def test_one_row_and_one_column_of_wider_arrays(few_rows):
    case = draw_case("ternary_linear", Random(1), {"K": 1152, "N": 1, "...": (1,)})
    q, e, w = map(torch.tensor, case.arrays)
    q, w = (torch.nn.functional.pad(array, (0, 5))[:, :-5] for array in (q, w))
    y, shift = torch.empty((1, 1), dtype=torch.int16), case.parameters["shift"]
    few_rows.product(y, q, e, w, case.parameters["num"], shift, (1 << shift) >> 1)
    assert np.array_equal(y.numpy(), spec.ternary_linear(*case.arrays, **case.parameters))
