"""A folder is held by one process at a time, and by none that has ended."""

import sys

import pytest

from mamba_integer.backends.files.lock import LockError, held_folder

HOLD = """
import sys, time
from pathlib import Path
from mamba_integer.backends.files.lock import held_folder
with held_folder(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(1000)
"""


def test_a_folder_is_held_until_its_process_is_killed(start_process, tmp_path):
    with start_process([sys.executable, "-c", HOLD, tmp_path]) as process:
        assert process.stdout.readline() == "held\n"
        with pytest.raises(LockError, match="another run is training in this folder"), held_folder(tmp_path):
            pass
    with held_folder(tmp_path):
        (tmp_path / "file").touch()
    assert (tmp_path / "file").exists()


def test_a_folder_that_stays_empty_is_removed(tmp_path):
    for error in (ValueError, None):
        try:
            with held_folder(tmp_path / "run"):
                if error:
                    raise error
        except ValueError:
            assert error
        assert not (tmp_path / "run").exists()
    (tmp_path / "old").mkdir()
    with held_folder(tmp_path / "old"):
        pass
    assert (tmp_path / "old").exists()


def test_a_platform_without_fcntl_has_locks_too(start_process, run_process, tmp_path):
    """A lock of another kind is taken, and it is said that it is of another kind."""
    hold = f"import sys; sys.modules['fcntl'] = None\n{HOLD}"
    with start_process([sys.executable, "-c", hold, tmp_path]) as process:
        assert process.stdout.readline() == "held\n"
        code = hold.replace("time.sleep(1000)", "import mamba_integer.backends.app.command_line")
        second = run_process([sys.executable, "-c", code, tmp_path])
        assert second.code == 1 and "LockError" in second.err.splitlines()[-1]
    third = run_process([sys.executable, "-c", code, tmp_path])
    assert third.code == 0 and third.out == "held\n" and "only soft file lock is available" in third.err
