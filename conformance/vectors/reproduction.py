"""A failing call as a program of its own, for an issue or a debugger."""

import numpy as np

from mamba_integer import spec
from mamba_integer.spec.contract import find_op

from ..engine.vector import Vector
from .formats import FORMATS, CHeader


def literal(array: np.ndarray) -> str:
    shape = f".reshape({', '.join(map(str, array.shape))})" if array.ndim != 1 else ""
    return f'np.array({array.ravel().tolist()}, "{array.dtype.name}"){shape}'


def python(vector: Vector, backend: str) -> str:
    """Return a script that runs the call on a backend and prints every result beside the right one."""
    results = zip(find_op(vector.op).outputs, vector.results, strict=True)
    wanted = "\n".join(f'    ("{tensor.name}", {literal(array)}),' for tensor, array in results)
    inputs = "\n".join(f"    {literal(array)},  # {name}" for name, array in vector.inputs.items())
    return f'''"""{vector.op} by the specification {spec.SPEC_VERSION}."""

import numpy as np

from mamba_integer.backends import load

arrays = [
{inputs}
]
want = [
{wanted}
]
got = load({backend!r}).run({vector.op!r}, arrays, {dict(vector.parameters)!r})
for (name, right), result in zip(want, got, strict=True):
    equal = result.dtype == right.dtype and np.array_equal(result, right)
    print(name, "equal" if equal else f"got {{result.tolist()}} want {{right.tolist()}}")
'''


def c(vector: Vector) -> str:
    """Return the call and its right results as C literals, and a place to call an implementation."""
    header = FORMATS["c-header"]
    assert isinstance(header, CHeader)
    return header.text(vector.op, [vector])
