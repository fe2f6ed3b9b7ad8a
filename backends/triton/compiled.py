"""Which parameters of an op are constants of its kernels: each value of them is a compilation of its own."""

import os
import sys

from triton.runtime.jit import JITFunction

from mamba_integer.spec.contract import find_op


def compiled_for(op: str) -> frozenset[str]:
    """Return the names of the parameters for which an op's kernels are compiled anew; none where they aren't."""
    if os.environ.get("TRITON_INTERPRET") == "1":
        return frozenset()
    module = sys.modules[getattr(sys.modules[__package__], op).__module__]
    kernels = (kernel for kernel in vars(module).values() if isinstance(kernel, JITFunction))
    constants = {parameter.name for kernel in kernels for parameter in kernel.params if parameter.is_constexpr}
    return frozenset(parameter.name for parameter in find_op(op).parameters if parameter.name in constants)
