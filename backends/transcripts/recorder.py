"""Recording a run: every op that is called, in order, by the layer that calls it, as a stream of leaves."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

from mamba_integer.spec import OPS
from mamba_integer.spec.model.language_model import Kernels

from ..protocol import Backend
from .digests import digests_for
from .leaf import STATE, Leaf, OpCall, Place, leaf_digest

BY_OP, BY_LAYER = "op", "layer"
LEAVES = (BY_OP, BY_LAYER)
CONVERSIONS = ("from_numpy", "to_numpy", "concatenate")  # what `protocol` allows a backend beside its ops
RESULT = "result"  # the label of what no layer calls: the choice of a token, the optimizer's step


class RecordedOps:
    """The ops of a backend, each of which tells of its calls."""

    def __init__(self, ops: Any, note: Callable[[OpCall], None]):
        self._kernels, self._note = Kernels(ops), note

    def __getattr__(self, name: str) -> Any:
        if name not in OPS and name not in CONVERSIONS:  # a way around the ops would leave no leaf
            raise AttributeError(f"{name} is no op of the specification")
        function = getattr(self._kernels, name)
        if name in CONVERSIONS:
            return function

        def call(*arrays: Any, **parameters: int) -> Any:
            results = function(*arrays, **parameters)
            self._note(OpCall(name, parameters, arrays, results if isinstance(results, tuple) else (results,)))
            return results

        setattr(self, name, call)
        return call


class Closed(NamedTuple):
    """A leaf whose digests are on their way."""

    place: Place
    label: str
    call: OpCall
    inputs: list[Callable[[], bytes]]
    outputs: list[Callable[[], bytes]]


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
        Is handed each leaf, in order, at the end of its call.
    keeps_arrays : bool
        Whether leaves come with the arrays of their calls, which takes the memory of a whole call.
    """

    def __init__(
        self,
        backend: Backend,
        run_id: bytes,
        leaves: str,
        sink: Callable[[Leaf], None],
        keeps_arrays: bool = False,
    ):
        self.backend = replace(backend, ops=RecordedOps(backend.ops, self._note))
        self.digests = digests_for(backend)
        self.run_id, self.leaves, self.sink, self.keeps_arrays = run_id, leaves, sink, keeps_arrays
        self._call = self._segment = 0
        self._label = ""
        self._waiting: list[OpCall] = []  # for the next tensor that is observed
        self._layer: list[OpCall] = []
        self._closed: list[Closed] = []

    def begin(self, call: int) -> None:
        self._call, self._segment, self._label = call, 0, ""
        self._waiting.clear()

    def observe(self, layer: str, name: str, array: Any) -> None:
        if layer != self._label:
            self._close()
            self._label = layer
        self._take()

    def end(self, state: dict[str, Any] | None) -> None:
        """End a call; ``state`` is what the next call continues from, where a snapshot is wanted."""
        self._close()
        self._label = RESULT
        self._take()
        self._close()
        if state is not None:
            self._label, self._layer = STATE, [OpCall(STATE, {}, (), [state[name] for name in sorted(state)])]
            self._close()
        self._hand_on()

    def _note(self, call: OpCall) -> None:
        if self.leaves == BY_LAYER:
            self._waiting.clear()
        self._waiting.append(call)

    def _take(self) -> None:
        """Give the waiting calls to the layer that is open."""
        self._layer = (self._waiting or self._layer) if self.leaves == BY_LAYER else self._layer + self._waiting
        self._waiting = []

    def _close(self) -> None:
        """End a layer: its digests are on their way, and its arrays may go unless somebody wants them."""
        calls, self._layer = self._layer, []
        if not calls:
            return
        hashed = [(call.inputs if self.leaves == BY_OP else (), call.outputs) for call in calls]
        digests = iter(self.digests([array for sides in hashed for side in sides for array in side]))
        for number, (call, sides) in enumerate(zip(calls, hashed, strict=True)):
            place = Place(self._call, self._segment, number)
            inputs, outputs = ([next(digests) for _ in side] for side in sides)
            kept = call if self.keeps_arrays else OpCall(call.op, call.parameters, (), ())
            self._closed.append(Closed(place, self._label, kept, inputs, outputs))
        self._segment += 1

    def _hand_on(self) -> None:
        """Wait for the digests of a call and hand on its leaves."""
        for closed in self._closed:
            call, sides = closed.call, ([digest() for digest in side] for side in (closed.inputs, closed.outputs))
            digest = leaf_digest(self.run_id, closed.place, closed.label, call.op, call.parameters, *sides)
            self.sink(Leaf(closed.place, closed.label, call, digest))
        self._closed.clear()
