"""Sizes of files from strangers: a pipe or a device is refused, since a reader could wait for it for ever."""

import errno
import stat
from pathlib import Path


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
