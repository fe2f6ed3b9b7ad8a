"""Reading files from strangers: a pipe or a device is refused, since a reader could wait for it for ever."""

import errno
import stat
from pathlib import Path
from typing import BinaryIO

LARGEST_JSON = 1 << 26  # bytes


def regular_size(path: Path) -> int:
    """Return the size of a file in bytes.

    Raises
    ------
    OSError
        There is no such file, or it is a folder, a pipe or a device.
    """
    about = path.stat()
    if not stat.S_ISREG(about.st_mode):
        raise OSError(errno.EINVAL, "found a folder, a pipe or a device, allowed a file", str(path))
    return about.st_size


def open_regular(path: Path) -> BinaryIO:
    """Open a file for reading.

    Raises
    ------
    OSError
        As `regular_size`, or the file can't be read.
    """
    regular_size(path)
    return path.open("rb")


def read_regular(path: Path, most: int = LARGEST_JSON) -> bytes:
    """Return the content of a file of ``most`` bytes at most.

    Raises
    ------
    OSError
        As `open_regular`, or the file is larger.
    """
    if (size := regular_size(path)) > most:
        raise OSError(errno.EFBIG, f"found {size} bytes, allowed {most}", str(path))
    return path.read_bytes()
