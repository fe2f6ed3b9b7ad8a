"""The signals that ask a process to stop: each of them ends a command as Ctrl-C does, with its files whole."""

import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

INTERRUPTED = 128 + signal.SIGINT
STOPS = [number for name in ("SIGINT", "SIGTERM", "SIGHUP") if (number := getattr(signal, name, None))]
SECONDS_UNTIL_AGAIN = 0.01
SECONDS_TO_END = 3.0  # in which a process that was told to stop writes or removes its files, and hears nothing else
MOST_SECONDS = 1_000_000  # of a time limit; the system's timers and calls overflow far above it


_came = signal.SIGINT  # the last of these signals
_deaf_until = 0.0


def obey_stops() -> None:
    """Have each of these signals raise KeyboardInterrupt from now on, unless it is ignored, and lose none of them."""
    global _came, _deaf_until
    _came, _deaf_until = signal.SIGINT, 0.0
    for number in STOPS:
        if signal.getsignal(number) != signal.SIG_IGN:  # who starts a process with nohup wants it to go on
            signal.signal(number, _stop)
    sys.unraisablehook = _interrupt_again


def _stop(number: int, frame: Any) -> None:
    global _came, _deaf_until
    if time.monotonic() < _deaf_until:
        return
    _came, _deaf_until = signal.Signals(number), time.monotonic() + SECONDS_TO_END
    raise KeyboardInterrupt


def exit_code() -> int:
    """Return the exit code of a process that was interrupted, as shells give it."""
    return 128 + _came


def ignore_stops() -> None:
    """Ignore these signals from now on: all is written, and the exit code stands."""
    for number in STOPS:
        signal.signal(number, signal.SIG_IGN)


def _interrupt_again(lost: Any) -> None:
    """Repeat an interrupt that came in a finalizer, where Python drops it."""
    global _deaf_until
    if isinstance(lost.exc_value, KeyboardInterrupt):
        _deaf_until = 0.0
        signal_again = threading.main_thread().ident, _came
        threading.Timer(SECONDS_UNTIL_AGAIN, signal.pthread_kill, signal_again).start()
    else:
        sys.__unraisablehook__(lost)


@contextmanager
def within(seconds: float | None, late: Exception) -> Iterator[None]:
    """Raise an error unless the block ends in time, or gives Python a moment to raise it."""
    if not seconds or threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: Any) -> None:
        raise late

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextmanager
def unstopped() -> Iterator[None]:
    """Hold these signals back until the block has ended, if this thread is the one that Python's handlers interrupt.

    They may do so between any two steps of it, whatever it blocks, since the system gives a signal to another thread
    then. Inside a pool that would leave a lock taken that should be free, or free that should be taken.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handlers = {number: handler for number in STOPS if callable(handler := signal.getsignal(number))}
    came: list[tuple[int, Any]] = []
    try:
        for number in handlers:
            signal.signal(number, lambda *arguments: came.append(arguments))
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        if came:
            handlers[came[0][0]](*came[0])
