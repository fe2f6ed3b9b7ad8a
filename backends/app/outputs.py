"""Files and folders that a command writes.

Each option or argument that names one has a callback from here: what can't be written at the end is refused before the
work begins.
"""

from collections.abc import Callable
from os.path import exists, isdir  # which are false for a long name, where Path raises OSError
from pathlib import Path

from typer import CallbackParam

from ..files.atomic import check_file, check_folder, check_new
from .arguments import shown_name
from .terminal import UsageError


def check_output(option: str, path: Path) -> None:
    """Refuse a file that can't be written."""
    try:
        if not path.parent.is_dir():
            raise UsageError(f"{option}: found no folder {path.parent}, allowed a file in a folder that exists")
        if path.exists() and not path.is_file():
            raise UsageError(f"{option}: found {path}, which is no regular file; allowed a new or a regular file")
        check_file(path)
    except OSError as error:
        raise UsageError(f"{option}: {path} can't be written: {error.strerror}; name another file") from error


def check_plot(option: str, path: Path) -> None:
    """Refuse a picture that can't be drawn or written."""
    from matplotlib.figure import Figure

    if path.suffix.lower().removeprefix(".") not in Figure().canvas.get_supported_filetypes():
        raise UsageError(f"{option}: found {path}, allowed a file whose name ends in .png, .svg or .pdf")
    check_output(option, path)


def check_output_folder(option: str, folder: Path) -> None:
    """Refuse a folder that can't be made or written to."""
    if exists(folder) and not isdir(folder):
        raise UsageError(f"{option}: found {folder}, which is no folder; allowed a new folder or an existing one")
    try:
        check_folder(folder)
    except OSError as error:
        raise UsageError(f"{option}: {folder} can't be written: {error.strerror}; name another folder") from error


def check_new_folder(option: str, folder: Path) -> None:
    """Refuse a folder that holds something, or can't be made or written to."""
    check_output_folder(option, folder)
    try:
        check_new(folder)
    except OSError as error:
        raise UsageError(f"{option}: {folder}: {error.strerror}") from error


def check_plots(option: str, folder: Path) -> None:
    """Refuse a folder in which no picture can be drawn."""
    import matplotlib.figure  # noqa: F401 (where it is missing, nothing can be drawn)

    check_output_folder(option, folder)


def before_work(check: Callable[[str, Path], None]) -> Callable[[CallbackParam, Path | None], Path | None]:
    """Return a callback that checks what an option or an argument names, if it is given."""

    def checked(parameter: CallbackParam, path: Path | None) -> Path | None:
        if path is not None:
            check(shown_name(parameter), path)
        return path

    return checked


output_file, plot_file = before_work(check_output), before_work(check_plot)
output_folder, new_folder, plot_folder = map(before_work, (check_output_folder, check_new_folder, check_plots))
