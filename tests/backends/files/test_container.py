"""Hostile safetensors headers: each is refused before a byte of an array is read, in every kind of file."""

import json
import struct
from pathlib import Path

import numpy as np
import pytest

from mamba_integer.backends.files.container import CheckpointError, load_arrays, read_header, save_arrays
from mamba_integer.backends.files.model import load_checkpoint
from mamba_integer.backends.files.state import load_state
from mamba_integer.backends.files.training import read_training
from mamba_integer.spec.version import SPEC_VERSION

HEADER = {"format": "kind", "spec_version": SPEC_VERSION}
ARRAYS = {"a": np.arange(6, dtype=np.int32).reshape(2, 3), "b": np.arange(4, dtype=np.int8)}


@pytest.fixture
def path(tmp_path):
    save_arrays(tmp_path / "file", ARRAYS, HEADER)
    return tmp_path / "file"


def text_of(path) -> str:
    content = path.read_bytes()
    return content[8 : 8 + struct.unpack("<Q", content[:8])[0]].decode()


def replace_header(path, text: str) -> None:
    content = path.read_bytes()
    body = content[8 + struct.unpack("<Q", content[:8])[0] :]
    path.write_bytes(struct.pack("<Q", len(text.encode())) + text.encode() + body)


def test_the_good_file_is_read(path):
    assert read_header(path, "kind", ())["spec_version"] == SPEC_VERSION
    assert {name: array.tolist() for name, array in load_arrays(path, 1 << 20).items()} == {
        name: array.tolist() for name, array in ARRAYS.items()
    }


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"shape": [-2, -3]}, "integers >= 0"),
        ({"shape": [1 << 62, 1 << 62]}, "don't hold"),
        ({"shape": [1 << 64, 0]}, "integers >= 0"),
        ({"shape": [1] * 100000}, "at most 8 integers"),
        ({"shape": [2, True]}, "integers >= 0"),
        ({"shape": [2.0, 3]}, "integers >= 0"),
        ({"shape": "23"}, "integers >= 0"),
        ({"shape": [3, 3]}, "don't hold"),
        ({"data_offsets": [-24, 0]}, "integers >= 0"),
        ({"data_offsets": [24, 0]}, "don't hold"),
        ({"data_offsets": [0, 24, 24]}, "don't hold"),
        ({"data_offsets": [4, 28]}, "overlap or leave a gap"),
        ({"data_offsets": [100, 124]}, "overlap or leave a gap"),
        ({"dtype": "F32"}, "found dtype 'F32'"),
        ({"dtype": ["I32"]}, "found dtype"),
        ({"dtype": None}, "found dtype None"),
        ({"extra": 1}, "allowed a dtype, a shape and data_offsets"),
    ],
)
def test_hostile_entries(change, message, path):
    header = json.loads(text_of(path))
    header["a"] |= change
    replace_header(path, json.dumps(header))
    with pytest.raises(CheckpointError, match=message):
        read_header(path, "kind", ())


def test_entries_that_are_no_entries(path):
    header = json.loads(text_of(path))
    for entry in ([], None, "x", {}, {"dtype": "I32", "shape": [2, 3]}):
        replace_header(path, json.dumps(header | {"a": entry}))
        with pytest.raises(CheckpointError, match="a: found"):
            read_header(path, "kind", ())


def test_a_key_that_stands_twice(path):
    text = text_of(path).rstrip()
    entry = json.dumps(json.loads(text)["a"])
    for twice in (
        f'{text[:-1]},"a":{entry}}}',
        text.replace('"dtype":', '"dtype":"I8","dtype":', 1),
        text.replace('"format":', '"format":"other","format":', 1),
        f'{text[:-1]},"__metadata__":{json.dumps(HEADER)}}}',
    ):
        replace_header(path, twice)
        with pytest.raises(CheckpointError, match="stands twice"):
            read_header(path, "kind", ())


@pytest.mark.parametrize("read", [load_checkpoint, lambda path: load_state(path, "0" * 64), read_training])
def test_every_kind_of_file_refuses_a_key_that_stands_twice(read, path):
    replace_header(path, '{"__metadata__":{"format":"a","format":"b"}}')
    with pytest.raises(CheckpointError, match="'format' stands twice"):
        read(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 100000, "nested too deep"),
        ('{"a":' * 100000, "nested too deep"),
        ('{"__metadata__": NaN}', "NaN is no JSON number"),
        ("[1]", "a list, allowed an object"),
        ("7", "is a number, allowed an object"),
        ("null", "is null, allowed an object"),
        ("", "no JSON"),
    ],
)
def test_headers_that_are_no_objects(text, message, path):
    replace_header(path, text)
    with pytest.raises(CheckpointError, match=message):
        read_header(path, "kind", ())


def test_a_folder_is_no_file_to_write(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder in (Path("."), tmp_path):
        with pytest.raises(IsADirectoryError) as error:
            save_arrays(folder, ARRAYS, HEADER)
        assert error.value.filename == str(folder) and not list(tmp_path.iterdir())
