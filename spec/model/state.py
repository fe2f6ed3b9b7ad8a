"""The memory of a model between calls: an immutable value."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..arrays import type_text
from ..contract import DomainError


@dataclass(frozen=True)
class State:
    """Arrays by name, rows of the batch first, and how many tokens each row has read.

    The names are those of `formats.state_formats`: ``layers.I.conv``, ``layers.I.scan`` and, of a "mamba2" block, the
    positions of its open chunk, ``layers.I.open_x``, ``open_d`` and ``open_b``. Their number follows from the
    tokens that the row has read. Nothing changes a State: a model returns a new one, and an earlier State stays that of
    the earlier text.
    """

    arrays: Mapping[str, Any]
    positions: tuple[int, ...]

    @property
    def batch(self) -> int:
        return len(self.positions)

    def convert(self, convert: Callable[[Any], Any]) -> "State":
        """Return the state with each array converted, as from one backend's arrays to another's."""
        return State({name: convert(array) for name, array in self.arrays.items()}, self.positions)

    def select(self, rows: Sequence[int]) -> "State":
        """Return the state of these rows of the batch, in this order; a row may come twice."""
        chosen = list(rows)
        return State({name: a[chosen] for name, a in self.arrays.items()}, tuple(self.positions[i] for i in chosen))


def check_state(call: str, state: Any) -> None:
    """Raise DomainError unless the argument ``state`` is a State."""
    if not isinstance(state, State):
        raise DomainError(call, "state", type_text(state), "a State: new_state makes one")


def join(states: Sequence[State]) -> State:
    """Return one batch of the rows of several states of NumPy arrays of one model."""
    arrays = {name: np.concatenate([state.arrays[name] for state in states]) for name in states[0].arrays}
    return State(arrays, tuple(position for state in states for position in state.positions))
