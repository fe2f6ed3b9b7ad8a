"""Text to token ids and back: raw bytes, or byte-level BPE trained with the `tokenizers` library.

Both are exact: ``decode(encode(text)) == text`` for every text. A tokenizer is one JSON file, which that library reads
too; reading it runs no code. A model's vocabulary may be larger than its tokenizer's: an id that no text has is written
as its number, ``⟨4095⟩``.
"""

import codecs
import hashlib
import io
import json
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer as BpeModel
from tokenizers import decoders, models, pre_tokenizers, trainers

from .atomic import write_atomically
from .regular import regular_size
from .strict_json import parse_json
from .tokenizer_file import BYTE_VOCABULARY, LARGEST_VOCABULARY, FieldError, byte_fields, byte_of_symbol, check_fields

LARGEST_FILE = 1 << 26


class TokenizerError(ValueError):
    """A tokenizer file that can't be used, or training text that can't make the vocabulary asked for."""


class ByteTokenizer:
    """One token per byte of UTF-8; the vocabulary is 256."""

    vocab_size = BYTE_VOCABULARY

    def encode(self, text: str) -> list[int]:
        return list(text.encode("utf-8"))

    def encode_array(self, text: str) -> np.ndarray:
        """Return the ids as int32: a list takes twice the memory or more."""
        return np.frombuffer(text.encode("utf-8"), np.uint8).astype(np.int32)

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text; bytes that are no UTF-8 (a model may write any) become U+FFFD."""
        return b"".join(self.spell(token) for token in ids).decode("utf-8", "replace")

    def to_json(self) -> str:
        return json.dumps(byte_fields(), ensure_ascii=False)

    def spell(self, token: int) -> bytes:
        """Return the bytes of one token."""
        return bytes([token]) if token < self.vocab_size else unspelled(token)


class BpeTokenizer:
    """Byte-level byte-pair encoding: every text can be encoded, no token is unknown."""

    def __init__(self, model: BpeModel):
        self._model = model
        self.vocab_size = model.get_vocab_size()
        self._bytes = byte_of_symbol()
        # The content of an added token is text, not symbols of bytes.
        self._added = {i: token.content.encode() for i, token in model.get_added_tokens_decoder().items()}

    @classmethod
    def train(cls, text: str, vocabulary: int, progress: bool = False) -> "BpeTokenizer":
        """Learn ``vocabulary`` tokens from a text.

        Raises
        ------
        TokenizerError
            The vocabulary is not in [256, 65536], or the text is too short to fill it.
        """
        if not BYTE_VOCABULARY <= vocabulary <= LARGEST_VOCABULARY:
            allowed = f"{BYTE_VOCABULARY} to {LARGEST_VOCABULARY}"
            raise TokenizerError(f"tokenizer train: vocabulary: found {vocabulary}, allowed {allowed}")
        model = BpeModel(models.BPE())
        model.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        model.decoder = decoders.ByteLevel()
        alphabet = sorted(byte_of_symbol())
        trainer = trainers.BpeTrainer(vocab_size=vocabulary, initial_alphabet=alphabet, show_progress=progress)
        model.train_from_iterator(io.StringIO(text, newline="\n"), trainer)
        if model.get_vocab_size() < vocabulary:
            raise TokenizerError(
                f"tokenizer train: the text yields {model.get_vocab_size()} tokens, {vocabulary} were asked for"
            )
        return cls(model)

    def encode(self, text: str) -> list[int]:
        return self._model.encode(text, add_special_tokens=False).ids

    def encode_array(self, text: str) -> np.ndarray:
        return np.array(self.encode(text), np.int32)

    def decode(self, ids: Iterable[int]) -> str:
        return b"".join(self.spell(token) for token in ids).decode("utf-8", "replace")

    def to_json(self) -> str:
        return self._model.to_str()

    def spell(self, token: int) -> bytes:
        if token in self._added:
            return self._added[token]
        symbols = self._model.id_to_token(token)
        return unspelled(token) if symbols is None else bytes(self._bytes[symbol] for symbol in symbols)


Tokenizer = ByteTokenizer | BpeTokenizer


def unspelled(token: int) -> bytes:
    """Return how an id beyond a tokenizer's vocabulary is shown."""
    return f"⟨{token}⟩".encode()


def tokenizer_hash(tokenizer: Tokenizer) -> str:
    """Return the SHA-256 of the tokenizer's file."""
    return hashlib.sha256(tokenizer.to_json().encode()).hexdigest()


def stream_text(tokenizer: Tokenizer, tokens: Iterable[int]) -> Iterator[str]:
    """Yield the text of tokens as they come, a character no sooner than its last byte."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    for token in tokens:
        yield decoder.decode(tokenizer.spell(token))
    yield decoder.decode(b"", final=True)


def save_tokenizer(tokenizer: Tokenizer, path: Path) -> None:
    write_atomically(path, tokenizer.to_json().encode())


def load_tokenizer(path: Path) -> Tokenizer:
    """Read a tokenizer file.

    Raises
    ------
    TokenizerError
        The file is missing, oversized, no tokenizer of either kind, or says more than a byte-level BPE does.
    """
    try:
        if (size := regular_size(path)) > LARGEST_FILE:
            raise FieldError("size", size, f"{LARGEST_FILE} bytes")
        data = path.read_bytes()
        fields = parse_json(data)
        check_fields(fields)
    except FieldError as error:
        raise TokenizerError(f"{path}: not a byte-level BPE tokenizer: {error}") from error
    except OSError as error:
        raise TokenizerError(f"{path}: can't be read: {error.strerror}") from error
    except ValueError as error:
        raise TokenizerError(f"{path}: not a tokenizer file: {error}") from error
    if fields == byte_fields():
        return ByteTokenizer()
    try:
        return BpeTokenizer(BpeModel.from_str(data.decode("utf-8-sig")))
    except Exception as error:  # the library raises plain Exception for a malformed file
        raise TokenizerError(f"{path}: not a byte-level BPE tokenizer: {error}") from error
