"""Transcripts and openings from an adversary: each kind of wrong has its error, and no file does anything else."""

import contextlib
import json
import os
import shutil
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mamba_integer.backends import load
from mamba_integer.backends.files.container import LARGEST_HEADER
from mamba_integer.backends.files.tokenizer import TokenizerError, load_tokenizer
from mamba_integer.backends.transcripts import errors
from mamba_integer.backends.transcripts.audit import audit
from mamba_integer.backends.transcripts.errors import TranscriptError
from mamba_integer.backends.transcripts.folder import ENTRIES, read_transcript
from mamba_integer.backends.transcripts.header import Header, parse_header
from mamba_integer.backends.transcripts.leaf import Place
from mamba_integer.backends.transcripts.opening import parse_opening, read_opening, save_opening
from mamba_integer.backends.transcripts.request import Score, Train, parse_request
from mamba_integer.backends.transcripts.run import Replay

FUZZ = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.fixture
def copy(small, tmp_path):
    return shutil.copytree(small.folder, tmp_path / "copy")


@pytest.fixture(scope="module")
def opening(small, tmp_path_factory):
    """The file of an opening of the third op of the last call's second layer."""
    replay = Replay(small.header, load("golden"), small.build)
    state = replay.state_before(small.transcript, 8)
    *_, (_, leaves, _) = replay.leaves(state, range(8, 11))
    leaf = next(leaf for leaf in leaves if leaf.place == Place(10, 1, 3))
    path = tmp_path_factory.mktemp("openings") / "opening.safetensors"
    save_opening(path, small.transcript, leaf, np.asarray)
    return path


def change(folder, **fields):
    path = folder / "transcript.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def rewrite(folder, entries):
    entries.astype(ENTRIES).tofile(folder / "leaves.bin")
    change(folder, leaf_count=len(entries))


@pytest.mark.parametrize(
    ("fields", "error", "says"),
    [
        ({"spec_version": "0.0.1"}, errors.VersionError, "0.0.1"),
        ({"format": "mamba-integer/model"}, TranscriptError, "format"),
        ({"leaf_count": 1 << 60}, errors.CountError, "leaf_count"),
        ({"leaf_count": True}, errors.CountError, "leaf_count"),
        ({"leaf_count": 0}, errors.CountError, "leaf_count"),
        ({"leaf_count": 3}, errors.CountError, "bytes"),
        ({"calls": 1 << 60}, errors.CountError, "calls"),
        ({"calls": 12}, errors.AlteredError, "calls"),
        ({"every": 0}, errors.CountError, "every"),
        ({"every": 1.0}, errors.CountError, "every"),
        ({"result": [1]}, errors.AlteredError, "root"),
        ({"result": list(range(100))}, errors.CountError, "result"),
        ({"result": [-1]}, errors.RequestError, "result"),
        ({"result": [1 << 16]}, errors.RequestError, "result"),
        ({"root": "0" * 64}, errors.AlteredError, "root"),
        ({"root": "0" * 63}, errors.RequestError, "root"),
        ({"model_sha256": "1" * 64}, errors.AlteredError, "root"),
        ({"leaves": "layer"}, errors.AlteredError, "root"),
        ({"leaves": ["op"]}, TranscriptError, "leaves"),
        ({"more": 1}, errors.RequestError, "more"),
        ({"request": []}, errors.RequestError, "kind"),
    ],
)
def test_fields_that_are_wrong(fields, error, says, copy):
    change(copy, **fields)
    with pytest.raises(error, match=says) as raised:
        read_transcript(copy)
    assert str(copy) in str(raised.value)


def test_leaves_that_are_missing_repeated_or_reordered(copy, small):
    entries = small.transcript.entries
    swapped = entries.copy()
    swapped[[50, 60]] = swapped[[60, 50]]
    for wrong, error, says in (
        (np.delete(entries, 5), errors.MissingLeafError, "leaf 5: "),
        (entries[1:], errors.MissingLeafError, "leaf 0: "),
        (np.insert(entries, 5, entries[4]), errors.RepeatedLeafError, "leaf 5: "),
        (np.concatenate([entries[:20], entries[10:]]), errors.RepeatedLeafError, "leaf 20: "),
        (swapped, errors.ReorderedLeafError, "leaf 50: "),
        (entries[::-1], errors.ReorderedLeafError, "leaf 0: "),
    ):
        rewrite(copy, wrong)
        with pytest.raises(error, match=says):
            read_transcript(copy)
    rewrite(copy, entries)
    assert read_transcript(copy).root == small.transcript.root


