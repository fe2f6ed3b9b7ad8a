"""The number system's shifts, on every value of a range, in NumPy, Numba and Torch."""

from fractions import Fraction
from math import floor

import numpy as np
import pytest
import torch

from mamba_integer.backends.torch import integers as torch_integers
from mamba_integer.spec import integers
from mamba_integer.spec.compiled import integers as compiled_integers

X = np.arange(-1000, 1001)
IMPLEMENTATIONS = {
    "golden": (integers, X),
    "numba": (compiled_integers, X),
    "torch": (torch_integers, torch.from_numpy(X)),
}
every = pytest.mark.parametrize("name", IMPLEMENTATIONS)


def results(name: str, function: str, s: int) -> list[int]:
    module, x = IMPLEMENTATIONS[name]
    if name == "numba":
        return [int(getattr(module, function)(int(value), s)) for value in x]
    return getattr(module, function)(x, s).tolist()


@every
@pytest.mark.parametrize("s", [0, 1, 2, 3, 9])
def test_shift_round_sends_ties_up(name, s):
    assert results(name, "shift_round", s) == [floor(Fraction(int(x), 2**s) + Fraction(1, 2)) for x in X]


@every
@pytest.mark.parametrize("s", [0, 1, 2, 3, 9])
def test_shift_even_moves_no_mean(name, s):
    y = results(name, "shift_even", s)
    assert y == [round(Fraction(int(x), 2**s)) for x in X]
    assert sum(y) == 0


@pytest.mark.parametrize("name", ["golden", "torch"])
@pytest.mark.parametrize("s", [-8, -1, 0, 1, 5])
def test_rescale_takes_either_sign(name, s):
    assert results(name, "rescale", s) == [floor(x / Fraction(2) ** s + Fraction(1, 2)) for x in X.tolist()]
