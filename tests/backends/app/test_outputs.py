"""Each command checks its outputs before it begins, whichever option or argument names them."""

import errno
import inspect
import os
import typing
from pathlib import Path

import pytest
import typer

from mamba_integer.backends.app.command_line import app
from mamba_integer.backends.app.generate_command import Text
from mamba_integer.backends.app.outputs import IN_PLACE
from mamba_integer.backends.app.plots import save_figure
from mamba_integer.backends.files import atomic, folder
from mamba_integer.backends.transcripts.folder import Writer

# What commands read. Each other path is written.
READ = {
    "audit": {"transcript", "tokenizer", "train"},
    "commit": {"tokenizer", "score", "train"},
    "conform": {"text", "known_failures"},
    "diff-trace": {"a", "b"},
    "dispute": {"a", "b", "tokenizer", "train"},
    "finetune": {"text"},
    "generate": {"file", "tokenizer", "load_state"},
    "init": {"tokenizer"},
    "inspect": {"tokenizer", "text"},
    "open": {"transcript", "tokenizer", "train"},
    "referee": {"a", "b"},
    "score": {"file", "tokenizer"},
    "tokenizer train": {"files"},
    "train": {"text", "tokenizer"},
    "vectors check": {"folder"},
}
FOLDERS = {"--pages", "--plots", "commit OUT", "finetune --out", "init FOLDER", "train --out", "vectors export FOLDER"}


