"""Data-parallel ranks: exact sums over `torch.distributed`, so that their number changes no integer.

Ranks on CUDA devices talk through NCCL, others through gloo.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from .torch.arrays import from_numpy, to_numpy

SILENCE = timedelta(minutes=10)
PIECE = 1 << 22  # elements from which an exchange starts: about those of a layer
INT32_END = 1 << 31
ALIGNMENT = 16  # bytes of the widest load: each array starts at a multiple


class Ranks:
    """The exchange of integers between the ranks of a run: sums of NumPy or Torch arrays."""

    def __init__(self, device: str):
        self.rank, self.ranks = dist.get_rank(), dist.get_world_size()
        self.device = device if device.startswith("cuda") else "cpu"
        self.wide: set[tuple[int, int]] = set()

    def sum(self, arrays: list[Any]) -> list[Any]:
        """Return the sum of each array over the ranks, in its dtype."""
        totals = [self.dense(array).clone() for array in arrays]
        for total in totals:
            dist.all_reduce(total)
        return [like(array, total) for array, total in zip(arrays, totals, strict=True)]

    def sums(self, narrow: bool = False) -> "Sums":
        """Return sums over the ranks to which int64 arrays are added as they are made.

        If ``narrow``, a sum that travelled as int32 stays so.
        """
        return Sums(self, narrow)

    def dense(self, array: Any) -> torch.Tensor:
        return array.contiguous() if isinstance(array, torch.Tensor) else from_numpy(array, self.device)

    def gathered(self, numbers: torch.Tensor) -> np.ndarray:
        """Return the numbers of every rank, in a row each."""
        received = [torch.empty_like(numbers) for _ in range(self.ranks)]
        dist.all_gather(received, numbers)
        return to_numpy(torch.stack(received))


def like(array: Any, tensor: torch.Tensor) -> Any:
    """Return a tensor as an array of the same kind as ``array``."""
    return to_numpy(tensor) if isinstance(array, np.ndarray) else tensor


@dataclass
class Piece:
    """Arrays that travel together, at these places among all: ``sums`` are views of what travels."""

    places: list[int]
    sums: list[torch.Tensor]
    ends: torch.Tensor  # the largest distance of an element of each array from 0 or -1
    work: Any


class Sums:
    """Exact sums of int64 arrays over the ranks; a piece of the arrays travels while the next ones are computed.

    An array travels as int32. Whether every sum fits is asked once for all arrays, in `settle`; one with a sum that
    doesn't travels again, as int64. The next exchange sends an array of that place and size as int64 at once, and as
    int32 again after one whose sums would have fitted: all ranks know the same of it.
    """

    def __init__(self, ranks: Ranks, narrow: bool):
        self.ranks, self.narrow = ranks, narrow
        self.arrays: list[Any] = []
        self.tensors: list[torch.Tensor] = []
        self.waiting: dict[torch.dtype, list[int]] = {torch.int32: [], torch.int64: []}
        self.pieces: list[Piece] = []
        self.again: dict[int, torch.Tensor] = {}  # the sums that have travelled again, by their places

    def add(self, array: Any) -> None:
        place, tensor = len(self.arrays), self.ranks.dense(array)
        self.arrays.append(array)
        self.tensors.append(tensor)
        dtype = torch.int64 if (place, tensor.numel()) in self.ranks.wide else torch.int32
        self.waiting[dtype].append(place)
        if sum(self.tensors[waiting].numel() for waiting in self.waiting[dtype]) >= PIECE:
            self._start(dtype)

    def totals(self) -> list[Any]:
        """Return the sum of each array, in their order, which a device may still be computing.

        Until `settle` says that every sum has fitted, a sum may be wrong.
        """
        for dtype, waiting in self.waiting.items():
            if waiting:
                self._start(dtype)
        sums: dict[int, torch.Tensor] = {}
        for piece in self.pieces:
            if piece.work:
                piece.work.wait()
                piece.work = None
            sums |= zip(piece.places, piece.sums, strict=True)
        sums |= self.again
        if not self.narrow:
            sums = {place: total.to(torch.int64) for place, total in sums.items()}
        return [like(array, sums[place]) for place, array in enumerate(self.arrays)]

    def settle(self, numbers: np.ndarray) -> tuple[np.ndarray, bool]:
        """Return the ``numbers`` of every rank, int64, in a row each, and whether `totals` were right.

        If not, they are from now on.
        """
        places = [place for piece in self.pieces for place in piece.places]
        sent = torch.cat([from_numpy(numbers, self.ranks.device), *(piece.ends for piece in self.pieces)])
        received, ends = np.split(self.ranks.gathered(sent), [len(numbers)], axis=1)
        fits = dict(zip(places, ends.max(0) < INT32_END // self.ranks.ranks, strict=True))
        for place in sorted(places):
            known = place, self.tensors[place].numel()
            if fits[place]:
                self.ranks.wide.discard(known)
            elif known not in self.ranks.wide:
                self.ranks.wide.add(known)
                self.again[place] = self.tensors[place].clone()
                dist.all_reduce(self.again[place])
        return received, not self.again

    def _start(self, dtype: torch.dtype) -> None:
        places, self.waiting[dtype] = self.waiting[dtype], []
        tensors = [self.tensors[place] for place in places]
        rooms = [-(-tensor.numel() * dtype.itemsize // ALIGNMENT) * ALIGNMENT // dtype.itemsize for tensor in tensors]
        total = torch.empty(sum(rooms), dtype=dtype, device=tensors[0].device)
        parts = zip(total.split(rooms), tensors, strict=True)
        sums = [part[: tensor.numel()].view(tensor.shape) for part, tensor in parts]
        ends = moved(tensors, sums)
        work = dist.all_reduce(total, async_op=True) if total.numel() else None
        self.pieces.append(Piece(places, sums, ends, work))


def moved(tensors: list[torch.Tensor], targets: list[torch.Tensor]) -> torch.Tensor:
    """Copy int64 tensors to narrower ones; return the largest distance of an element of each from 0 or -1, int64."""
    if tensors[0].is_cuda:
        from .triton.narrowing import moved_at_once  # which only a GPU needs

        return moved_at_once(tensors, targets)
    ends = torch.zeros(len(tensors), dtype=torch.int64)
    for place, (tensor, target) in enumerate(zip(tensors, targets, strict=True)):
        target.copy_(tensor)
        if tensor.numel():
            low, high = torch.aminmax(tensor)
            ends[place] = torch.maximum(-1 - low, high)
    return ends


@contextmanager
def joined(rank: int, ranks: int, device: str, address: str) -> Iterator[Ranks]:
    """Join the ranks of a run for the time of the block."""
    kind = "nccl" if device.startswith("cuda") else "gloo"
    if kind == "nccl":
        torch.cuda.set_device(torch.device(device))
    dist.init_process_group(kind, init_method=address, rank=rank, world_size=ranks, timeout=SILENCE)
    yield Ranks(device)
    # Not after an error: the others would fail of this rank's leaving, maybe before it has told why it left.
    dist.destroy_process_group()
