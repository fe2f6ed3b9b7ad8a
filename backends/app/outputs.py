"""Files and folders that a command writes.

Each option or argument that names one has a callback from here: what can't be written at the end is refused before the
work begins. So is an output that is an input too, or another output: one would replace the other.
"""

import inspect
from collections.abc import Callable, Iterator
from os.path import exists, isdir, isfile, realpath, samefile  # false for a long name, where Path raises OSError
from pathlib import Path
from typing import Any, get_args, get_type_hints

from typer import CallbackParam, Context

from mamba_integer.spec.model import CONFIGS

from ..files.atomic import check_file, check_folder, check_new
from ..files.folder import CONFIG_FILE, MODEL_FILE, TOKENIZER_FILE, TRAINED
from .terminal import UsageError

PICTURES = ".png", ".svg", ".pdf"
IN_PLACE = [("--save-state", "--load-state")]  # a text that goes on keeps its state in one file
WRITTEN = "mamba-integer: written"  # in a context, the paths of outputs by the names that a user knows


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
    import matplotlib.figure  # noqa: F401 (where it is missing, nothing can be drawn)

    if path.suffix.lower() not in PICTURES:
        raise UsageError(f"{option}: found {path}, allowed a file whose name ends in {', '.join(PICTURES)}")
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


def before_work(check: Callable[[str, Path], None]) -> Callable[[Context, CallbackParam, Path | None], Path | None]:
    """Return a callback that checks what an option or an argument names, if it is given."""

    def checked(context: Context, parameter: CallbackParam, path: Path | None) -> Path | None:
        if path is not None:
            check(shown(parameter), path)
            context.meta.setdefault(WRITTEN, {})[shown(parameter)] = path
        return path

    return checked


def shown(parameter: Any) -> str:
    """Return the name of an option or an argument as a user knows it."""
    argument = parameter.param_type_name == "argument"
    return (parameter.metavar or parameter.name or "").upper() if argument else parameter.opts[0]


def check_apart(context: Context) -> None:
    """Refuse an output of a command that is one of its inputs, or another output."""
    written: dict[str, Path] = context.meta.get(WRITTEN, {})
    taken = list(inputs(context)) if written else []
    for name, path in written.items():
        for other, place in taken:
            if (name, other) not in IN_PLACE and is_same(path, place):
                raise UsageError(f"{name}: found {path}, which {other} names too; allowed another file")
        taken.append((name, path))


def is_same(a: Path, b: Path) -> bool:
    return realpath(a) == realpath(b) or (exists(a) and exists(b) and samefile(a, b))


def inputs(context: Context) -> Iterator[tuple[str, Path]]:
    """Yield the files and folders that a command reads, each after the option or argument that names it."""
    hints = get_type_hints(inspect.unwrap(context.command.callback or inputs))
    for parameter in context.command.params:
        name, value = shown(parameter), context.params.get(parameter.name or "")
        if parameter.name == "model" and isinstance(value, str):
            yield from ((name, path) for path in files_of_model(value))
        elif is_path(hints.get(parameter.name or "")) and name not in context.meta[WRITTEN]:
            for path in map(Path, value if isinstance(value, list | tuple) else [value] if value else []):
                yield name, path
                yield from ((name, one) for one in (path.iterdir() if isdir(path) else ()))


def is_path(hint: Any) -> bool:
    """Whether a type is that of a path, or of several."""
    return hint is Path or any(map(is_path, get_args(hint)))


def files_of_model(name: str) -> list[Path]:
    """Return the files of a model that an option names."""
    path = TRAINED.get(name, Path(name))
    if name in CONFIGS or not exists(path):
        return []
    return [path] if isfile(path) else [path / file for file in (MODEL_FILE, CONFIG_FILE, TOKENIZER_FILE)]


output_file, plot_file = before_work(check_output), before_work(check_plot)
output_folder, new_folder, plot_folder = map(before_work, (check_output_folder, check_new_folder, check_plots))
