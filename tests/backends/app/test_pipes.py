"""A pipe or a device in place of a file is refused at once: its reader could wait for ever, or read without an end."""

import faulthandler
import os
from pathlib import Path

import pytest

from mamba_integer.backends.files.regular import read_regular

REFUSED = "found a folder, a pipe or a device, allowed a file"
SECONDS = 120  # much, for a busy machine; then the process of the tests is killed
STDERR = 2

COMPARE = ("compare", "--op", "isqrt", "--backends", "golden,numba", "--case")
KNOWN = ("conform", "--op", "isqrt", "--known-failures")
VECTORS = ("vectors", "check")


@pytest.fixture(autouse=True)
def _killed_in_time():
    faulthandler.dump_traceback_later(SECONDS, exit=True, file=STDERR)
    yield
    faulthandler.cancel_dump_traceback_later()


def piped(path: Path) -> Path:
    path.unlink(missing_ok=True)
    os.mkfifo(path)
    return path


@pytest.mark.parametrize(
    "command",
    [
        (*COMPARE, "PIPE"),
        (*KNOWN, "PIPE"),
        ("train", "--text", "text", "--steps", "1", "--out", "run", "--config", "pipe.json"),
        ("diff-trace", "PIPE", "PIPE"),
        ("generate", "--load-state", "PIPE"),
        ("score", "text", "--model", "tiny", "--tokenizer", "PIPE"),
        (*COMPARE, "/dev/null"),
        (*KNOWN, "/dev/null"),
        ("diff-trace", "/dev/null", "/dev/null"),
    ],
    ids=lambda command: " ".join((command[0], *command[-2:])),
)
def test_a_pipe_or_a_device_is_refused(command, cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text").write_text("It was")
    (tmp_path / "pipe.json").symlink_to(piped(tmp_path / "PIPE"))
    code, out, err = cli(*command)
    assert code == 2 and not out and err.count("\n") == 1 and REFUSED in err, err
    assert {path.name for path in tmp_path.iterdir()} == {"text", "PIPE", "pipe.json"}


@pytest.mark.parametrize(
    ("form", "name"),
    [
        ("jsonl", "vectors.json"),
        ("jsonl", "isqrt.requests.jsonl"),
        ("jsonl", "isqrt.expected.jsonl"),
        ("jsonl", "isqrt.answers.jsonl"),
        ("npy", "isqrt/0/call.json"),
        ("npy", "isqrt/0/v.npy"),
        ("npy", "isqrt/0/r.got.npy"),
        ("hex", "isqrt/0/shapes.hex"),
        ("hex", "isqrt/0/r.got.hex"),
        ("c-header", "isqrt.h"),
    ],
)
def test_a_pipe_among_vectors_is_refused(form, name, cli, tmp_path):
    assert cli("vectors", "export", tmp_path, "--op", "isqrt", "--preset", "smoke", "--format", form).code == 0
    piped(tmp_path / name)
    code, out, err = cli(*VECTORS, tmp_path)
    assert code == 2 and not out and err.count("\n") == 1 and REFUSED in err and name in err, err


@pytest.mark.parametrize("name", ["corpus.json", "tokens.bin", "log.jsonl"])
def test_a_pipe_in_the_folder_of_a_run_is_refused(name, cli, tmp_path):
    (tmp_path / "text").write_text("It was the best of times. " * 20)
    command = ("train", "--text", tmp_path / "text", "--length", 8, "--batch", 1, "--out", tmp_path / "run", "--resume")
    assert cli(*command, "--steps", 1, "--warmup", 0, "--last-rate", "0.0005").code == 0
    piped(tmp_path / "run" / name)
    code, _, err = cli(*command, "--steps", 2, "--warmup", 0, "--last-rate", "0.0005")
    assert code == 2 and err.count("\n") == 1 and REFUSED in err and str(tmp_path / "run") in err, err


def test_a_file_that_is_too_large_is_not_read(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"12345")
    assert read_regular(path, 5) == b"12345"
    with pytest.raises(OSError, match="found 5 bytes, allowed 4"):
        read_regular(path, 4)
