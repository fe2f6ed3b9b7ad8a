"""The command line where its surroundings are unusual: pipes, encodings, missing libraries, names with brackets."""

import errno
import json
import os
import sys
from dataclasses import replace

import pytest

from mamba_integer.backends.app import opening, ops_command
from mamba_integer.backends.app.compilation import Compilation
from mamba_integer.backends.app.extras import EXTRAS
from mamba_integer.backends.app.terminal import console_for
from mamba_integer.backends.files.folder import TextModel, fresh_model, save_model
from mamba_integer.backends.files.model import Checkpoint
from mamba_integer.spec.model import CONFIGS

MAIN = "from mamba_integer.backends.app.main import main; main()"
TINY = ("--model", "tiny", "--prompt", "a", "--max-tokens", "2")


@pytest.mark.parametrize("arguments", [("ops",), ("--help",), ("ops", "--json"), ("generate", *TINY)])
def test_a_reader_that_leaves_ends_a_command_quietly(arguments, start_cli):
    with start_cli(*arguments) as process:
        process.stdout.close()  # before anything is written
        process.stdout = None
        _, err = process.communicate()
    assert process.returncode == 141
    assert "error" not in err and "Exception" not in err and "Traceback" not in err, err


def test_no_stdout_and_a_full_one(run_process):
    shell = f'"{sys.executable}" -c "{MAIN}" ops'
    closed = run_process(["sh", "-c", f"{shell} >&-"])
    assert closed.code == 0 and not closed.err
    full = run_process(["sh", "-c", f"{shell} >/dev/full"])
    assert full.code == 2 and full.err.count("\n") == 1 and "No space left" in full.err


def test_a_stdout_that_lacks_characters_shows_replacements(run_cli, monkeypatch):
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    done = run_cli("generate", *TINY[:-1], "10", "--backend", "golden")
    assert done.code == 0, done.err
    assert "?" in done.out and done.out.isascii()
    assert run_cli("--help").code == 0


@pytest.mark.parametrize(
    ("library", "arguments"),
    [
        ("typer", ()),
        ("safetensors", ()),
        ("filelock", ()),
        ("hypothesis", ("conform", "--op", "isqrt")),
        ("torch", ("generate", *TINY, "--backend", "torch")),
    ],
)
def test_a_missing_library_is_named_with_its_extra(library, arguments, run_cli, tmp_path, monkeypatch):
    """It is missing in each process, wherever it is imported first."""
    (tmp_path / f"{library}.py").write_text(f"raise ModuleNotFoundError(name={library!r})")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    done = run_cli(*arguments, fresh=True)
    assert done.code == 2 and not done.out and done.err.count("\n") == 1
    remedy = f"{library} isn't installed; pip install 'mamba-integer[{EXTRAS[library]}]' brings it\n"
    assert done.err.startswith("mamba-integer: ") and done.err.endswith(remedy), done.err


def test_every_library_has_an_extra():
    import tomllib
    from pathlib import Path

    project = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())["project"]
    for library, extra in EXTRAS.items():
        assert any(one.startswith(library) for one in project["optional-dependencies"][extra]), library


def test_generate_and_train_import_no_hypothesis(run_process, tmp_path):
    """Nor Torch: a process runs both commands and then lists the modules that it holds."""
    (tmp_path / "text").write_text("It was the best of times. " * 20)
    train = ["train", "--text", str(tmp_path / "text"), "--out", str(tmp_path / "run"), "--steps", "1"]
    small = ["--batch", "1", "--length", "4", "--windows", "1", "--backend", "golden"]
    commands = [["generate", *TINY], [*train, *small]]
    code = f"""
import contextlib, sys
from mamba_integer.backends.app.main import main
for arguments in {commands!r}:
    sys.argv = ["mamba-integer", *arguments]
    with contextlib.suppress(SystemExit):
        main()
        assert False
print(sorted({{"hypothesis", "torch", "triton", "pytest"}} & set(sys.modules)))
"""
    done = run_process([sys.executable, "-c", code])
    assert done.out.endswith("\n[]\n"), done.err
    assert (tmp_path / "run/model.safetensors").exists()


NAME = "[red]a[/b] $x_{$ :smile: [/]"


@pytest.fixture(scope="module")
def bracketed(tmp_path_factory):
    """The folder of a model whose config has a name that other programs would take for markup."""
    folder = tmp_path_factory.mktemp("model")
    made = fresh_model(CONFIGS["tiny"], 0).checkpoint
    config = replace(CONFIGS["tiny"], name=NAME)
    checkpoint = Checkpoint(config, made.parameters, made.tokenizer_sha256)
    save_model(folder, TextModel(checkpoint, fresh_model(CONFIGS["tiny"], 0).tokenizer))
    return folder


