"""Tokenizers: exact round trips, whole characters when streaming, hostile files refused."""

import json

import pytest
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
def bpe(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text(TEXT)
    return BpeTokenizer.train([path], 280)


@given(text=st.text())
def test_bytes_round_trip(text):
    tokenizer = ByteTokenizer()
    assert tokenizer.decode(tokenizer.encode(text)) == text


@given(text=st.text())
def test_bpe_round_trip(bpe, text):
    assert bpe.decode(bpe.encode(text)) == text
    assert all(0 <= token < bpe.vocab_size for token in bpe.encode(text))


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


def test_training_is_reproducible(bpe, tmp_path):
    path = tmp_path / "text.txt"
    path.write_text(TEXT)
    assert tokenizer_hash(BpeTokenizer.train([path], 280)) == tokenizer_hash(bpe)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b'{"type": "pickle"}', b"\xff\xfe", b'{"model": 3}'])
def test_hostile_files(tmp_path, content):
    path = tmp_path / "tokenizer.json"
    path.write_bytes(content)
    with pytest.raises(TokenizerError, match=r"tokenizer\.json"):
        load_tokenizer(path)


def test_foreign_tokenizer_is_refused(bpe, tmp_path):
    fields = json.loads(bpe.to_json())
    fields["model"]["vocab"]["日"] = bpe.vocab_size
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(fields))
    with pytest.raises(TokenizerError, match="not a byte-level BPE"):
        load_tokenizer(path)


def test_text_too_short(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("ab")
    with pytest.raises(TokenizerError, match=r"25\d tokens, 300 were asked for"):
        BpeTokenizer.train([path], 300)
    with pytest.raises(TokenizerError, match="found 255"):
        BpeTokenizer.train([path], 255)
