"""A language model: tokens and a state in, logits and a state out, all integers.

    model = LanguageModel(CONFIGS["tiny"], initial_parameters(CONFIGS["tiny"], seed=0))
    logits, state = model.prefill(ids, model.new_state(batch=1))
    logits, state = model.step(token, state)

Reading a sequence whole, token by token, or in any pieces gives the same integers.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache, partial
from math import prod
from types import SimpleNamespace
from typing import Any

import numpy as np

from .. import ops as golden
from ..arrays import NUMPY
from ..contract import DomainError, Tensor, dtype_name, trusted_values
from ..tables import rotation_coefficients
from .blocks import Call, Network, Observe
from .config import ModelConfig
from .formats import FORMATS, Formats, check_arrays, parameter_formats, state_formats
from .state import State, check_state

MOST_TOKENS = 1 << 30  # of a text; positions are int32, and so far reach the tables of rotations
POSITIONS_PER_TABLE, TABLES = 256, 256
# A model keeps the rotations of so many earlier calls on its backend, of at most so many positions.
CALLS_KEPT, POSITIONS_KEPT = 8, 1 << 15
MOST_REPEATED = 1 << 15  # tokens of a call that a backend may repeat: of more, kernels take longer than their launches
# The arrays that a call takes and returns beside those of a state.
IDS, FILL, ROTATION, LOGITS = "ids", "fill", ("lam", "gam", "quadrant"), "logits"


class LanguageModel:
    """A model on one backend.

    Parameters
    ----------
    config : ModelConfig
    parameters : dict of NumPy arrays by name, as `formats.parameter_formats` lists them
    ops : object, optional
        A namespace with the ops' names, with ``from_numpy(array, device)`` and ``to_numpy(array)`` where its arrays are
        not NumPy's; or a `backends.Backend`. Left out, the golden ops.
    device : str
        It is passed to ``from_numpy``; a Backend knows its own.

    Raises
    ------
    DomainError
        A parameter is missing, unknown, of another shape or dtype, or out of its range.
    """

    def __init__(
        self,
        config: ModelConfig,
        parameters: Mapping[str, np.ndarray],
        ops: Any = golden,
        device: str = "cpu",
        formats: Formats = FORMATS,
    ):
        check_arrays(parameters, parameter_formats(config, formats))
        self.config, self.formats = config, formats
        self.from_numpy, self.to_numpy, self.ops = attach(ops, device)
        weights = {name: self.from_numpy(array) for name, array in parameters.items()}
        self.network = Network(config, formats, self.ops, weights)
        self.state_formats = lru_cache(maxsize=8)(partial(state_formats, config, formats=formats))
        self.join, self.taken = extra(ops, "concatenate"), extra(ops, "ARRAYS")
        self._start = lru_cache(partial(self._zeros, 1))  # of one row: many rows are made of it on the device
        self.rotates = config.rotates
        self._fill = lru_cache(CALLS_KEPT)(lambda positions: self.from_numpy(fills(config, positions)))
        self._kept_rotation = lru_cache(CALLS_KEPT)(self._new_rotation)
        repeated = extra(ops, "repeated")
        self.activated_conv = extra(ops, "activated_conv")
        self.repeated = repeated and repeated(self._compute)  # what a backend has to compute calls again and again

    def new_state(self, batch: int) -> State:
        """Return the state of ``batch`` rows that have read nothing."""
        if batch and self.join:
            zeros = {name: self.join([row] * batch, 0) for name, row in self._start().items()}
        else:
            zeros = self._zeros(batch)
        return State(zeros, (0,) * batch)

    def _zeros(self, batch: int) -> dict[str, Any]:
        return {n: self.from_numpy(np.zeros(f.shape, f.dtype)) for n, f in self.state_formats(batch).items()}

    def state_to_numpy(self, state: State) -> State:
        """Return the state in NumPy arrays, for a file or another backend."""
        return state.convert(self.to_numpy)

    def state_from_numpy(self, state: State) -> State:
        """Return a state of NumPy arrays as this model's.

        Raises
        ------
        DomainError
            An array is missing, unknown, of another shape or dtype, or out of its proved range.
        """
        check_state("state_from_numpy", state)
        check_arrays(state.arrays, self.state_formats(state.batch), argument="state.arrays")
        return state.convert(self.from_numpy)

    def prefill(self, ids, state: State, last_only: bool = False, observe: Observe | None = None):
        """Read a sequence of tokens in each row, after those that the state has read.

        Parameters
        ----------
        ids : int32 array, shape (B, L), in [0, vocabulary - 1]
            A NumPy array or one of the backend's.
        state : State of B rows
        last_only : bool
            Return the logits after the last token alone; needs L >= 1.
        observe : callable, optional
            Called with ``(layer, name, array)`` for each tensor, in the order of computation; layers are
            ``"embedding"``, ``"layers.0"`` … and ``"head"``.

        Returns
        -------
        logits : int16 array, shape (B, L, vocabulary), or (B, vocabulary) with ``last_only``; Q.8, base 2
        state : State

        Raises
        ------
        DomainError
            ids of another dtype or rank or out of range; a state of another batch or model.
        """
        ids = self._accept("prefill", ids, "B L", state)
        if last_only and not ids.shape[1]:
            raise DomainError("prefill", "ids", "length 0", "length 1 or more with last_only")
        return self._run(True, ids, ids.shape[1], state, last_only, observe)

    def step(self, ids, state: State, observe: Observe | None = None):
        """Read one token in each row: ids is int32 of shape (B,), the logits are (B, vocabulary). See `prefill`."""
        return self._run(False, self._accept("step", ids, "B", state), 1, state, False, observe)

    def _run(self, sequence: bool, ids, length: int, state: State, last_only: bool, observe: Observe | None):
        rotation = self._rotation(state, length)
        arrays = {IDS: ids, FILL: self._fill(state.positions), **state.arrays}
        arrays |= dict(zip(ROTATION, rotation, strict=True)) if rotation else {}
        repeats = self.repeated and not observe and 0 < prod(ids.shape) <= MOST_REPEATED
        with trusted_values():
            if repeats:
                after = dict(self.repeated(arrays, sequence, last_only))
            else:
                after = self._compute(arrays, sequence, last_only, observe)
        return after.pop(LOGITS), State(after, tuple(position + length for position in state.positions))

    def _compute(self, arrays, sequence: bool, last_only: bool, observe: Observe | None = None) -> dict[str, Any]:
        """Return the logits and the arrays of the state after a call, a function of arrays and constants."""
        rotation = tuple(arrays[name] for name in ROTATION) if self.rotates else None
        call = Call(
            sequence, rotation, arrays[FILL], observe, self.activated_conv if sequence and not observe else None
        )
        logits, after = self.network(call, arrays[IDS], arrays, last_only)
        return {LOGITS: logits, **after}

    def _accept(self, call: str, ids, shape: str, state: State):
        """Return ids as the backend's array, after the checks at the edge: everything inside is proved."""
        check_state(call, state)
        if isinstance(ids, np.ndarray):
            NUMPY.check(call, "ids", ids)
        elif self.taken:
            self.taken.check(call, "ids", ids)
            self.taken.check_read(call, "ids", ids)
        if not hasattr(ids, "dtype") or dtype_name(ids) != "int32":
            raise DomainError(call, "ids", getattr(ids, "dtype", type(ids).__name__), "an int32 array")
        if len(ids.shape) != len(shape.split()) or ids.shape[0] != state.batch:
            raise DomainError(
                call, "ids", f"shape {tuple(ids.shape)}", f"({shape}) with B = {state.batch}, the state's"
            )
        if 0 not in ids.shape:
            last = self.config.vocab_size - 1
            Tensor("ids", "int32", shape, 0, last).check_values(call, ids, SimpleNamespace())
        check_arrays(state.arrays, self.state_formats(state.batch), values=False, argument="state.arrays")
        return self.from_numpy(ids) if isinstance(ids, np.ndarray) else ids

    def check_room(self, state: State, length: int) -> None:
        """Raise DomainError unless each row of the state can read ``length`` more tokens."""
        after = max(state.positions, default=0) + length
        if after > MOST_TOKENS:
            raise DomainError("model", "positions", f"a text of {after} tokens", f"at most {MOST_TOKENS}")

    def _rotation(self, state: State, length: int):
        self.check_room(state, length)
        if not self.rotates:
            return None
        starts = state.positions if len(set(state.positions)) > 1 else state.positions[:1]
        make = self._kept_rotation if len(starts) * length <= POSITIONS_KEPT else self._new_rotation
        return make(starts, length)

    def _new_rotation(self, starts: tuple[int, ...], length: int) -> tuple[Any, ...]:
        """Return the coefficients of rows that start at these positions, or of all rows if there is one."""
        positions = (np.array(starts, np.int64)[:, None] + np.arange(length)).reshape(-1)
        return tuple(map(self.from_numpy, rotations(positions, self.config.mamba2_d_state // 2, self.formats.rotation)))


def fills(config: ModelConfig, positions: Sequence[int]) -> np.ndarray:
    """Return how many positions the open chunk of each row holds: a text starts on the grid of chunks."""
    return np.array([position % config.chunk_size for position in positions], np.int32)


def rotations(positions: np.ndarray, pairs: int, s: int) -> tuple[np.ndarray, ...]:
    """Return lam, gam and quadrant of each position, from tables made once."""
    table, row = np.divmod(positions, POSITIONS_PER_TABLE)
    result = tuple(np.empty((positions.size, pairs), dtype) for dtype in (np.int32, np.int32, np.int8))
    for number in np.unique(table):
        here = table == number
        for array, values in zip(result, rotation_table(int(number), pairs, s), strict=True):
            array[here] = values[row[here]]
    return result


@lru_cache(maxsize=TABLES)
def rotation_table(number: int, pairs: int, s: int):
    first = number * POSITIONS_PER_TABLE
    return rotation_coefficients(np.arange(first, first + POSITIONS_PER_TABLE), pairs, s=s)


def attach(ops: Any, device: str):
    """Return how arrays enter and leave a backend, and its kernels."""
    if hasattr(ops, "load") and hasattr(ops, "store"):
        return ops.load, ops.store, Kernels(ops.ops)
    enter = getattr(ops, "from_numpy", None)
    return (
        (lambda array: enter(array, device)) if enter else np.asarray,
        getattr(ops, "to_numpy", np.asarray),
        Kernels(ops),
    )


def extra(ops: Any, name: str, otherwise: Any = None):
    """Return what a backend has beside its ops, by name."""
    return getattr(getattr(ops, "ops", ops), name, otherwise)


def joiner(ops: Any):
    """Return what joins a backend's arrays along an axis: ``join(arrays, axis)``."""
    return extra(ops, "concatenate", np.concatenate)


class MissingOpError(AttributeError):
    """A backend lacks an op of which a model or a step of training is composed."""


class Kernels:
    """The ops of a namespace without their checks, where it has such: shapes and values inside a model are proved."""

    def __init__(self, ops: Any):
        self._ops = ops

    def __getattr__(self, name: str):
        public = getattr(self._ops, name, None)
        if public is None:
            raise MissingOpError(
                f"the backend has no op {name}, which a model needs; `mamba-integer conform --implemented` checks a "
                "backend of some ops"
            )
        kernel = getattr(public, "kernel", None) or getattr(public, "golden", public)
        setattr(self, name, kernel)
        return kernel
