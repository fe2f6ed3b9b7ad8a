"""The hash kernel, which runs in Triton's interpreter here: the same bytes as hashlib's."""

import hashlib

import numpy as np

from mamba_integer.backends.transcripts.leaf import PIECE, bytes_root
from mamba_integer.backends.triton import from_numpy
from mamba_integer.backends.triton.sha256 import CONSTANTS, INITIAL, byte_roots, pieces_of


def test_the_kernel_hashes_as_hashlib():
    data = np.arange(300, dtype=np.int64).astype(np.int8)
    arrays = [data[:size] for size in (0, 1, 3, 55, 56, 63, 64, 66, 120)] + [data[:288].reshape(2, 144)[:, 1:40:2]]
    roots = byte_roots([from_numpy(array, "cpu") for array in arrays]).numpy()
    for array, root in zip(arrays, roots, strict=True):
        assert root.tobytes() == hashlib.sha256(array.tobytes()).digest() == bytes_root(array.tobytes())


def test_the_constants_are_those_of_the_standard():
    assert INITIAL[0] == 0x6A09E667 and INITIAL[7] == 0x5BE0CD19
    assert CONSTANTS[0] == 0x428A2F98 and CONSTANTS[63] == 0xC67178F2


def test_pieces_level_by_level():
    sizes = np.array([0, PIECE, PIECE + 1, 129 * PIECE])
    assert [list(level) for level in pieces_of(sizes)] == [[1, 1, 2, 129], [1, 2], [1]]
