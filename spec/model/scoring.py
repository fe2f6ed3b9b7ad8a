"""The score of a model on a text, in bits and exactly: losses in Q.16 are integers, and so is their sum."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from .language_model import LanguageModel

CHUNK = 512
LOSS_BITS = 16  # the losses of cross_entropy_pow2 are in Q.16


class ScoreError(ValueError):
    """A text that is too short to score."""


@dataclass(frozen=True)
class Score:
    """The sum of the losses of a text's tokens, in Q.16 bits. The first token is not predicted and costs nothing."""

    loss: int
    tokens: int

    @property
    def bits(self) -> Fraction:
        return Fraction(self.loss, 1 << LOSS_BITS)


def score(
    model: LanguageModel,
    ids: Sequence[int] | np.ndarray,
    chunk: int = CHUNK,
    progress: Callable[[int], None] = lambda tokens: None,
) -> Score:
    """Return the score of a text of two tokens or more.

    The text is read in chunks with the state carried over, so memory doesn't grow with it; no length of ``chunk``
    changes the score. ``progress`` is told after each chunk how many more tokens were scored.

    Raises
    ------
    ScoreError
        There are fewer than two tokens.
    DomainError
        A token out of the vocabulary; a text longer than MOST_TOKENS, which is refused before any work.
    """
    if len(ids) < 2:
        raise ScoreError(f"score: found {len(ids)}, allowed 2 tokens or more: the first is not predicted")
    state, loss = model.new_state(1), 0
    model.check_room(state, len(ids) - 1)
    tokens = np.asarray(ids, np.int32)[None]
    for start in range(0, len(ids) - 1, chunk):
        end = min(start + chunk, len(ids) - 1)
        logits, state = model.prefill(tokens[:, start:end], state)
        target = model.from_numpy(np.ascontiguousarray(tokens[:, start + 1 : end + 1]))
        losses = model.ops.cross_entropy_pow2(logits, target, f=model.formats.activation)
        loss += int(model.to_numpy(losses).sum(dtype=np.int64))
        progress(end - start)
    return Score(loss, len(ids) - 1)


def bits_per_byte(score: Score, size: int) -> Fraction:
    """Return the bits for each of the ``size`` bytes that the scored tokens stand for."""
    return score.bits / size


def show(value: Fraction, digits: int = 4) -> str:
    """Return a fraction >= 0 as a decimal, rounded by integers to the nearest, halves up.

    >>> show(Fraction(2, 3))
    '0.6667'
    """
    unit = 10**digits
    nearest = (2 * value.numerator * unit + value.denominator) // (2 * value.denominator)
    return f"{nearest // unit}.{nearest % unit:0{digits}}"
