"""Digests: each array once while it lives, together with others until they hold much memory."""

import gc

import numpy as np
import torch

from mamba_integer.backends.transcripts.digests import Digests, OnDevice
from mamba_integer.backends.transcripts.leaf import bytes_root, tensor_digest


def host(batches):
    def compute(arrays):
        batches.append(len(arrays))
        digests = [tensor_digest(array) for array in arrays]
        return lambda: digests

    return compute


def wait(functions):
    return [function() for function in functions]


def test_an_array_is_hashed_once_while_it_lives():
    batches: list[int] = []
    digests, kept = Digests(host(batches)), np.arange(5, dtype=np.int16)
    assert wait(digests([kept, kept])) == [tensor_digest(kept)] * 2
    for value in range(50):
        array = np.full(3, value, np.int8)
        assert wait(digests([array, kept])) == [tensor_digest(array), tensor_digest(kept)]
        del array
    gc.collect()
    assert batches == [1] * 51 and len(digests._known) == 1


def test_small_arrays_wait_for_one_another():
    batches: list[int] = []
    digests = Digests(host(batches), held_bytes=100)
    arrays = [np.full(30, value, np.int8) for value in range(10)]
    functions = [function for array in arrays for function in digests([array, np.array([array[0]])])]
    assert batches == [8, 8]
    expected = [digest for array in arrays for digest in (tensor_digest(array), tensor_digest(array[:1]))]
    assert wait(functions) == expected
    assert batches == [8, 8, 4]
    assert wait(digests(arrays[:1])) == expected[:1] and batches == [8, 8, 4]
    assert wait(digests([])) == []


def test_hashes_of_a_device_become_digests():
    arrays = [np.arange(6, dtype=np.int32).reshape(2, 3), np.zeros((0, 2), np.uint8)]
    roots = np.stack([np.frombuffer(bytes_root(array.tobytes()), np.int32) for array in arrays])
    tensors = [torch.from_numpy(array) for array in arrays]
    assert OnDevice(tensors, torch.from_numpy(roots))() == [tensor_digest(array) for array in arrays]
