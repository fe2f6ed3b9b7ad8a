"""Merkle trees: the root of a list of hashes, built as they come, and the path from one of them to the root.

The left part of a tree holds the largest power of two of hashes that is smaller than their count, as in RFC 6962, so a
tree grows without being built anew and needs memory for its height alone.
"""

import hashlib
from collections.abc import Sequence

NODE = b"\x01"


def node(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(NODE + left + right).digest()


class Growing:
    """A tree to which hashes are added at its right end."""

    def __init__(self) -> None:
        self.count = 0
        self._peaks: list[tuple[int, bytes]] = []  # full subtrees, from left to right: how many hashes, and the root

    def add(self, one: bytes) -> None:
        self.count += 1
        size = 1
        while self._peaks and self._peaks[-1][0] == size:
            one, size = node(self._peaks.pop()[1], one), 2 * size
        self._peaks.append((size, one))

    def root(self) -> bytes:
        """Return the root; the tree must hold a hash."""
        *rest, (_, result) = self._peaks
        for _, left in reversed(rest):
            result = node(left, result)
        return result


def root_of(hashes: Sequence[bytes]) -> bytes:
    tree = Growing()
    for one in hashes:
        tree.add(one)
    return tree.root()


def left_size(count: int) -> int:
    """Return how many of ``count`` hashes, two or more, the left part holds."""
    return 1 << (count - 1).bit_length() - 1


def path_of(hashes: Sequence[bytes], index: int) -> list[bytes]:
    """Return the roots of the other parts, from the one hash up to the whole tree."""
    path = []
    while len(hashes) > 1:
        cut = left_size(len(hashes))
        inside, other = (hashes[:cut], hashes[cut:]) if index < cut else (hashes[cut:], hashes[:cut])
        index -= cut if index >= cut else 0
        path.append(root_of(other))
        hashes = inside
    return path[::-1]


def path_length(index: int, count: int) -> int:
    return len(sides(index, count))


def sides(index: int, count: int) -> list[bool]:
    """Return, from the whole tree down to one hash, whether the hash lies in the left part."""
    result = []
    while count > 1:
        cut = left_size(count)
        result.append(index < cut)
        index, count = (index, cut) if index < cut else (index - cut, count - cut)
    return result


def root_by_path(one: bytes, index: int, count: int, path: Sequence[bytes]) -> bytes:
    """Return the root of the tree in which the hash ``one`` has this place and path."""
    for left, other in zip(reversed(sides(index, count)), path, strict=True):
        one = node(one, other) if left else node(other, one)
    return one


def first_difference(a: Sequence[bytes], b: Sequence[bytes]) -> tuple[int, int]:
    """Return the first place at which two unequal trees differ, and in how many rounds it was found.

    In a round each side tells the root of the left part of where the difference must lie. Where the trees have
    different sizes, so that their parts don't correspond, each side tells all its hashes in one round.
    """
    if len(a) != len(b):
        differing = (i for i, (one, other) in enumerate(zip(a, b, strict=False)) if one != other)
        return next(differing, min(len(a), len(b))), 1
    start, rounds = 0, 0
    while len(a) > 1:
        rounds += 1
        cut = left_size(len(a))
        if root_of(a[:cut]) != root_of(b[:cut]):
            a, b = a[:cut], b[:cut]
        else:
            a, b, start = a[cut:], b[cut:], start + cut
    return start, rounds
