"""Audits: stretches of a run that are drawn after it was committed to, and run again."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from .folder import Transcript, check_length
from .run import Difference, Replay

DRAW = b"mamba-integer/audit\0"
TENTH = Fraction(1, 10)


@dataclass(frozen=True)
class Audit:
    """An audit's verdict: the stretches that were run again, and the first difference."""

    stretches: int
    audited: list[int]
    calls: int
    difference: Difference | None

    @property
    def accepted(self) -> bool:
        return self.difference is None

    @property
    def drawn(self) -> int:
        """The number of drawn stretches; the first is audited in any case."""
        return len(self.audited) - 1

    @property
    def chance_of_one(self) -> Fraction:
        """The probability that an audit finds one false stretch, wherever it lies after the first."""
        others = self.stretches - 1
        return Fraction(self.drawn, others) if others else Fraction(1)

    @property
    def chance_of_tenth(self) -> Fraction:
        """The least probability that an audit finds a false stretch where a tenth of them are false."""
        return 1 - (1 - TENTH) ** self.drawn if self.drawn < self.stretches - 1 else Fraction(1)


def drawn_stretches(root: bytes, nonce: bytes, stretches: int, count: int) -> list[int]:
    """Return the first stretch and ``count`` of the others, drawn by a hash of the root and the auditor's nonce.

    Whoever made the root can't know the nonce, so the draw comes after the commitment. The first stretch is always
    there, because a false prompt or false weights show in it.
    """
    key = lambda number: hashlib.sha256(DRAW + root + nonce + number.to_bytes(8, "big")).digest()  # noqa: E731
    others = sorted(range(1, stretches), key=key)[:count]
    return [0, *sorted(others)]


def audit(
    transcript: Transcript,
    replay: Replay,
    nonce: bytes,
    count: int,
    progress: Callable[[int, int], Any] = lambda done, all: None,
) -> Audit:
    """Run the drawn stretches of a transcript again; stop at the first difference.

    Raises
    ------
    TranscriptError
        The run is truncated, or a state at which a stretch starts is missing or altered.
    """
    check_length(transcript)
    stretches = transcript.header.stretches
    chosen = drawn_stretches(transcript.root, nonce, len(stretches), count)
    calls, difference = 0, None
    for done, number in enumerate(chosen, 1):
        difference = replay.check(transcript, stretches[number])
        calls += len(stretches[number])
        progress(done, len(chosen))
        if difference:
            break
    return Audit(len(stretches), chosen, calls, difference)
