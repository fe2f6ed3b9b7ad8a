"""Files and folders that are whole or absent."""

import errno
import itertools
import re
from pathlib import Path

import pytest

from mamba_integer.backends.files import atomic

ROOT = Path(__file__).parents[3]
WRITES = re.compile(r"""open\([^)]*["'][wx]b?["']|\.write_(text|bytes)\(|savefig\(|np\.save|imsave\(""")
# Each of these writes to a temporary folder, to a folder that gets its name when it is whole, to memory or to nowhere.
ELSEWHERE = {
    "backends/app/main.py",
    "backends/app/plots.py",
    "backends/files/atomic.py",
    "backends/programs/wire.py",
    "backends/transcripts/folder.py",
    "benchmarks/circuits.py",
    "benchmarks/encrypted.py",
    "benchmarks/lookup_circuits.py",
    "benchmarks/one_hash.py",
    "conformance/diagnosis/trial.py",
    "conformance/engine/journal.py",
    "conformance/vectors/formats.py",
}


def test_no_other_module_writes_to_a_file_in_place():
    sources = (
        path for part in ("backends", "benchmarks", "conformance", "spec") for path in (ROOT / part).rglob("*.py")
    )
    assert {str(path.relative_to(ROOT)) for path in sources if WRITES.search(path.read_text())} == ELSEWHERE


def test_a_write_that_fails_names_the_file_that_was_asked_for(tmp_path, monkeypatch):
    """The file that is written first has another name, which nobody knows."""

    def refuse(old, new):
        raise PermissionError(13, "Permission denied", str(old))

    path = tmp_path / "report.json"
    path.write_text("as before")
    monkeypatch.setattr(atomic.os, "replace", refuse)
    with pytest.raises(PermissionError) as error:
        atomic.write_json(path, {})
    assert error.value.filename == str(path)
    assert path.read_text() == "as before" and list(tmp_path.iterdir()) == [path]


def test_a_file_gets_its_name_at_the_end(tmp_path):
    path = tmp_path / "trace"
    path.write_text("as before")
    with atomic.replacing(path) as file:
        file.write(b"new")
        assert path.read_text() == "as before"
    assert path.read_text() == "new" and list(tmp_path.iterdir()) == [path]
    with pytest.raises(KeyboardInterrupt), atomic.replacing(path) as file:
        file.write(b"half")
        raise KeyboardInterrupt
    assert path.read_text() == "new" and list(tmp_path.iterdir()) == [path]


def fill(folder):
    with atomic.new_folder(folder) as place:
        (place / "a").write_text("1")
        (place / "b").mkdir()
        (place / "b" / "c").write_text("2")
        yield place


@pytest.mark.parametrize("made", [False, True])
def test_a_folder_is_filled_at_once(made, tmp_path):
    folder = tmp_path / "folder"
    if made:
        folder.mkdir()
    for _ in fill(folder):
        assert not (folder / "a").exists()
    assert {str(path.relative_to(folder)) for path in folder.rglob("*")} == {"a", "b", "b/c"}
    with pytest.raises(FileExistsError, match="allowed a new or an empty folder") as error:
        next(fill(folder))
    assert error.value.errno == errno.ENOTEMPTY and error.value.filename == str(folder)


@pytest.mark.parametrize("made", [False, True])
@pytest.mark.parametrize("moved", [False, True], ids=["in the block", "while it moves"])
def test_an_interrupted_folder_leaves_nothing(moved, made, tmp_path, monkeypatch):
    folder = tmp_path / "folder"
    if made:
        folder.mkdir()
    rename, renames = Path.rename, itertools.count(1)

    def interrupted(path, name):
        if next(renames) == 2:
            raise KeyboardInterrupt
        return rename(path, name)

    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt):
        for _ in fill(folder):
            if not moved:
                raise KeyboardInterrupt
    assert folder.exists() == made and not (made and list(folder.iterdir()))
    monkeypatch.undo()
    list(fill(folder))
    assert (folder / "b" / "c").read_text() == "2"
