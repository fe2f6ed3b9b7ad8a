"""The grid of an elementwise kernel."""

import triton

BLOCK = 1024


def elementwise(kernel, result, *arrays, **constants):
    """Run ``kernel(result, *arrays, size, constants, BLOCK)`` once for each block of the flattened result."""
    size = result.numel()
    if size:
        kernel[(triton.cdiv(size, BLOCK),)](result, *(a.contiguous() for a in arrays), size, **constants, BLOCK=BLOCK)
    return result
