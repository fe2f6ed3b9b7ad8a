"""A tokenizer file says a byte-level BPE or is refused: each field that loses text, adds tokens or lets chance in."""

import json

import pytest

from mamba_integer.backends.files.tokenizer import BpeTokenizer, TokenizerError, load_tokenizer

TEXT = "the cat sat on the mat; the rat sat on the cat. Ünïcödé \U0001f43e\n" * 20
BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
ADDED = {
    "id": 270,
    "content": "<|end|>",
    "single_word": False,
    "lstrip": False,
    "rstrip": False,
    "normalized": False,
    "special": True,
}
PADDING = {"strategy": {"Fixed": 99}, "direction": "Right", "pad_id": 0, "pad_type_id": 0, "pad_token": "!"}
TRUNCATION = {"direction": "Right", "max_length": 9, "strategy": "LongestFirst", "stride": 0}
TEMPLATE = {"type": "TemplateProcessing", "single": [], "pair": [], "special_tokens": {}}


@pytest.fixture(scope="module")
def fields():
    return json.loads(BpeTokenizer.train(TEXT, 270).to_json())


@pytest.fixture
def load(fields, tmp_path):
    """A function that loads the good file with some fields replaced; ``model`` are fields of its model."""

    def call(model=(), **changed):
        path = tmp_path / "tokenizer.json"
        path.write_text(json.dumps({**fields, "model": {**fields["model"], **dict(model)}, **changed}))
        return load_tokenizer(path)

    return call


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("truncation", TRUNCATION),
        ("padding", PADDING),
        ("normalizer", {"type": "Lowercase"}),
        ("normalizer", {"type": "NFC"}),
        ("pre_tokenizer", None),
        ("pre_tokenizer", {"type": "Whitespace"}),
        ("pre_tokenizer", {"type": "Sequence", "pretokenizers": [BYTE_LEVEL]}),
        ("pre_tokenizer.add_prefix_space", BYTE_LEVEL | {"add_prefix_space": True}),
        ("post_processor", TEMPLATE),
        ("post_processor", {"type": "BertProcessing", "sep": ["a", 1], "cls": ["b", 2]}),
        ("decoder", {"type": "WordPiece", "prefix": "##", "cleanup": True}),
        ("version", "2.0"),
        ("colour", "red"),
        ("added_tokens", {"a": 1}),
    ],
)
def test_fields_that_change_the_text(field, value, load):
    with pytest.raises(TokenizerError, match=rf"tokenizer\.json: not a byte-level BPE tokenizer: {field}"):
        load(**{field.partition(".")[0]: value})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("type", "Unigram"),
        ("dropout", 0.1),
        ("dropout", 0.0),
        ("unk_token", "!"),
        ("continuing_subword_prefix", "##"),
        ("end_of_word_suffix", "</w>"),
        ("byte_fallback", True),
        ("colour", "red"),
        ("vocab", []),
        ("vocab", {"a": 0}),
        ("vocab", {"a": True}),
    ],
)
def test_models_that_lose_text_or_draw(field, value, load):
    with pytest.raises(TokenizerError, match=f"model.{field}"):
        load(model={field: value})


def test_vocabularies_with_holes_and_foreign_symbols(fields, load):
    vocabulary = fields["model"]["vocab"]
    for change, message in (
        ({"日": len(vocabulary)}, "symbols that stand for bytes"),
        ({"": len(vocabulary)}, "symbols that stand for bytes"),
        ({"aa": len(vocabulary) + 1}, "each id from 0 to 270 once"),
        ({"aa": 5}, "each id from 0 to 270 once"),
        ({"aa": -1}, "each id from 0 to 270 once"),
    ):
        with pytest.raises(TokenizerError, match=message):
            load(model={"vocab": vocabulary | change})
    with pytest.raises(TokenizerError, match="1 bytes without a token"):
        load(model={"vocab": {("aa" if symbol == "a" else symbol): i for symbol, i in vocabulary.items()}})


@pytest.mark.parametrize(
    "change", [{"lstrip": True}, {"rstrip": True}, {"single_word": True}, {"content": ""}, {"id": "1"}, {"colour": 1}]
)
def test_added_tokens_that_lose_text(change, load):
    with pytest.raises(TokenizerError, match=r"added_tokens\[0\]"):
        load(added_tokens=[ADDED | change])


def test_added_tokens_whose_ids_are_taken(load, fields):
    taken = next(symbol for symbol, i in fields["model"]["vocab"].items() if i == 260)
    for change, field in (({"id": 5}, "vocab"), ({"id": 999}, "vocab"), ({"content": taken}, "added_tokens")):
        with pytest.raises(TokenizerError, match=field):
            load(added_tokens=[ADDED | change])


@pytest.mark.parametrize("content", ["<|end|>", "éé", "日 本"])
def test_an_added_token_is_spelled_as_its_text(content, load):
    tokenizer = load(added_tokens=[ADDED | {"content": content}])
    text = f" the {content}  cat{content}"
    ids = tokenizer.encode(text)
    assert ids.count(270) == 2 and tokenizer.vocab_size == 271
    assert tokenizer.decode(ids) == text


def test_harmless_fields_are_accepted(load):
    for changed in (
        {"post_processor": BYTE_LEVEL | {"trim_offsets": False}},
        {"decoder": None},
        {"pre_tokenizer": BYTE_LEVEL | {"use_regex": False}},
        {"model": [("ignore_merges", True), ("end_of_word_suffix", "")]},
    ):
        tokenizer = load(**changed)
        assert tokenizer.decode(tokenizer.encode(TEXT)) == TEXT


def test_a_key_that_stands_twice(fields, tmp_path):
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(fields)[:-1] + ', "version": "1.0"}')
    with pytest.raises(TokenizerError, match="key 'version' stands twice"):
        load_tokenizer(path)
