"""A chain of stages, each fed from the one before on the same backend: digests, and the first stage that differs."""

from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from mamba_integer.backends.escapes import told
from mamba_integer.backends.files.hashing import tensor_hash
from mamba_integer.backends.programs import RoomError
from mamba_integer.spec.model.blocks import Observe

from ..engine.comparison import interrupts
from ..report import Text

T = TypeVar("T")


@dataclass(frozen=True)
class Stage:
    """The result of one stage: its arrays by name, and the op or block that computed them."""

    name: str
    by: str
    arrays: dict[str, np.ndarray]

    @property
    def digest(self) -> str:
        """The SHA-256 of dtypes, shapes and little-endian bytes."""
        return tensor_hash(*self.arrays.values())


def observed(
    compute: Callable[[Observe], T], store: Callable[[Any], np.ndarray], by: Callable[[str], str], prefix: str = ""
) -> Generator[Stage, None, T]:
    """Yield the tensors of each layer that ``compute`` observes; a crash is raised after the layers before it.

    The gradients that a backward pass shows of a layer are a stage of their own.
    """
    seen: dict[str, Stage] = {}

    def keep(layer: str, name: str, array: Any) -> None:
        stage = f"{prefix}{layer} backwards" if name.startswith("gradient of ") else prefix + layer
        seen.setdefault(stage, Stage(stage, by(layer), {})).arrays[name] = store(array)

    crash: BaseException | None = None
    try:
        result = compute(keep)
    except interrupts():
        raise
    except BaseException as error:
        crash = error
        if seen:
            seen.popitem()  # it crashed in this layer
    yield from seen.values()
    if crash:
        raise crash
    return result


def follow(text: Text, want: Iterable[Stage], running: Iterator[Stage]) -> Text:
    """Run the stages and hold each against the wanted one; fill in ``text`` and return it."""
    for expected in want:
        place = f"stage {expected.name} ({expected.by})"
        text.want[expected.name] = expected.digest
        try:
            stage = next(running)
            text.stages[expected.name] = stage.digest
        except RoomError:
            raise
        except interrupts():
            raise
        except BaseException as error:
            text.message = text.message or f"{place}: crash: {told(error)}"
            break
        text.integers += sum(array.size for array in expected.arrays.values())
        if not text.message and text.stages[expected.name] != text.want[expected.name]:
            text.message = f"{place} is the first that differs{difference(stage, expected)}"
    text.status = "failed" if text.message else "passed"
    return text


def first_difference(reference: Iterable[Stage], golden: Iterable[Stage]) -> str:
    """Return the difference of a reference from the golden stages, or an empty text."""
    for stage, expected in zip(reference, golden, strict=True):
        if stage.digest != expected.digest:
            return f"the reference is not golden: stage {expected.name}{difference(stage, expected)}"
    return ""


def difference(stage: Stage, expected: Stage) -> str:
    for name, want in expected.arrays.items():
        got = stage.arrays.get(name)
        if got is not None and got.shape == want.shape and (wrong := got != want).any():
            index = tuple(int(i) for i in np.argwhere(wrong)[0])
            first = f"first {name}{list(index)}: got {got[index]}, want {want[index]}"
            return f": {int(wrong.sum())} of {want.size} integers, {first}"
    return ": another number of results, dtype or shape"
