"""The Torch version of an op for shapes whose tiles no processor has room for."""

import contextlib
import functools

from triton.runtime.errors import OutOfResources


def torch_where_too_large(torch_op, fits):
    """Decorate an op's kernels: its Torch version runs where they fit no device, or not the one at hand."""

    def decorate(kernels):
        @functools.wraps(kernels)
        def either(*arrays, **parameters):
            if fits(*arrays, **parameters):
                with contextlib.suppress(OutOfResources):
                    return kernels(*arrays, **parameters)
            return torch_op.kernel(*arrays, **parameters)

        return either

    return decorate
