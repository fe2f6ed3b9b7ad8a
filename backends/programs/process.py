"""A program that is kept alive and asked one line at a time; whatever it does, an answer or an error comes in time."""

import contextlib
import os
import selectors
import shlex
import signal
import subprocess
import time
import weakref
from collections.abc import Callable, Mapping
from typing import Any

from ..escapes import escaped
from ..protocol import BackendError
from .wire import LONGEST_LINE, WireError, format_line, parse_line, shown

CHUNK = 1 << 16
KEPT = 4096  # last bytes of what a program writes to stderr
LONGEST_SHOWN = 300  # characters of a line
SECONDS_TO_END = 1.0  # that a program has to end itself
# Waits for the end of its stdin, which comes when this process is gone, however it went, and kills the program's group.
WATCH = 'read -r line; kill -9 "-$1"'


class ProgramError(BackendError):
    """A program that ended, hung or wrote no valid answer; ``kind`` is that of the failure."""

    def __init__(self, kind: str, message: str):
        self.kind = kind
        super().__init__(message)


class Program:
    """A command that is started when it is first asked, and again after each error."""

    def __init__(self, command: str, timeout: float):
        self.command, self.timeout = command, timeout
        self._process: subprocess.Popen | None = None
        self._finalizer: Callable[[], Any] = lambda: None
        self._answers, self._errors = bytearray(), bytearray()

    def running(self) -> bool:
        return self._process is not None

    def start(self) -> None:
        try:
            arguments = shlex.split(self.command)
            if not arguments:
                raise ValueError("it names no program")
            self._process = subprocess.Popen(
                arguments,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
                start_new_session=True,
            )
        except ValueError as error:
            raise ProgramError("crash", f"bad command {self.command!r}: {error}") from error
        except OSError as error:
            name = arguments[0]
            hint = f"; did you mean ./{name}?" if os.sep not in name and os.path.isfile(name) else ""
            raise ProgramError("crash", f"the program can't be started: {name}: {error.strerror}{hint}") from error
        for stream in (self._process.stdin, self._process.stdout, self._process.stderr):
            os.set_blocking(stream.fileno(), False)  # type: ignore[union-attr]
        self._answers, self._errors = bytearray(), bytearray()
        self._finalizer = weakref.finalize(self, kill_group, self._process, watch(self._process.pid))

    def ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Write one line and return the one that answers it.

        Raises
        ------
        ProgramError
            There is no line, or it isn't JSON, or there are two. The program was ended.
        """
        assert self._process
        try:
            self._pump(time.monotonic())
            if self._answers:
                raise ProgramError("protocol", f"it wrote a line that nobody asked for: {self._line_shown()}")
            line = self._exchange(format_line(request))
            if self._answers:
                raise ProgramError("protocol", f"it answered twice; the second line is {self._line_shown()}")
            return parse_line(line)
        except WireError as error:
            self.end()
            raise ProgramError("protocol", f"it answered with {error}") from error
        except BaseException:
            self.end()
            raise

    def stop(self) -> None:
        """Ask the program to end, and end it if it doesn't."""
        if self._process and self._process.stdin:
            with contextlib.suppress(OSError):
                self._process.stdin.write(format_line({"cmd": "stop"}))
                self._process.stdin.close()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(SECONDS_TO_END)
        self.end()

    def end(self) -> None:
        """Kill the program and all that it started."""
        self._finalizer()
        self._process = None

    def _exchange(self, request: bytes) -> bytes:
        deadline, unsent = time.monotonic() + self.timeout, memoryview(request)
        while (end := self._answers.find(b"\n")) < 0:
            if len(self._answers) > LONGEST_LINE:
                raise ProgramError("protocol", f"it wrote a line of more than {LONGEST_LINE} bytes")
            if time.monotonic() >= deadline:
                raise ProgramError("timeout", f"no answer within {self.timeout:g} s{self._last_words()}")
            unsent = self._pump(deadline, unsent)
        line = bytes(self._answers[:end])
        del self._answers[: end + 1]
        return line

    def _pump(self, deadline: float, unsent: memoryview = memoryview(b"")) -> memoryview:  # noqa: B008
        """Move bytes in each direction until some moved or the deadline came; return the bytes still unsent."""
        process = self._process
        assert process and process.stdin and process.stdout and process.stderr
        with selectors.PollSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ, self._answers)
            if not process.stderr.closed:
                selector.register(process.stderr, selectors.EVENT_READ, self._errors)
            if unsent:
                selector.register(process.stdin, selectors.EVENT_WRITE)
            for key, _ in selector.select(max(0, deadline - time.monotonic())):
                if key.fileobj is process.stdin:
                    with contextlib.suppress(BrokenPipeError):  # the end of its stdout tells more
                        unsent = unsent[process.stdin.write(unsent) or 0 :]
                        continue
                    unsent = memoryview(b"")
                elif data := key.fileobj.read(CHUNK):  # type: ignore[union-attr]
                    key.data.extend(data)
                elif data is None:  # it wasn't ready after all
                    continue
                elif key.fileobj is process.stdout:
                    raise ProgramError("crash", f"the program ended without an answer: {self._death()}")
                else:
                    process.stderr.close()
        del self._errors[:-KEPT]
        return unsent

    def _death(self) -> str:
        assert self._process
        try:
            code = self._process.wait(SECONDS_TO_END)
        except subprocess.TimeoutExpired:
            return f"it closed its stdout{self._last_words()}"
        ended = f"exit code {code}" if code >= 0 else f"signal {-code}, {signal.strsignal(-code)}"
        return ended + self._last_words()

    def _last_words(self) -> str:
        assert self._process and self._process.stderr
        with contextlib.suppress(OSError, ValueError):
            self._errors.extend(self._process.stderr.read(CHUNK) or b"")
        lines = self._errors.decode(errors="replace").splitlines()
        return f"; its last line on stderr: {shown_line(lines[-1])}" if lines else ""

    def _line_shown(self) -> str:
        return repr(shown(self._answers.decode(errors="replace").split("\n")[0]))


def shown_line(line: str) -> str:
    return escaped(line[:LONGEST_SHOWN])


def watch(leader: int) -> subprocess.Popen:
    """Start a process that kills a leader's group when this process is gone, however it went."""
    command, none = ["sh", "-c", WATCH, "sh", str(leader)], subprocess.DEVNULL
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=none, stderr=none, start_new_session=True)


def kill_group(leader: subprocess.Popen, watcher: subprocess.Popen) -> None:
    """Kill a process that leads a group, all that it started, and its watcher."""
    watcher.kill()
    with contextlib.suppress(ProcessLookupError):
        os.killpg(leader.pid, signal.SIGKILL)
    for stream in filter(None, (watcher.stdin, leader.stdin, leader.stdout, leader.stderr)):
        with contextlib.suppress(OSError):
            stream.close()
    watcher.wait()
    leader.wait()
