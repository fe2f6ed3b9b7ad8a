"""Tokenizers: exact round trips, whole characters when streaming, hostile files refused."""

import tracemalloc

import numpy as np
import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st

from mamba_integer.backends.files.tokenizer import (
    BpeTokenizer,
    ByteTokenizer,
    TokenizerError,
    load_tokenizer,
    save_tokenizer,
    stream_text,
    tokenizer_hash,
)

TEXT = "the cat sat on the mat; the rat sat on the cat. Ünïcödé \U0001f43e\n" * 20


@pytest.fixture(scope="module")
def bpe():
    return BpeTokenizer.train(TEXT, 280)


@given(text=st.text())
def test_bytes_round_trip(text):
    tokenizer = ByteTokenizer()
    assert tokenizer.decode(tokenizer.encode(text)) == text


@given(text=st.text())
def test_bpe_round_trip(bpe, text):
    assert bpe.decode(bpe.encode(text)) == text
    assert all(0 <= token < bpe.vocab_size for token in bpe.encode(text))


@given(text=st.text())
def test_an_array_holds_the_ids_of_the_list(bpe, text):
    for tokenizer in (ByteTokenizer(), bpe):
        array = tokenizer.encode_array(text)
        assert array.dtype == np.int32 and array.tolist() == tokenizer.encode(text)


def test_the_ids_of_bytes_take_little_memory():
    text = "It was the best of times.\n" * 40_000
    tracemalloc.start()
    try:
        ids = ByteTokenizer().encode_array(text)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1.3 * ids.nbytes


def test_bpe_learns(bpe):
    assert bpe.vocab_size == 280
    assert len(bpe.encode(TEXT)) < 0.7 * len(TEXT.encode())


@pytest.mark.parametrize("text", ["\U0001f43e", "é", TEXT])
def test_stream_never_splits_a_character(bpe, text):
    for tokenizer in (ByteTokenizer(), bpe):
        pieces = list(stream_text(tokenizer, tokenizer.encode(text)))
        assert "".join(pieces) == text
        assert "\ufffd" not in "".join(pieces)


def test_stream_ends_an_open_character():
    assert list(stream_text(ByteTokenizer(), [0xC3])) == ["", "\ufffd"]


def test_save_and_load(bpe, tmp_path):
    for tokenizer in (ByteTokenizer(), bpe):
        save_tokenizer(tokenizer, tmp_path / "tokenizer.json")
        loaded = load_tokenizer(tmp_path / "tokenizer.json")
        assert tokenizer_hash(loaded) == tokenizer_hash(tokenizer)
        assert loaded.encode(TEXT) == tokenizer.encode(TEXT)
    assert [path.name for path in tmp_path.iterdir()] == ["tokenizer.json"]


def test_training_is_reproducible(bpe):
    assert tokenizer_hash(BpeTokenizer.train(TEXT, 280)) == tokenizer_hash(bpe)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b'{"type": "pickle"}', b"\xff\xfe", b'{"model": 3}'])
def test_hostile_files(tmp_path, content):
    path = tmp_path / "tokenizer.json"
    path.write_bytes(content)
    with pytest.raises(TokenizerError, match=r"tokenizer\.json"):
        load_tokenizer(path)


def test_the_library_reads_the_files(bpe, tmp_path):
    path = tmp_path / "tokenizer.json"
    for tokenizer in (ByteTokenizer(), bpe):
        save_tokenizer(tokenizer, path)
        theirs = tokenizers.Tokenizer.from_file(str(path))
        for text in (TEXT, "", "\0\r\n \u2028", "  two  blanks "):
            assert theirs.encode(text).ids == tokenizer.encode(text)
            assert theirs.decode(tokenizer.encode(text)) == text
    save_tokenizer(ByteTokenizer(), path)
    assert tokenizers.Tokenizer.from_file(str(path)).encode(TEXT).ids == list(TEXT.encode())
    assert isinstance(load_tokenizer(path), ByteTokenizer)


def test_text_too_short():
    with pytest.raises(TokenizerError, match=r"25\d tokens, 300 were asked for"):
        BpeTokenizer.train("ab", 300)
    for size in (255, 65537):
        with pytest.raises(TokenizerError, match=f"found {size}, allowed 256 to 65536"):
            BpeTokenizer.train("ab", size)
