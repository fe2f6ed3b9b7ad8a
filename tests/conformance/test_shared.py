"""Inputs that share memory are handed over so, and results tell each of the two."""

import numpy as np
import pytest

from mamba_integer import spec
from mamba_integer.backends import Backend, load
from mamba_integer.conformance.engine.generated import listing_of
from mamba_integer.conformance.engine.layouts import CONTIGUOUS, place_all
from mamba_integer.conformance.engine.shared import WAYS, shared_plans
from mamba_integer.conformance.presets import PRESETS

GOLDEN = Backend("golden", spec)


def shared(op: str) -> dict[str, bool]:
    """Return the points of an op's calls, and whether two of the arguments share memory."""
    found = {}
    named = {one.points for one in shared_plans(op)}
    for one in listing_of(op, PRESETS["minimal"].line).plans:  # which an earlier process may have made
        case = one.make() if one.points in named else None
        if case:
            views = [p.view for p in place_all(GOLDEN, case.arrays, (CONTIGUOUS,) * len(case.arrays))]
            pairs = [np.shares_memory(a, b) for i, a in enumerate(views) for b in views[:i]]
            found[one.points[0]] = any(pairs)
    return found


@pytest.mark.parametrize(
    "op, pair",
    [
        ("saturate_backward", "dy and y"),
        ("dyadic_rotate_inverse", "lam and gam"),
        ("selective_scan", "x and mod"),
        ("selective_scan_step", "x and base"),
        ("causal_conv1d", "x and state"),
        ("ternary_linear_backward_weight", "dy and q"),
        ("ssd_chunk_scan", "b and open_b"),
        ("bitshift_norm_backward", "gamma and dy"),
        ("lion_update", "w and m"),
    ],
)
def test_two_inputs_whose_shapes_may_be_equal_share_memory(op, pair):
    found = shared(op)
    assert all(found.values()) and {f"{pair} are one array of common integers", f"{pair} overlap"} <= found.keys()
    assert all(point.split(" ", 3)[3] in WAYS for point in found)


@pytest.mark.parametrize("name", ["golden", "torch"])
def test_overlapping_views_hold_the_integers_of_both(name):
    backend = load(name, "cpu")
    before, after = np.array([[1, 2], [3, 4]], np.int16), np.array([[2, 3], [4, 5]], np.int16)
    placed = place_all(backend, (before, after), (CONTIGUOUS,) * 2)
    assert [backend.store(one.view).tolist() for one in placed] == [before.tolist(), after.tolist()]
    placed[0].view[1, 1] = 7
    assert backend.store(placed[1].view).tolist() == [[2, 3], [7, 5]]
