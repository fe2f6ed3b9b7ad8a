"""Checkpoints: the same hash everywhere, and each way a file can be wrong has an error of its own."""

import json
import struct

import numpy as np
import pytest

from mamba_integer.backends.files.container import CheckpointError, save_arrays
from mamba_integer.backends.files.model import Checkpoint, load_checkpoint, model_header, save_checkpoint
from mamba_integer.backends.files.state import load_state, save_state
from mamba_integer.backends.files.tokenizer import ByteTokenizer, tokenizer_hash
from mamba_integer.spec.model.config import CONFIGS
from mamba_integer.spec.model.initial import initial_parameters

TINY = CONFIGS["tiny"]


@pytest.fixture(scope="module")
def checkpoint():
    return Checkpoint(TINY, initial_parameters(TINY, seed=1), tokenizer_hash(ByteTokenizer()))


@pytest.fixture
def path(checkpoint, tmp_path):
    save_checkpoint(tmp_path / "model.safetensors", checkpoint)
    return tmp_path / "model.safetensors"


def edit_header(path, change):
    content = path.read_bytes()
    length = struct.unpack("<Q", content[:8])[0]
    header = json.loads(content[8 : 8 + length])
    change(header)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + content[8 + length :])


def refuses(path, message):
    with pytest.raises(CheckpointError, match=message) as error:
        load_checkpoint(path)
    assert str(path) in str(error.value)


def test_round_trip(checkpoint, path):
    loaded = load_checkpoint(path)
    assert loaded.config == checkpoint.config
    assert loaded.sha256 == checkpoint.sha256
    assert loaded.parameters.keys() == checkpoint.parameters.keys()
    for name, array in checkpoint.parameters.items():
        assert loaded.parameters[name].dtype == array.dtype
        assert np.array_equal(loaded.parameters[name], array)
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_the_file_is_a_function_of_the_model(checkpoint, path, tmp_path):
    save_checkpoint(tmp_path / "again", checkpoint)
    assert path.read_bytes() == (tmp_path / "again").read_bytes()


def test_hash_depends_on_everything(checkpoint):
    changed = dict(checkpoint.parameters)
    changed["norm"] = changed["norm"].copy()
    changed["norm"][3] += 1
    assert Checkpoint(TINY, changed, checkpoint.tokenizer_sha256).sha256 != checkpoint.sha256
    assert Checkpoint(TINY, checkpoint.parameters, "0" * 64).sha256 != checkpoint.sha256


def test_missing(tmp_path):
    refuses(tmp_path / "none", "can't be read: No such file")


@pytest.mark.parametrize("length", [0, 5, 8, 100, -1, -1000])
def test_truncated(path, length):
    path.write_bytes(path.read_bytes()[:length])
    refuses(path, "truncated")


@pytest.mark.parametrize("place", [-1, -5000])
def test_altered(path, place):
    content = bytearray(path.read_bytes())
    content[place] ^= 0b01 if content[place] & 0b10 == 0 else 0b11
    path.write_bytes(content)
    refuses(path, "altered|invalid|codes|zeros|found")


def test_altered_value(checkpoint, path):
    """One embedding integer off by one, in range: only the content hash can tell."""
    content = bytearray(path.read_bytes())
    table = checkpoint.parameters["embedding"].tobytes()
    place = bytes(content).index(table)
    content[place] ^= 1
    path.write_bytes(content)
    refuses(path, "altered: its content hash")


def test_wrong_version(path):
    edit_header(path, lambda header: header["__metadata__"].update(spec_version="9.9.9"))
    refuses(path, "specification version: found '9.9.9'")


def test_not_a_checkpoint(path):
    path.write_bytes(b"\x80\x04K\x01." + b"x" * 100)
    refuses(path, "truncated")
    path.write_bytes(struct.pack("<Q", 20) + b"x" * 100)
    refuses(path, "no JSON")
    edit_free = struct.pack("<Q", 2) + b"{}"
    path.write_bytes(edit_free)
    refuses(path, "no mamba-integer/model file")


