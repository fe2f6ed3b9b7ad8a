"""Data-parallel ranks: exact sums over `torch.distributed`, so that their number changes no integer.

Ranks on CUDA devices talk through NCCL, others through gloo.
"""

import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from multiprocessing import parent_process
from multiprocessing.connection import wait
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing

from .processors import cores, variables
from .protocol import BackendError
from .torch.arrays import from_numpy, to_numpy

SILENCE = timedelta(minutes=10)
PIECE = 1 << 22  # elements from which an exchange starts: about those of a layer
INT32_END = 1 << 31


class RankError(BackendError):
    """A rank that died or failed: names it and how it ended, or tells what it met."""


class Ranks:
    """The exchange of integers between the ranks of a run: sums and maxima of NumPy or Torch arrays."""

    def __init__(self, device: str):
        self.rank, self.ranks = dist.get_rank(), dist.get_world_size()
        self.device = device if device.startswith("cuda") else "cpu"
        self.wide: set[tuple[int, int]] = set()

    def sum(self, arrays: list[Any]) -> list[Any]:
        """Return the sum of each array over the ranks, in its dtype."""
        sums = self.sums()
        for array in arrays:
            sums.add(array)
        return sums.totals()

    def sums(self) -> "Sums":
        """Return sums over the ranks to which arrays are added as they are made."""
        return Sums(self.ranks, self.device, self.wide)

    def max(self, array: np.ndarray) -> np.ndarray:
        largest = from_numpy(array, self.device)
        dist.all_reduce(largest, dist.ReduceOp.MAX)
        return to_numpy(largest)


@dataclass
class Piece:
    """Arrays of one dtype that travel together. ``end`` is the largest distance of an int64 from 0 or -1."""

    tensors: list[torch.Tensor]
    total: torch.Tensor
    work: Any = None
    end: torch.Tensor | None = None

    def unpacked(self) -> list[torch.Tensor]:
        parts = self.total.to(self.tensors[0].dtype).split([tensor.numel() for tensor in self.tensors])
        return [part.view(tensor.shape) for part, tensor in zip(parts, self.tensors, strict=True)]


class Sums:
    """Exact sums over the ranks; a piece of the arrays travels while the next ones are computed.

    Arrays of int64 travel as int32. Whether every sum fits is asked once for all pieces, with the totals; a piece with
    a sum that doesn't travels again, as int64. The next exchange sends a piece of that place and size as int64 at once,
    and as int32 again after one whose sums would have fitted: all ranks know the same of it.
    """

    def __init__(self, ranks: int, device: str, wide: set[tuple[int, int]]):
        self.ranks, self.device, self.wide = ranks, device, wide
        self.arrays: list[Any] = []
        self.waiting: list[torch.Tensor] = []
        self.pieces: list[Piece] = []

    def add(self, array: Any) -> None:
        self.arrays.append(array)
        tensor = array if isinstance(array, torch.Tensor) else from_numpy(array, self.device)
        if self.waiting and tensor.dtype != self.waiting[0].dtype:
            self._start()
        self.waiting.append(tensor)
        if sum(waiting.numel() for waiting in self.waiting) >= PIECE:
            self._start()

    def totals(self) -> list[Any]:
        """Return the sum of each array that was added, in its order and dtype."""
        if self.waiting:
            self._start()
        measured = {i: piece.end for i, piece in enumerate(self.pieces) if piece.end is not None}
        if measured:
            ends = torch.stack(list(measured.values()))
            dist.all_reduce(ends, dist.ReduceOp.MAX)
        for piece in self.pieces:
            if piece.work:
                piece.work.wait()
        for i, end in zip(measured, ends.tolist() if measured else (), strict=True):
            piece = self.pieces[i]
            place = i, piece.total.numel()
            if (end + 1) * self.ranks <= INT32_END:
                self.wide.discard(place)
                continue
            self.wide.add(place)
            if piece.total.dtype != torch.int64:
                piece.total = flattened(piece.tensors)
                dist.all_reduce(piece.total)
        totals = (total for piece in self.pieces for total in piece.unpacked())
        return [to_numpy(t) if isinstance(a, np.ndarray) else t for a, t in zip(self.arrays, totals, strict=True)]

    def _start(self) -> None:
        piece = Piece(self.waiting, flattened(self.waiting))
        self.waiting = []
        self.pieces.append(piece)
        if not piece.total.numel():
            return
        if piece.total.dtype == torch.int64:
            low, high = torch.aminmax(piece.total)
            piece.end = torch.maximum(-1 - low, high)
            if (len(self.pieces) - 1, piece.total.numel()) not in self.wide:
                piece.total = piece.total.to(torch.int32)
        piece.work = dist.all_reduce(piece.total, async_op=True)


def flattened(tensors: list[torch.Tensor]) -> torch.Tensor:
    return torch.cat([tensor.reshape(-1) for tensor in tensors])


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


def free_address() -> str:
    """Return an address on this machine at which ranks can meet."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"tcp://127.0.0.1:{probe.getsockname()[1]}"


def launch(ranks: int, work: Callable[..., None], *arguments: Any) -> None:
    """Run ``work(rank, *arguments)`` in one process a rank; end them all when one of them fails, or this process dies.

    Raises
    ------
    RankError
        A rank died or raised: with the message of its own RankError, if it was one.
    """
    context = multiprocessing.get_context("spawn")
    threads = max(1, cores() // ranks)
    failures = context.SimpleQueue()
    processes = [
        context.Process(target=_run_rank, args=(failures, work, rank, *arguments), daemon=True) for rank in range(ranks)
    ]
    try:
        with _interrupts_ignored(), variables({"NUMBA_NUM_THREADS": threads, "OMP_NUM_THREADS": threads}):
            for process in processes:
                process.start()
        running = processes
        while running:
            wait([process.sentinel for process in running])
            codes = [process.exitcode for process in processes]
            if any(codes):
                raise RankError(_cause(codes, failures))
            running = [process for process, code in zip(processes, codes, strict=True) if code is None]
    finally:
        alive = [process for process in processes if process.is_alive()]
        for process in alive:
            process.terminate()
        for process in alive:
            process.join()


@contextmanager
def _interrupts_ignored() -> Iterator[None]:
    """Ignore Ctrl-C in processes that are started in the block: it reaches them too, but their parent ends them."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _cause(codes: Sequence[int | None], failures: Any) -> str:
    """Return why the first rank failed, which takes the others with it: one that was killed, or the first to tell."""
    code, rank = min((code, rank) for rank, code in enumerate(codes) if code)
    if code > 0 and not failures.empty():
        return failures.get()
    ending = f"signal {-code}" if code < 0 else f"exit code {code}"
    return f"rank {rank} of {len(codes)} ended with {ending}; --resume goes on from the last checkpoint"


def _run_rank(failures: Any, work: Callable[..., None], rank: int, *arguments: Any) -> None:
    threading.Thread(target=_die_with_parent, daemon=True).start()
    try:
        work(rank, *arguments)
    except Exception as error:
        expected = isinstance(error, RankError)
        failures.put(str(error) if expected else f"rank {rank}: internal error: {type(error).__name__}: {error}")
        os._exit(1)  # an orderly exit may wait for exchanges that the others never join


def _die_with_parent() -> None:
    """End this process with the one that launched it, however that ends: an orphan would train on in its folder."""
    if parent := parent_process():
        wait([parent.sentinel])
        os._exit(1)
