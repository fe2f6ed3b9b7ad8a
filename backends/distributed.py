"""Data-parallel ranks: exact sums over `torch.distributed`, so that their number changes no integer.

Ranks on CUDA devices talk through NCCL, others through gloo.
"""

import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from multiprocessing import parent_process
from multiprocessing.connection import wait
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing

from .protocol import BackendError

SILENCE = timedelta(minutes=10)


class RankError(BackendError):
    """A rank that died or failed: names it and how it ended."""


class Ranks:
    """What the ranks of a run exchange: sums and maxima of integers. Arrays are NumPy's or Torch's."""

    def __init__(self, device: str):
        self.rank, self.ranks = dist.get_rank(), dist.get_world_size()
        self.device = device if device.startswith("cuda") else "cpu"

    def sum(self, arrays: list[Any]) -> list[Any]:
        return [self._reduce(array, dist.ReduceOp.SUM) for array in arrays]

    def max(self, array: np.ndarray) -> np.ndarray:
        return self._reduce(array, dist.ReduceOp.MAX)

    def _reduce(self, array: Any, how: Any) -> Any:
        if isinstance(array, torch.Tensor):
            total = array.clone()
            dist.all_reduce(total, how)
            return total
        total = torch.tensor(array, device=self.device)
        dist.all_reduce(total, how)
        return total.cpu().numpy()


@contextmanager
def joined(rank: int, ranks: int, device: str, address: str) -> Iterator[Ranks]:
    """Join the ranks of a run for the time of the block."""
    kind = "nccl" if device.startswith("cuda") else "gloo"
    if kind == "nccl":
        torch.cuda.set_device(torch.device(device))
    dist.init_process_group(kind, init_method=address, rank=rank, world_size=ranks, timeout=SILENCE)
    try:
        yield Ranks(device)
    finally:
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
        A rank died or raised.
    """
    context = multiprocessing.get_context("spawn")
    threads = str(max(1, len(os.sched_getaffinity(0)) // ranks))
    os.environ |= {"NUMBA_NUM_THREADS": threads, "OMP_NUM_THREADS": threads}
    processes = [context.Process(target=_run_rank, args=(work, rank, *arguments), daemon=True) for rank in range(ranks)]
    for process in processes:
        process.start()
    running = dict(enumerate(processes))
    try:
        while running:
            wait([process.sentinel for process in running.values()])
            ended = {rank: process for rank, process in running.items() if not process.is_alive()}
            codes = {rank: process.exitcode or 0 for rank, process in ended.items()}
            # A rank that was killed takes the others with it, so name it rather than them.
            for rank in sorted(codes, key=lambda rank: codes[rank]):
                if code := codes[rank]:
                    how = f"signal {-code}" if code < 0 else f"exit code {code}"
                    raise RankError(
                        f"rank {rank} of {ranks} ended with {how}; --resume goes on from the last checkpoint"
                    )
            running = {rank: process for rank, process in running.items() if rank not in ended}
    finally:
        for process in running.values():
            process.terminate()
            process.join()


def _run_rank(work: Callable[..., None], rank: int, *arguments: Any) -> None:
    threading.Thread(target=_die_with_parent, daemon=True).start()
    work(rank, *arguments)


def _die_with_parent() -> None:
    """End this process with the one that launched it, however that ends: an orphan would train on in its folder."""
    if parent := parent_process():
        wait([parent.sentinel])
        os._exit(1)
