"""A short piece of real text for runs that look at a model."""

import codecs
import contextlib
import io
from dataclasses import dataclass
from pathlib import Path

from .text import TextError, read_text

LONGEST = 1024


@dataclass(frozen=True)
class Source:
    """The text that a run reads, as bytes of UTF-8, and the name of its origin."""

    name: str
    data: bytes

    @classmethod
    def default(cls) -> "Source":
        """Return the Zen of Python, which the standard library of every Python holds, the same everywhere."""
        with contextlib.redirect_stdout(io.StringIO()):
            import this
        return cls("the Zen of Python (the standard library's `this`)", codecs.decode(this.s, "rot13").encode())

    @classmethod
    def of_file(cls, path: Path) -> "Source":
        """Return the start of a file's text, whole characters in LONGEST bytes at most.

        Raises
        ------
        TextError
            The file can't be read, is empty, or holds what is no text, be it after that start.
        """
        start = read_text(path)[:LONGEST].encode()[:LONGEST]
        data = start.decode(errors="ignore").encode()  # without a part of a last character
        if not data:
            raise TextError(f"{path}: found no text, allowed one byte or more")
        return cls(f"{path.name}, the first {len(data)} bytes", data)

    def start(self, size: int) -> "Source":
        """Return the first ``size`` bytes alone, which may end inside a character."""
        return Source(f"{self.name}, the first {size} bytes", self.data[:size]) if size < len(self.data) else self
