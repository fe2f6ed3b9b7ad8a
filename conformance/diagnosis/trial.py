"""Misreadings tried in a process of their own: one may run without an end, or ask for more memory than there is."""

import json
import os
import select
import signal
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from mamba_integer.backends.stopping import STOPS
from mamba_integer.spec.contract import find_op

from ..engine.vector import Vector
from .catalogue import Arrays, results, same, same_form
from .misreadings import Misreading, in_place, misreadings

CALL_SECONDS = 0.02  # of a processor's time that one call may take,
SLOWER = 20  # and so many times what the right call takes
LARGEST_MEMORY = 8 << 30
SEARCHED = 0.7  # part of the time in which the first answer is compared
PATIENCE = 2  # seconds after which a process that should have ended is ended
BYTES = 1 << 16


@dataclass(frozen=True)
class Answer:
    """A call and what a backend returned for it."""

    vector: Vector
    got: Arrays

    @cached_property
    def wrong(self) -> bool:
        return not same(self.got, self.vector.results)


class OutOfTimeError(Exception):
    """A misread call takes too long."""


def try_misreadings(answers: Sequence[Answer], seconds: float) -> list[tuple[str, int]]:
    """Return misreadings that return the first answer, each with the number of wrong answers that it returns.

    Those that return most come first. One that spoils calls for which the backend is right must return every wrong one:
    the backend may misread on one of its paths alone.
    """
    assert [answer.wrong for answer in answers]  # every right result is computed before anything is misread
    reading, writing = os.pipe()
    process = os.fork()
    if process == 0:
        serve(answers, seconds, writing)
    os.close(writing)
    text, deadline = b"", time.monotonic() + seconds + PATIENCE
    try:
        while select.select([reading], [], [], max(0, deadline - time.monotonic()))[0]:
            if not (part := os.read(reading, BYTES)):
                break
            text += part
    finally:
        os.close(reading)
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
    try:
        return [(says, count) for says, count in json.loads(text)]
    except ValueError:  # the process was ended before it was done
        return []


def serve(answers: Sequence[Answer], seconds: float, writing: int) -> None:
    """Search in this process, write the misreadings found, and end the process, whatever happens."""
    import resource

    try:
        for number in STOPS:
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGVTALRM, out_of_time)
        resource.setrlimit(resource.RLIMIT_DATA, (LARGEST_MEMORY, LARGEST_MEMORY))
        warnings.simplefilter("ignore")
        with os.fdopen(writing, "w") as file:
            json.dump(search(answers, seconds), file)
    finally:
        os._exit(0)


def search(answers: Sequence[Answer], seconds: float) -> list[tuple[str, int]]:
    first, *others = answers
    start, fitting = time.monotonic(), []
    seconds_of = [CALL_SECONDS + SLOWER * seconds_to_run(answer.vector) for answer in answers]
    for misreading in misreadings(find_op(first.vector.op)):
        if time.monotonic() - start > SEARCHED * seconds:
            break
        if returns(misreading, first, seconds_of[0]):
            fitting.append(misreading)
    counts = []
    for misreading in fitting:
        if time.monotonic() - start > seconds:
            break
        compared = zip(others, seconds_of[1:], strict=True)
        shown = [(answer.wrong, returns(misreading, answer, limit)) for answer, limit in compared]
        spoils = not all(equal for wrong, equal in shown if not wrong)
        if not spoils or all(equal for wrong, equal in shown if wrong):
            counts.append((spoils, misreading.says, 1 + sum(equal for wrong, equal in shown if wrong)))
    return [(says, count) for _, says, count in sorted(counts, key=lambda each: (each[0], -each[2]))]


def seconds_to_run(vector: Vector) -> float:
    """Return the processor time of the right call, in seconds."""
    start = time.process_time()
    find_op(vector.op).golden(*vector.arrays, **vector.parameters)
    return time.process_time() - start


def returns(misreading: Misreading, answer: Answer, seconds: float) -> bool:
    """Tell whether a misread call returns exactly what a backend returned."""
    vector = answer.vector
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        with in_place(misreading), np.errstate(all="ignore"):
            arrays = [array.copy() for array in vector.arrays]
            returned = results(find_op(vector.op).golden(*arrays, **vector.parameters))
        return same_form(returned, answer.got) and same(returned, answer.got)
    except Exception:  # a misread call may do anything: then it is no candidate
        return False
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)


def out_of_time(number: int, frame: Any) -> None:
    raise OutOfTimeError
