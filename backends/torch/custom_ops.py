"""Every op of the specification as a PyTorch custom op, made from its contract.

Importing this module registers them: ``torch.ops.mamba_integer.squareplus(x, f=8, offset=256)``. They work in eager
code and under ``torch.compile`` and ``torch.export``, where each is one opaque node of the graph. The module is also a
backend, so the suite judges it: ``mamba-integer conform --backend mamba_integer.backends.torch.custom_ops``.

- Arrays come first, in the contract's order; parameters are passed by keyword.
- CPU tensors run the Numba twin on their own memory; CUDA tensors run the Triton kernel, or the eager Torch kernel
  where Triton isn't installed; tensors of any other device run the eager Torch kernel.
- A call checks its whole contract, element values included. That waits for a CUDA device. ``trusted=True``, or
  `spec.contract.trusted_values` around an eager call, skips the element values: for callers that proved the domain.
- An argument that is no tensor, or no plain one (sparse, nested, masked, of a subclass), is a DomainError of the
  functions of this module. In ``torch.ops``, None is one too; PyTorch itself refuses most of the rest.
- Meta and fake tensors give results of the right shapes, without values.
- A tracing compiler checks everything but element values, as far as sizes are numbers. A symbolic size is compared
  with other sizes alone; the compiled call checks the rest. The exponent of a size like ``2^m`` is never symbolic.
- Results are new, contiguous tensors. Integer tensors carry no gradient: training composes the ``*_backward`` ops.
- A parameter that needs 64 unsigned bits (a seed) is an int64 of the same bits in ``torch.ops``; the functions of this
  module take it as it is.
"""

import functools
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import replace
from importlib.util import find_spec
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch._subclasses import FakeTensor
from torch._subclasses.functional_tensor import FunctionalTensor

from mamba_integer.spec import OPS, compiled
from mamba_integer.spec.bounds import Interval
from mamba_integer.spec.contract import DomainError, Op, known_size, trusted_values
from mamba_integer.spec.docstring import document

from .arrays import ARRAYS, PLAIN, concatenate, default_device, from_numpy, plain_fault, to_numpy

NAMESPACE = "mamba_integer"
INT64_END = 1 << 63
# A tracing compiler calls with tensors of its own, and a meta tensor has a shape, which is all that tracing reads.
TRACED = replace(ARRAYS, fault=functools.partial(plain_fault, types=(*PLAIN, FakeTensor, FunctionalTensor)))


def schema(entry: Op) -> str:
    """Return the signature of an op in the language of ``torch.library``.

    >>> schema(OPS["squareplus"])
    '(Tensor x, *, SymInt f, SymInt offset, bool trusted=False) -> Tensor'
    """
    arrays = (f"Tensor {tensor.name}" for tensor in entry.inputs)
    parameters = (f"SymInt {parameter.name}" for parameter in entry.parameters)
    results = ", ".join("Tensor" for _ in entry.outputs)
    arguments = ", ".join((*arrays, "*", *parameters, "bool trusted=False"))
    return f"({arguments}) -> {results if len(entry.outputs) == 1 else f'({results})'}"


def unsigned_ranges(entry: Op) -> dict[str, Interval]:
    """Return the parameters that need 64 bits without a sign, which an int64 holds as their two's complement."""
    return {p.name: p.range(None) for p in entry.parameters if isinstance(p.high, int) and p.high >= INT64_END}


UNSIGNED = {name: unsigned_ranges(entry) for name, entry in OPS.items()}


