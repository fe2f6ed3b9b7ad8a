"""The launch of every kernel: on dense inputs, its programs along one axis.

Kernels read memory by its address, so an input of another layout is copied, here and nowhere else. A grid's first axis
has room for 2**31 - 1 programs, the other two for 65,535: so a kernel numbers its programs along the first alone.
"""

import contextlib
import contextvars
import math
from typing import Any

import torch
from triton.compiler import CompiledKernel

from mamba_integer.backends.protocol import BackendError

BLOCK = 1024
MOST_PROGRAMS = (1 << 31) - 1
ALIGNMENT_BYTES = 16  # of the widest load
ON_CPU = -1  # the device number of a tensor there
_ZEROS: contextvars.ContextVar["Zeros | None"] = contextvars.ContextVar("zeros", default=None)
COMPILED: dict[tuple, tuple[CompiledKernel, tuple, Any]] = {}


def launch(kernel, programs, results, inputs, *integers, strided=(), **constants):
    """Run a kernel's programs on fresh results, inputs of any layout (or None), and integers.

    The first array names the device.

    An integer may be a tensor that holds it, for kernels that take it through `integers.scalar`.
    The ``strided`` inputs come after the others and as they are: of `rows`, whose distance is one of the constants.

    Raises
    ------
    BackendError
        More programs than a grid holds.
    """
    if programs > MOST_PROGRAMS:
        raise BackendError(f"{kernel.__name__}: {programs} programs, at most {MOST_PROGRAMS}: split the arrays' rows")
    if not programs:
        return
    arguments = (*results, *dense(*inputs), *strided, *integers)
    device = arguments[0].get_device()
    if device == ON_CPU:
        kernel[(programs,)](*arguments, **constants)
    elif device == torch.cuda.current_device():
        launch_compiled(kernel, programs, device, arguments, constants)
    else:  # Triton launches on the current device, wherever the arrays are
        with torch.cuda.device(device):
            launch_compiled(kernel, programs, device, arguments, constants)


class Zeros:
    """Memory for the small sums of what is replayed: it is cleared once instead of for each of them."""

    SIZE, LARGEST = 1 << 23, 1 << 16  # bytes of all sums and of the largest

    def __init__(self, device):
        self.memory = torch.empty(self.SIZE, dtype=torch.uint8, device=device)
        self.used = 0

    def clear(self):
        self.memory.zero_()
        self.used = 0

    def take(self, shape, dtype):
        """Return zeros that nothing else uses until the next clearing, or None where there is no room."""
        count = math.prod(shape)
        size = count * dtype.itemsize
        if size > self.LARGEST or self.used + size > self.SIZE:
            return None
        part = self.memory[self.used : self.used + size]
        self.used += ceil_div(size, ALIGNMENT_BYTES) * ALIGNMENT_BYTES
        return part.view(dtype).view(shape)


def zeros(shape, dtype, device):
    """Return an array of zeros for a kernel to add to; one that is replayed keeps its values until the next replay."""
    held = _ZEROS.get()
    taken = held.take(shape, dtype) if held else None
    return torch.zeros(shape, dtype=dtype, device=device) if taken is None else taken


def replays() -> bool:
    """Return whether what is launched may be replayed: then nothing comes from the host but what is there already."""
    return _ZEROS.get() is not None


@contextlib.contextmanager
def replayable(zeros):
    """Let what is launched be replayed, its small sums in cleared memory."""
    zeros.clear()
    token = _ZEROS.set(zeros)
    try:
        yield
    finally:
        _ZEROS.reset(token)


def launch_compiled(kernel, programs, device, arguments, constants):
    """Launch a kernel; the second time without Triton's search for it, which takes longer than most kernels run."""
    key = (id(kernel), device, *map(specialisation, arguments), *constants.items())
    if remembered := COMPILED.get(key):
        compiled, last, _ = remembered
        compiled[(programs, 1, 1)](*arguments, *last)
        return
    compiled = kernel[(programs,)](*arguments, **constants)
    if isinstance(compiled, CompiledKernel):
        defaults = {parameter.name: parameter.default for parameter in kernel.params}
        last = tuple((defaults | constants)[name] for name in kernel.arg_names[len(arguments) :])
        COMPILED[key] = compiled, last, kernel  # which is kept, so that no other kernel gets its id


def specialisation(argument):
    """Return all of an argument that Triton compiles for, or more: another value of it may be another kernel."""
    if type(argument) is int:
        return argument == 1, argument % ALIGNMENT_BYTES == 0, -(1 << 31) <= argument < 1 << 31, argument < 1 << 63
    if isinstance(argument, torch.Tensor):
        return argument.dtype, argument.data_ptr() % ALIGNMENT_BYTES == 0
    if hasattr(argument, "block_shape"):  # a tensor's descriptor
        return argument.base.dtype, tuple(argument.block_shape), argument.layout
    return type(argument), argument


def ceil_div(a, b):
    """Return a / b rounded up: Triton's own takes microseconds per call."""
    return -(-a // b)


def dense(*arrays):
    """Return each array in C order; those that are stay as they are."""
    return [None if array is None else array.contiguous() for array in arrays]


def aligned(array):
    """Return an array in C order that starts where the widest load may, and can be viewed as wider elements."""
    array = array.contiguous().view(-1).view(array.shape)  # the stride of an axis of one element may be any number
    starts = array.data_ptr() | array.storage_offset() * array.itemsize
    return array.clone() if starts % ALIGNMENT_BYTES else array


def with_columns(array, size):
    """Return an array with zeros up to a multiple of ``size`` columns; one that has it stays as it is."""
    missing = -array.shape[-1] % size
    return torch.nn.functional.pad(array, (0, missing)) if missing else array


def rows(array):
    """Return an array whose rows, along its last axis, are dense and equally far apart, and by how many elements."""
    size = array.shape[-1] if array.ndim else 1
    if array.numel() and not array.is_contiguous() and array.stride(-1) == 1:
        with contextlib.suppress(RuntimeError):  # rows that are not equally far apart have no such view
            return array, array.view(-1, size).stride(0)
    return array.contiguous(), size


def table(rows, device):
    """Return rows of integers as int64 on a device; on the way there, nobody waits for it."""
    held = torch.as_tensor(rows)
    return held if device.type == "cpu" else held.pin_memory().to(device, non_blocking=True)


def words(array):
    """Return an int8 array, of a multiple of four elements, as the int32 words of its bytes."""
    flat = array.contiguous().view(-1)
    if (flat.data_ptr() | flat.storage_offset()) % 4:  # a word starts at a multiple of four bytes
        flat = flat.clone()
    return flat.view(torch.int32)


def elementwise(kernel, result, *inputs, strided=(), integers=(), **constants):
    """Run ``kernel(result, *inputs, size, *integers, constants, BLOCK)`` once for each block of the flattened result.

    Several results, all of one size, come as a tuple.
    """
    results = result if isinstance(result, tuple) else (result,)
    size = results[0].numel()
    launch(kernel, ceil_div(size, BLOCK), results, inputs, size, *integers, strided=strided, **constants, BLOCK=BLOCK)
    return result
