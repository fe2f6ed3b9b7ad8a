"""Names of Gluon, Triton's language of explicit layouts, that differ between its versions.

Where this Triton has no Gluon, or a target lacks what a kernel of it needs, ops take their plain Triton kernels.
"""

from typing import Any

import torch
import triton
from triton.runtime.driver import driver

from .instructions import target_name

copy_pieces: Any = None
copy_tile: Any = None
put_tile: Any = None
puts_done: Any = None
barrier: Any = None
reinterpret: Any = None

try:
    from triton.experimental import gluon
    from triton.experimental.gluon import language as gl
    from triton.experimental.gluon.language.nvidia.ampere import async_copy
    from triton.experimental.gluon.language.nvidia.hopper import (
        fence_async_shared,
        mbarrier,
        tma,
        warpgroup_mma,
        warpgroup_mma_wait,
    )
    from triton.experimental.gluon.nvidia.hopper import TensorDescriptor

    HAS_GLUON = True
except ImportError:
    HAS_GLUON = False
    TensorDescriptor = async_copy = fence_async_shared = gl = gluon = None
    mbarrier = warpgroup_mma = warpgroup_mma_wait = None
else:
    copy_pieces = getattr(async_copy, "async_load", None) or async_copy.async_copy_global_to_shared
    copy_tile = getattr(tma, "async_load", None) or tma.async_copy_global_to_shared
    put_tile = getattr(tma, "async_store", None) or tma.async_copy_shared_to_global
    puts_done = tma.store_wait
    barrier = getattr(gl, "barrier", None) or gl.thread_barrier
    shared_array = gl.shared_memory_descriptor
    reinterpret = getattr(shared_array, "reinterpret", None) or shared_array._reinterpret

AMPERE, HOPPER = 80, 90
ENABLED = True


def architecture() -> int:
    """Return ten times the compute capability of the target that kernels are compiled for, 0 if it isn't NVIDIA's."""
    if not (HAS_GLUON and ENABLED) or triton.knobs.runtime.interpret or target_name() != "cuda":
        return 0
    return driver.active.get_current_target().arch


def processors(device: torch.device) -> int:
    """Return how many multiprocessors a device has; without a device, as many as an H100."""
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 132


__all__ = [
    "HAS_GLUON",
    "TensorDescriptor",
    "async_copy",
    "barrier",
    "copy_pieces",
    "copy_tile",
    "fence_async_shared",
    "gl",
    "gluon",
    "mbarrier",
    "put_tile",
    "puts_done",
    "reinterpret",
    "warpgroup_mma",
    "warpgroup_mma_wait",
]