def as_signed(op: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters of a call as ``torch.ops`` takes them."""
    signed = dict(parameters)
    for name, allowed in UNSIGNED[op].items():
        value = parameters.get(name)
        if type(value) is int:
            if value not in allowed:
                raise DomainError(op, name, value, allowed)
            signed[name] = value - 2 * INT64_END if value >= INT64_END else value
    return signed


def as_unsigned(op: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters that ``torch.ops`` took as the contract has them."""
    wrapped = {name: parameters[name] for name in UNSIGNED[op] if type(parameters.get(name)) is int}
    return {**parameters, **{name: value % (2 * INT64_END) for name, value in wrapped.items()}}


def run(entry: Op, *arrays: torch.Tensor, trusted: bool = False, **parameters: int) -> Any:
    """Check a call and compute it with the kernel of the tensors' device."""
    parameters = as_unsigned(entry.name, parameters)
    with trusted_values() if trusted else nullcontext():
        entry.check(arrays, parameters, __package__)
    device = arrays[0].device
    if device.type == "cpu":
        kernel = getattr(compiled, entry.name).kernel
        results = kernel(*(array.numpy() for array in arrays), **parameters)
        return each(lambda result: torch.from_numpy(np.asarray(result, order="C")), results)
    kernel = kernel_of(entry.name, device.type)
    with torch.cuda.device(device) if device.type == "cuda" else nullcontext():
        return each(torch.Tensor.contiguous, kernel(*arrays, **parameters))


@functools.cache
def kernel_of(op: str, device_type: str) -> Callable:
    """Return the kernel for tensors of a device that isn't the CPU."""
    from mamba_integer.backends import torch as eager

    module: ModuleType = eager
    if device_type == "cuda" and find_spec("triton"):
        from mamba_integer.backends import triton as module
    return (getattr(module, op, None) or getattr(eager, op)).kernel


def each(convert: Callable, results: Any) -> Any:
    return tuple(map(convert, results)) if isinstance(results, tuple) else convert(results)


def trace(entry: Op, *arrays: torch.Tensor, trusted: bool = False, **parameters: Any) -> Any:
    """Return results without values: the shapes and dtypes that the contract gives."""
    entry.check_arrays(arrays, TRACED)
    parameters = as_unsigned(entry.name, parameters)
    if is_static(arrays, parameters):
        with trusted_values():
            at = entry.check(arrays, parameters)
    else:
        at = entry.bind(arrays, parameters)
    results = tuple(
        arrays[0].new_empty(result_shape(tensor.shape, at), dtype=getattr(torch, tensor.result_dtype(at)))
        for tensor in entry.outputs
    )
    return results if len(results) > 1 else results[0]


def is_static(arrays: tuple[torch.Tensor, ...], parameters: Mapping[str, Any]) -> bool:
    """Tell whether every size and parameter is a number, not a symbol of a tracing compiler."""
    sizes = (size for array in arrays for size in array.shape)
    return all(type(number) is int for number in (*sizes, *parameters.values()))


def result_shape(shape: str, at: SimpleNamespace) -> tuple[Any, ...]:
    names = shape.split()
    leading = at.leading if names[:1] == ["..."] else ()
    return (*leading, *(known_size(name, at) for name in names if name != "..."))


class TrustedOps:
    """The trusted call of every op, by name, for a network whose domain is proved.

    A class is copied and pickled by its name, which a namespace of functions isn't, so that modules can hold it.
    """


def register(entry: Op) -> Callable:
    """Register an op and return the function that calls it, whose ``kernel`` is the trusted call."""
    name = f"{NAMESPACE}::{entry.name}"
    if not hasattr(getattr(torch.ops, NAMESPACE), entry.name):
        torch.library.define(name, schema(entry), tags=(torch.Tag.pt2_compliant_tag,))
        torch.library.impl(name, "default", functools.partial(run, entry))
        torch.library.register_fake(name, functools.partial(trace, entry))
    overload = getattr(getattr(torch.ops, NAMESPACE), entry.name).default
    unsigned = bool(UNSIGNED[entry.name])

    def dispatch(*arrays, **parameters):
        return overload(*arrays, **(as_signed(entry.name, parameters) if unsigned else parameters))

    def call(*arrays, **parameters):
        entry.check_arrays(arrays, TRACED)
        return dispatch(*arrays, **parameters)

    def kernel(*arrays, **parameters):
        return dispatch(*arrays, **parameters, trusted=True)

    setattr(TrustedOps, entry.name, staticmethod(kernel))
    call.kernel = kernel  # type: ignore[attr-defined]
    call.__name__ = call.__qualname__ = entry.name
    document(call, entry)
    return call


FUNCTIONS = {name: register(entry) for name, entry in OPS.items()}


def __getattr__(name: str) -> Callable:
    if name not in FUNCTIONS:
        raise AttributeError(f"module {__name__} has no attribute {name!r}")
    return FUNCTIONS[name]


__all__ = ["TrustedOps", "concatenate", "default_device", "from_numpy", "schema", "to_numpy"]
