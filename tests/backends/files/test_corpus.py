"""The corpus of a run: its tokens, its split, the order of its batches, and files that are not what they say."""

import gzip
import json

import numpy as np
import pytest

from mamba_integer.backends.files.corpus import CorpusError, prepare_corpus
from mamba_integer.backends.files.text import TextError


def test_batches_are_a_function_of_seed_step_and_row(micro):
    whole = micro.corpus.batch(5, 7, range(4), 8)
    assert np.array_equal(whole[2:], micro.corpus.batch(5, 7, range(2, 4), 8))
    assert not np.array_equal(whole, micro.corpus.batch(5, 8, range(4), 8))
    assert not np.array_equal(whole, micro.corpus.batch(6, 7, range(4), 8))
    assert np.array_equal(whole[:, 1:9], np.stack([row[1:] for row in whole]))


def test_corpus_splits_at_nine_tenths(micro):
    data = micro.TEXT.encode()
    assert bytes(micro.corpus.train.astype(np.uint8)) + bytes(micro.corpus.validation.astype(np.uint8)) == data
    assert len(micro.corpus.validation) <= len(data) // 10 + 3


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "no text"), (b"\xff\xfe\x00", "not UTF-8"), (b"text\0text", "NUL"), (None, "can't be read")],
)
def test_text_that_is_none(content, message, micro, tmp_path):
    path = tmp_path / "book.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises((CorpusError, TextError), match=message):
        prepare_corpus([path], micro.tokenizer, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_gzipped_text_is_the_same_corpus(micro, tmp_path):
    path = tmp_path / "book.txt.gz"
    path.write_bytes(gzip.compress(micro.TEXT.encode()))
    assert prepare_corpus([path], micro.tokenizer, tmp_path / "run").sha256 == micro.corpus.sha256


def test_a_description_with_a_key_that_stands_twice(micro, tmp_path):
    prepare_corpus([micro.text], micro.tokenizer, tmp_path)
    about = (tmp_path / "corpus.json").read_text()
    (tmp_path / "corpus.json").write_text(about.replace('"train":', '"train": 1, "train":'))
    with pytest.raises(CorpusError, match="'train' stands twice"):
        prepare_corpus([micro.text], micro.tokenizer, tmp_path)


def test_corpus_shorter_than_a_sequence(micro):
    with pytest.raises(CorpusError, match="allowed 1001 tokens or more"):
        micro.corpus.check(1000)


def test_changed_text_and_damaged_tokens(micro, tmp_path):
    prepare_corpus([micro.text], micro.tokenizer, tmp_path)
    other = tmp_path / "other.txt"
    other.write_text(micro.TEXT + "more")
    with pytest.raises(CorpusError, match="the text changed"):
        prepare_corpus([other], micro.tokenizer, tmp_path)
    (tmp_path / "tokens.bin").write_bytes(b"\0" * 8)
    with pytest.raises(CorpusError, match=r"tokens\.bin"):
        prepare_corpus([micro.text], micro.tokenizer, tmp_path)
    (tmp_path / "corpus.json").unlink()
    made = prepare_corpus([micro.text], micro.tokenizer, tmp_path)
    about = json.loads((tmp_path / "corpus.json").read_text())
    for train_tokens in ("x", -1, 10**9, True):
        (tmp_path / "corpus.json").write_text(json.dumps(about | {"train": train_tokens}))
        with pytest.raises(CorpusError, match="train: found"):
            prepare_corpus([micro.text], micro.tokenizer, tmp_path)
    for field in ("text_sha256", "tokenizer_sha256", "tokens", "tokens_sha256"):
        for value in (7, None, []):
            (tmp_path / "corpus.json").write_text(json.dumps(about | {field: value}))
            with pytest.raises(CorpusError):
                prepare_corpus([micro.text], micro.tokenizer, tmp_path)
    (tmp_path / "corpus.json").write_text(json.dumps(about))
    assert prepare_corpus([micro.text], micro.tokenizer, tmp_path).sha256 == made.sha256
