"""A folder that one process at a time writes to."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

LOCK_FILE = ".lock"


class LockError(RuntimeError):
    """A folder that another process holds."""


@contextmanager
def held_folder(folder: Path) -> Iterator[None]:
    """Hold a folder for the time of the block, and make it if there is none.

    The hold ends with this process, however that ends. A folder that was made here and stayed empty is removed.

    Raises
    ------
    LockError
        Another process holds the folder.
    OSError
        The folder can't be made or locked.
    """
    made = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    lock = folder / LOCK_FILE
    try:
        with FileLock(lock, timeout=0):
            yield
    except Timeout:
        raise LockError(f"{folder}: another run is training in this folder; choose another or wait") from None
    finally:
        with suppress(OSError):
            if made and {path.name for path in folder.iterdir()} <= {LOCK_FILE}:
                lock.unlink(missing_ok=True)
                folder.rmdir()
