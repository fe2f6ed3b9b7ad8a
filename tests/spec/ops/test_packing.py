"""Packing is one to one: every digit string has its bytes, and bytes that no string has are refused."""

from itertools import product

import numpy as np
import pytest
import torch

from mamba_integer import spec
from mamba_integer.backends import load

BACKENDS = ("golden", "numba", "torch", "triton")
every_backend = pytest.mark.parametrize("name", BACKENDS)
FORMS = [("pack_ternary", "unpack_ternary", 4), ("pack_trits", "unpack_trits", 5)]
every_form = pytest.mark.parametrize(("pack", "unpack", "width"), FORMS)


def run(name, op, *arrays, **parameters):
    return load(name, "cpu").run(op, arrays, parameters)[0]


@every_backend
@every_form
def test_every_byte_comes_back(name, pack, unpack, width):
    """`unpack_ternary.C1`, `unpack_trits.C1`: all strings of up to five digits, whatever the padding."""
    for count in range(1, 6):
        digits = np.array(list(product((-1, 0, 1), repeat=count)), np.int8)
        packed = run(name, pack, digits)
        assert packed.shape == (3**count, -(-count // width))
        assert len(np.unique(packed, axis=0)) == 3**count
        assert np.array_equal(run(name, unpack, packed, K=count), digits)


@every_backend
def test_codes_are_those_of_twos_complement(name):
    """`pack_ternary.C1`, `pack_ternary.C2`, `pack_ternary.C3`."""
    digits = np.array([[0, 1, -1, 1, -1], [-1, -1, -1, -1, 0]], np.int8)
    assert run(name, "pack_ternary", digits).tolist() == [[0b01_11_01_00, 0b11], [0b11_11_11_11, 0]]


@every_backend
def test_trits_are_digits_of_base_three(name):
    """`pack_trits.C1`, `pack_trits.C2`."""
    digits = np.array([1, 0, -1, -1, -1, 1, 1], np.int8)
    assert run(name, "pack_trits", digits).tolist() == [2 + 3, 2 + 2 * 3 + 9 + 27 + 81]


@pytest.mark.parametrize("to_array", [np.asarray, torch.from_numpy])
@every_form
def test_exactly_the_packed_bytes_are_accepted(to_array, pack, unpack, width):
    for count in range(1, width + 1):
        strings = np.array(list(product((-1, 0, 1), repeat=count)), np.int8)
        valid = set(spec.OPS[pack](strings)[:, 0].tolist())
        for byte in range(256):
            packed = to_array(np.array([[min(valid)], [byte]], np.uint8))
            if byte in valid:
                spec.OPS[unpack].check([packed], {"K": count})
            else:
                with pytest.raises(
                    spec.DomainError, match=rf"{unpack}: argument packed: found {byte} at index \(1, 0\)"
                ):
                    spec.OPS[unpack].check([packed], {"K": count})


@every_form
def test_count_that_does_not_fit_the_bytes_raises(pack, unpack, width):
    packed = spec.OPS[pack](np.zeros((2, width + 1), np.int8))
    for wrong in (width, 2 * width + 1):
        with pytest.raises(spec.DomainError, match="size 2 of dimension K"):
            spec.OPS[unpack](packed, K=wrong)
