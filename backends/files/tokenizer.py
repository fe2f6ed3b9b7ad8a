"""Text to token ids and back: raw bytes, or byte-level BPE trained with the `tokenizers` library.

Both are exact: ``decode(encode(text)) == text`` for every text. A tokenizer is one JSON file; reading it runs no code.
A model's vocabulary may be larger than its tokenizer's: an id that no text has is written as its number, ``⟨4095⟩``.
"""

import codecs
import hashlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from tokenizers import Tokenizer as BpeModel
from tokenizers import decoders, models, pre_tokenizers, trainers

from .atomic import write_atomically

BYTE_VOCABULARY = 256
LARGEST_FILE = 1 << 26


class TokenizerError(ValueError):
    """A tokenizer file that can't be used, or training text that can't make the vocabulary asked for."""


class ByteTokenizer:
    """One token a byte of UTF-8; the vocabulary is 256."""

    vocab_size = BYTE_VOCABULARY

    def encode(self, text: str) -> list[int]:
        return list(text.encode("utf-8"))

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text; bytes that are no UTF-8 (a model may write any) become U+FFFD."""
        return b"".join(self.spell(token) for token in ids).decode("utf-8", "replace")

    def to_json(self) -> str:
        return json.dumps({"type": "bytes"})

    def spell(self, token: int) -> bytes:
        """Return the bytes of one token."""
        return bytes([token]) if token < self.vocab_size else unspelled(token)


class BpeTokenizer:
    """Byte-level byte-pair encoding: every text can be encoded, no token is unknown."""

    def __init__(self, model: BpeModel):
        self._model = model
        self.vocab_size = model.get_vocab_size()
        self._bytes = byte_of_symbol()

    @classmethod
    def train(cls, files: Iterable[Path], vocabulary: int, progress: bool = False) -> "BpeTokenizer":
        """Learn ``vocabulary`` tokens from text files.

        Raises
        ------
        TokenizerError
            The vocabulary is below 256, or the text is too short to fill it.
        """
        if vocabulary < BYTE_VOCABULARY:
            raise TokenizerError(f"tokenizer train: vocabulary: found {vocabulary}, allowed {BYTE_VOCABULARY} or more")
        model = BpeModel(models.BPE())
        model.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        model.decoder = decoders.ByteLevel()
        alphabet = sorted(byte_of_symbol())
        trainer = trainers.BpeTrainer(vocab_size=vocabulary, initial_alphabet=alphabet, show_progress=progress)
        model.train([str(path) for path in files], trainer)
        if model.get_vocab_size() < vocabulary:
            raise TokenizerError(
                f"tokenizer train: the text yields {model.get_vocab_size()} tokens, {vocabulary} were asked for"
            )
        return cls(model)

    def encode(self, text: str) -> list[int]:
        return self._model.encode(text, add_special_tokens=False).ids

    def decode(self, ids: Iterable[int]) -> str:
        return b"".join(self.spell(token) for token in ids).decode("utf-8", "replace")

    def to_json(self) -> str:
        return self._model.to_str()

    def spell(self, token: int) -> bytes:
        symbols = self._model.id_to_token(token)
        return unspelled(token) if symbols is None else bytes(self._bytes[symbol] for symbol in symbols)


Tokenizer = ByteTokenizer | BpeTokenizer


def unspelled(token: int) -> bytes:
    """Return how an id beyond a tokenizer's vocabulary is shown."""
    return f"⟨{token}⟩".encode()


def byte_of_symbol() -> dict[str, int]:
    """Return the byte that each symbol of a byte-level vocabulary stands for.

    The printable bytes stand for themselves, the 68 others for the code points from 256 on, in order.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(others)}


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
        The file is missing, oversized, or no tokenizer of either kind.
    """
    try:
        if path.stat().st_size > LARGEST_FILE:
            raise TokenizerError(f"{path}: found {path.stat().st_size} bytes, allowed {LARGEST_FILE}")
        text = path.read_text("utf-8")
        fields = json.loads(text)
    except (OSError, ValueError) as error:
        raise TokenizerError(f"{path}: not a tokenizer file: {error}") from error
    if fields == {"type": "bytes"}:
        return ByteTokenizer()
    try:
        tokenizer = BpeTokenizer(BpeModel.from_str(text))
        for token in range(tokenizer.vocab_size):
            tokenizer.spell(token)
    except Exception as error:  # the library raises plain Exception for a malformed file
        raise TokenizerError(f"{path}: not a byte-level BPE tokenizer: {error!r}") from error
    return tokenizer