def test_a_name_with_brackets_is_shown_as_it_is(bracketed, cli, tmp_path):
    done = cli("inspect", "--model", bracketed, "--plot", tmp_path / "plot.png")
    assert done.code == 0, done.err
    assert NAME in done.out and (tmp_path / "plot.png").exists()
    assert cli("generate", "--model", bracketed, *TINY[2:], "--json").json()["model"] == NAME


def test_a_run_of_a_name_with_brackets(bracketed, cli, tmp_path):
    config, text = tmp_path / "[b].json", tmp_path / "[bold]text[red]"
    config.write_text(json.dumps(CONFIGS["tiny"].to_dict() | {"name": NAME}))
    text.write_text("It was the best of times. " * 20)
    quick = ("--steps", "1", "--batch", "1", "--length", "4", "--windows", "1")
    done = cli("train", "--config", config, "--text", text, *quick, "--out", tmp_path / "[run]")
    assert done.code == 0 and f"{tmp_path / '[run]'}: step 1" in done.out, done.err
    assert "no loss.png" not in done.err


def test_messages_are_one_line_that_a_terminal_only_shows(cli, tmp_path):
    done = cli("generate", "--model", "tiny\n\x1b[2J\u202e", "--prompt", "a")
    assert done.code == 2 and done.err.startswith("mamba-integer: --model tiny \\x1b[2J\\u202e: no such path")


@pytest.mark.parametrize("command", [(), ("vectors",), ("tokenizer",)])
def test_a_group_without_a_command_shows_its_help_alone(command, cli):
    done = cli(*command)
    assert done.code == 2 and "Commands" in done.out + done.err and "mamba-integer: " not in done.err


def test_a_usage_error_names_the_help_of_its_command(cli):
    assert cli("generate", "--foo").err.endswith("see mamba-integer generate --help\n")
    assert cli("vectors", "export").err.endswith("see mamba-integer vectors export --help\n")


@pytest.mark.parametrize("terminal", [False, True])
def test_a_person_who_waits_for_kernels_is_told_once(terminal, capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    note = Compilation()
    for _ in range(2):
        note.on_start(None)
    assert capsys.readouterr().err.count("compiling kernels") == terminal


def test_consoles_show_text_as_it_is(capsys):
    console_for().print("[/b] :smile: [red]")
    assert capsys.readouterr().out == "[/b] :smile: [red]\n"


def test_score_inspect_and_generate_have_one_default_model(cli, tmp_path):
    (tmp_path / "text").write_text("To be")
    models = {
        cli(*command, "--json").json()["model_sha256"]
        for command in (
            ("score", tmp_path / "text"),
            ("inspect", "--text", tmp_path / "text"),
            ("generate", "--prompt", "To", "--max-tokens", "1"),
        )
    }
    assert models == {opening.find_model("shakespeare", 0, None).checkpoint.sha256}


def test_a_damaged_cache_of_kernels_is_one_line_and_no_error(run_cli, tmp_path, monkeypatch):
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    compare = ("compare", "--op", "saturate", "--backends", "golden,numba", "--cases", "1")
    first = run_cli(*compare)
    assert first.code == 0 and not first.err, first.err
    kernels = list(tmp_path.rglob("*.nbi"))
    for path in kernels:
        path.write_bytes(b"garbage")
    done = run_cli(*compare)
    assert kernels and done.code == 0 and done.out == first.out
    assert done.err.startswith("mamba-integer: warning: ") and done.err.count("\n") == 1, done.err
    assert str(tmp_path) in done.err and "NUMBA_CACHE_DIR" in done.err


@pytest.mark.parametrize(
    ("place", "loaded", "told"),
    [("/home/me/.triton/cache/x", True, True), (None, True, True), ("/home/me/x", True, False), (None, False, False)],
)
def test_an_error_in_the_cache_of_triton_names_its_variable(place, loaded, told, cli, monkeypatch):
    def fail(*arguments):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), *([place] if place else []))

    monkeypatch.setattr(ops_command, "console_for", fail)
    monkeypatch.delitem(sys.modules, "triton", raising=False)
    if loaded:
        monkeypatch.setitem(sys.modules, "triton", ops_command)
    code, _, err = cli("ops", "--op", "isqrt")
    assert code == 2 and "No space left on device" in err and ("TRITON_CACHE_DIR" in err) == told
