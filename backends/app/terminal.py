"""The options, consoles and progress bars that all commands share."""

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from dataclasses import replace
from functools import partial
from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from .. import Backend, BackendError, load
from .extras import remedy
from .main import one_line

WIDTH = 160  # of what is written to a file or a pipe

Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout; progress stays on stderr.")]
Device = Annotated[
    str | None, typer.Option(help="Device for backends that run on several: cpu, cuda, cuda:1. Default: their choice.")
]


class UsageError(Exception):
    """A command can't do as it was asked; the message is one line."""


def console_for(stderr: bool = False) -> Console:
    """Return a console that shows text as it is, brackets included, and folds tables only to fit a terminal."""
    literal = partial(Console, stderr=stderr, highlight=False, markup=False, emoji=False)
    console = literal()
    return console if console.is_terminal else literal(width=WIDTH)


def progress_bar(quiet: bool = False) -> Progress:
    """Return a progress bar on stderr; it is hidden where nobody would see it, or with ``quiet``."""
    console = console_for(stderr=True)
    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    hidden = quiet or not console.is_terminal
    text = TextColumn("{task.description}", markup=False)
    return Progress(text, *columns, console=console, transient=True, disable=hidden)


def warn(message: str) -> None:
    """Print one line on stderr, if anybody reads it; the command goes on."""
    with suppress(BrokenPipeError):
        print(f"mamba-integer: {one_line(message)}", file=sys.stderr)


def say(line: str) -> None:
    """Print a line on stdout; once its reader has gone, go on without one."""
    try:
        print(line, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        warn("nobody reads stdout any more; the run goes on")


@contextmanager
def backends_on_stderr(wanted: bool) -> Iterator[None]:
    """Send all that is printed to stderr, by Python, C and the processes started here: stdout is for JSON alone."""
    if not wanted:
        yield
        return
    stream, stdout, stderr = sys.stdout, 1, 2
    stream.flush()
    kept = os.dup(stdout)
    os.dup2(stderr, stdout)
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        stream.flush()
        # Text that C still holds back would follow the JSON.
        ctypes.CDLL(None if os.name == "posix" else "ucrtbase").fflush(None)
        os.dup2(kept, stdout)
        os.close(kept)


def counted(count: int, noun: str) -> str:
    """Return a number and its noun: one case, or several cases."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def find_backend(name: str | None, device: str | None) -> Backend:
    """Return a backend that takes arrays on its device.

    Raises
    ------
    BackendError
        There is no such backend, a library that it needs isn't installed, or its device takes no array.
    """
    try:
        backend = load(name, device)
        if "numba" in sys.modules:  # a backend that compiles with it has imported it, which takes a quarter second
            from .compilation import announce

            announce()
        if not hasattr(backend.ops, "from_numpy"):
            return replace(backend, device="cpu")
        backend.load(np.zeros(1, np.int8))
    except BackendError as error:
        if isinstance(cause := error.__cause__, ImportError) and (missing := remedy(cause)):
            raise BackendError(f"backend {name} can't be loaded: {missing}") from error
        raise
    except (Exception, SystemExit) as error:
        raise BackendError(f"backend {name} can't be used: {type(error).__name__}: {error}") from error
    return backend
