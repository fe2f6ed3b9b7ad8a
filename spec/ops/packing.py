"""Ternary weights as bytes: two bits per digit for computing, five digits per byte for files."""

from __future__ import annotations

import numpy as np

from ..arrays import Int8Array, UInt8Array
from ..bounds import Interval, Width
from ..contract import PackedTernary, PackedTrits, Parameter, Tensor, op

DIGITS = Tensor("w", "int8", "... K", low=-1, high=1, meaning="ternary digits")
SIZES = {"K": (1, 2**24)}
LENGTH = Parameter("K", 1, 2**24, "number of digits; the rest of the last byte is padding")


@op(
    inputs=(DIGITS,),
    outputs=(PackedTernary("packed", "uint8", "... K/4", meaning="packed digits"),),
    sizes=SIZES,
    clauses={
        "C1": "digit 0 is code 00, 1 is 01, -1 is 11: the low two bits of its two's complement",
        "C2": "digit k is in bits 2*(k mod 4) and up of byte k div 4",
        "C3": "the codes after the last digit are 00",
    },
    widths=lambda at: {"packed": Width(Interval(0, 4 ** min(at.K, 4) - 1), "uint8")},
)
def pack_ternary(w: Int8Array, /) -> UInt8Array:
    """Pack ternary digits as 2-bit codes (C1), four per byte along the last dimension (C2), zero-padded (C3).

    Examples
    --------
    >>> pack_ternary(np.array([1, -1, 0, 1, -1], np.int8)).tolist()
    [77, 3]
    """
    digits = w.shape[-1]
    codes = np.zeros((*w.shape[:-1], -(-digits // 4) * 4), np.int64)
    codes[..., :digits] = w.astype(np.int64) & 3
    packed = codes[..., 0::4] | (codes[..., 1::4] << 2) | (codes[..., 2::4] << 4) | (codes[..., 3::4] << 6)
    return packed.astype(np.uint8)


@op(
    inputs=(PackedTernary("packed", "uint8", "... K/4", meaning="packed digits"),),
    outputs=(DIGITS,),
    parameters=(LENGTH,),
    clauses={"C1": "w is the only array of K digits with pack_ternary(w) = packed"},
    widths=lambda at: {"w": Width(Interval(-1, 1), "int8")},
    inverse_of="pack_ternary",
)
def unpack_ternary(packed: UInt8Array, /, *, K: int) -> Int8Array:
    """Unpack the K ternary digits that `pack_ternary` packed (C1).

    Examples
    --------
    >>> unpack_ternary(np.array([77, 3], np.uint8), K=5).tolist()
    [1, -1, 0, 1, -1]
    """
    codes = (packed.astype(np.int64)[..., None] >> np.array([0, 2, 4, 6])) & 3
    digits = codes.reshape(*packed.shape[:-1], packed.shape[-1] * 4)[..., :K]
    return ((digits ^ 2) - 2).astype(np.int8)


def pack_trits_widths(at):
    # A byte of fewer than five digits has code 1 in each of the others.
    used = min(at.K, 5)
    padding = sum(3**i for i in range(used, 5))
    return {"packed": Width(Interval(padding, padding + 3**used - 1), "uint8")}


TRITS = PackedTrits("packed", "uint8", "... K/5", high=242, meaning="packed digits")


@op(
    inputs=(DIGITS,),
    outputs=(TRITS,),
    sizes=SIZES,
    clauses={
        "C1": "byte j is the sum of (w[5j + i] + 1) * 3**i for i from 0 to 4",
        "C2": "the digits after the last are 0",
    },
    widths=pack_trits_widths,
)
def pack_trits(w: Int8Array, /) -> UInt8Array:
    """Pack ternary digits in base 3, five per byte (C1), zero-padded (C2): 1.6 bits per digit, for files.

    Examples
    --------
    >>> pack_trits(np.array([1, -1, 0, 1, -1, 1], np.int8)).tolist()
    [65, 122]
    """
    digits = w.shape[-1]
    codes = np.ones((*w.shape[:-1], -(-digits // 5) * 5), np.int64)
    codes[..., :digits] = w.astype(np.int64) + 1
    packed = sum(codes[..., i::5] * 3**i for i in range(5))
    return packed.astype(np.uint8)


@op(
    inputs=(TRITS,),
    outputs=(DIGITS,),
    parameters=(LENGTH,),
    clauses={"C1": "w is the only array of K digits with pack_trits(w) = packed"},
    widths=lambda at: {"w": Width(Interval(-1, 1), "int8")},
    inverse_of="pack_trits",
)
def unpack_trits(packed: UInt8Array, /, *, K: int) -> Int8Array:
    """Unpack the K ternary digits that `pack_trits` packed (C1).

    Examples
    --------
    >>> unpack_trits(np.array([65, 122], np.uint8), K=6).tolist()
    [1, -1, 0, 1, -1, 1]
    """
    codes = packed.astype(np.int64)[..., None] // np.array([1, 3, 9, 27, 81]) % 3
    return (codes - 1).reshape(*packed.shape[:-1], packed.shape[-1] * 5)[..., :K].astype(np.int8)


__all__ = ["pack_ternary", "pack_trits", "unpack_ternary", "unpack_trits"]
