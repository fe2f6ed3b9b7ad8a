"""Conversion of NumPy arrays to Torch tensors and back."""

import numpy as np
import torch
from torch._subclasses import FakeTensor

from mamba_integer.spec.arrays import NUMPY, ArrayKind, Fault, type_text

PLAIN = torch.Tensor, torch.nn.Parameter


def plain_fault(tensor: torch.Tensor, types: tuple[type, ...] = PLAIN) -> Fault | None:
    """Return why a tensor isn't a dense one of these types, or None."""
    if tensor.is_nested:
        return "a nested tensor", "a plain torch.Tensor: each of Tensor.unbind()"
    if type(tensor) not in types:
        remedy = "Tensor.as_subclass(torch.Tensor); of a masked tensor, MaskedTensor.to_tensor(value)"
        return type_text(tensor), f"a plain torch.Tensor: {remedy}"
    if tensor.layout != torch.strided:
        return f"layout {tensor.layout}", "torch.strided: Tensor.to_dense()"
    return None


def unread(tensor: torch.Tensor) -> Fault | None:
    """Return why the values of a tensor can't be checked, or None."""
    if tensor.is_meta or isinstance(tensor, FakeTensor):
        return "a meta or fake tensor", "a tensor with values: backends.torch.custom_ops takes one without"
    return None


def plain_or_fake_fault(tensor: torch.Tensor) -> Fault | None:
    """Return why a tensor can be neither computed with nor asked for shapes alone, or None."""
    return plain_fault(tensor, (*PLAIN, FakeTensor))


ARRAYS = ArrayKind((torch.Tensor,), "a Torch tensor: torch.from_numpy, Backend.load", plain_or_fake_fault, unread)


def default_device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def from_numpy(array: np.ndarray, device: str) -> torch.Tensor:
    """Return a contiguous tensor on ``device`` that shares nothing with the array, whose strides may be negative."""
    NUMPY.check("from_numpy", "array", array)
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
