"""What the commands share: options, consoles, and errors of one line."""

import contextlib
import ctypes
import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import Annotated

import numpy as np
import typer
from rich.console import Console

from mamba_integer.backends import Backend, BackendError, load

WIDTH = 160  # of what is written to a file or a pipe

Json = Annotated[bool, typer.Option("--json", help="Print JSON on stdout (progress stays on stderr).")]
Device = Annotated[str | None, typer.Option(help="Device of backends that have devices: cpu, cuda, cuda:1.")]


class UsageError(Exception):
    """What the user asked for can't be done; the message is one line."""


def console_for(stderr: bool = False) -> Console:
    """Return a console that doesn't fold tables where there is no terminal to fit."""
    console = Console(stderr=stderr, highlight=False)
    return console if console.is_terminal else Console(stderr=stderr, highlight=False, width=WIDTH)


@contextlib.contextmanager
def backends_on_stderr(wanted: bool) -> Iterator[None]:
    """Let stderr have all that is printed, by Python, C and the processes started here: stdout is for JSON alone."""
    if not wanted:
        yield
        return
    stream, stdout, stderr = sys.stdout, 1, 2
    stream.flush()
    kept = os.dup(stdout)
    os.dup2(stderr, stdout)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        stream.flush()
        ctypes.CDLL(None).fflush(None)  # what C still holds back would follow the JSON
        os.dup2(kept, stdout)
        os.close(kept)


def find_backend(name: str | None, device: str | None) -> Backend:
    """Return a backend that takes arrays on its device, or raise BackendError."""
    try:
        backend = load(name, device)
        if not hasattr(backend.ops, "from_numpy"):
            return replace(backend, device="cpu")
        backend.load(np.zeros(1, np.int8))
    except BackendError:
        raise
    except (Exception, SystemExit) as error:
        raise BackendError(f"backend {name} can't be used: {type(error).__name__}: {error}") from error
    return backend
