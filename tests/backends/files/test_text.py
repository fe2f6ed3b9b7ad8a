"""The one rule of text: UTF-8 as it is or gzipped, no NUL, a newline between files, lines that end in newlines."""

import gzip
import io

import pytest

from mamba_integer.backends.files.source import LONGEST, Source
from mamba_integer.backends.files.text import (
    TextError,
    decode_text,
    lines_of,
    read_stream,
    read_text,
    read_texts,
)

TEXT = "\ufeffIt was\r\nthe best\u2028of\x0c times é 日 \U0001f43e\n\n"


def write(path, content: str | bytes):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_text_comes_as_it_is(tmp_path):
    assert read_text(write(tmp_path / "plain", TEXT)) == TEXT
    assert read_text(write(tmp_path / "no-suffix", gzip.compress(TEXT.encode()))) == TEXT
    assert read_text(write(tmp_path / "members.gz", gzip.compress(b"a\n") + gzip.compress(b"b"))) == "a\nb"
    assert read_text(write(tmp_path / "plain.gz", TEXT)) == TEXT
    assert decode_text("stdin", gzip.compress(TEXT.encode())) == TEXT
    assert read_text(write(tmp_path / "empty", b"")) == ""


@pytest.mark.parametrize(
    ("contents", "joined"),
    [
        (["a", "b"], "a\nb"),
        (["a\n", "b\r\n", "c"], "a\nb\r\nc"),
        (["a", "", "b"], "a\nb"),
        (["", "a", ""], "a"),
        (["a\r", "b"], "a\r\nb"),
        ([], ""),
    ],
)
def test_files_are_joined_by_newlines(contents, joined, tmp_path):
    assert read_texts([write(tmp_path / str(i), text) for i, text in enumerate(contents)]) == joined


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"ab\xff", "not UTF-8 at byte 2"),
        (b"\xed\xa0\x80", "not UTF-8"),
        (b"text\0text", "NUL at character 4"),
        (gzip.compress(b"text\0text", mtime=0), "NUL at character 4"),
        (gzip.compress(b"text" * 99, mtime=0)[:-9], "gzip data is damaged"),
        (gzip.compress(b"text" * 99, mtime=0)[:20] + b"xx", "gzip data is damaged"),
        (b"\x1f\x8b", "gzip data is damaged"),
        (gzip.compress(b"text", mtime=0) + b"trailing", "gzip data is damaged"),
    ],
)
def test_files_that_hold_no_text(content, message, tmp_path):
    path = write(tmp_path / "text", content)
    with pytest.raises(TextError, match=message) as error:
        read_text(path)
    assert str(error.value).startswith(f"{path}: ")
    with pytest.raises(TextError, match="stdin: "):
        decode_text("stdin", content)


def test_files_that_cannot_be_read(tmp_path):
    for path in (tmp_path / "none", tmp_path):
        with pytest.raises(TextError, match="can't be read"):
            read_text(path)


def test_a_text_that_is_too_long(tmp_path, monkeypatch):
    monkeypatch.setattr("mamba_integer.backends.files.text.LONGEST_TEXT", 99)
    for content in (b"a" * 100, gzip.compress(b"a" * 100)):
        with pytest.raises(TextError, match="more than 99 bytes"):
            read_text(write(tmp_path / "text", content))
        with pytest.raises(TextError, match="stdin: found more than 99 bytes"):
            read_stream("stdin", io.BytesIO(content))
    assert len(read_text(write(tmp_path / "text", b"a" * 99))) == 99


@pytest.mark.parametrize("before", range(8))
def test_a_source_is_cut_between_characters(before, tmp_path):
    text = "a" * (LONGEST - before) + "é日\U0001f43eb"
    for content in (text.encode(), gzip.compress(text.encode())):
        start = Source.of_file(write(tmp_path / "text", content)).data
        assert len(start) <= LONGEST and text.startswith(start.decode())
        assert LONGEST - len(start) < 4


def test_a_source_is_the_start_of_a_text(tmp_path):
    assert Source.of_file(write(tmp_path / "text", "é" * LONGEST)).data == "é".encode() * (LONGEST // 2)
    long = b"a" * 5000
    for content, message in (
        (b"", "no text"),
        (b"a\xffb", "not UTF-8 at byte 1"),
        (b"\0", "NUL"),
        (long + b"\xff", "not UTF-8 at byte 5000"),
        (long + b"\0", "NUL at character 5000"),
        (gzip.compress(long + b"\xff"), "not UTF-8 at byte 5000"),
        (gzip.compress(long)[:-9], "gzip data is damaged"),
    ):
        with pytest.raises(TextError, match=message):
            Source.of_file(write(tmp_path / "text", content))


def test_text_is_compressed_once(tmp_path):
    with pytest.raises(TextError, match="not UTF-8 at byte 1"):
        read_text(write(tmp_path / "text", gzip.compress(gzip.compress(b"a"))))


def test_only_newlines_end_lines():
    assert lines_of("a\nb\r\nc\u2028d\x0ce\x85f\rg\n\n h") == ["a", "b", "c\u2028d\x0ce\x85f\rg", "", " h"]
    assert lines_of("") == [] and lines_of("\n") == [""] and lines_of("a") == ["a"] and lines_of("a\n") == ["a"]
