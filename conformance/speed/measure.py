"""Verify and time workloads: each result is compared with Numba's, integer by integer, before it is timed."""

import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from mamba_integer import spec
from mamba_integer.backends.app.environment import device_name
from mamba_integer.backends.protocol import Backend, load

from .clocks import LONG_SECONDS, Peak, copy_bandwidth, median_seconds, peak_of
from .peers import peer_rows
from .workloads import Workload


class WrongResultError(Exception):
    """A backend differs from the reference, so its time means nothing."""


class Ceilings:
    """The limits of a device: the measured bandwidth of a copy, and the data sheet's rates of a GPU."""

    def __init__(self, backend: Backend):
        self.bandwidth = copy_bandwidth(backend.device)
        self.peak: Peak | None = peak_of(device_name(backend)) if backend.device.startswith("cuda") else None

    def floor(self, workload: Workload, moved: int) -> tuple[float, str]:
        """Return the least seconds that the device allows, and the limit: its bytes, products or instructions."""
        floors = {"bytes": moved / self.bandwidth}
        if self.peak:
            floors["products"] = workload.multiply_adds / self.peak.int8_multiply_adds
            floors["instructions"] = workload.instructions / self.peak.integer_instructions
        bound = max(floors, key=lambda name: floors[name])
        return floors[bound], bound


def backends_here(devices: Sequence[str]) -> list[Backend]:
    """Return the backends of some kinds of device, cpu or cuda."""
    cpu = [load("golden"), load("numba"), load("torch", "cpu")] if "cpu" in devices else []
    cuda = [device for device in devices if device.startswith("cuda")]
    return cpu + [load(name, device) for device in cuda for name in ("torch", "triton")]


def devices_here() -> list[str]:
    """Return the kinds of device that this machine has."""
    import torch

    return ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]


def takes(backend: Backend, workload: Workload) -> bool:
    """Return whether a backend ends a workload in a reasonable time."""
    if workload.everywhere:
        return True
    fast = backend.device.startswith("cuda") or backend.name == "numba"
    return fast and not (backend.name == "torch" and "scan" in workload.op)


def time_workload(
    workload: Workload, available: Sequence[Backend], ceilings: Mapping[str, Ceilings], with_peers: bool = True
) -> Iterator[dict[str, Any]]:
    """Yield a row for each backend that takes a workload.

    Raises
    ------
    WrongResultError
        A result differs from Numba's.
    """
    reference = load("numba")
    want = reference.run(workload.op, workload.arrays, workload.parameters)
    moved = sum(array.nbytes for array in (*workload.arrays, *want))
    peers: list[dict[str, Any]] = []
    if with_peers and (device := next((b.device for b in available if b.device.startswith("cuda")), "")):
        peers = peer_rows(workload, device, partial(median_seconds, device=device))
    for backend in (backend for backend in available if takes(backend, workload)):
        arrays = [backend.load(array) for array in workload.arrays]
        start = time.perf_counter()
        got = tuple(backend.store(result) for result in backend.call(workload.op, arrays, workload.parameters))
        first = time.perf_counter() - start
        for result, right in zip(got, want, strict=True):
            if result.dtype != right.dtype or not np.array_equal(result, right):
                raise WrongResultError(
                    f"{workload.name}: {backend.name} on {backend.device} differs from {reference.name}"
                )
        with spec.trusted_values():
            call = partial(backend.call, workload.op, arrays, workload.parameters)
            short = backend.device.startswith("cuda") or first <= LONG_SECONDS
            seconds = median_seconds(call, backend.device) if short else first
        floor, bound = ceilings[backend.device].floor(workload, moved)
        yield {
            "workload": workload.name,
            "op": workload.op,
            "backend": backend.name,
            "device": backend.device,
            "seconds": seconds,
            "first_seconds": first,
            "floor_seconds": floor,
            "bound": bound,
            "bytes": moved,
            "operations": 2 * workload.multiply_adds or workload.instructions,
            "integers_verified": sum(right.size for right in want),
            "peers": peers if backend.device.startswith("cuda") else [],
        }
