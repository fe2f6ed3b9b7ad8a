"""Merkle trees: one root however it is computed, a path for each hash, and the first difference in log2 rounds."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mamba_integer.backends.transcripts.tree import (
    Growing,
    first_difference,
    node,
    path_length,
    path_of,
    root_by_path,
    root_of,
)

HASHES = [hashlib.sha256(bytes([i])).digest() for i in range(40)]


def written_out(hashes):
    if len(hashes) == 1:
        return hashes[0]
    cut = max(1 << i for i in range(6) if 1 << i < len(hashes))
    return node(written_out(hashes[:cut]), written_out(hashes[cut:]))


@pytest.mark.parametrize("count", range(1, 20))
def test_a_tree_that_grows_has_the_root_of_the_definition(count):
    tree = Growing()
    for one in HASHES[:count]:
        tree.add(one)
    assert tree.count == count and tree.root() == root_of(HASHES[:count]) == written_out(HASHES[:count])


@given(st.integers(1, 40).flatmap(lambda count: st.tuples(st.just(count), st.integers(0, count - 1))))
def test_a_path_leads_to_the_root_from_its_hash_and_place_alone(drawn):
    count, index = drawn
    path = path_of(HASHES[:count], index)
    root = root_of(HASHES[:count])
    assert len(path) == path_length(index, count) <= (count - 1).bit_length()
    assert root_by_path(HASHES[index], index, count, path) == root
    other = (index + 1) % count
    if count > 1:
        assert root_by_path(HASHES[other], index, count, path) != root
        if path_length(other, count) == len(path):
            assert root_by_path(HASHES[index], other, count, path) != root


@given(st.integers(1, 40), st.sets(st.integers(0, 39), min_size=1))
def test_the_first_difference_in_log2_rounds(count, changed):
    other = [b"lie" if i in changed else one for i, one in enumerate(HASHES)]
    if not [i for i in changed if i < count]:
        return
    place, rounds = first_difference(HASHES[:count], other[:count])
    assert place == min(changed) and rounds <= (count - 1).bit_length()


def test_trees_of_different_sizes():
    assert first_difference(HASHES[:3], HASHES[:5]) == (3, 1)
    assert first_difference(HASHES[:5], [*HASHES[:2], b"lie"]) == (2, 1)
    assert first_difference([], HASHES[:1]) == (0, 1)
