"""The entry point of the command line. It needs no library, so that it can name the one that is missing.

Exit codes: 0 success, 1 a mismatch or something missing, 2 a usage error. As in a shell, 130 means an interrupted run,
143 (SIGTERM) and 129 (SIGHUP) one that was told to end, and 141 one whose output nobody reads any more.
"""

import atexit
import os
import signal
import sys
import threading
import time
import warnings
from contextlib import suppress
from typing import Any

from ..escapes import escaped
from ..stopping import exit_code, ignore_stops, obey_stops
from .extras import remedy

EQUAL, MISMATCH, USAGE, UNREAD = 0, 1, 2, 128 + 13
USUAL = warnings.showwarning
SECONDS_TO_END = 10  # that threads and exit handlers have when the command has ended


def main() -> None:
    """Run the command line and exit with its code; every error is one line on stderr."""
    obey_stops()
    prepare_streams()
    warnings.showwarning = show_warning  # type: ignore[assignment]
    try:
        code = ended()
        ignore_stops()
    except KeyboardInterrupt:  # also one that came while the commands were loaded
        ignore_stops()
        code = exit_code()
    release_streams()
    threading.Thread(target=end, args=[code], daemon=True).start()
    # For objects that don't end: before Python ends them it stops that thread.
    atexit.register(signal.setitimer, signal.ITIMER_REAL, SECONDS_TO_END + 1)
    sys.exit(code)


def ended() -> int:
    """Run the command line; return its exit code."""
    try:
        from .command_line import run

        code = run()
        sys.stdout.flush()
        return code
    except ModuleNotFoundError as error:
        return complain(remedy(error) or f"internal error: {error}")
    except BrokenPipeError:
        return UNREAD
    except OSError as error:
        return complain(f"stdout: {error.strerror or error}")


def end(code: int) -> None:
    """End this process where a backend's threads or exit handlers don't, which nobody waits for any more."""
    threading.main_thread().join()
    time.sleep(SECONDS_TO_END)
    os._exit(code)


def prepare_streams() -> None:
    """Make stdout and stderr take any text: replace what the encoding lacks, drop what a closed stream would get."""
    for name in ("stdout", "stderr"):
        if (stream := getattr(sys, name)) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115 (lives as long as the process)
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")


def release_streams() -> None:
    """Flush the streams; where that fails, drop their text instead of failing once more at the interpreter's end."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def complain(message: str) -> int:
    if message:
        warn(message)
    return USAGE


def one_line(message: str) -> str:
    """Return a message without line breaks, and with escapes for what a terminal would obey instead of show."""
    return escaped(" ".join(message.split()))


def warn(message: str) -> None:
    """Print a message of one line on stderr."""
    note(f"mamba-integer: {one_line(message)}")


def note(line: str) -> None:
    """Print a line on stderr, if that takes it; the command goes on."""
    with suppress(OSError):
        print(escaped(line), file=sys.stderr, flush=True)


def show_warning(message: Warning | str, category: type[Warning], *place: Any) -> None:
    """Show a RuntimeWarning, the kind that this package warns of, as `warn` does: without its place in the source."""
    if category is RuntimeWarning:
        warn(f"warning: {message}")
    else:
        USUAL(message, category, *place)
