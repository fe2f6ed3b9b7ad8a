"""Text of strangers is shown and never obeyed: all that is printed goes through the one function of escapes."""

import ast
import os
import pty
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mamba_integer import backends, conformance
from mamba_integer.backends.app.generate_command import CONTROLS
from mamba_integer.backends.escapes import escaped

EVIL = "a\x1b[2J\u202e"
SHOWN = r"a\x1b[2J\u202e"


@given(st.text(), st.sampled_from(["", "\n", "\n\t"]))
def test_whatever_is_not_printable_is_an_escape(text, kept):
    shown = escaped(text, kept)
    assert all(c.isprintable() or c in kept for c in shown)
    assert shown == text or not text.isprintable()


def test_the_names_of_files_are_shown(cli, tmp_path):
    text, folder = tmp_path / EVIL, tmp_path / f"folder {EVIL}"
    text.write_text("It was the best of times.\n" * 40)
    for command, out in (
        (["inspect", "--model", "tiny", "--text", text], SHOWN),
        (["init", folder, "--model", "tiny"], SHOWN),
        (["init", folder, "--model", "tiny"], f"folder {SHOWN} holds a model"),
        (["tokenizer", "train", text, "--vocabulary", "260", "--out", tmp_path / f"{EVIL}.json"], SHOWN),
        (["vectors", "export", tmp_path / f"vectors {EVIL}", "--op", "isqrt"], SHOWN),
        (["commit", tmp_path / f"transcript {EVIL}", "--model", "tiny", "--prompt", EVIL, "--max-tokens", "2"], SHOWN),
        (["audit", tmp_path / f"transcript {EVIL}", "--model", "tiny"], SHOWN),
        (["dispute", tmp_path / f"transcript {EVIL}", tmp_path / f"transcript {EVIL}"], SHOWN),
        (["score", tmp_path / f"no {EVIL}"], SHOWN),
    ):
        done = cli(*command)
        assert out in done.out + done.err, command
        assert all(c.isprintable() or c == "\n" for c in done.out + done.err), command


TEXT = ("--model", "tiny", "--prompt", "a", "--max-tokens", "10", "--backend", "golden")
NOISE = ("generate", *TEXT, "--temperature", "99", "--seed", "55")


@pytest.mark.parametrize("prompts", [(), ("--prompt", "b")])
def test_a_terminal_shows_the_controls_of_generated_text(prompts, run_cli):
    piped = run_cli(*NOISE, *prompts).out
    assert "\x08" in piped and r"\x08" not in piped, "a pipe gets the text as it is"
    shown = on_a_terminal(run_cli, *NOISE, *prompts)
    assert r"\x08" in shown and not CONTROLS.search(shown)


def on_a_terminal(run_cli, *arguments: str) -> str:
    """Run a command whose stdout is a terminal; return what it writes there, a part of it if there is much."""
    ours, theirs = pty.openpty()
    try:
        done = run_cli(*arguments, stdout=theirs)
        assert done.code == 0, done.err
        return os.read(ours, 1 << 16).decode(errors="replace")
    finally:
        os.close(ours)
        os.close(theirs)


def test_no_module_lays_out_text_by_itself():
    """Rich lays out text as it comes: a console and its text are those of the module `terminal`."""
    for package in (backends, conformance):
        root = Path(package.__file__).resolve().parent
        for path in set(root.rglob("*.py")) - {root / "app/terminal.py"}:
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                assert getattr(node, "module", None) != "rich.text", path
                assert not (isinstance(node, ast.Call) and ast.unparse(node.func) == "Console"), path
