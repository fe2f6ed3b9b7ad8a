"""Torch versions of ``spec.ops.packing``."""

import torch
from torch.nn.functional import pad

from mamba_integer.spec import ops
from mamba_integer.spec.contract import implements


@implements(ops.pack_ternary)
def pack_ternary(w):
    return pack(w.int() & 3, 4, 4, 0)


@implements(ops.unpack_ternary)
def unpack_ternary(packed, *, K):
    shifts = torch.arange(0, 8, 2, device=packed.device)
    codes = ((packed.int()[..., None] >> shifts) & 3).reshape(*packed.shape[:-1], packed.shape[-1] * 4)
    return ((codes[..., :K] ^ 2) - 2).to(torch.int8)


@implements(ops.pack_trits)
def pack_trits(w):
    return pack(w.int() + 1, 3, 5, 1)


@implements(ops.unpack_trits)
def unpack_trits(packed, *, K):
    powers = 3 ** torch.arange(5, device=packed.device)
    codes = (packed.int()[..., None] // powers % 3).reshape(*packed.shape[:-1], packed.shape[-1] * 5)
    return (codes[..., :K] - 1).to(torch.int8)


def pack(codes, base, width, padding):
    """Return groups of ``width`` codes as the integer with these digits in the given base, lowest first."""
    groups = pad(codes, (0, -codes.shape[-1] % width), value=padding)
    return sum(groups[..., i::width] * base**i for i in range(width)).to(torch.uint8)


__all__ = ["pack_ternary", "pack_trits", "unpack_ternary", "unpack_trits"]
