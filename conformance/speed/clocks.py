"""Clocks and ceilings: the median time of a call, and the measured or published limits of this device."""

import statistics
import timeit
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numba
import numpy as np

LONG_SECONDS, SHORT_SECONDS = 1.0, 0.05
CALLS, REPLAYS = 10, 9  # of a graph


@dataclass(frozen=True)
class Peak:
    """Dense int8 products and 32-bit integer instructions per second, from a device's data sheet."""

    int8_multiply_adds: float
    integer_instructions: float


# 64 integer lanes per cycle and multiprocessor, at the boost clock.
PEAKS = {
    "A100": Peak(624e12 / 2, 108 * 64 * 1.41e9),
    "H100": Peak(1979e12 / 2, 132 * 64 * 1.98e9),
    "H200": Peak(1979e12 / 2, 132 * 64 * 1.98e9),
}


def peak_of(device_name: str) -> Peak | None:
    """Return the peak rates of a device by its name, or None where its data sheet isn't here."""
    return next((peak for name, peak in PEAKS.items() if name in device_name), None)


def median_seconds(call: Callable[[], object], device: str) -> float:
    """Return the median time of ``call``, device work included, after a warm-up; a GPU's L2 cache is cold before."""
    if device.startswith("cuda"):
        return cold_seconds(call, device)
    timer = timeit.Timer(call)
    count, _ = timer.autorange() if timer.timeit(1) < SHORT_SECONDS else (1, 0.0)
    return statistics.median(timer.repeat(5, count)) / count


def cold_seconds(call: Callable[[], object], device: str) -> float:
    """Return the median time of a call's kernels in a CUDA graph, where nothing waits for the host.

    Between calls an array larger than the L2 cache is read, which leaves nothing to be written back; a graph of those
    reads alone tells their time.
    """
    import torch

    with torch.cuda.device(device):
        size = 2 * torch.cuda.get_device_properties(device).L2_cache_size
        evicting = torch.zeros(size // 4, dtype=torch.int32, device=device)
        call()
        torch.cuda.synchronize()

        def graph_of(*calls: Callable[[], object]) -> Any:
            graph = torch.cuda.CUDAGraph()
            # A capture that fails leaves its own stream current.
            with torch.cuda.stream(torch.cuda.current_stream()), torch.cuda.graph(graph):
                for _ in range(CALLS):
                    for each in calls:
                        each()
            graph.replay()
            return graph

        try:
            both = graph_of(evicting.amax, call)
        except RuntimeError:  # a call that waits for the device makes no graph
            from triton.testing import do_bench

            return do_bench(call, warmup=25, rep=100, return_mode="median") / 1000
        reads = graph_of(evicting.amax)
        return (replay_seconds(both) - replay_seconds(reads)) / CALLS


def replay_seconds(graph: Any) -> float:
    import torch

    times = []
    for _ in range(REPLAYS):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        graph.replay()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end) / 1000)
    return statistics.median(times)


def copy_bandwidth(device: str) -> float:
    """Return the bytes per second, read and written, of a large copy on this device."""
    size = 1 << 30 if device.startswith("cuda") else 1 << 29
    if device.startswith("cuda"):
        import torch

        here, there = (torch.empty(size // 4, dtype=torch.int32, device=device) for _ in range(2))
        # In a graph a copy engine may be slower than a kernel that reads and writes as much.
        ways = (partial(there.copy_, here), partial(torch.bitwise_not, here, out=there))
        return 2 * size / min(median_seconds(way, device) for way in ways)
    source, target = np.ones(size, np.uint8), np.zeros(size, np.uint8)
    return 2 * size / median_seconds(lambda: copy(source, target), device)


@numba.njit(parallel=True)
def copy(source: np.ndarray, target: np.ndarray) -> None:
    """Copy on every core, for one alone can't use the memory's bandwidth."""
    for i in numba.prange(source.size):
        target[i] = source[i]
