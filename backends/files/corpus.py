"""The corpus of a run: its text as tokens in a memory-mapped file, and the order in which the run reads them.

A batch depends on the seed, the step and the row alone. The first word of Philox counter (r, t, 0, 4) decides where row
r of step t starts.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from mamba_integer.spec.model.initial import below
from mamba_integer.spec.philox import MASK, philox_words

from .atomic import write_atomically
from .regular import read_regular, regular_size
from .strict_json import parse_json
from .text import read_texts
from .tokenizer import Tokenizer, tokenizer_hash

TOKENS_FILE, CORPUS_FILE = "tokens.bin", "corpus.json"
ANEW = f"without {CORPUS_FILE} they are made anew"
DATA_DOMAIN = 4
VALIDATION_SHARE = 10
PIECE = 1 << 20
MOST_TOKENS = 1 << 32


class CorpusError(ValueError):
    """A text can't be trained on, or differs from the text that a run began with."""


@dataclass(frozen=True)
class Description:
    """The origin of a token file. Its first ``train`` tokens are for training, the others for validation."""

    text_sha256: str
    tokenizer_sha256: str
    tokens: int
    train: int
    tokens_sha256: str


@dataclass(frozen=True)
class Corpus:
    """Tokens, uint16: the first nine tenths of the text for training, the last tenth for validation."""

    train: np.ndarray
    validation: np.ndarray
    sha256: str

    def batch(self, seed: int, step: int, rows: range, length: int) -> np.ndarray:
        """Return rows of a step's batch: int32, shape (rows, length + 1)."""
        counter = np.zeros((len(rows), 4), np.uint64)
        counter[:, 0], counter[:, 1], counter[:, 3] = np.array(rows), step, DATA_DOMAIN
        words = philox_words(counter, seed & MASK, seed >> 32)[:, 0]
        starts = below(words, len(self.train) - length)
        return np.stack([self.train[start : start + length + 1] for start in starts.tolist()]).astype(np.int32)

    def windows(self, length: int, most: int) -> np.ndarray:
        """Return up to ``most`` windows of the validation text, evenly spaced: int32, shape (windows, length + 1)."""
        count = (len(self.validation) - 1) // length
        chosen = min(count, most)
        starts = [count * i // chosen * length for i in range(chosen)]
        rows = [self.validation[start : start + length + 1] for start in starts]
        return np.array(rows, np.int32).reshape(chosen, length + 1)

    def check(self, length: int) -> None:
        """Raise CorpusError unless a sequence of this length fits both parts."""
        for name, part in (("training", self.train), ("validation", self.validation)):
            if len(part) <= length:
                raise CorpusError(
                    f"corpus: {name}: found {len(part)}, allowed {length + 1} tokens or more (length + 1): take a "
                    "longer text or a shorter length"
                )


def prepare_corpus(
    files: Sequence[Path],
    tokenizer: Tokenizer,
    folder: Path,
    length: int = 0,
    progress: Callable[[int, int], None] = lambda done, all: None,
) -> Corpus:
    """Tokenise text files into ``folder``, or open the tokens that are there if they are of the same text.

    Where a ``length`` is given, tokens that hold no sequence of it are not written. ``progress`` is told how many
    characters of how many are done, in each of the two parts.

    Raises
    ------
    TextError
        A file is no text.
    CorpusError
        There is too little text; the folder holds the tokens of another text or tokenizer.
    """
    text = read_texts(files)
    if not text:
        raise CorpusError(f"corpus: {', '.join(map(str, files)) or 'no files'}: found no text")
    hashes = hashlib.sha256(text.encode()).hexdigest(), tokenizer_hash(tokenizer)
    if (folder / CORPUS_FILE).exists():
        return open_corpus(folder, *hashes)
    cut = len(text) - len(text) // VALIDATION_SHARE
    parts = [encoded(tokenizer, part, progress) for part in (text[:cut], text[cut:])]
    tokens = np.concatenate(parts)
    if len(tokens) >= MOST_TOKENS:
        raise CorpusError(f"corpus: found {len(tokens)} tokens, allowed fewer than {MOST_TOKENS}")
    stored = tokens.astype("<u2").tobytes()
    digest = hashlib.sha256(stored).hexdigest()
    if length:
        Corpus(parts[0], parts[1], digest).check(length)
    write_atomically(folder / TOKENS_FILE, stored)
    about = Description(*hashes, len(tokens), len(parts[0]), digest)
    write_atomically(folder / CORPUS_FILE, json.dumps(asdict(about), indent=1).encode())
    return open_corpus(folder, *hashes)


def encoded(tokenizer: Tokenizer, text: str, progress: Callable[[int, int], None]) -> np.ndarray:
    ids = []
    for start, piece in pieces(text):
        ids.append(tokenizer.encode_array(piece).astype(np.uint16))
        progress(start + len(piece), len(text))
    return np.concatenate(ids) if ids else np.zeros(0, np.uint16)


def pieces(text: str) -> Iterator[tuple[int, str]]:
    """Cut a text at ends of lines into pieces of about a million characters."""
    start = 0
    while start < len(text):
        end = text.find("\n", start + PIECE) + 1 or len(text)
        yield start, text[start:end]
        start = end


def open_corpus(folder: Path, text_sha256: str, tokenizer_sha256: str) -> Corpus:
    try:
        about = Description(**parse_json(read_regular(folder / CORPUS_FILE)))
        regular_size(folder / TOKENS_FILE)
        tokens = np.memmap(folder / TOKENS_FILE, "<u2", "r")
    except (OSError, ValueError, TypeError) as error:
        raise CorpusError(
            f"{folder}: its token file can't be used: {error}; remove {CORPUS_FILE} to make it anew"
        ) from error
    if about.text_sha256 != text_sha256:
        began = str(about.text_sha256)[:16]
        raise CorpusError(f"{folder}: the text changed: {text_sha256[:16]}, its tokens are of {began}; {ANEW}")
    if about.tokenizer_sha256 != tokenizer_sha256:
        began = str(about.tokenizer_sha256)[:16]
        raise CorpusError(
            f"{folder}: the tokenizer changed: {tokenizer_sha256[:16]}, its tokens are of {began}; {ANEW}"
        )
    if len(tokens) != about.tokens or hashlib.sha256(tokens.data).hexdigest() != about.tokens_sha256:
        raise CorpusError(f"{folder}: {TOKENS_FILE} is not what {CORPUS_FILE} says; remove both to make them anew")
    if type(about.train) is not int or not 0 <= about.train <= len(tokens):
        raise CorpusError(f"{folder}: {CORPUS_FILE}: train: found {about.train!r}, allowed [0, {len(tokens)}]")
    return Corpus(tokens[: about.train], tokens[about.train :], about.tokens_sha256)
