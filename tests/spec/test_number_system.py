"""The number system beyond what the ops ask of it."""

import math

import numpy as np
import pytest

from mamba_integer.spec import integers


def test_bit_length_holds_up_to_63_bits():
    sizes = [(1 << b) + near for b in range(63) for near in (-1, 0)] + [2**63 - 1]
    for sign in (1, -1):
        x = np.array([sign * size for size in sizes])
        assert integers.bit_length(x).tolist() == [size.bit_length() for size in sizes]


def test_isqrt_holds_up_to_32_bits():
    roots = [*range(3000), *(2**j + near for j in range(2, 17) for near in (-2, -1) if 2**j + near < 2**16)]
    v = np.array([root * root + near for root in roots for near in (-1, 0, 1) if root or near >= 0] + [2**32 - 1])
    assert integers.isqrt(v).tolist() == [math.isqrt(value) for value in v.tolist()]


def test_dyadic_rounds_a_product_once():
    third = integers.Dyadic(num=21845, shift=16)
    assert third.apply(np.array([0, 1, 2, 3, -1, -2, 300])).tolist() == [0, 0, 1, 1, 0, -1, 100]
    assert third == integers.Dyadic(21845, 16) and hash(third) == hash(integers.Dyadic(21845, 16))
    with pytest.raises(AttributeError):
        third.num = 1
