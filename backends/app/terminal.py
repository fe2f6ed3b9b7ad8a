"""The options, consoles and progress bars that all commands share."""

import ctypes
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import replace
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text

from .. import Backend, BackendError, load
from ..escapes import escaped, told
from ..stopping import within
from .extras import remedy
from .main import warn

ON_TORCH = ("torch", "triton")  # backends that run on PyTorch's devices
WIDTH = 160  # of what is written to a file or a pipe
LAYOUT = "\n\t"  # what a console lays out by itself

Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout; progress stays on stderr.")]
Device = Annotated[
    str | None, typer.Option(help="Device for backends that run on several: cpu, cuda, cuda:1. Default: their choice.")
]


Lines = Annotated[bool, typer.Option("--json", help="Print one line of JSON per step on stdout, then the result's.")]


class UsageError(typer.BadParameter):
    """A command can't do as it was asked; the message is one line."""


class Line(Text):
    """Text of a table or a card, in which escapes stand for what a terminal would obey."""

    def __init__(self, text: str = "", *arguments: Any, **options: Any):
        super().__init__(escaped(text, LAYOUT), *arguments, **options)


class LiteralConsole(Console):
    """A console that shows text as it is, brackets included, and escapes for what a terminal would obey."""

    def __init__(self, **options: Any):
        super().__init__(highlight=False, markup=False, emoji=False, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(escaped(text, LAYOUT), **options)


def console_for(stderr: bool = False) -> Console:
    """Return a console that folds tables only to fit a terminal."""
    console = LiteralConsole(stderr=stderr)
    return console if console.is_terminal else LiteralConsole(stderr=stderr, width=WIDTH)


def progress_bar(quiet: bool = False) -> Progress:
    """Return a progress bar on stderr; it is hidden where nobody would see it, or with ``quiet``."""
    console = console_for(stderr=True)
    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    hidden = quiet or not console.is_terminal
    text = TextColumn("{task.description}", markup=False)
    return Progress(text, *columns, console=console, transient=True, disable=hidden)


def say(line: str) -> None:
    """Print a line on stdout; once its reader has gone, go on without one."""
    try:
        print(escaped(line), flush=True)
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
    UsageError
        The backend doesn't run on that device, or this machine doesn't have it.
    """
    (backend,) = find_backends([name], device)
    return backend


def find_backends(names: Sequence[str | None], device: str | None, seconds: float | None = None) -> list[Backend]:
    """Return backends, each on the device if it runs on several; one of them has to. They may have a time limit."""
    backends = []
    for name in names:
        late = BackendError(
            f"backend {name}: its module, its default_device() or its from_numpy() didn't return within {seconds} s"
        )
        with within(seconds, late):
            backends.append(_find_backend(name, device))
    if device not in (None, "cpu") and all(backend.device != device for backend in backends):
        held = " and ".join(backend.name for backend in backends)
        raise UsageError(f"--device: found {device!r}, allowed cpu for {held}; --backend torch or triton takes a GPU")
    return backends


def check_torch_device(device: str) -> None:
    """Refuse a device that PyTorch's arrays can't have on this machine."""
    import torch

    count = torch.cuda.device_count()
    gpus = [f"cuda:{i}" for i in range(count)]
    if device not in ("cpu", *(["cuda"] if count else []), *gpus):
        allowed = f"cpu, cuda, {', '.join(gpus)}" if count else "cpu: PyTorch finds no CUDA device on this machine"
        raise UsageError(f"--device: found {device!r}, allowed {allowed}")


def _find_backend(name: str | None, device: str | None) -> Backend:
    try:
        backend = load(name, device)
        for found, meant in backend.misspelt.items():
            warn(f"backend {backend.name}: found {found}, which is no op and is passed over; did you mean {meant}?")
        if "numba" in sys.modules:  # a backend that compiles with it has imported it, which takes a quarter second
            from .compilation import announce

            announce()
        if not hasattr(backend.ops, "from_numpy"):
            return replace(backend, device="cpu")
        if device and backend.name in ON_TORCH:
            check_torch_device(device)
        backend.load(np.zeros(1, np.int8))
    except UsageError:
        raise
    except BackendError as error:
        if isinstance(cause := error.__cause__, ImportError) and (missing := remedy(cause)):
            raise BackendError(f"backend {name} can't be loaded: {missing}") from error
        raise
    except (Exception, SystemExit) as error:
        raise BackendError(f"backend {name} can't be used: {told(error)}") from error
    return backend
