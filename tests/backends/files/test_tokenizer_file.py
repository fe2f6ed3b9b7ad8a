"""A tokenizer file says a byte-level BPE or is refused: each field that loses text, adds tokens or lets chance in."""

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

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
        ({"aa": len(vocabulary) + 1}, "found 'ids from 0 to 271', allowed each id from 0 to 270 once"),
        ({"aa": 10**30}, "each id from 0 to 270 once"),
        ({"aa": 5}, "each id from 0 to 270 once"),
        ({"aa": -1}, "each id from 0 to 270 once"),
    ):
        with pytest.raises(TokenizerError, match=message):
            load(model={"vocab": vocabulary | change})
    with pytest.raises(
        TokenizerError, match="found 'symbols of 255 bytes', allowed symbols of all 256 bytes; 'a' has no token"
    ):
        load(model={"vocab": {("aa" if symbol == "a" else symbol): i for symbol, i in vocabulary.items()}})


@pytest.mark.parametrize(
    "change", [{"lstrip": True}, {"rstrip": True}, {"single_word": True}, {"content": ""}, {"id": "1"}, {"colour": 1}]
)
def test_added_tokens_that_lose_text(change, load):
    with pytest.raises(TokenizerError, match=r"added_tokens\[0\]"):
        load(added_tokens=[ADDED | change])


@pytest.mark.parametrize("content", ["a", "é", "Ġ"])
def test_an_added_token_that_is_a_symbol_of_a_byte_is_named(content, load, fields):
    added = [ADDED, ADDED | {"id": fields["model"]["vocab"][content], "content": content}]
    with pytest.raises(
        TokenizerError, match=rf"added_tokens\[1\]\.content: found '{content}', allowed no symbol of a "
    ):
        load(added_tokens=added)


def test_a_tokenizer_is_utf_8(load, fields, tmp_path):
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(fields), "utf-16")
    with pytest.raises(TokenizerError, match="not a tokenizer file: not UTF-8 at byte 0"):
        load_tokenizer(path)
    path.write_text(json.dumps(fields), "utf-8-sig")  # as every other JSON file may begin
    assert load_tokenizer(path).to_json() == load().to_json()


def test_added_tokens_whose_ids_are_taken(load, fields):
    taken = next(symbol for symbol, i in fields["model"]["vocab"].items() if i == 260)
    for change, field in (({"id": 5}, "vocab"), ({"id": 999}, "vocab"), ({"content": taken}, "added_tokens")):
        with pytest.raises(TokenizerError, match=field):
            load(added_tokens=[ADDED | change])


@pytest.mark.parametrize(
    ("tokens", "says"),
    [
        ([(271, "<a>"), (270, "<b>")], r"added_tokens\[0\]\.id: found 271, allowed 270, the next id"),
        ([(270, "<a>"), (272, "<b>")], r"added_tokens\[1\]\.id: found 272, allowed 271, the next id"),
        ([(270, "<a>"), (270, "<b>")], r"added_tokens\[1\]\.id: found 270, allowed 271, the next id"),
        ([(270, "<a>"), (271, "<a>")], r"added_tokens\[1\]\.content: found '<a>', allowed each content once"),
        ([(270, "<a>"), (270, "<a>")], r"added_tokens\[1\]\.content: found '<a>', allowed each content once"),
        ([(10**30, "<a>")], r"added_tokens\[0\]\.id: found 10+, allowed 270"),
        ([(-1, "<a>")], r"added_tokens\[0\]\.id: found -1, allowed 270"),
        ([(260, "<a>")], r"added_tokens\[0\]\.id: found 260, allowed 270"),
    ],
)
def test_added_tokens_have_the_ids_that_the_library_gives_them(tokens, says, load):
    with pytest.raises(TokenizerError, match=says):
        load(added_tokens=[ADDED | {"id": i, "content": content} for i, content in tokens])


def test_an_added_token_fills_no_hole_of_the_vocabulary(fields, load):
    vocabulary = {symbol: 270 if i == 269 else i for symbol, i in fields["model"]["vocab"].items()}
    with pytest.raises(TokenizerError, match=r"model\.vocab: found 'ids from 0 to 270', allowed each id from 0 to 269"):
        load(model={"vocab": vocabulary}, added_tokens=[ADDED | {"id": 269}])


def test_an_added_token_of_the_vocabulary_spells_what_merges_make(fields, load):
    vocabulary = fields["model"]["vocab"]
    for content, lost in (("\u0120the", True), ("c\u00c3", True), ("cat", False)):
        added = [ADDED | {"id": vocabulary[content], "content": content}]
        if lost:  # it would be read from " the", and written with the letter that stands for the blank
            with pytest.raises(TokenizerError, match=r"added_tokens\[0\]\.content: found .* spells other text"):
                load(added_tokens=added)
        else:
            tokenizer = load(added_tokens=added)
            assert tokenizer.decode(tokenizer.encode(TEXT)) == TEXT


@pytest.mark.parametrize("form", [list, " ".join])
def test_merges_stand_once(form, fields, load):
    merges = [form(pair) for pair in fields["model"]["merges"]]
    assert load(model={"merges": merges}).encode("the cat") == load().encode("the cat")
    with pytest.raises(TokenizerError, match=r"model\.merges\[14\]: found .*, allowed each pair once"):
        load(model={"merges": [*merges, merges[0]]})
    with pytest.raises(TokenizerError, match=r"model\.merges: found None, allowed a list"):
        load(model={"merges": None})


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.permutations([270, 271, 272]), st.lists(st.sampled_from(["<a>", "<b>", "\u00e9", "cat", "at"]), max_size=3))
def test_each_id_is_what_the_file_says_or_the_file_is_refused(fields, load, ids, contents):
    vocabulary = fields["model"]["vocab"]
    added = [ADDED | {"id": vocabulary.get(c, i), "content": c} for i, c in zip(ids, contents, strict=False)]
    try:
        tokenizer = load(added_tokens=added)
    except TokenizerError:
        return
    for token in added:
        assert tokenizer.encode(token["content"]) == [token["id"]]
        assert tokenizer.decode([token["id"]]) == token["content"]


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
