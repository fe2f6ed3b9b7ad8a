"""Files that are whole or absent."""

import pytest

from mamba_integer.backends.files import atomic


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
