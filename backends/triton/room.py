"""The room of a processor: registers of its programs, and shared memory for their tiles."""

import contextlib
import functools

from triton.runtime.errors import OutOfResources

from mamba_integer.backends.protocol import UnsupportedError

from .instructions import target_name


def at_most(registers):
    """Return the option that limits the registers of a thread, for more programs per processor, on a target with it."""
    return {"maxnreg": registers} if registers and target_name() == "cuda" else {}


def torch_where_too_large(torch_version, fits):
    """Decorate an op's kernels: its Torch version runs where they fit no device, or not the one at hand."""

    def decorate(kernels):
        @functools.wraps(kernels)
        def either(*arrays, **parameters):
            if fits(*arrays, **parameters):
                with contextlib.suppress(OutOfResources):
                    return kernels(*arrays, **parameters)
            if arrays[0].is_meta:
                raise UnsupportedError("arrays without memory have no values for the Torch version")
            return torch_version(*arrays, **parameters)

        return either

    return decorate