def test_a_leaf_is_changed(copy, small):
    entries = small.transcript.entries.copy()
    entries["digest"][33, 7] ^= 1
    rewrite(copy, entries)
    with pytest.raises(errors.AlteredError, match="root"):
        read_transcript(copy)


def test_a_state_is_missing_altered_or_of_another_call(copy, small):
    transcript = read_transcript(copy)
    replay = Replay(small.header, load("golden"), small.build)
    states = copy / "states"
    shutil.copy(states / "4.safetensors", states / "8.safetensors")
    with pytest.raises(errors.AlteredError, match=r"8\.safetensors"):
        replay.state_before(transcript, 8)
    with pytest.raises(TranscriptError, match="oversized"):
        transcript.state(4, -LARGEST_HEADER)
    data = bytearray((states / "4.safetensors").read_bytes())
    data[-1] ^= 1
    (states / "4.safetensors").write_bytes(data)
    with pytest.raises(errors.AlteredError, match=r"4\.safetensors"):
        audit(transcript, replay, b"", 2)
    (states / "4.safetensors").unlink()
    with pytest.raises(TranscriptError, match="can't be read"):
        replay.state_before(transcript, 4)


def test_files_that_are_no_transcript(tmp_path):
    with pytest.raises(TranscriptError, match="can't be read"):
        read_transcript(tmp_path)
    for text in ("", "[" * 100_000, '{"format": 1, "format": 1}', "[]", "nan", "9" * 5000, "\ud800"):
        (tmp_path / "transcript.json").write_bytes(text.encode("utf-8", "surrogatepass"))
        with pytest.raises(TranscriptError):
            read_transcript(tmp_path)


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        ("prompt", [], errors.CountError),
        ("prompt", [1 << 16], errors.RequestError),
        ("prompt", [True], errors.RequestError),
        ("prompt", "text", errors.RequestError),
        ("size", 0, errors.CountError),
        ("size", 1 << 60, errors.CountError),
        ("size", 1 << 13, errors.CountError),
        ("options", {}, errors.RequestError),
        ("kind", "generative", errors.RequestError),
    ],
)
def test_requests_that_describe_no_run(name, value, error, small):
    with pytest.raises(error):
        parse_request(small.request.to_dict() | {name: value})


def test_an_option_of_another_type_is_told_which_is_allowed(small):
    fields = small.request.to_dict()
    for name, said in (("seed", "an integer"), ("greedy", "true or false")):
        with pytest.raises(errors.RequestError, match=f"options: {name}: found '1', allowed {said}"):
            parse_request(fields | {"options": fields["options"] | {name: "1"}})


@pytest.mark.parametrize(
    ("name", "value"),
    [("max_tokens", 1 << 25), ("max_tokens", -1), ("top_k", 0), ("num", 0), ("greedy", 1), ("shift", "1")],
)
def test_options_that_no_run_has(name, value, small):
    fields = small.request.to_dict()
    with pytest.raises(TranscriptError):
        parse_request(fields | {"options": fields["options"] | {name: value}})


def test_a_training_step_of_too_many_tokens(micro):
    options = replace(micro.options, batch=1 << 11, length=1 << 10)
    with pytest.raises(errors.CountError, match=r"batch \* length: found 2097152, allowed 1 to 1048576"):
        Train(micro.config, options, "0" * 64, "1" * 64)


def test_a_pipe_in_place_of_a_file_is_refused_at_once(copy, tmp_path):
    for name in ("leaves.bin", "transcript.json"):
        (copy / name).unlink()
        os.mkfifo(copy / name)
        with pytest.raises(TranscriptError, match=rf"{name}: can't be read: found a folder, a pipe or a device"):
            read_transcript(copy)
    os.mkfifo(tmp_path / "tokenizer.json")
    with pytest.raises(TokenizerError, match="a pipe or a device"):
        load_tokenizer(tmp_path / "tokenizer.json")
    os.mkfifo(tmp_path / "opening.safetensors")
    with pytest.raises(TranscriptError, match="a pipe or a device"):
        read_opening(tmp_path / "opening.safetensors")


