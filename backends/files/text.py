"""The one rule by which every command reads text.

Text is UTF-8 without NUL characters, as it is or compressed by gzip; the first two bytes of a file tell which. Nothing
is translated: line ends, byte order marks and blanks stay. Several files are one text: a newline is put between two of
them where the former doesn't end with one.
"""

import codecs
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
    return decode_text(str(path), _read(path, LONGEST_TEXT))


def read_stream(name: str, stream: BinaryIO) -> str:
    """Return the text of a stream, such as stdin; ``name`` stands for it in errors.

    Raises
    ------
    TextError
        As `read_text`.
    """
    return decode_text(name, _bounded(name, stream, LONGEST_TEXT, whole=True))


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


def read_start(path: Path, size: int) -> bytes:
    """Return the first bytes of a file's text: at most ``size``, and no part of a character.

    Raises
    ------
    TextError
        As `read_text`; only the bytes that are returned are checked.
    """
    data = _read(path, size, whole=False)
    cut = len(data) == size  # then the last character may be a part of one, which the decoder holds back
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(data, final=not cut)
    except UnicodeDecodeError:
        text = decode_text(str(path), data)
    return decode_text(str(path), text.encode()).encode()


def decode_text(name: str, data: bytes) -> str:
    """Return bytes as text by the rule of this module; ``name`` is where they came from.

    Raises
    ------
    TextError
        As `read_text`.
    """
    if data.startswith(GZIP):
        data = _decompressed(name, io.BytesIO(data), LONGEST_TEXT, whole=True)
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


def _read(path: Path, size: int, whole: bool = True) -> bytes:
    try:
        with path.open("rb") as file:
            if file.peek(2).startswith(GZIP):
                return _decompressed(str(path), file, size, whole)
            return _bounded(str(path), file, size, whole)
    except OSError as error:
        raise TextError(f"{path}: can't be read: {error.strerror or error}") from error


def _decompressed(name: str, file, size: int, whole: bool) -> bytes:
    try:
        with gzip.GzipFile(fileobj=file) as content:
            return _bounded(name, content, size, whole)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise TextError(f"{name}: can't be read: its gzip data is damaged: {error}") from error


def _bounded(name: str, file, size: int, whole: bool) -> bytes:
    """Return at most ``size`` bytes; where the whole is wanted, more is an error."""
    content = bytearray()
    while len(content) < size and (piece := file.read(min(READ, size - len(content)))):
        content += piece
    if whole and len(content) == size and file.read(1):
        raise TextError(f"{name}: found more than {size} bytes of text, allowed {size}")
    return bytes(content)
