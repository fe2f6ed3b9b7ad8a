"""Long rows run in segments of chunks, beside walks that compute the segments' first states."""

import numpy as np
import pytest

from mamba_integer.backends import load
from mamba_integer.backends.triton import ssd_chunk
from mamba_integer.backends.triton.variants import variant
from mamba_integer.conformance.plans.ssd_chunk import varied
from mamba_integer.spec import ops


@pytest.mark.parametrize("tile", [0, 64], ids=["small walks", "large walks"])
@pytest.mark.parametrize("channels", [3, 33], ids=["one block", "a block whose walks are fewer"])
def test_rows_that_end_in_different_segments(channels, tile, monkeypatch):
    backend = load("triton", "cpu")
    monkeypatch.setattr(ssd_chunk, "LARGE_WALK_TILE", tile)
    x, d, b, c, skip, h, open_x, open_d, open_b, fill = varied(
        "ssd_chunk_scan", {"B": 3, "L": 16, "H": 1, "P": channels, "S": 5, "q": 2}
    )
    fill[:] = 0, 1, 3  # the first row ends at a segment's end, the others within the next
    arrays, parameters = (x, d, b, c, skip, h, open_x, open_d, open_b, fill), {"s_h": 15, "s_y": 8}
    with variant("segments of chunks"):
        got = backend.call("ssd_chunk_scan", [backend.load(array) for array in arrays], parameters)
    for result, want in zip(got, ops.ssd_chunk_scan(*arrays, **parameters), strict=True):
        np.testing.assert_array_equal(backend.store(result), want)
