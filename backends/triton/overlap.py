"""Kernels that start before the kernel in front of them ends (programmatic dependent launch, from sm_90 on).

Such a kernel loads what no kernel of the step writes, and then waits. The wait ends when all kernels in front have
ended, so that everything behind it is as if nothing overlapped. A kernel lets its successor start at once, or after its
own wait.
"""

import triton
import triton.language as tl
from triton.runtime.driver import driver

from .instructions import target_name

LEAST_CAPABILITY = 90


def target_overlaps() -> bool:
    """Return whether the target's kernels can start early."""
    return target_name() == "cuda" and driver.active.get_current_target().arch >= LEAST_CAPABILITY


target_overlaps.__triton_builtin__ = True  # type: ignore[attr-defined] # kernels may name it: Triton doesn't look inside


@triton.constexpr_function
def overlaps():
    return target_overlaps()


@triton.jit
def start_next():
    """Let the next kernel start."""
    if overlaps():
        tl.extra.cuda.gdc_launch_dependents()


@triton.jit
def wait_for_inputs():
    """Wait until the kernels in front have written what they write."""
    if overlaps():
        tl.extra.cuda.gdc_wait()


@triton.jit
def wait_and_start_next():
    """Wait as ``wait_for_inputs`` does, then let the next kernel start.

    In a chain of short kernels each would else wait beside several others, on multiprocessors that those in front need.
    """
    if overlaps():
        tl.extra.cuda.gdc_wait()
        tl.extra.cuda.gdc_launch_dependents()


@triton.jit
def start_next_and_wait():
    """Let the next kernel start, then wait: for few programs, beside which the next ones' first loads have room.

    Neither this kernel nor the one in front may write anything that the next kernel reads before its own wait.
    """
    if overlaps():
        tl.extra.cuda.gdc_launch_dependents()
        tl.extra.cuda.gdc_wait()


@triton.jit
def end_after_kernel_in_front():
    """Let a kernel that started early, and needs nothing from the one in front, end after it: its last program waits.

    The kernel that is launched next then finds the results of both.
    """
    if tl.program_id(0) == tl.num_programs(0) - 1:
        wait_for_inputs()


def early() -> dict[str, bool]:
    """Return the option with which a kernel that waits is launched."""
    return {"launch_pdl": True} if target_overlaps() else {}
