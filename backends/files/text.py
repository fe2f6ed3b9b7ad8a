"""The one rule by which every command reads text.

Text is UTF-8 without NUL characters, as it is or compressed by gzip; the first two bytes of a file tell which. Nothing
is translated: line ends, byte order marks and blanks stay. Several files are one text: a newline is put between two of
them where the former doesn't end with one.
"""

import gzip
import io
import re
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

GZIP = b"\x1f\x8b"  # no UTF-8 text starts so
LONGEST_TEXT = 1 << 32  # bytes, after decompression
READ = 1 << 24


class TextError(ValueError):
    """A file that holds no text: names the file, the place and the reason."""


def read_text(path: Path) -> str:
    """Return the text of a file.

    Raises
    ------
    TextError
        The file can't be read, is damaged or too long, is not UTF-8, or holds a NUL character as binary files do.
    """
    try:
        with path.open("rb") as file:
            return read_stream(str(path), file)
    except OSError as error:
        raise TextError(f"{path}: can't be read: {error.strerror or error}") from error


def read_stream(name: str, stream: BinaryIO) -> str:
    """Return the text of a stream, such as stdin; ``name`` stands for it in errors.

    Raises
    ------
    TextError
        As `read_text`.
    """
    return decode_text(name, _bounded(name, stream))


def read_texts(paths: Iterable[Path]) -> str:
    """Return the text of several files, a newline between two where the former doesn't end with one.

    Raises
    ------
    TextError
        As `read_text`.
    """
    return join_texts(map(read_text, paths))


def join_texts(texts: Iterable[str]) -> str:
    parts: list[str] = []
    for text in filter(None, texts):
        if parts and not parts[-1].endswith("\n"):
            parts.append("\n")
        parts.append(text)
    return "".join(parts)


def decode_text(name: str, data: bytes) -> str:
    """Return bytes as text by the rule of this module; ``name`` is where they came from.

    Raises
    ------
    TextError
        As `read_text`.
    """
    if data.startswith(GZIP):
        data = _decompressed(name, io.BytesIO(data))
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise TextError(f"{name}: no text: not UTF-8 at byte {error.start}") from error
    if "\0" in text:
        raise TextError(f"{name}: no text: NUL at character {text.index(chr(0))}")
    return text


def lines_of(text: str) -> list[str]:
    """Return the lines of a text without their ends, which are ``\\n`` or ``\\r\\n`` and nothing else.

    >>> lines_of("a\\r\\nb\\u2028c\\n")
    ['a', 'b\\u2028c']
    """
    lines = re.split("\r?\n", text)
    return lines if lines[-1] else lines[:-1]


def _decompressed(name: str, file: BinaryIO) -> bytes:
    try:
        with gzip.GzipFile(fileobj=file) as content:
            return _bounded(name, content)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise TextError(f"{name}: can't be read: its gzip data is damaged: {error}") from error


def _bounded(name: str, file) -> bytes:
    content = bytearray()
    while piece := file.read(READ):
        content += piece
        if len(content) > LONGEST_TEXT:
            raise TextError(f"{name}: found more than {LONGEST_TEXT} bytes of text, allowed {LONGEST_TEXT}")
    return bytes(content)
