"""The tasks of a run's processes: a module of its own, since the process that hands tasks out loads no suite."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from mamba_integer.backends import Backend


@dataclass(frozen=True)
class Task:
    """One share of an op's cases, for one backend after the other: the golden results are computed once.

    Each ``share`` of an op draws cases of its own, and takes one of every ``shares`` cases that aren't drawn.
    With ``many_rows`` it is instead the calls whose arrays fill a GPU: so many processes may share its memory.
    """

    op: str
    backends: tuple[Backend, ...]
    preset: str = "minimal"
    seed: int = 0
    exhaustive: bool = False
    share: int = 0
    shares: int = 1
    many_rows: int = 0

    def only(self, backends: Iterable[Backend]) -> "Task":
        return replace(self, backends=tuple(backends))
