"""The allowed content of a byte-level BPE tokenizer's file, in the format of the `tokenizers` library.

That format can also say things that lose text or let chance decide: truncation, a normalizer, dropout, tokens that
strip the blanks beside them. Only fields whose effect is a byte-level BPE are accepted, and every byte must be a token.
"""

from collections.abc import Mapping
from typing import Any

from .strict_json import kind_of

BYTE_VOCABULARY = 256
LARGEST_VOCABULARY = 65536  # of a model

ABSENT = (None,)
SWITCH = (False, True)
BYTE_LEVEL = {"type": ("ByteLevel",), "add_prefix_space": (False,), "trim_offsets": SWITCH, "use_regex": SWITCH}
# These neither change ids nor put a token in: offsets and the library's own decoding, of which nothing is used.
HARMLESS = BYTE_LEVEL | {"add_prefix_space": SWITCH}
FIELDS: dict[str, Any] = {
    "version": ("1.0",),
    "truncation": ABSENT,
    "padding": ABSENT,
    "normalizer": ABSENT,
    "pre_tokenizer": BYTE_LEVEL,
    "post_processor": HARMLESS,
    "decoder": HARMLESS,
}
OPTIONAL = ("post_processor", "decoder")
MODEL = {
    "type": ("BPE",),
    "dropout": ABSENT,
    "unk_token": ABSENT,
    "continuing_subword_prefix": (None, ""),
    "end_of_word_suffix": (None, ""),
    "fuse_unk": SWITCH,
    "byte_fallback": (False,),
    "ignore_merges": SWITCH,
}
ADDED = {"single_word": (False,), "lstrip": (False,), "rstrip": (False,), "normalized": SWITCH, "special": SWITCH}


class FieldError(ValueError):
    """A field of a tokenizer file that no byte-level BPE has: names it, the value found and the values allowed."""

    def __init__(self, field: str, value: Any, allowed: str):
        shown = repr(value)
        super().__init__(f"{field}: found {shown if len(shown) <= 60 else f'{shown[:60]}…'}, allowed {allowed}")


def check_fields(fields: Any) -> None:
    """Raise FieldError unless the fields of a tokenizer file are those of a lossless byte-level BPE."""
    if not isinstance(fields, dict):
        raise ValueError(f"found {kind_of(fields)}, allowed an object")
    _check("", fields, FIELDS, OPTIONAL, ("added_tokens", "model"))
    model = fields.get("model")
    if not isinstance(model, dict):
        raise FieldError("model", model, "an object of type BPE")
    _check("model.", model, MODEL, tuple(MODEL)[1:], ("vocab", "merges"))
    vocabulary, added = model.get("vocab"), fields.get("added_tokens", [])
    if not isinstance(vocabulary, dict) or any(type(token) is not int for token in vocabulary.values()):
        raise FieldError("model.vocab", vocabulary, "an object of symbols and their ids")
    if not isinstance(added, list) or not all(isinstance(token, dict) for token in added):
        raise FieldError("added_tokens", added, "a list of objects")
    for i, token in enumerate(added):
        _check(f"added_tokens[{i}].", token, ADDED, tuple(ADDED), ("id", "content"))
        if type(token.get("id")) is not int or not isinstance(token.get("content"), str) or not token["content"]:
            raise FieldError(f"added_tokens[{i}]", token, "an id and a content that is not empty")
    _check_vocabulary(vocabulary, [token["content"] for token in added])
    _check_added(vocabulary, added)
    _check_merges(model.get("merges"))


def _check(prefix: str, fields: Mapping[str, Any], allowed: Mapping[str, Any], optional: tuple, others: tuple) -> None:
    for name in fields:
        if name not in allowed and name not in others:
            raise FieldError(f"{prefix}{name}", fields[name], f"only {', '.join((*allowed, *others))}")
    for name, values in allowed.items():
        value = fields.get(name)
        if name in optional and value is None:
            continue
        if isinstance(values, dict):
            if not isinstance(value, dict):
                raise FieldError(f"{prefix}{name}", value, "type ByteLevel")
            _check(f"{prefix}{name}.", value, values, tuple(values)[1:], ())
        elif not any(value is choice or (isinstance(value, str) and value == choice) for choice in values):
            raise FieldError(f"{prefix}{name}", value, " or ".join("null" if v is None else repr(v) for v in values))


