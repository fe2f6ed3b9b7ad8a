"""The state of a model as one safetensors file, from which any backend continues."""

import json
from pathlib import Path

from mamba_integer.spec.contract import DomainError
from mamba_integer.spec.model.formats import Format, check_arrays
from mamba_integer.spec.model.generation import Session
from mamba_integer.spec.model.language_model import MOST_TOKENS, LanguageModel
from mamba_integer.spec.model.state import State
from mamba_integer.spec.version import SPEC_VERSION

from .container import CheckpointError, load_arrays, read_header, save_arrays
from .hashing import content_hash
from .strict_json import parse_json

STATE_FORMAT = "mamba-integer/state"
STATE_FIELDS = ("positions", "checkpoint_sha256")
LARGEST_STATE = 1 << 36
LAST = "last"


def save_state(path: Path, state: State, checkpoint_sha256: str) -> str:
    """Write the state of a model (NumPy arrays) atomically; return its content hash."""
    return save_arrays(path, state.arrays, state_header(state.positions, checkpoint_sha256))


def load_state(path: Path, checkpoint_sha256: str) -> State:
    """Read a state of the model of that hash; ``LanguageModel.state_from_numpy`` then checks its arrays.

    Raises
    ------
    CheckpointError
        The file is missing, truncated, no state, oversized, altered, of another specification version or another model.
    """
    header = read_header(path, STATE_FORMAT, STATE_FIELDS)
    if header["checkpoint_sha256"] != checkpoint_sha256:
        raise CheckpointError(
            f"{path}: found a state of model {header['checkpoint_sha256'][:16]}, allowed {checkpoint_sha256[:16]}, "
            "this model; open the one that wrote the state"
        )
    arrays = load_arrays(path, LARGEST_STATE)
    try:
        positions = parse_json(header["positions"])
    except ValueError as error:
        raise CheckpointError(f"{path}: its positions are no JSON: {error}") from error
    rows = positions if isinstance(positions, list) else []
    if not rows or any(type(position) is not int or not 0 <= position <= MOST_TOKENS for position in rows):
        raise CheckpointError(
            f"{path}: positions: found {positions!r:.80}, allowed a list of one or more from 0 to {MOST_TOKENS}"
        )
    if content_hash(arrays, state_header(tuple(positions), checkpoint_sha256)) != header["content_sha256"]:
        raise CheckpointError(f"{path}: altered: its content hash is not the one it was written with")
    return State(arrays, tuple(positions))


def state_header(positions: tuple[int, ...], checkpoint_sha256: str) -> dict[str, str]:
    return {
        "format": STATE_FORMAT,
        "spec_version": SPEC_VERSION,
        "positions": json.dumps(list(positions)),
        "checkpoint_sha256": checkpoint_sha256,
    }


def save_session(path: Path, session: Session, model: LanguageModel, checkpoint_sha256: str) -> str:
    """Write a session atomically, in NumPy arrays that any backend may go on from; return its content hash."""
    state = model.state_to_numpy(session.state)
    return save_state(path, State({**state.arrays, LAST: session.last}, state.positions), checkpoint_sha256)


def load_session(path: Path, model: LanguageModel, checkpoint_sha256: str) -> Session:
    """Read a session of the model of that hash.

    Raises
    ------
    CheckpointError
        As `load_state` says, or the file's arrays are not those of a session of this model.
    """
    stored = load_state(path, checkpoint_sha256)
    arrays = dict(stored.arrays)
    try:
        last = arrays.pop(LAST, None)
        token = Format((stored.batch,), "int32", "id", 0, model.config.vocab_size - 1)
        check_arrays({} if last is None else {LAST: last}, {LAST: token})
        return Session(model.state_from_numpy(State(arrays, stored.positions)), last)
    except DomainError as error:
        raise CheckpointError(f"{path}: {error}") from error
