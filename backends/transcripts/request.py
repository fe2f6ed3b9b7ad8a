"""Requests for a run, as validated data that a transcript commits to."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mamba_integer.spec.integers import Dyadic
from mamba_integer.spec.model.config import ConfigError, ModelConfig
from mamba_integer.spec.model.generation import GenerationError, Options
from mamba_integer.spec.training import Options as TrainingOptions
from mamba_integer.spec.training import OptionsError

from .errors import CountError, RequestError

MOST_IDS = 1 << 20  # of a prompt or a scored text
MOST_CALLS = 1 << 20
MOST_VOCABULARY = 1 << 16
MOST_AT_ONCE = 1 << 12  # tokens of one piece, whose tensors an auditor holds together
MOST_PER_STEP = 1 << 20  # tokens of one training step
SHA256_DIGITS = 64
NAMES = {int: "an integer", bool: "true or false"}
OPTIONS = {"max_tokens": int, "greedy": bool, "seed": int, "stream": int, "top_k": int, "top_p": int}


class _Pieces:
    """Ids that are read in pieces; all but the last of them are read."""

    ids: tuple[int, ...]
    size: int

    @property
    def pieces(self) -> int:
        return -(-(len(self.ids) - 1) // self.size)

    def piece(self, call: int) -> tuple[int, int]:
        """Return the first id that a call reads, and the one after its last."""
        last = len(self.ids) - 1
        return min(call * self.size, last), min((call + 1) * self.size, last)


@dataclass(frozen=True)
class Generate(_Pieces):
    """Tokens that are written after a prompt; ``size`` tokens of the prompt are read at once."""

    prompt: tuple[int, ...]
    options: Options
    size: int
    kind = "generate"

    def __post_init__(self):
        check_ids("prompt", self.prompt, 1)
        check_count("size", self.size, MOST_AT_ONCE)
        check_count("calls", self.calls, MOST_CALLS)

    @property
    def ids(self) -> tuple[int, ...]:  # type: ignore[override]
        return self.prompt

    @property
    def calls(self) -> int:
        return self.pieces + self.options.max_tokens

    @property
    def result_length(self) -> int:
        return self.options.max_tokens

    def position(self, calls: int) -> int:
        """Return how many tokens were read after so many calls."""
        read = len(self.prompt) - 1
        return min(calls * self.size, read) if calls <= self.pieces else read + calls - self.pieces

    def to_dict(self) -> dict[str, Any]:
        factor = self.options.inverse_temperature
        options = {name: getattr(self.options, name) for name in OPTIONS}
        options |= {"num": factor.num, "shift": factor.shift}
        return {"kind": self.kind, "prompt": list(self.prompt), "size": self.size, "options": options}


@dataclass(frozen=True)
class Score(_Pieces):
    """A text whose tokens are scored, ``size`` of them at once."""

    ids: tuple[int, ...]
    size: int
    kind = "score"

    def __post_init__(self):
        check_ids("ids", self.ids, 2)
        check_count("size", self.size, MOST_AT_ONCE)
        check_count("calls", self.calls, MOST_CALLS)

    @property
    def calls(self) -> int:
        return self.pieces

    @property
    def result_length(self) -> int:
        return self.pieces

    def to_dict(self) -> dict[str, Any]:
        return {"kind": self.kind, "ids": list(self.ids), "size": self.size}


@dataclass(frozen=True)
class Train:
    """A fresh model that is trained on the tokens of a corpus."""

    config: ModelConfig
    options: TrainingOptions
    corpus_sha256: str
    tokenizer_sha256: str
    kind = "train"

    def __post_init__(self):
        check_count("steps", self.options.steps, MOST_CALLS)
        check_count("batch * length", self.options.batch * self.options.length, MOST_PER_STEP)
        for name in ("corpus_sha256", "tokenizer_sha256"):
            check_sha256(f"request: {name}", getattr(self, name))

    @property
    def calls(self) -> int:
        return self.options.steps

    @property
    def result_length(self) -> int:
        return self.options.steps

    def to_dict(self) -> dict[str, Any]:
        hashes = {"corpus_sha256": self.corpus_sha256, "tokenizer_sha256": self.tokenizer_sha256}
        return {"kind": self.kind, "config": self.config.to_dict(), "options": self.options.to_dict()} | hashes


Request = Generate | Score | Train


def parse_request(fields: Any) -> Request:
    """Return the request that ``to_dict`` gave.

    Raises
    ------
    RequestError
        The fields describe no run.
    CountError
        A run of more calls or ids than allowed.
    """
    kind = fields.get("kind") if isinstance(fields, dict) else None
    try:
        match kind:
            case "generate":
                prompt, size, options = members(fields, "prompt", "size", "options")
                return Generate(ids_of("prompt", prompt), parse_options(options), size)
            case "score":
                ids, size = members(fields, "ids", "size")
                return Score(ids_of("ids", ids), size)
            case "train":
                config, options, *hashes = members(fields, "config", "options", "corpus_sha256", "tokenizer_sha256")
                for name, one in (("config", config), ("options", options)):
                    if not isinstance(one, dict):
                        raise RequestError(f"request: {name}: found {one!r:.80}, allowed an object")
                return Train(ModelConfig.from_dict(config), TrainingOptions.from_dict(options), *hashes)
    except (ConfigError, GenerationError, OptionsError, OverflowError) as error:
        raise RequestError(f"request: {error}") from error
    raise RequestError(f"request: kind: found {kind!r:.80}, allowed generate, score or train")


def parse_options(fields: Any) -> Options:
    wanted = OPTIONS | {"num": int, "shift": int}
    values = dict(zip(wanted, members(fields, *wanted, kind=False), strict=True))
    for name, type_ in wanted.items():
        if type(values[name]) is not type_:
            raise RequestError(f"request: options: {name}: found {values[name]!r:.80}, allowed {NAMES[type_]}")
    num, shift = values.pop("num"), values.pop("shift")
    try:
        return Options(inverse_temperature=Dyadic(num, shift), **values)
    except ValueError as error:
        raise RequestError(f"request: options: {error}") from error


def members(fields: Any, *names: str, kind: bool = True) -> list[Any]:
    """Return the values of an object's fields, which are these and no others."""
    wanted = {*names, *(["kind"] if kind else [])}
    if not isinstance(fields, Mapping) or fields.keys() != wanted:
        names_found = sorted(fields) if isinstance(fields, Mapping) else fields
        raise RequestError(f"request: found {names_found!r:.200}, allowed an object of {', '.join(sorted(wanted))}")
    return [fields[name] for name in names]


def ids_of(name: str, ids: Any) -> tuple[int, ...]:
    if not isinstance(ids, list):
        raise RequestError(f"request: {name}: found {ids!r:.80}, allowed a list of token ids")
    return tuple(ids)


def check_ids(name: str, ids: tuple[Any, ...], least: int) -> None:
    if not least <= len(ids) <= MOST_IDS:
        raise CountError(f"request: {name}: found {len(ids)}, allowed {least} to {MOST_IDS} tokens")
    if any(type(one) is not int or not 0 <= one < MOST_VOCABULARY for one in ids):
        raise RequestError(f"request: {name}: found an id that is no integer of [0, {MOST_VOCABULARY - 1}]")


def check_count(name: str, value: Any, most: int) -> None:
    if type(value) is not int or not 1 <= value <= most:
        raise CountError(f"request: {name}: found {value!r:.80}, allowed 1 to {most}")


def check_sha256(name: str, value: Any) -> None:
    if not isinstance(value, str) or len(value) != SHA256_DIGITS or set(value) - set("0123456789abcdef"):
        raise RequestError(f"{name}: found {value!r:.80}, allowed {SHA256_DIGITS} hex digits")