def _check_added(vocabulary: Mapping[str, int], added: list[dict[str, Any]]) -> None:
    """Raise FieldError unless each added token has the id that the library gives it, whatever the file says.

    A content of the vocabulary keeps its id there; all others are numbered after the vocabulary, in their order.
    """
    symbols, new, seen = byte_of_symbol(), len(vocabulary), set()
    for i, token in enumerate(added):
        content = token["content"]
        if content in seen:
            raise FieldError(f"added_tokens[{i}].content", content, "each content once")
        seen.add(content)
        allowed = f"{new}, the next id after the vocabulary and the tokens before"
        if content in vocabulary:
            allowed = f"{vocabulary[content]} as in model.vocab"
            # Merges may make such a token of text, which it then has to spell.
            if symbols.keys() >= set(content) and bytes(symbols[c] for c in content) != content.encode():
                raise FieldError(
                    f"added_tokens[{i}].content", content, "no token of model.vocab that spells other text"
                )
        if token["id"] != vocabulary.get(content, new):
            raise FieldError(f"added_tokens[{i}].id", token["id"], allowed)
        new += content not in vocabulary


def _check_vocabulary(vocabulary: Mapping[str, int], added: list[str]) -> None:
    symbols, named = byte_of_symbol(), set(added)
    for symbol in vocabulary.keys() - named:
        if not symbol or not symbols.keys() >= set(symbol):
            raise FieldError("model.vocab", symbol, "symbols that stand for bytes")
    if missing := symbols.keys() - (vocabulary.keys() - named):
        if taken := [content for content in added if content in missing]:
            place = f"added_tokens[{added.index(taken[0])}].content"
            raise FieldError(place, taken[0], "no symbol of a byte, whose token is in model.vocab alone")
        allowed = f"symbols of all {BYTE_VOCABULARY} bytes; {min(missing)!r} has no token"
        raise FieldError("model.vocab", f"symbols of {BYTE_VOCABULARY - len(missing)} bytes", allowed)
    ids = sorted(vocabulary.values())
    if ids != list(range(len(ids))):
        raise FieldError("model.vocab", f"ids from {ids[0]} to {ids[-1]}", f"each id from 0 to {len(ids) - 1} once")
    if (size := len(vocabulary.keys() | named)) > LARGEST_VOCABULARY:
        raise FieldError("model.vocab", f"{size} tokens", f"{LARGEST_VOCABULARY}, added tokens included")


def _check_merges(merges: Any) -> None:
    """Raise FieldError where a pair of symbols has two ranks; the library refuses all else that is no merge."""
    if not isinstance(merges, list):
        raise FieldError("model.merges", merges, "a list of pairs of symbols")
    seen = set()
    for i, pair in enumerate(map(str, merges)):  # all of them are texts, or all are lists
        if pair in seen:
            raise FieldError(f"model.merges[{i}]", pair, "each pair once")
        seen.add(pair)


def byte_of_symbol() -> dict[str, int]:
    """Return the byte that each symbol of a byte-level vocabulary stands for.

    The printable bytes stand for themselves, the 68 others for the code points from 256 on, in order.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(others)}


def byte_fields() -> dict[str, Any]:
    """Return the fields of the tokenizer whose tokens are the bytes: a BPE that merges nothing."""
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    vocabulary = {symbol: byte for byte, symbol in sorted((byte, s) for s, byte in byte_of_symbol().items())}
    model = {name: values[0] for name, values in MODEL.items()} | {"vocab": vocabulary, "merges": []}
    unused: dict[str, Any] = {"truncation": None, "padding": None, "added_tokens": [], "normalizer": None}
    return {
        "version": "1.0",
        **unused,
        "pre_tokenizer": level,
        "post_processor": None,
        "decoder": level,
        "model": model,
    }
