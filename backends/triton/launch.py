"""How every kernel is launched: on dense inputs, its programs along one axis.

Kernels read memory by its address, so an input of another layout is copied, here and nowhere else. A grid's first axis
has room for 2**31 - 1 programs, the other two for 65,535: so a kernel numbers its programs along the first alone.
"""

import torch
import triton

from mamba_integer.backends.protocol import BackendError

BLOCK = 1024
MOST_PROGRAMS = (1 << 31) - 1
ALIGNMENT_BYTES = 16  # of the widest load


def launch(kernel, programs, results, inputs, *integers, **constants):
    """Run a kernel's programs on fresh results, inputs of any layout (or None), and integers.

    Raises
    ------
    BackendError
        More programs than a grid holds.
    """
    if programs > MOST_PROGRAMS:
        raise BackendError(f"{kernel.__name__}: {programs} programs, at most {MOST_PROGRAMS}: split the arrays' rows")
    if programs:
        with torch.cuda.device_of(results[0]):  # Triton launches on the current device, wherever the arrays are
            kernel[(programs,)](*results, *dense(*inputs), *integers, **constants)


def dense(*arrays):
    """Return each array in C order; those that are stay as they are."""
    return [None if array is None else array.contiguous() for array in arrays]


def aligned(array):
    """Return an array in C order that starts where the widest load may."""
    array = array.contiguous()
    return array.clone() if array.data_ptr() % ALIGNMENT_BYTES else array


def words(array):
    """Return an int8 array, of a multiple of four elements, as the int32 words of its bytes."""
    flat = array.contiguous().view(-1)
    if (flat.data_ptr() | flat.storage_offset()) % 4:  # a word starts at a multiple of four bytes
        flat = flat.clone()
    return flat.view(torch.int32)


def elementwise(kernel, result, *inputs, **constants):
    """Run ``kernel(result, *inputs, size, constants, BLOCK)`` once for each block of the flattened result.

    Several results, all of one size, come as a tuple.
    """
    results = result if isinstance(result, tuple) else (result,)
    size = results[0].numel()
    launch(kernel, triton.cdiv(size, BLOCK), results, inputs, size, **constants, BLOCK=BLOCK)
    return result
