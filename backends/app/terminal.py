"""What the commands share: options, consoles, and errors of one line."""

import ctypes
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from dataclasses import replace
from typing import Annotated

import numpy as np
import typer
from rich.console import Console

from .. import Backend, BackendError, load

EQUAL, MISMATCH, USAGE = 0, 1, 2  # exit codes
INTERRUPTED, TERMINATED = 128 + signal.SIGINT, 128 + signal.SIGTERM  # as of a shell
WIDTH = 160  # of what is written to a file or a pipe

Json = Annotated[bool, typer.Option("--json", help="Print JSON on stdout (progress stays on stderr).")]
Device = Annotated[str | None, typer.Option(help="Device of backends that have devices: cpu, cuda, cuda:1.")]


class UsageError(Exception):
    """What the user asked for can't be done; the message is one line."""


def console_for(stderr: bool = False) -> Console:
    """Return a console that doesn't fold tables where there is no terminal to fit."""
    console = Console(stderr=stderr, highlight=False)
    return console if console.is_terminal else Console(stderr=stderr, highlight=False, width=WIDTH)


def warn(message: str) -> None:
    """Print one line on stderr, if anybody reads it, about something that ends nothing."""
    with suppress(BrokenPipeError):
        print(f"mamba-integer: {' '.join(message.split())}", file=sys.stderr)


def say(line: str) -> None:
    """Print a line on stdout; once its reader has gone, go on without one."""
    try:
        print(line, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        warn("nobody reads stdout any more; the run goes on")


@contextmanager
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
        with redirect_stdout(sys.stderr):
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
