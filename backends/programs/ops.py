"""A program's ops as Python functions of NumPy arrays."""

import os
import shutil
import tempfile
import weakref
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from mamba_integer import spec
from mamba_integer.spec.contract import find_op

from ..protocol import BackendError, UnsupportedError
from ..stopping import MOST_SECONDS
from .process import Program, ProgramError, shown_line
from .wire import INLINE, PROTOCOL, WireError, format_parameters, format_tensor, parse_tensor, result_forms, shown

TIMEOUT = "MAMBA_INTEGER_TIMEOUT"
DEFAULT_TIMEOUT = 60.0
NO_OPS = "its answer to start names no op of the specification: found ops"
START_LINE = (
    'names that `mamba-integer ops` lists, such as {"name":"mine","ops":["isqrt"]}; a program without the field ops '
    "has all of them (conformance/PROTOCOL.md)"
)


def time_limit() -> float:
    """Return the seconds that a program has for each answer."""
    written = os.environ.get(TIMEOUT, str(DEFAULT_TIMEOUT))
    try:
        seconds = float(written)
    except ValueError:
        seconds = 0
    if not 0 < seconds <= MOST_SECONDS:
        raise BackendError(f"{TIMEOUT}: found {shown(repr(written))}, allowed seconds above 0, up to {MOST_SECONDS:,}")
    return seconds


class RoomError(BackendError):
    """Arrays for a program can't be written down: no fault of the program."""


class ProgramOps:
    """The ops that a program says it has; all of the specification, if it doesn't say."""

    def __init__(self, command: str):
        self.program = Program(command, time_limit())
        self.folder = Path(tempfile.mkdtemp(prefix="mamba-integer-"))
        weakref.finalize(self, shutil.rmtree, self.folder, ignore_errors=True)
        self.ops = frozenset(spec.OPS)
        self.told: list[str] = []
        self._sequence = 0
        try:
            self._start()
        except ProgramError as error:
            raise BackendError(f"{command}: {error}") from error

    def __getattr__(self, name: str) -> Callable:
        if name in self.__dict__.get("ops", ()):
            return partial(self._run, name)
        raise AttributeError(name)

    def __dir__(self) -> list[str]:
        return self.told

    def _start(self) -> None:
        self.program.start()
        answer = self.program.ask({"cmd": "start", "protocol": PROTOCOL, "spec_version": spec.SPEC_VERSION})
        names = answer.get("ops", list(spec.OPS))
        if not isinstance(answer.get("name"), str):
            self.program.end()
            raise ProgramError("protocol", f"its answer to start has no name: {shown(answer)}")
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            self.program.end()
            raise ProgramError("protocol", f"its answer to start has ops {shown(names)}, want a list of names")
        self.told = names
        self.ops = frozenset(name for name in names if name in spec.OPS)
        if not self.ops:
            self.program.end()
            raise ProgramError("protocol", f"{NO_OPS} {shown(names)}, allowed {START_LINE}")

    def _run(self, op: str, *arrays: np.ndarray, **parameters: int) -> tuple[np.ndarray, ...]:
        contract = find_op(op)
        contract.check(arrays, parameters, __package__)
        forms = result_forms(op, arrays, parameters)
        if not self.program.running():
            self._start()
        self._sequence += 1
        inputs, outputs, paths = [], [], {}
        for tensor, array in zip(contract.inputs, arrays, strict=True):
            try:
                fields = format_tensor(tensor.name, array, self.folder, f"input-{tensor.name}")
            except OSError as error:
                reason = f"found {error.strerror or error}, allowed a folder with room: set TMPDIR"
                raise RoomError(f"{self.folder}, for arrays of a program: {reason}") from error
            inputs.append(fields | ({"path": str(self.folder / fields["path"])} if "path" in fields else {}))
        for form in forms:
            fields = {"name": form.name, "dtypes": " ".join(form.dtypes), "shape": list(form.shape)}
            if int(np.prod(form.shape)) > INLINE:
                path = self.folder / f"output-{form.name}"
                path.unlink(missing_ok=True)
                fields["path"], paths[str(path)] = str(path), path
            outputs.append(fields)
        request = {"cmd": "run", "seq": self._sequence, "op": op, "parameters": format_parameters(parameters)}
        answer = self.program.ask(request | {"inputs": inputs, "outputs": outputs})
        try:
            return self._results(answer, [form.name for form in forms], paths)
        except WireError as error:
            self.program.end()
            raise ProgramError("protocol", str(error)) from error

    def _results(self, answer: dict[str, Any], names: list[str], paths: dict[str, Path]) -> tuple[np.ndarray, ...]:
        if (seq := answer.get("seq")) != self._sequence or type(seq) is not int:
            raise WireError(f"it answered seq {shown(repr(seq))} where seq {self._sequence} was asked")
        known = [kind for kind in ("outputs", "skipped", "errored") if kind in answer]
        if len(known) != 1:
            raise WireError(f"its answer has {' and '.join(known) or 'none'}, want one of outputs, skipped, errored")
        if "outputs" not in answer and not isinstance(answer[known[0]], str):
            raise WireError(f"{known[0]} is {shown(repr(answer[known[0]]))}, want a text")
        if "skipped" in answer:
            raise UnsupportedError(shown_line(answer["skipped"]) or "no reason was told")
        if "errored" in answer:
            raise ProgramError("crash", f"it answered errored: {shown_line(answer['errored'])}")
        outputs = answer["outputs"]
        if not isinstance(outputs, list) or len(outputs) != len(names):
            answered = f"{len(outputs)} outputs" if isinstance(outputs, list) else f"outputs {shown(repr(outputs))}"
            raise WireError(f"it answered {answered}, want {len(names)}: {', '.join(names)}")
        return tuple(parse_tensor(fields, name, paths) for fields, name in zip(outputs, names, strict=True))
