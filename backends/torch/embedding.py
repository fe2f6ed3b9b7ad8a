"""Torch versions of ``spec.ops.embedding``."""

from mamba_integer.spec import ops
from mamba_integer.spec.contract import implements


@implements(ops.embedding)
def embedding(ids, table, *, shift):
    return table[ids.long()].int() << shift


__all__ = ["embedding"]
