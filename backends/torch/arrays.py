"""Conversion of NumPy arrays to Torch tensors and back."""

import numpy as np
import torch

from mamba_integer.spec.arrays import ArrayKind

ARRAYS = ArrayKind((torch.Tensor,), "a Torch tensor: torch.from_numpy, Backend.load")


def default_device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def from_numpy(array: np.ndarray, device: str) -> torch.Tensor:
    """Return a contiguous tensor on ``device`` that shares nothing with the array, whose strides may be negative."""
    return torch.from_numpy(array.copy(order="C")).to(device)


def to_numpy(tensor: torch.Tensor) -> np.ndarray:
    return tensor.cpu().numpy()


def concatenate(arrays: list[torch.Tensor], axis: int) -> torch.Tensor:
    return torch.cat(arrays, axis)


def copy_all(targets: list[torch.Tensor], sources: list[torch.Tensor]) -> None:
    """Copy each array: one launch for many arrays of a type."""
    kinds: dict[torch.dtype, tuple[list[torch.Tensor], list[torch.Tensor]]] = {}
    for target, source in zip(targets, sources, strict=True):
        of_kind = kinds.setdefault(target.dtype, ([], []))
        of_kind[0].append(target)
        of_kind[1].append(source)
    for of_kind in kinds.values():
        torch._foreach_copy_(*of_kind)
