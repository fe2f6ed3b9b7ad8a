"""Clocks and ceilings: the median time of a call, and the bandwidth this device was measured to have."""

import statistics
import timeit
from collections.abc import Callable

import numba
import numpy as np

# NVIDIA H100 SXM data sheet: dense int8 tensor throughput, and 32-bit integer lanes (64 a cycle and SM) at boost clock.
INT8_MULTIPLY_ADDS = 1979e12 / 2
LONG_SECONDS, SHORT_SECONDS = 1.0, 0.05
INTEGER_INSTRUCTIONS = 132 * 64 * 1.98e9


def median_seconds(call: Callable[[], object], device: str) -> float:
    """Return the median time of ``call``, device work included, after a warm-up."""
    if device == "cuda":
        from triton.testing import do_bench

        return do_bench(call, warmup=25, rep=100, return_mode="median") / 1000
    timer = timeit.Timer(call)
    count, _ = timer.autorange() if timer.timeit(1) < SHORT_SECONDS else (1, 0.0)
    return statistics.median(timer.repeat(5, count)) / count


def copy_bandwidth(device: str) -> float:
    """Return the bytes a second, read and written, of a large copy on this device."""
    size = 1 << 30 if device == "cuda" else 1 << 29
    if device == "cuda":
        import torch

        source, target = (torch.empty(size, dtype=torch.uint8, device=device) for _ in range(2))
        return 2 * size / median_seconds(lambda: target.copy_(source), device)
    source, target = np.ones(size, np.uint8), np.zeros(size, np.uint8)
    return 2 * size / median_seconds(lambda: copy(source, target), device)


@numba.njit(parallel=True)
def copy(source: np.ndarray, target: np.ndarray) -> None:
    """Copy on every core, for one alone can't use the memory's bandwidth."""
    for i in numba.prange(source.size):
        target[i] = source[i]