def test_deeply_nested_header(path):
    text = b"[" * 100000
    path.write_bytes(struct.pack("<Q", len(text)) + text)
    refuses(path, "no JSON")


def test_huge_header(path):
    with path.open("wb") as file:
        file.write(struct.pack("<Q", 1 << 25))
        file.truncate((1 << 25) + 8)
    refuses(path, "a header of 33554432 bytes")


def test_oversized(path):
    with path.open("ab") as file:
        file.truncate(path.stat().st_size + (1 << 25))
    refuses(path, "oversized")


def test_trailing_bytes(path):
    path.write_bytes(path.read_bytes() + b"xx")
    refuses(path, "truncated or damaged")


@pytest.mark.parametrize("field", ["config", "tokenizer_sha256", "content_sha256"])
def test_missing_field(path, field):
    edit_header(path, lambda header: header["__metadata__"].pop(field))
    refuses(path, f"no {field}")


def test_bad_config(path):
    def change(header):
        config = json.loads(header["__metadata__"]["config"])
        header["__metadata__"]["config"] = json.dumps(config | {"n_layer": -1})

    edit_header(path, change)
    refuses(path, "config field n_layer: found -1")


def test_other_config(path):
    def change(header):
        config = json.loads(header["__metadata__"]["config"])
        header["__metadata__"]["config"] = json.dumps(config | {"d_model": 32})

    edit_header(path, change)
    refuses(path, "embedding: found shape")


def save_unchecked(path, checkpoint, parameters):
    save_arrays(path, parameters, model_header(checkpoint.config, checkpoint.tokenizer_sha256))


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("norm", lambda a: a[:-1], "norm: found shape"),
        ("norm", lambda a: a.astype(np.int32), "norm: found dtype int32"),
        ("norm", lambda a: np.full_like(a, -32768), "norm: found -32768"),
        ("layers.0.decay", lambda a: np.full_like(a, -1), "decay: found -1"),
        ("head", lambda a: np.full_like(a, 0b10), "head: found 2"),
    ],
)
def test_wrong_arrays(checkpoint, path, name, change, message):
    save_unchecked(path, checkpoint, checkpoint.parameters | {name: change(checkpoint.parameters[name])})
    refuses(path, message)


def test_missing_and_unknown_arrays(checkpoint, path):
    save_unchecked(path, checkpoint, {k: v for k, v in checkpoint.parameters.items() if k != "norm"})
    refuses(path, "norm: found nothing")
    save_unchecked(path, checkpoint, checkpoint.parameters | {"extra": np.zeros(3, np.int8)})
    refuses(path, "extra: found an unknown array")


def test_state_round_trip(checkpoint, tmp_path):
    from mamba_integer.spec.model.language_model import LanguageModel

    model = LanguageModel(TINY, checkpoint.parameters)
    _, state = model.prefill(np.array([[1, 2, 3]], np.int32), model.new_state(1))
    path = tmp_path / "state"
    save_state(path, model.state_to_numpy(state), checkpoint.sha256)
    loaded = load_state(path, checkpoint.sha256)
    assert loaded.positions == (3,)
    for name, array in state.arrays.items():
        assert np.array_equal(loaded.arrays[name], array)
    with pytest.raises(CheckpointError, match="a state of model"):
        load_state(path, "0" * 64)
    edit_header(path, lambda header: header["__metadata__"].update(positions="[4]"))
    with pytest.raises(CheckpointError, match="altered"):
        load_state(path, checkpoint.sha256)
    for positions in ("[-4]", "[]", "4", "[true]", f"[{(1 << 30) + 1}]", f"[{10**30}]", "null"):
        edit_header(path, lambda header, positions=positions: header["__metadata__"].update(positions=positions))
        with pytest.raises(CheckpointError, match="positions: found"):
            load_state(path, checkpoint.sha256)
    with pytest.raises(CheckpointError, match="no mamba-integer/model file"):
        load_checkpoint(path)


def test_failed_write_leaves_the_old_file(checkpoint, path, monkeypatch):
    before = path.read_bytes()

    def fail(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(OSError, match="No space left"):
        save_checkpoint(path, checkpoint)
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == [path.name]
