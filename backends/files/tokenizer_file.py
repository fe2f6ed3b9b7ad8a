"""The allowed content of a byte-level BPE tokenizer's file, in the format of the `tokenizers` library.

That format can also say things that lose text or let chance decide: truncation, a normalizer, dropout, tokens that
strip the blanks beside them. Only fields whose effect is a byte-level BPE are accepted, and every byte must be a token.
"""

from collections.abc import Mapping
from typing import Any

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
        raise FieldError("file", type(fields).__name__, "a JSON object")
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
        if vocabulary.get(token["content"], token["id"]) != token["id"]:
            raise FieldError(f"added_tokens[{i}].id", token["id"], f"{vocabulary[token['content']]} as in model.vocab")
    names = {token["content"] for token in added}
    _check_vocabulary({symbol: i for symbol, i in vocabulary.items() if symbol not in names}, added)


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


def _check_vocabulary(vocabulary: Mapping[str, int], added: list[dict[str, Any]]) -> None:
    symbols = byte_of_symbol()
    for symbol in vocabulary:
        if not symbol or not symbols.keys() >= set(symbol):
            raise FieldError("model.vocab", symbol, "symbols that stand for bytes")
    if missing := symbols.keys() - vocabulary.keys():
        raise FieldError("model.vocab", f"{len(missing)} bytes without a token", "a token for every byte")
    ids = sorted([*vocabulary.values(), *(token["id"] for token in added)])
    if ids != list(range(len(ids))) or len(ids) > LARGEST_VOCABULARY:
        last = min(len(ids), LARGEST_VOCABULARY) - 1
        raise FieldError("model.vocab", f"ids from {ids[0]} to {ids[-1]}", f"each id from 0 to {last} once")


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
