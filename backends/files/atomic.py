"""Files and folders that are whole or absent."""

import errno
import json
import os
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

UNFINISHED = ".unfinished-"


def write_atomically(path: Path, content: bytes) -> None:
    """Write ``content`` to ``path`` so that a reader, or a crash, sees the old file or the new one, never a part."""
    with replacing(path) as file:
        file.write(content)


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Yield a file that gets the name ``path`` when the block ends; where the block fails, the old file stays."""
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    with _file_beside(path) as file:
        yield file
        file.flush()
        os.fsync(file.fileno())
        file.close()
        os.replace(file.name, path)


@contextmanager
def _file_beside(path: Path) -> Iterator[BinaryIO]:
    """Yield a new file in the folder of ``path``, which is removed unless it gets another name in the block."""
    partial = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        with partial.open("xb") as file:
            yield file
    except OSError as error:
        if error.filename in (None, str(partial)):
            error.filename, error.filename2 = str(path), None
        raise
    finally:
        partial.unlink(missing_ok=True)


def write_json(path: Path, fields: Any) -> None:
    """Write ``fields`` to ``path`` as JSON that a person can read, atomically."""
    write_atomically(path, (json.dumps(fields, indent=1) + "\n").encode())


def check_file(path: Path) -> None:
    """Raise OSError if `write_atomically` can't write to a path whose folder is there."""
    if path.exists() and not os.access(path, os.W_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
    with _file_beside(path) as file:
        file.write(b"\n")


def check_folder(folder: Path) -> None:
    """Raise OSError if no file can be written to a folder, or the folder can't be made."""
    there = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    with tempfile.TemporaryFile(dir=there) as file:
        file.write(b"\n")


def check_new(folder: Path) -> None:
    """Raise OSError unless a folder is new or empty."""
    found = next(folder.iterdir(), None) if folder.exists() else None
    if found:
        raise FileExistsError(
            errno.ENOTEMPTY, f"found {found.name} in this folder, allowed a new or an empty folder", str(folder)
        )


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Yield a folder inside a new or empty one; all that it holds moves up when the block ends.

    Where the block fails, nothing of it stays.

    Raises
    ------
    OSError
        The folder holds something, or can't be written.
    """
    check_new(folder)
    made = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    moved: list[Path] = []
    try:
        with tempfile.TemporaryDirectory(prefix=UNFINISHED, dir=folder) as name:
            try:
                yield Path(name)
                for path in list(Path(name).iterdir()):
                    moved.append(path.rename(folder / path.name))
            except BaseException:
                for path in moved:
                    path.rename(Path(name) / path.name)
                raise
    finally:
        if made:
            with suppress(OSError):  # it holds files
                folder.rmdir()
