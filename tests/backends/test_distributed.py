"""Ranks exchange arrays of any layout."""

import numpy as np
import torch

from mamba_integer.backends.distributed import free_address, joined


def test_arrays_of_any_layout_are_summed():
    array = np.arange(6, dtype=np.int64).reshape(2, 3)
    tensor = torch.arange(6).view(2, 3)
    with joined(0, 1, "cpu", free_address()) as ranks:
        reversed_array, transposed, expanded = ranks.sum([array[:, ::-1], tensor.t(), tensor[:1].expand(4, 3)])
        assert np.array_equal(ranks.max(array.T), array.T)
    assert np.array_equal(reversed_array, array[:, ::-1])
    assert torch.equal(transposed, tensor.t())
    assert torch.equal(expanded, tensor[:1].expand(4, 3))
