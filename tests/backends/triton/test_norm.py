"""The scale of a row as kernels find it, by floats and two comparisons, against the golden search."""

import os

import numpy as np
import pytest
import torch

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")

import triton
import triton.language as tl

from mamba_integer.backends.triton import norm as kernels
from mamba_integer.spec.integers import RESIDUAL_BITS
from mamba_integer.spec.ops import norm

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
LARGEST = 1 << (RESIDUAL_BITS - 1)


@triton.jit
def scale_kernel(k_pointer, m_pointer, sums_pointer, D: tl.constexpr, b: tl.constexpr, SIZE: tl.constexpr):
    place = tl.arange(0, SIZE)
    sums = tl.load(sums_pointer + place)
    k = kernels.scale_exponent(sums, D)
    tl.store(k_pointer + place, k)
    tl.store(m_pointer + place, kernels.scale_mantissa(sums, D, k, b))


def sums_of_squares(depth: int, b: int) -> np.ndarray:
    """Return sums on both sides of every bound of the exponent and of the mantissa, and random ones."""
    k = np.arange(RESIDUAL_BITS)
    roots = np.arange(1, 4 << b)
    bounds = [depth << (2 * k), *(((depth << (2 * k + 2 * b + 2)) // (root * root)) for root in roots)]
    random = 2 ** np.random.default_rng(0).uniform(0, 2 * RESIDUAL_BITS, 500)
    near = np.concatenate([*bounds, random.astype(np.int64)])[:, None] + np.arange(-2, 3)
    return np.unique(np.clip(near, 0, depth * LARGEST**2))


@pytest.mark.parametrize("depth", [1, 2, 3, 5, 96, 768, 4096, norm.LARGEST_ROW])
@pytest.mark.parametrize("b", [1, 3, 4])
def test_the_scale_is_that_of_the_golden_search(depth, b):
    sums = sums_of_squares(depth, b)
    size = triton.next_power_of_2(sums.size)
    padded = torch.from_numpy(np.pad(sums, (0, size - sums.size))).to(DEVICE)
    k, m = torch.empty(2, size, dtype=torch.int32, device=DEVICE)
    scale_kernel[(1,)](k, m, padded, D=depth, b=b, SIZE=size)
    exponents = norm.scale_exponent(sums, depth)
    np.testing.assert_array_equal(k[: sums.size].cpu(), exponents)
    np.testing.assert_array_equal(m[: sums.size].cpu(), norm.scale_mantissa(sums, depth, exponents, b))