def commands(group, *names):
    """Yield the words of each command, and the command."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, *names, name)
        else:
            yield (*names, name), command


def paths_of(command):
    """Yield the parameters of a command that are paths."""
    hints = typing.get_type_hints(inspect.unwrap(command.callback), include_extras=True)
    for parameter in command.params:
        hint = hints.get(parameter.name)
        if typing.get_origin(hint) is typing.Annotated and "Path" in str(typing.get_args(hint)[0]):
            yield parameter


ALL = [(words, one) for words, command in commands(typer.main.get_command(app)) for one in paths_of(command)]
WRITTEN = [(words, one) for words, one in ALL if one.name not in READ.get(" ".join(words), ())]


def shown(one):
    return one.opts[0] if one.param_type_name == "option" else one.name.upper()


def is_folder(words, one):
    return bool({shown(one), f"{' '.join(words)} {shown(one)}"} & FOLDERS)


def test_what_is_read_is_read():
    found = {}
    for words, one in ALL:
        if one.name in READ.get(" ".join(words), ()):
            found.setdefault(" ".join(words), set()).add(one.name)
    assert found == READ and len(WRITTEN) > 15


@pytest.mark.parametrize(("words", "one"), WRITTEN, ids=[f"{' '.join(words)} {shown(one)}" for words, one in WRITTEN])
def test_an_output_that_cannot_be_written_is_refused_at_once(words, one, cli, tmp_path, monkeypatch):
    """Each command is given this path alone, so that it would refuse to do any work."""
    there, below = tmp_path / "there.png", tmp_path / "folder.png"
    there.write_text("as before")
    below.mkdir()
    bad = [there, there / "below"] if is_folder(words, one) else [below, tmp_path / "none" / "x.png", there / "x.png"]
    bad.append(tmp_path / f"{'long' * 100}.png")
    name = [one.opts[0]] if one.param_type_name == "option" else []

    def refused(path):
        code, out, err = cli(*words, *name, path)
        assert code == 2 and not out and err.count("\n") == 1, err
        assert err.startswith(f"mamba-integer: {shown(one)}: ") and str(tmp_path) in err, err
        assert there.read_text() == "as before" and set(tmp_path.iterdir()) == {there, below}

    for path in bad:
        refused(path)

    def full(*arguments, **options):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(atomic.secrets, "token_hex", full)  # called for the name of a file's first version
    monkeypatch.setattr(atomic.tempfile, "TemporaryFile", full)
    refused(tmp_path / "new.png")


def given(one, path):
    return [one.opts[0], path] if one.param_type_name == "option" else [path]


def required(command, *but):
    """Return each argument and option of a command that has to be given, but these, with a value."""
    values = {"leaf": "0.0.0", "op": "isqrt", "out": "out.png", "transcript": "none", "vocabulary": 300}
    names = values.keys() - {one.name for one in but}
    ones = [one for one in command.params if one.required and one.name in names]
    return [word for one in ones for word in given(one, values[one.name])]


COMMANDS = dict(commands(typer.main.get_command(app)))
PAIRS = [(words, a, b) for words, a in WRITTEN for other, b in ALL if words == other and a is not b]
PAIRS = [(words, a, b) for words, a, b in PAIRS if not is_folder(words, a) and not is_folder(words, b)]
PAIRS = [(words, a, b) for words, a, b in PAIRS if {shown(a), shown(b)} not in map(set, IN_PLACE)]


@pytest.mark.parametrize(
    ("words", "one", "other"), PAIRS, ids=[f"{' '.join(words)} {shown(a)} {shown(b)}" for words, a, b in PAIRS]
)
def test_an_output_is_no_input_and_no_other_output(words, one, other, cli, tmp_path, monkeypatch):
    """The same file stands behind two names: once a link, once another spelling of its path."""
    monkeypatch.chdir(tmp_path)
    path, link = tmp_path / "same.png", tmp_path / "link.png"
    path.write_text("as before")
    link.symlink_to(path)
    rest = required(COMMANDS[words], one, other)
    for second in (path, link, Path("../") / tmp_path.name / "same.png"):
        code, out, err = cli(*words, *rest, *given(one, path), *given(other, second))
        assert code == 2 and not out and err.count("\n") == 1, err
        assert " names too; allowed another file" in err and shown(one) in err and shown(other) in err, err
        assert path.read_text() == "as before" and set(tmp_path.iterdir()) == {path, link}


def test_a_text_goes_on_with_its_state_in_one_file(cli, tmp_path):
    state, words = tmp_path / "state", ("generate", "--model", "tiny", "--max-tokens", 2, "--json")
    assert cli(*words, "--prompt", "a", "--save-state", state).code == 0
    before = state.read_bytes()
    assert cli(*words, "--load-state", state, "--save-state", state).code == 0
    assert state.read_bytes() != before


def test_an_output_is_no_file_of_the_model_or_the_transcript(cli, tmp_path):
    model, transcript = tmp_path / "model", tmp_path / "transcript"
    assert cli("init", model, "--model", "tiny").code == 0
    assert cli("commit", transcript, "--model", "tiny", "--prompt", "a", "--max-tokens", 1).code == 0
    for words, file in (
        (("generate", "--prompt", "a", "--model", model, "--trace"), model / "model.safetensors"),
        (("generate", "--prompt", "a", "--model", model / "model.safetensors", "--trace"), model / "model.safetensors"),
        (("open", transcript, "--leaf", "0.0.0", "--model", "tiny", "--out"), transcript / "leaves.bin"),
    ):
        before = file.read_bytes()
        code, _, err = cli(*words, file)
        assert code == 2 and f"found {file}, which " in err and file.read_bytes() == before, err


def test_a_file_in_the_folder_of_a_model_may_be_written_again(cli, tmp_path):
    folder = tmp_path / "tiny"
    for _ in range(2):
        assert cli("init", folder, "--model", "tiny", "--force").code == 0
        trace = ("--trace", folder / "trace", "--save-state", folder / "state")
        assert cli("generate", "--model", folder, "--prompt", "a", "--max-tokens", 1, *trace).code == 0


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="no folder here in which root can't write")
def test_a_folder_that_nobody_may_write_to(cli):
    code, _, err = cli("generate", "--trace", "/proc/trace")
    assert code == 2 and err.startswith("mamba-integer: --trace: /proc/trace can't be written: "), err


def test_a_read_only_file_is_refused(cli, tmp_path, monkeypatch):
    """The root user may write to any file, so what the system answers is put in its place."""
    path = tmp_path / "trace"
    path.touch()
    monkeypatch.setattr(atomic.os, "access", lambda path, mode: mode != os.W_OK)
    code, _, err = cli("generate", "--trace", path)
    assert code == 2 and "Permission denied" in err


@pytest.mark.parametrize("words", [("commit",), ("vectors", "export")])
def test_a_folder_that_holds_something_is_named(words, cli, tmp_path):
    (tmp_path / "mine").touch()
    code, _, err = cli(*words, tmp_path)
    assert code == 2 and f"{tmp_path}: found mine in this folder, allowed a new or an empty folder" in err


def test_a_picture_of_another_kind_is_refused_at_once(cli, tmp_path):
    for name in ("plot.nothing", "plot.jpg"):
        code, _, err = cli("inspect", "--plot", tmp_path / name)
        assert code == 2 and "--plot: found" in err and "ends in .png, .svg, .pdf" in err


def test_an_output_that_can_be_written_is_left_as_it_is(cli, tmp_path):
    """The command ends at an unknown model, after the check."""
    path = tmp_path / "trace"
    path.write_text("as before")
    code, _, err = cli("generate", "--model", "nowhere", "--trace", path, "--save-state", tmp_path / "state")
    assert code == 2 and "no model of that name" in err
    assert path.read_text() == "as before" and list(tmp_path.iterdir()) == [path]


def test_an_interrupted_picture_leaves_the_older_one(tmp_path):
    class Figure:
        def savefig(self, file, format):
            file.write(b"half a picture")
            raise KeyboardInterrupt

    path = tmp_path / "plot.png"
    path.write_text("as before")
    with pytest.raises(KeyboardInterrupt):
        save_figure(Figure(), path)
    assert path.read_text() == "as before" and list(tmp_path.iterdir()) == [path]


def test_an_interrupted_trace_leaves_the_older_one(cli, tmp_path, monkeypatch):
    path = tmp_path / "trace"
    path.write_text("as before")

    def interrupted(text, model, options):
        raise KeyboardInterrupt
        yield

    generate = ("generate", "--model", "tiny", "--prompt", "a", "--max-tokens", 1, "--trace", path)
    with monkeypatch.context() as patch:
        patch.setattr(Text, "write", interrupted)
        assert cli(*generate).code == 130
    assert path.read_text() == "as before" and list(tmp_path.iterdir()) == [path]
    assert cli(*generate).code == 0
    assert '"mamba-integer/trace"' in path.read_text() and list(tmp_path.iterdir()) == [path]


def test_an_interrupted_command_can_be_repeated(cli, tmp_path, monkeypatch):
    """A model's folder is filled file by file: the model itself comes last."""

    def interrupted(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(folder, "save_checkpoint", interrupted)
        assert cli("init", tmp_path / "model", "--model", "tiny").code == 130
    code, _, err = cli("generate", "--model", tmp_path / "model", "--prompt", "a")
    assert code == 2 and "model.safetensors" in err
    assert cli("init", tmp_path / "model", "--model", "tiny").code == 0
    commit = ("commit", tmp_path / "transcript", "--model", "tiny", "--prompt", "a", "--max-tokens", 2)
    with monkeypatch.context() as patch:
        patch.setattr(Writer, "finish", interrupted)
        assert cli(*commit).code == 130
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert cli(*commit).code == 0
