"""Slips: golden ops that are wrong under a condition on sizes, strides, parameters or earlier calls, a few lines each.

A slip says what its author got wrong as a change of what the op reads (``sees``), of what it writes (``gives``), or of
a parameter (``takes``), and when that happens. Its witness is a call at which it is wrong, so that nobody has to
believe that it is one. ``mamba-integer conform --backend mamba_integer.conformance.mutants.slips:NAME`` judges it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from math import prod
from types import SimpleNamespace
from typing import Any

import numpy as np

from mamba_integer.spec.contract import OPS, Constant, Packed, Tensor, known_size, trusted_values
from mamba_integer.spec.philox import random_words

SLIPS: dict[str, "Slip"] = {}

Array = np.ndarray
Change = Callable[[Array, Any], Array]


@dataclass(frozen=True)
class Slip:
    """A backend of one op.

    ``when``, ``sees`` and ``gives`` are handed the call: its sizes and parameters, its arrays by their names, and
    ``shape`` and ``size`` of the first, ``rows`` for the product of its leading dimensions. ``runs`` replaces the op as
    a whole, when that happens: it is handed the op's name, its arrays and its parameters. ``makes`` returns such a
    function, which remembers earlier calls; ``keeps`` returns ``when`` as well, which knows where that changes nothing.
    ``golden`` takes the place of the golden op, for a caller that knows its results. The witness is the size of each
    dimension and the parameters in ``at``, integers spread over the domain but for ``values``, and views as in
    ``lies``; it is called ``calls`` times, after the first with the parameters of ``then`` and the values of ``later``.
    """

    name: str
    op: str
    says: str
    at: Mapping[str, Any]
    when: Callable[[Any], Any] = lambda call: True
    sees: Mapping[str, Change] = field(default_factory=dict)
    gives: Mapping[str, Change] = field(default_factory=dict)
    takes: Callable[[Any], dict[str, int]] = lambda call: {}
    runs: Callable[..., Any] | None = None
    makes: Callable[[], Callable[..., Any]] | None = None
    keeps: Callable[[], tuple[Callable[[Any], Any], Callable[..., Any]]] | None = None
    values: Mapping[str, Callable[[Any], Array]] = field(default_factory=dict)
    lies: Mapping[str, Callable[[Array], Array]] = field(default_factory=dict)
    calls: int = 1
    then: Mapping[str, int] = field(default_factory=dict)
    later: Mapping[str, Array] = field(default_factory=dict)
    golden: Callable[..., Any] | None = None

    def __post_init__(self) -> None:
        if self.makes:
            object.__setattr__(self, "runs", self.makes())
        if self.keeps:
            when, runs = self.keeps()
            object.__setattr__(self, "when", when)
            object.__setattr__(self, "runs", runs)

    def forgetful(self, golden: Callable[..., Any] | None = None) -> "Slip":
        """Return the same slip with no memory of earlier calls."""
        return replace(self, golden=golden)

    def __getattr__(self, name: str) -> Callable:
        if name == self.op:
            return self.wrong
        raise AttributeError(name)

    def wrong(self, *arrays: Array, **parameters: int) -> Any:
        golden, contract = self.golden or OPS[self.op].golden, OPS[self.op]
        call = bind(self.op, arrays, parameters)
        if not self.when(call):
            return golden(*arrays, **parameters)
        if self.runs:
            return self.runs(self.op, arrays, parameters)
        named = zip(contract.inputs, arrays, strict=True)
        seen = [self.sees[t.name](array, call) if t.name in self.sees else array for t, array in named]
        results = golden(*seen, **parameters | self.takes(call))
        several = as_tuple(results)
        changed = [
            self.gives[t.name](result, call).astype(result.dtype) if t.name in self.gives else result
            for t, result in zip(contract.outputs, several, strict=True)
        ]
        return tuple(changed) if isinstance(results, tuple) else changed[0]

    def witness(self) -> tuple[list[Array], dict[str, int]]:
        """Return a call at which the slip is wrong: the views that it is handed, and its parameters."""
        contract = OPS[self.op]
        call = SimpleNamespace(**self.at)
        arrays = [
            self.values[t.name](call) if t.name in self.values else spread(i, t, call) for i, t in inputs(self.op)
        ]
        views = [self.lies.get(t.name, np.array)(array) for (_, t), array in zip(inputs(self.op), arrays, strict=True)]
        return views, {p.name: self.at[p.name] for p in contract.parameters}

    def is_wrong(self) -> bool:
        """Tell whether the slip is wrong at its witness: a call, or one call after another."""
        views, parameters = self.witness()
        golden, wrong = OPS[self.op], self.forgetful().wrong
        for turn in range(self.calls):
            parameters |= self.then if turn else {}
            if turn:
                views = [self.later.get(t.name, view) for (_, t), view in zip(inputs(self.op), views, strict=True)]
            before = [array.copy() for array in views]
            want = as_tuple(golden(*before, **parameters))
            try:
                got = as_tuple(wrong(*views, **parameters))
            except ArithmeticError:
                return True
            if not equal(got, want) or not equal(views, before):
                return True
            returned = [array.copy() for array in got]
            if self.calls > 1 and not self.then:
                for array in views:
                    array[...] = np.roll(array, 1)
                wrong(*views, **parameters)
            if not equal(got, returned):
                return True
        return False


def as_tuple(results: Any) -> tuple[Array, ...]:
    return results if isinstance(results, tuple) else (results,)


def equal(left: Any, right: Any) -> bool:
    """Tell whether arrays have the same dtypes, shapes and integers."""
    pairs = zip(left, right, strict=True)
    return all(a.dtype == b.dtype and np.array_equal(a, b) for a, b in pairs)


def slip(name: str, op: str, says: str, **fields: Any) -> None:
    """List a slip."""
    assert name not in SLIPS, name
    SLIPS[name] = Slip(name, op, says, **fields)


def inputs(op: str) -> list[tuple[int, Tensor]]:
    return list(enumerate(OPS[op].inputs))


def bind(op: str, arrays: tuple[Array, ...], parameters: Mapping[str, int]) -> SimpleNamespace:
    """Return the sizes, parameters and arrays of a call."""
    with trusted_values():
        at = vars(OPS[op].check(arrays, parameters))
    named = {tensor.name: array for (_, tensor), array in zip(inputs(op), arrays, strict=True)}
    first = {"shape": arrays[0].shape, "size": arrays[0].size, "rows": prod(at.get("leading", ()))}
    return SimpleNamespace(**at | named | first)


def spread(stream: int, tensor: Tensor, at: Any) -> Array:
    """Return integers spread over the range of an input."""
    if isinstance(tensor, Constant):
        return tensor.value(at)
    names = tensor.shape.split()
    shape = [known_size(name, at) for name in names if name != "..."]
    if "..." in names:
        shape = [*at.leading, *shape]
    if isinstance(tensor, Packed):
        digits = uniform(stream, (*shape[:-1], getattr(at, tensor.packed)), -1, 1).astype(np.int8)
        return OPS[tensor.packer].golden(digits)
    dtype = getattr(at, "dtype", tensor.dtypes[0])
    allowed = tensor.range(at, dtype)
    return uniform(stream, shape, allowed.low, allowed.high).astype(dtype)


def uniform(stream: int, shape: Any, low: int, high: int) -> Array:
    high_words, low_words = random_words(0, stream, 2 * prod(shape)).reshape(2, *shape)
    words = (high_words << np.uint64(32)) | (low_words & np.uint64(0xFFFFFFFF))
    return low + (words % np.uint64(high - low + 1)).astype(np.int64)


def addressed(array: Array, strides: tuple[int, ...], start: int | None = None) -> Array:
    """Return the view that a kernel reads if it takes these strides, in elements, and this start for the array's.

    Beside the storage stand ones: what a kernel would find there is anyone's guess.
    """
    storage = array
    while isinstance(storage.base, Array):
        storage = storage.base
    flat = storage.ravel(order="K")
    first = (array.ctypes.data - storage.ctypes.data) // array.itemsize if start is None else start
    index = np.full(array.shape, first)
    for axis, stride in enumerate(strides):
        index += stride * np.arange(array.shape[axis]).reshape([-1] + [1] * (array.ndim - axis - 1))
    inside = (index >= 0) & (index < flat.size)
    return np.where(inside, flat[index.clip(0, max(0, flat.size - 1))], 1).astype(array.dtype) if flat.size else array


def steps(array: Array) -> tuple[int, ...]:
    """Return the strides of an array in elements."""
    return tuple(stride // array.itemsize for stride in array.strides)


def pitches(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the strides in elements of a contiguous array."""
    return tuple(prod(shape[axis + 1 :]) for axis in range(len(shape)))
