"""A function of arrays and integers, computed again and again: on a CUDA device, as a graph that is captured once.

The host then launches a graph instead of preparing thousands of kernels. The graph reads arrays where they lay when it
was captured, so that new ones are copied there. Integers that change from call to call lie in memory too, where
`integers.scalar` finds them: a function that looks at one can't be captured, and fails.
"""

import gc
import threading
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Any

import torch

from mamba_integer.backends.torch.arrays import copy_all

from .launch import Zeros, replayable, table

PITCH = 4  # of int32 integers in memory: each starts where the widest load may
MOST_GRAPHS = 4  # of one repeated function: each holds its inputs and its results

Arrays = Mapping[str, torch.Tensor]


Take = Callable[[Any], None]
Function = Callable[[Mapping[str, Any], Mapping[str, Any], Take], Any]


def replayed(function: Function) -> "Replay":
    """Return what computes ``function(arrays, integers, take)`` for arrays of one shape, and integers of 32 bits.

    The function may hand parts of its result to ``take``, which works on while the rest is computed. Its results keep
    their values until the next call.
    """
    return Replay(function)


class Replay:
    """A function's calls.

    Graphs with one ``pool`` share memory: a call of one of them ends what is in the results of the others.
    """

    def __init__(self, function: Function, pool: Any = None):
        self.function, self.pool = function, pool
        self.arrays: dict[str, torch.Tensor] = {}
        self.integers: dict[str, torch.Tensor] = {}
        self.parts: list[tuple[torch.cuda.CUDAGraph, Any]] = []  # the last part is the result

    def __call__(self, arrays: Arrays, integers: Mapping[str, int], take: Take) -> Any:
        """Return the function's result for these arrays, all on one device, and these integers."""
        device = next(iter(arrays.values())).device
        on_cuda = device.type == "cuda"
        with torch.cuda.device(device) if on_cuda else nullcontext():
            known = bool(self.arrays)
            self.put(arrays, integers)
            if not (known and on_cuda):  # the first call compiles and loads kernels, for which a capture has no room
                return self.computed(take)
            self.parts = self.parts or self.captured()
            *before, (graph, result) = self.parts
            for earlier, part in before:
                earlier.replay()
                take(part)
            graph.replay()
        return result

    def put(self, arrays: Arrays, integers: Mapping[str, int]) -> None:
        """Copy arrays and integers to where the function reads them."""
        if not self.arrays:
            self.arrays = {name: torch.empty_like(array) for name, array in arrays.items()}
            device = next(iter(arrays.values())).device
            self.zeros = Zeros(device)
            self.memory = torch.zeros((len(integers), PITCH), dtype=torch.int32, device=device)
            self.integers = dict(zip(integers, self.memory[:, :1].unbind(), strict=True))
        copy_all(list(self.arrays.values()), [arrays[name] for name in self.arrays])
        if integers:
            self.memory[:, 0].copy_(table([integers[name] for name in self.integers], self.memory.device))

    def computed(self, take: Take) -> Any:
        with replayable(self.zeros):
            return self.function(self.arrays, self.integers, take)

    def captured(self) -> list[tuple[torch.cuda.CUDAGraph, Any]]:
        """Return graphs of the function, each with the part of the result that it leaves: a new one after each part."""
        torch.cuda.synchronize()
        gc.collect()  # what is freed during a capture may need what a capture has no room for
        torch.cuda.empty_cache()
        self.pool = self.pool or torch.cuda.graph_pool_handle()
        parts: list[tuple[torch.cuda.CUDAGraph, Any]] = []
        graph = torch.cuda.CUDAGraph()

        def begin() -> None:
            # Other threads, such as one that watches the exchange of ranks, go on with what a capture has no room for.
            graph.capture_begin(pool=self.pool, capture_error_mode="thread_local")

        def cut(part: Any) -> None:
            nonlocal graph
            graph.capture_end()
            parts.append((graph, part))
            graph = torch.cuda.CUDAGraph()
            begin()

        with torch.cuda.stream(torch.cuda.Stream()):
            begin()
            try:
                result = self.computed(cut)
            finally:
                graph.capture_end()
        return [*parts, (graph, result)]


def copies(arrays: Arrays) -> dict[str, torch.Tensor]:
    """Return a copy of each array."""
    targets = {name: torch.empty(array.shape, dtype=array.dtype, device=array.device) for name, array in arrays.items()}
    copy_all(list(targets.values()), list(arrays.values()))
    return targets


def ignored(part: Any) -> None:
    """Take a part of a result that isn't needed early."""


def repeated(function: Callable[..., Arrays]) -> "Repetition":
    """Return what computes ``function(arrays, *constants)`` faster for constants and shapes that it has seen before.

    Its results, arrays by name as those that it takes, are the caller's.
    """
    return Repetition(function)


class Repetition:
    """A function's calls from any thread and stream; its graphs share memory, so that one runs at a time."""

    def __init__(self, function: Callable[..., Arrays]):
        self.function = function
        self.replays: dict[Any, Replay] = {}  # the latest comes last
        self.lock = threading.Lock()
        self.pool: Any = None
        self.end: torch.cuda.Event | None = None  # of the last call

    def __call__(self, arrays: Arrays, *constants: Any) -> Arrays:
        device = next(iter(arrays.values())).device
        on_cuda = device.type == "cuda"
        if on_cuda and torch.cuda.is_current_stream_capturing():  # the caller's own graph
            return self.function(arrays, *constants)
        key = constants, device, tuple((name, array.shape, array.dtype) for name, array in arrays.items())
        # No other call could write to an array that a call in inference mode made.
        with self.lock, torch.inference_mode(False), torch.no_grad():
            if on_cuda and self.end:
                torch.cuda.current_stream(device).wait_event(self.end)
            result = copies(self.replay_of(key, on_cuda)(arrays, {}, ignored))
            if on_cuda:
                self.end = torch.cuda.current_stream(device).record_event()
        return result

    def replay_of(self, key: Any, on_cuda: bool) -> Replay:
        """Return what replays the calls of a key; the one that was needed longest ago makes room for a new one."""
        replay = self.replays.pop(key, None)
        if replay is None:
            if len(self.replays) == MOST_GRAPHS:
                if self.end:
                    self.end.synchronize()
                del self.replays[next(iter(self.replays))]
            if on_cuda and self.pool is None:
                self.pool = torch.cuda.graph_pool_handle()
            constants = key[0]
            replay = Replay(lambda arrays, *_: self.function(arrays, *constants), self.pool)
        self.replays[key] = replay
        return replay


__all__ = ["repeated", "replayed"]
