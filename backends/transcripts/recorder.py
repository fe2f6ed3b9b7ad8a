"""Recording a run: every op that is called, in order, by the layer that calls it, as a stream of leaves."""

import weakref
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from mamba_integer.spec import OPS
from mamba_integer.spec.model.language_model import Kernels

from ..protocol import Backend
from .leaf import STATE, Leaf, OpCall, Place, leaf_digest, tensor_digest

BY_OP, BY_LAYER = "op", "layer"
LEAVES = (BY_OP, BY_LAYER)
RESULT = "result"  # the label of what no layer calls: the choice of a token, the optimizer's step


class RecordedOps:
    """The ops of a backend, each of which tells of its calls."""

    def __init__(self, ops: Any, note: Callable[[OpCall], None]):
        self._kernels, self._note = Kernels(ops), note

    def __getattr__(self, name: str) -> Any:
        function = getattr(self._kernels, name)
        if name not in OPS:
            return function

        def call(*arrays: Any, **parameters: int) -> Any:
            results = function(*arrays, **parameters)
            self._note(OpCall(name, parameters, arrays, results if isinstance(results, tuple) else (results,)))
            return results

        setattr(self, name, call)
        return call


class Digests:
    """The digests of a backend's arrays, each computed once while the array lives: no op writes to an array."""

    def __init__(self, store: Callable[[Any], np.ndarray]):
        self._store = store
        self._known: dict[int, tuple[weakref.ref, bytes]] = {}

    def __call__(self, arrays: Sequence[Any]) -> list[bytes]:
        unknown = {id(array): array for array in arrays if id(array) not in self._known}
        for array, digest in zip(unknown.values(), self.compute(list(unknown.values())), strict=True):
            key = id(array)
            self._known[key] = weakref.ref(array, lambda _, key=key: self._known.pop(key, None)), digest
        return [self._known[id(array)][1] for array in arrays]

    def compute(self, arrays: Sequence[Any]) -> list[bytes]:
        return [tensor_digest(array if isinstance(array, np.ndarray) else self._store(array)) for array in arrays]


class Recorder:
    """Makes leaves of the calls of a backend's ops, a layer at a time.

    An op belongs to the layer whose tensor is observed next; `blocks.Call` and `train_step` tell each tensor to their
    observer as soon as its op has run. With ``leaves`` "layer" there is one leaf for each layer, of its last op's
    results alone.

    Parameters
    ----------
    backend : Backend
        ``self.backend`` is the same one with its ops recorded.
    run_id : bytes
    leaves : "op" or "layer"
    sink : callable
        Is handed each leaf, in order.
    """

    def __init__(self, backend: Backend, run_id: bytes, leaves: str, sink: Callable[[Leaf], None]):
        self.backend = replace(backend, ops=RecordedOps(backend.ops, self._note))
        self.digests = digests_for(backend)
        self.run_id, self.leaves, self.sink = run_id, leaves, sink
        self._call = self._segment = 0
        self._label = ""
        self._waiting: list[OpCall] = []  # for the next tensor that is observed
        self._layer: list[OpCall] = []

    def begin(self, call: int) -> None:
        self._call, self._segment, self._label = call, 0, ""
        self._waiting.clear()

    def observe(self, layer: str, name: str, array: Any) -> None:
        if layer != self._label:
            self._close()
            self._label = layer
        self._take()

    def end(self, state: dict[str, Any] | None) -> None:
        """End a call; ``state`` is all that the next call goes on from, where a snapshot is wanted."""
        self._close()
        self._label = RESULT
        self._take()
        self._close()
        if state is not None:
            self._label, self._layer = STATE, [OpCall(STATE, {}, (), [state[name] for name in sorted(state)])]
            self._close()

    def _note(self, call: OpCall) -> None:
        if self.leaves == BY_LAYER:
            self._waiting.clear()
        self._waiting.append(call)

    def _take(self) -> None:
        """Give the waiting calls to the layer that is open."""
        self._layer = (self._waiting or self._layer) if self.leaves == BY_LAYER else self._layer + self._waiting
        self._waiting = []

    def _close(self) -> None:
        """Make the leaves of the layer that ends."""
        calls, self._layer = self._layer, []
        if not calls:
            return
        hashed = [(call.inputs if self.leaves == BY_OP else (), call.outputs) for call in calls]
        digests = iter(self.digests([array for sides in hashed for side in sides for array in side]))
        for number, (call, sides) in enumerate(zip(calls, hashed, strict=True)):
            place = Place(self._call, self._segment, number)
            inputs, outputs = ([next(digests) for _ in side] for side in sides)
            digest = leaf_digest(self.run_id, place, self._label, call.op, call.parameters, inputs, outputs)
            self.sink(Leaf(place, self._label, call, digest))
        self._segment += 1


def digests_for(backend: Backend) -> Digests:
    return Digests(backend.store)
