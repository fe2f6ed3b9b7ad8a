"""A chain of stages, each fed from the one before on the same backend: digests, and the first stage that differs."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from .report import Text


@dataclass(frozen=True)
class Stage:
    """What one stage computed: its arrays by name, and what computed them."""

    name: str
    by: str
    arrays: Mapping[str, np.ndarray]

    @property
    def digest(self) -> str:
        """The SHA-256 of dtypes, shapes and little-endian bytes."""
        found = hashlib.sha256()
        for array in self.arrays.values():
            found.update(f"{array.dtype} {array.shape}\n".encode())
            found.update(np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<"), copy=False).data)
        return found.hexdigest()


def follow(text: Text, want: Iterable[Stage], running: Iterator[Stage]) -> Text:
    """Run the stages and hold each against the wanted one; fill in ``text`` and return it."""
    for expected in want:
        what = f"stage {expected.name} ({expected.by})"
        text.want[expected.name] = expected.digest
        try:
            found = next(running)
            text.stages[expected.name] = found.digest
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            text.message = text.message or f"{what}: crash: {type(error).__name__}: {error}"
            break
        text.integers += sum(array.size for array in expected.arrays.values())
        if not text.message and text.stages[expected.name] != text.want[expected.name]:
            text.message = f"{what} is the first that differs{difference(found, expected)}"
    text.status = "failed" if text.message else "passed"
    return text


def difference(found: Stage, expected: Stage) -> str:
    for name, want in expected.arrays.items():
        got = found.arrays.get(name)
        if got is not None and got.shape == want.shape and (wrong := got != want).any():
            index = tuple(int(i) for i in np.argwhere(wrong)[0])
            first = f"first {name}{list(index)}: got {got[index]}, want {want[index]}"
            return f": {int(wrong.sum())} of {want.size} integers, {first}"
    return ": another number of results, dtype or shape"
