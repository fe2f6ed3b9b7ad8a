"""Processes that begin with the commands loaded, which takes longer than most commands.

A nursery is a process that loads them once and forks for each command. The fork becomes a process of its own, with a
session, a folder, variables and streams. A second fork waits for it and tells how it ended.
"""

import contextlib
import gc
import io
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from array import array
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

LOADED = (
    "mamba_integer.backends.app.command_line",
    "mamba_integer.conformance.engine.comparing",
    "mamba_integer.conformance.engine.judge",
    "mamba_integer.conformance.engine.run",
    "mamba_integer.conformance.reports.files",
    "mamba_integer.conformance.reports.known",
    "pydantic",  # Typer loads it for each command
)
LARGEST = 1 << 17  # bytes of a request
SECONDS_TO_FORK = 60  # much, for a busy machine
# How variables begin that may be others than a nursery's: what it loads reads none of them before a command runs.
CHANGEABLE = ("CHILDREN", "HYPOTHESIS_", "PYTEST_", "PYTHONPATH", "TMPDIR", "TORCH", "TRITON_")
START = "from tests.forking import serve; serve(0); from mamba_integer.backends.app.main import main; main()"


def serve(descriptor: int) -> None:
    """Fork for each request that arrives at a socket; return in the forks alone."""
    before = dict(os.environ)
    for name in LOADED:
        __import__(name)
    added = dict(os.environ.items() - before.items())
    gc.collect()
    gc.freeze()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those that wait
    requests = socket.socket(fileno=os.dup(descriptor))
    while True:
        message, descriptors, *_ = socket.recv_fds(requests, LARGEST, 4)
        if not message:
            sys.exit()  # the tests have ended
        if not os.fork():
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            requests.close()
            answers, *streams = descriptors
            if command := os.fork():
                tell_end(command, socket.socket(fileno=answers), streams)
            os.close(answers)
            begin(json.loads(message), streams, added, before.get("PYTHONPATH", ""))
            return
        for used in descriptors:
            os.close(used)


def tell_end(command: int, answers: socket.socket, streams: list[int]) -> None:
    """Tell the number of a process, wait for its end, and tell its exit code; then end."""
    for stream in (*streams, 0, 1, 2):
        os.close(stream)
    with contextlib.suppress(OSError):  # nobody asks any more
        answers.sendall(array("i", [command]).tobytes())
        answers.sendall(array("i", [os.waitstatus_to_exitcode(os.waitpid(command, 0)[1])]).tobytes())
    os._exit(0)


def begin(request: dict, streams: list[int], added: dict[str, str], path_before: str) -> None:
    """Turn this process into the one that was asked for, with the variables that loading added."""
    os.setsid()
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(added | request["variables"])
    given = os.environ.get("PYTHONPATH", "")
    sys.path[1:] = folders(given) + sys.path[1 + len(folders(path_before)) :]
    sys.argv[1:] = request["arguments"]


def folders(path: str) -> list[str]:
    return [os.path.abspath(folder) for folder in path.split(os.pathsep)] if path else []


class Nursery:
    """A process that forks for commands, and ends with this one."""

    def __init__(self, head: str, variables: dict[str, str]):
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)  # which keeps each request whole
        self.requests, self.lock, self.variables = ours, threading.Lock(), variables
        self.process = subprocess.Popen(
            [sys.executable, "-c", f"{head}; {START}"],
            env=variables,
            cwd=Path(__file__).parents[1],
            stdin=theirs,
            stdout=theirs,  # no file: the streams of a fork, which are pipes, can't be sought in
            stderr=theirs,
            start_new_session=True,
        )
        theirs.close()

    def refused(self, variables: dict[str, str]) -> set[str]:
        """Return those of the variables for which a process may not be a fork."""
        changed = {name for name, _ in variables.items() ^ self.variables.items()}
        return {name for name in changed if not name.startswith(CHANGEABLE)}

    def start(self, arguments: list[str], variables: dict[str, str], folder: str) -> "Fork":
        ours, theirs = socket.socketpair()
        request = {"arguments": arguments, "variables": variables, "folder": os.path.abspath(folder)}
        out, error = os.pipe(), os.pipe()
        with open(os.devnull, "rb") as nothing, self.lock:
            descriptors = [theirs.fileno(), nothing.fileno(), out[1], error[1]]
            socket.send_fds(self.requests, [json.dumps(request).encode()], descriptors)
        theirs.close()
        os.close(out[1])
        os.close(error[1])
        return Fork(ours, open(out[0]), open(error[0]))

    def end(self) -> None:
        self.process.kill()
        self.process.wait()


class Fork:
    """A command that was forked; it is used like one of `subprocess.Popen`."""

    stdin = None

    def __init__(self, answers: socket.socket, stdout: io.TextIOWrapper, stderr: io.TextIOWrapper):
        self.answers, self.stdout, self.stderr = answers, stdout, stderr
        self.returncode: int | None = None
        self.answers.settimeout(SECONDS_TO_FORK)
        self.pid = self._answer()
        self.answers.settimeout(None)

    def _answer(self, flags: int = 0) -> int:
        answer = array("i")
        answer.frombytes(self.answers.recv(answer.itemsize, flags))
        if not answer:
            raise ChildProcessError("a nursery has ended, or what waited for its fork")
        return answer[0]

    def wait(self) -> int:
        if self.returncode is None:
            self.returncode = self._answer()
            self.answers.close()
        return self.returncode

    def poll(self) -> int | None:
        if self.returncode is None:
            with contextlib.suppress(BlockingIOError):
                self.returncode = self._answer(socket.MSG_DONTWAIT)
                self.answers.close()
        return self.returncode

    def communicate(self) -> tuple[str, str]:
        """Return all of stdout and stderr when the process has ended."""
        with ThreadPoolExecutor(2) as pool:
            out, error = pool.map(lambda stream: stream.read() if stream else "", (self.stdout, self.stderr))
        self.wait()
        return out, error

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):  # it has ended, and that is about to be told
                os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)
