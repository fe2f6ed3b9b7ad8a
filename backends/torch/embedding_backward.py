"""Torch versions of ``spec.ops.embedding_backward``."""

import torch

from mamba_integer.spec import ops
from mamba_integer.spec.contract import implements


@implements(ops.embedding_backward)
def embedding_backward(ids, dy, *, V):
    D = dy.shape[-1]
    dtable = torch.zeros(V, D, dtype=torch.int64, device=dy.device)
    return dtable.index_add_(0, ids.reshape(-1), dy.reshape(ids.numel(), D).long())


__all__ = ["embedding_backward"]
