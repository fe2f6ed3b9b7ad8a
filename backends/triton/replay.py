"""A function of arrays and integers, computed again and again: on a CUDA device, as a graph that is captured once.

The host then launches a graph instead of preparing thousands of kernels. The graph reads arrays where they lay when it
was captured, so that new ones are copied there. Integers that change from call to call lie in memory too, where
`integers.scalar` finds them: a function that looks at one can't be captured, and fails.
"""

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Any

import torch

from .launch import replayable, table

PITCH = 4  # of int32 integers in memory: each starts where the widest load may


def replayed(function: Callable[[Mapping[str, Any], Mapping[str, Any]], Any]) -> "Replay":
    """Return what computes a function; a result's arrays keep their values until the next call."""
    return Replay(function)


class Replay:
    def __init__(self, function: Callable[[Mapping[str, Any], Mapping[str, Any]], Any]):
        self.function = function
        self.arrays: dict[str, torch.Tensor] = {}
        self.integers: dict[str, torch.Tensor] = {}
        self.graph: torch.cuda.CUDAGraph | None = None
        self.result: Any = None

    def __call__(self, arrays: Mapping[str, torch.Tensor], integers: Mapping[str, int]) -> Any:
        """Return the function's result for these arrays, all on one device, and these integers of 32 bits."""
        device = next(iter(arrays.values())).device
        on_cuda = device.type == "cuda"
        with replayable(), torch.cuda.device(device) if on_cuda else nullcontext():
            known = bool(self.arrays)
            self.put(arrays, integers)
            if not (known and on_cuda):  # the first call compiles and loads kernels, for which a capture has no room
                return self.function(self.arrays, self.integers)
            if self.graph is None:
                self.graph, self.result = self.captured()
            self.graph.replay()
        return self.result

    def put(self, arrays: Mapping[str, torch.Tensor], integers: Mapping[str, int]) -> None:
        """Copy arrays and integers to where the function reads them."""
        if not self.arrays:
            self.arrays = {name: torch.empty_like(array) for name, array in arrays.items()}
            device = next(iter(arrays.values())).device
            self.memory = torch.zeros((len(integers), PITCH), dtype=torch.int32, device=device)
            self.integers = dict(zip(integers, self.memory[:, :1].unbind(), strict=True))
        torch._foreach_copy_(list(self.arrays.values()), [arrays[name] for name in self.arrays])
        self.memory[:, 0].copy_(table([integers[name] for name in self.integers], self.memory.device))

    def captured(self) -> tuple[torch.cuda.CUDAGraph, Any]:
        """Return a graph of the function, and the result that each replay fills anew."""
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            result = self.function(self.arrays, self.integers)
        return graph, result


__all__ = ["replayed"]