def test_requests_come_back(small, micro):
    for request in (small.request, Score((1, 2, 3), 2), Train(micro.config, micro.options, "0" * 64, "1" * 64)):
        assert parse_request(json.loads(json.dumps(request.to_dict()))) == request
        header = replace(small.header, request=request)
        assert parse_header(header.to_dict()) == header
        assert parse_header(header.to_dict()).run_id == header.run_id != small.header.run_id or request is small.request


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@FUZZ
@given(data=st.data())
def test_no_header_does_more_than_raise_its_error(data, small):
    fields = small.header.to_dict()
    holder = data.draw(st.sampled_from([fields, fields["request"], fields["request"]["options"]]))
    holder[data.draw(st.sampled_from(sorted(holder)))] = data.draw(JSON)
    with contextlib.suppress(TranscriptError):
        assert isinstance(parse_header(fields), Header)


@FUZZ
@given(place=st.integers(0), flip=st.integers(1, 255))
def test_no_byte_of_an_opening_can_be_changed(opening, tmp_path_factory, place, flip):
    data = bytearray(opening.read_bytes())
    data[place % len(data)] ^= flip
    path = tmp_path_factory.mktemp("fuzz") / "opening.safetensors"
    path.write_bytes(data)
    with pytest.raises(TranscriptError):
        read_opening(path)


@FUZZ
@given(data=st.binary(max_size=200))
def test_bytes_that_are_no_opening(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("fuzz") / "opening.safetensors"
    path.write_bytes(data)
    with pytest.raises(TranscriptError):
        read_opening(path)


@FUZZ
@given(data=st.data())
def test_no_field_of_an_opening_can_be_changed(opening, data):
    """A stranger who writes a file anew, with a right content hash, can't leave its root."""
    from mamba_integer.backends.files.container import load_arrays, read_header
    from mamba_integer.backends.transcripts.opening import FIELDS, OPENING_FORMAT

    texts = read_header(opening, OPENING_FORMAT, FIELDS)
    fields = {name: json.loads(texts[name]) for name in FIELDS}
    arrays = load_arrays(opening, 1 << 20)
    assert parse_opening(fields, arrays).leaf.place == Place(10, 1, 3)
    name = data.draw(st.sampled_from(FIELDS))
    before = json.dumps(fields[name])
    if isinstance(fields[name], list | dict) and fields[name] and data.draw(st.booleans()):
        keys = sorted(fields[name]) if isinstance(fields[name], dict) else range(len(fields[name]))
        fields[name][data.draw(st.sampled_from(list(keys)))] = data.draw(JSON)
    else:
        fields[name] = data.draw(JSON)
    if json.dumps(fields[name]) == before:
        return
    with pytest.raises(TranscriptError):
        parse_opening(fields, arrays)


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        (lambda f: f["header"].update(spec_version="0.0.1"), errors.VersionError, "0.0.1"),
        (lambda f: f.update(counts=[*f["counts"][:2], 1 << 60]), errors.CountError, "counts"),
        (lambda f: f.update(place=[10, 1, 1 << 20]), errors.CountError, "place"),
        (lambda f: f.update(place=[10, 1, -1]), errors.CountError, "place"),
        (lambda f: f["path"][0].append(f["path"][0][0]), errors.CountError, "path"),
        (lambda f: f["path"][0].pop(), errors.CountError, "path"),
        (lambda f: f["path"][0].reverse(), errors.AlteredError, "root"),
    ],
)
def test_an_opening_of_another_version_count_or_path(change, error, says, opening):
    from mamba_integer.backends.files.container import load_arrays, read_header
    from mamba_integer.backends.transcripts.opening import FIELDS, OPENING_FORMAT

    texts = read_header(opening, OPENING_FORMAT, FIELDS)
    fields = {name: json.loads(texts[name]) for name in FIELDS}
    change(fields)
    with pytest.raises(error, match=says):
        parse_opening(fields, load_arrays(opening, 1 << 20))


def test_arrays_of_an_opening_are_those_of_its_op(opening, small):
    from mamba_integer.backends.files.container import load_arrays, read_header
    from mamba_integer.backends.transcripts.opening import FIELDS, OPENING_FORMAT

    texts = read_header(opening, OPENING_FORMAT, FIELDS)
    fields = {name: json.loads(texts[name]) for name in FIELDS}
    arrays = load_arrays(opening, 1 << 20)
    name = next(iter(arrays))
    with pytest.raises(TranscriptError, match="arrays"):
        parse_opening(fields, {key: array for key, array in arrays.items() if key != name})
    with pytest.raises(errors.AlteredError, match="root"):
        parse_opening(fields, arrays | {name: arrays[name] ^ 1})
    with pytest.raises(TranscriptError, match="op"):
        parse_opening(fields | {"op": "os.system"}, arrays)
