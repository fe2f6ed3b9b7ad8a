"""The residual stream never leaves its 24 bits, from the embedding through any number of layers."""

import numpy as np
import pytest

from mamba_integer import spec
from mamba_integer.spec.ops.embedding import embedding
from mamba_integer.spec.ops.residual import RESIDUAL


def test_largest_embedding_fills_the_stream():
    """One more bit of shift would leave it."""
    table, shift = np.array([[-32767], [32767]], np.int16), embedding.parameters[0].high
    y = spec.embedding(np.array([0, 1], np.int32), table, shift=shift)
    assert RESIDUAL.low <= y.min() and y.max() <= RESIDUAL.high < 2 * y.max()


def test_id_past_the_table_raises():
    """`embedding.C2`, and `embedding.C1` for the last row."""
    table = np.arange(6, dtype=np.int16).reshape(3, 2)
    assert spec.embedding(np.array(2, np.int32), table, shift=1).tolist() == [8, 10]
    for bad in (-1, 3):
        with pytest.raises(spec.DomainError, match=rf"embedding: argument ids: found {bad} at index \(1,\)"):
            spec.embedding(np.array([0, bad], np.int32), table, shift=1)


@pytest.mark.parametrize("sign", [-1, 1])
def test_layers_add_up_to_the_edge_and_stay(sign):
    """`residual_add.C2`: the symmetric edge, and every result is an input again."""
    r, x = np.zeros(1, np.int32), np.array([32767], np.int16)
    for layer in range(1, 300):
        r = spec.residual_add(r, x, num=sign * 2, shift=1)
        assert r[0] == sign * min(32767 * layer, 2**23 - 1)
    assert spec.residual_add(r, x, num=-sign, shift=0)[0] == sign * (2**23 - 1 - 32767)


@pytest.mark.parametrize("shift", [1, 2, 15])
def test_update_is_rounded_once_and_up_at_a_tie(shift):
    """`residual_add.C1`."""
    r, x = np.full(4, 10, np.int32), np.array([1, -1, 3, -3], np.int16)
    assert spec.residual_add(r, x, num=1 << (shift - 1), shift=shift).tolist() == [11, 10, 12, 9]
