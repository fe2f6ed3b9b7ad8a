"""Writing text: a model draws one token per row and step from its own logits, by the ops ``argmax`` and ``sample``.

The word that decides a token depends on the seed, the row's stream and the token's position alone, so the same seed
gives the same text on every backend, in a batch of any size, and across a pause.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Any

import numpy as np

from ..bounds import Interval
from ..contract import find_op
from ..integers import Dyadic
from .formats import Formats
from .language_model import MOST_TOKENS, LanguageModel
from .state import State, join

LARGEST_FACTOR, LARGEST_SHIFT = 2**15 - 1, 15
LAST_STREAM = 1 << 30
PREFILL = 512  # tokens of a prompt that are read at once, so that memory doesn't grow with the prompt
WHOLE = 1 << 16  # top_p keeps every token; as top_k, more than any vocabulary
UNCHANGED = Dyadic(1, 0)


class GenerationError(ValueError):
    """Options or prompts that allow no generation; the message names the value found and the value allowed."""


class OptionError(GenerationError):
    """An option that allows no generation."""

    def __init__(self, option: str, found: Any, allowed: Any):
        self.option, self.found, self.allowed = option, found, allowed
        super().__init__(f"{option}: found {found!r}, allowed {allowed}")


@dataclass(frozen=True)
class Options:
    """The rules by which tokens are chosen.

    Parameters
    ----------
    max_tokens : int in [0, 2**30]
        Tokens to write in each row.
    greedy : bool
        Take the smallest id of the greatest logit; else draw.
    seed : int in [0, 2**64 - 1]
    stream : int in [0, 2**30]
        Row i of the batch draws from stream ``stream + i`` of the seed: ``stream=i`` repeats that row alone.
    inverse_temperature : Dyadic
        See `inverse_temperature`.
    top_k : int in [1, 65536]
        How many tokens are kept at most.
    top_p : int in [1, 65536], Q.16
        The share that the kept tokens have at least.
    """

    max_tokens: int
    greedy: bool = False
    seed: int = 0
    stream: int = 0
    inverse_temperature: Dyadic = UNCHANGED
    top_k: int = WHOLE
    top_p: int = WHOLE

    def __post_init__(self):
        for name, value, allowed in (
            ("max_tokens", self.max_tokens, Interval(0, MOST_TOKENS)),
            ("stream", self.stream, Interval(0, LAST_STREAM)),
            *((p.name, self.sampling[p.name], p.range(None)) for p in find_op("sample").parameters if p.name != "f"),
        ):
            if type(value) is not int or value not in allowed:
                raise OptionError(name, value, allowed)

    @property
    def sampling(self) -> dict[str, int]:
        """The parameters of `sample` that don't come from the model's formats."""
        factor = self.inverse_temperature
        kept = {"top_k": self.top_k, "top_p": self.top_p}
        return {"seed": self.seed, "num": factor.num, "shift": factor.shift} | kept


@dataclass(frozen=True)
class Session:
    """A text so far: a state that has read all but the last token of each row, and those last tokens (NumPy int32)."""

    state: State
    last: np.ndarray


class LateSession(Session):
    """A session whose state is computed when it is first asked for."""

    compute: Callable[[], State]

    def __init__(self, last: np.ndarray, compute: Callable[[], State]):
        object.__setattr__(self, "last", last)
        object.__setattr__(self, "compute", compute)

    @cached_property
    def state(self) -> State:  # type: ignore[override]
        return self.compute()


def inverse_temperature(text: str) -> Dyadic:
    """Return one over a temperature written as a decimal, rounded to the nearest of the dyadics that `sample` takes.

    >>> inverse_temperature("0.8")
    Dyadic(num=20480, shift=14)
    """
    exact = decimal("temperature", text)
    for shift in range(LARGEST_SHIFT, -1, -1):
        num = round_half_up(Fraction(1 << shift) / exact) if exact else 0
        if 1 <= num <= LARGEST_FACTOR:
            return Dyadic(num, shift)
    raise OptionError("temperature", text, "0.00004 to 60000 (for 0, use greedy)")


def share(text: str) -> int:
    """Return a share in (0, 1] written as a decimal in Q.16, the nearest and at least 1.

    >>> share("0.9")
    58982
    """
    exact = decimal("top_p", text)
    if not 0 < exact <= 1:
        raise OptionError("top_p", text, "above 0 and at most 1")
    return max(1, round_half_up(exact * WHOLE))


def decimal(name: str, text: str) -> Fraction:
    if not re.fullmatch(r"[0-9]+(\.[0-9]*)?|\.[0-9]+", text, re.ASCII):
        raise OptionError(name, text, "a decimal like 0.8")
    return Fraction(text)


def round_half_up(x: Fraction) -> int:
    return (2 * x.numerator + x.denominator) // (2 * x.denominator)


def read(
    model: LanguageModel,
    prompts: Sequence[Sequence[int] | np.ndarray],
    session: Session | None = None,
    piece: int = PREFILL,
    progress: Callable[[int], None] = lambda tokens: None,
) -> Session:
    """Read a prompt in each row (prefill) and return the session after it.

    Rows may be of different lengths, so each is read alone, in pieces; no length of a piece changes an integer.

    Parameters
    ----------
    model : LanguageModel
    prompts : sequence of sequences of token ids
        One for each row; it may be empty where ``session`` goes on. An array of int32 is not copied.
    session : Session, optional
        The text that the prompts follow.
    piece : int >= 1
        How many tokens are read at once.
    progress : callable
        Is told after each piece how many more tokens were read.

    Raises
    ------
    GenerationError
        An empty prompt at the start of a text, or another number of prompts than the session has rows.
    DomainError
        A token out of the vocabulary; a text longer than MOST_TOKENS.
    """
    if session and len(prompts) != session.state.batch:
        raise GenerationError(f"prompts: found {len(prompts)}, allowed {session.state.batch}, the rows of the session")
    rows = []
    for row, prompt in enumerate(prompts):
        ids = np.asarray(prompt, np.int32)
        if session:
            ids = np.append(session.last[[row]], ids)
        if not ids.size:
            raise GenerationError(f"prompt {row}: found no token, allowed one or more")
        state = session.state.select([row]) if session else model.new_state(1)
        model.check_room(state, len(ids) - 1)
        rows.append((ids, state))
    states = []
    for ids, state in rows:
        for start in range(0, len(ids) - 1, piece):
            part = ids[None, start : min(start + piece, len(ids) - 1)].copy()
            _, state = model.prefill(part, state, last_only=True)
            progress(part.size)
        states.append(model.state_to_numpy(state))
    return Session(model.state_from_numpy(join(states)), np.array([ids[-1] for ids, _ in rows], np.int32))


def generate(model: LanguageModel, session: Session, options: Options) -> Iterator[Session]:
    """Decode: yield the session after each step; ``session.last`` holds the token that each row wrote.

    Raises
    ------
    DomainError
        The text would become longer than MOST_TOKENS; raised before the first token.
    """
    model.check_room(session.state, options.max_tokens)
    # An object that wraps a model watches its steps, so that these must be made one by one.
    decode = getattr(model.ops, "decode", None) if isinstance(model, LanguageModel) else None
    yield from (decode and decode(model, session, options)) or steps(model, session, options)


def steps(model: LanguageModel, session: Session, options: Options) -> Iterator[Session]:
    """Yield the session after each step, made by ``model.step``."""
    stream = model.from_numpy(np.arange(session.state.batch, dtype=np.int32) + np.int32(options.stream))
    for _ in range(options.max_tokens):
        logits, state = model.step(session.last, session.state)
        position = model.from_numpy(np.array(state.positions, np.int32))
        token = choose(model.ops, model.formats, logits, stream, position, options)
        session = Session(state, model.to_numpy(token))
        yield session


def choose(ops: Any, formats: Formats, logits: Any, stream: Any, position: Any, options: Options) -> Any:
    """Return the next token of each row; its position is the number of tokens before it."""
    if options.greedy:
        return ops.argmax(logits)
    return ops.sample(logits, stream, position, f=formats.activation, **options.sampling)
