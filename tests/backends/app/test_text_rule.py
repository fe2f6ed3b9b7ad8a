"""Every command reads text by one rule: it reads gzip, refuses binary files, and puts newlines between files."""

import gzip
import json

import pytest

from mamba_integer.backends.files.tokenizer import ByteTokenizer, load_tokenizer

TEXT = "It was the best of times, it was the worst of times. é\n" * 8
QUICK = ("--steps", "1", "--batch", "1", "--length", "8", "--windows", "1")
COMMANDS = {
    "generate": ("generate", "--model", "tiny", "--max-tokens", "1", "--file"),
    "score": ("score", "--model", "tiny"),
    "inspect": ("inspect", "--model", "tiny", "--text"),
    "tokenizer train": ("tokenizer", "train", "--vocabulary", "260", "--out", "{out}"),
    "train": ("train", *QUICK, "--out", "{out}", "--text"),
    "finetune": ("finetune", "shakespeare", *QUICK, "--out", "{out}", "--text"),
    "conform": ("conform", "--op", "isqrt", "--text"),
}


@pytest.fixture
def on_file(cli, tmp_path):
    """A function that runs a command on a file of some content."""

    def run(command, content: bytes, *more):
        path = tmp_path / "text"
        path.write_bytes(content)
        return cli(*(word.format(out=tmp_path / "out") for word in COMMANDS[command]), path, *more)

    return run


@pytest.mark.parametrize("command", COMMANDS)
def test_binary_files_are_refused(command, on_file, tmp_path):
    for content, says in (
        (b"text\0text", "NUL at character 4"),
        (b"text\xff" * 9, "not UTF-8 at byte 4"),
        (b"text" * 999 + b"\xff", "not UTF-8 at byte 3996"),
        (b"text" * 999 + b"\0", "NUL at character 3996"),
        (gzip.compress(TEXT.encode(), mtime=0)[:40], "gzip data is damaged"),
    ):
        done = on_file(command, content)
        assert done.code == 2 and not done.out and says in done.err and done.err.count("\n") == 1, done.err
        assert str(tmp_path / "text") in done.err and not (tmp_path / "out").exists()


@pytest.mark.parametrize("command", ["generate", "score", "inspect", "tokenizer train"])
def test_gzip_is_read_as_what_it_holds(command, on_file, tmp_path):
    results = []
    for content in (TEXT.encode(), gzip.compress(TEXT.encode())):
        fields = on_file(command, content, "--json").json()
        results.append({name: value for name, value in fields.items() if "second" not in name})
        if command == "tokenizer train":
            results[-1]["file"] = (tmp_path / "out").read_bytes()
    assert results[0] == results[1]


def test_files_of_a_run_are_parted_by_newlines(cli, tmp_path):
    files = []
    for name in "ab":
        files += ["--text", tmp_path / name]
        (tmp_path / name).write_bytes(name.encode() * 60)
    done = cli("train", *QUICK, *files, "--out", tmp_path / "run")
    assert done.code == 0, done.err
    tokens = (tmp_path / "run/tokens.bin").read_bytes()[::2]
    assert tokens == b"a" * 60 + b"\n" + b"b" * 60
    assert isinstance(load_tokenizer(tmp_path / "run/tokenizer.json"), ByteTokenizer)


def test_lines_end_in_newlines_alone(cli, tmp_path):
    path = tmp_path / "lines"
    path.write_bytes("a\u2028b\r\n\n \t\nc\x0cd\x85e\n".encode())
    lines = ("generate", "--model", "tiny", "--lines", "--max-tokens", "1", "--json")
    done = cli(*lines, "--file", path)
    assert len(done.json()["tokens"]) == 2
    assert done.err == "mamba-integer: note: skipped 2 blank lines\n"
    assert cli(*lines, stdin=b"x").json()["tokens"] and cli(*lines, stdin=b"x\n").err == ""
    for content in (b"", b"\n \n"):
        done = cli(*lines, stdin=content)
        assert done.code == 2 and "--lines: found" in done.err


def test_prompts_hold_text(cli):
    for stdin, says in ((b"a\0", "stdin: no text: NUL"), (b"\xff", "stdin: no text: not UTF-8")):
        done = cli("generate", "--model", "tiny", stdin=stdin)
        assert done.code == 2 and says in done.err
    done = cli("generate", "--model", "tiny", "--greedy", "--max-tokens", "3", "--json", stdin=gzip.compress(b"It was"))
    plain = cli("generate", "--model", "tiny", "--greedy", "--max-tokens", "3", "--json", "--prompt", "It was")
    assert json.loads(done.out)["tokens"] == plain.json()["tokens"]
