"""Programs as backends: whatever one does, a verdict comes in time, costs one case, and leaves nothing running."""

import contextlib
import errno
import importlib.util
import pickle
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mamba_integer import spec
from mamba_integer.backends import BackendError, UnsupportedError, load
from mamba_integer.backends.programs import ProgramError, RoomError, WireError, ops, wire
from mamba_integer.backends.programs.ops import TIMEOUT
from mamba_integer.conformance.chains.stages import Stage, follow
from mamba_integer.conformance.engine.comparison import Failure, crashes_as_failures
from mamba_integer.conformance.report import Text

STRANGER = Path(__file__).parent / "stranger.py"
module_spec = importlib.util.spec_from_file_location("stranger", STRANGER)
assert module_spec and module_spec.loader
stranger = importlib.util.module_from_spec(module_spec)
module_spec.loader.exec_module(stranger)

SAYS = {
    "floats": "integer 0 of r is '1.5', want a decimal integer",
    "numbers": "the data of r are a list",
    "json_float": "1.5 is no integer",
    "nan": "NaN is no JSON number",
    "shape_of_more": "r has 1 integers, but its shape",
    "huge_shape": "at most 268435456 integers",
    "negative_shape": "want a list of sizes",
    "no_dtype": "r has dtype None",
    "float_dtype": "r has dtype 'float32'",
    "beyond_int32": "is 2147483648, which int32 doesn't hold",
    "digits_of_unicode": "want a decimal integer",
    "two_results": "it answered 2 outputs, want 1: r",
    "other_name": "a tensor is named 'y' where r belongs",
    "other_file": "isn't the one asked for",
    "data_and_path": "needs either data or path",
    "no_answer": "its answer has none, want one of outputs, skipped, errored",
    "two_kinds": "its answer has outputs and skipped",
    "name_twice": "stands twice",
    "errored": r"it answered errored: not today\x1b[2J",
    "crash": "signal 6",
    "quit": "exit code 3; its last line on stderr: going wrong",
    "hang": "no answer within 0.3 s",
    "hang_of_a_child": "no answer within 0.3 s",
    "close": "it closed its stdout",
    "garbage": "'Segmentation fault'",
    "binary": "a line that isn't JSON",
    "not_an_object": "a line that is a list, not an object",
    "deep": "nested too deep",
    "long_line": "a line of more than 1048576 bytes",
    "endless_line": "a line of more than 1048576 bytes",
    "twice": "it answered twice",
    "other_seq": "it answered seq",
    "no_seq": "it answered seq None",
}
KINDS = {"crash": "crash", "quit": "crash", "close": "crash", "errored": "crash"} | dict.fromkeys(
    ("hang", "hang_of_a_child"), "timeout"
)


@pytest.fixture(scope="module")
def backend():
    return load(f"command:{sys.executable} {STRANGER}")


@contextlib.contextmanager
def impatient(backend, seconds: float = 0.3):
    """Wait so long for an answer that never comes; a program that starts, or answers, has all the time it needs."""
    assert roots(backend, 0) == [0]
    program = backend.ops.program
    patient, program.timeout = program.timeout, seconds
    try:
        yield
    finally:
        program.timeout = patient


class Case:
    op, arrays, parameters = "isqrt", (), {}


def roots(backend, *values: int):
    (got,) = backend.run("isqrt", [np.array(values, np.int32)], {})
    return got.tolist()


def test_a_full_disk_is_no_fault_of_the_program(backend, monkeypatch):
    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(ops, "format_tensor", full)
    says = pytest.raises(RoomError, match=r"found No space left on device, .*: set TMPDIR")
    with says, crashes_as_failures(backend, Case()):
        roots(backend, 1)
    with pytest.raises(RoomError):
        follow(Text("mine", "a text"), [Stage("a", "isqrt", {})], (roots(backend, 1) for _ in range(1)))


def test_the_ops_are_those_that_it_names(backend):
    assert backend.names == ["isqrt"]
    assert roots(backend, 0, 1, 24, 25) == [0, 1, 4, 5]
    assert pickle.loads(pickle.dumps(backend)).names == ["isqrt"]


@pytest.mark.parametrize("mode", [mode for mode in stranger.MODES if mode not in ("shape", "dtype")])
def test_each_way_to_go_wrong_costs_one_case(backend, mode):
    waiting = impatient(backend) if "hang" in mode else contextlib.nullcontext()
    with waiting, pytest.raises(Failure) as raised, crashes_as_failures(backend, Case()):
        roots(backend, stranger.FIRST + stranger.MODES.index(mode))
    assert SAYS.get(mode, "") in raised.value.message
    assert raised.value.kind == KINDS.get(mode, "protocol")
    assert raised.value.message.isprintable() and len(raised.value.message) < 700
    assert roots(backend, 25) == [5]


@pytest.mark.parametrize("mode", ["shape", "dtype"])
def test_what_is_well_formed_is_left_to_the_comparison(backend, mode):
    (got,) = backend.run("isqrt", [np.array([stranger.FIRST + stranger.MODES.index(mode)], np.int32)], {})
    assert got.dtype != np.int32 or got.shape != (1,)


def test_a_skipped_case_tells_its_reason(backend):
    with pytest.raises(UnsupportedError, match="more than 64 integers"):
        roots(backend, *range(65))


def test_what_a_program_started_ends_with_it(backend):
    number = ""
    for seconds in (0.3, 1, 3, 9, 27):
        with impatient(backend, seconds), pytest.raises(ProgramError) as raised:
            roots(backend, stranger.FIRST + stranger.MODES.index("hang_of_a_child"))
        if told := re.findall("stderr: ([0-9]+)", str(raised.value)):
            number = told[0]
            break
    assert number
    for _ in range(100):
        if not running(number):
            return
        time.sleep(0.05)
    raise AssertionError("the child still runs")


def running(number: str) -> bool:
    try:
        return Path("/proc", number, "stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("seconds", ["inf", "nan", "1e9", "0", "soon", ""])
def test_a_time_limit_that_is_none_is_refused(seconds, monkeypatch):
    monkeypatch.setenv(TIMEOUT, seconds)
    with pytest.raises(BackendError, match=f"{TIMEOUT}: found '{seconds}', allowed seconds above 0, up to 1,000,000"):
        load("command:cat")


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ("/no/such/program", "No such file or directory"),
        ("'", "bad command"),
        ("", "bad command '': it names no program"),
        (" ", "bad command ' ': it names no program"),
        ("false", "exit code 1"),
        ("cat", "has no name"),
        ("echo 1", "a line that is a number, not an object|nobody asked for"),
        ("yes", "twice|isn't JSON|nobody asked for"),
        ("sleep 9", "no answer within 0.3 s"),
        (
            f'{sys.executable} -c "input(); print(\'{{\\"name\\":\\"x\\",\\"ops\\":[]}}\')"',
            r"names no op of the specification: found ops \[\], allowed names .*\"ops\":\[\"isqrt\"\]}; .*PROTOCOL.md",
        ),
        (
            f'{sys.executable} -c "input(); print(\'{{\\"name\\":\\"x\\",\\"ops\\":[\\"sqrt\\",\\"\\"]}}\')"',
            r"names no op of the specification: found ops \['sqrt', ''\], allowed names that `mamba-integer ops` lists",
        ),
        (f'{sys.executable} -c "input(); print(\'{{\\"name\\":\\"x\\",\\"ops\\":5}}\')"', "want a list of names"),
    ],
)
def test_a_program_that_does_not_start_is_no_backend(command, says, monkeypatch):
    if command.startswith("sleep"):
        monkeypatch.setenv(TIMEOUT, "0.3")
    with pytest.raises(BackendError, match=says):
        load(f"command:{command}")


def test_a_program_in_this_folder_is_named_by_its_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").touch()
    with pytest.raises(BackendError, match=r"No such file or directory; did you mean \./mine\?$"):
        load("command:mine --fast")


PARENT = """
import sys, numpy as np
from mamba_integer.backends import load
backend = load(sys.argv[1])
print(backend.ops.program._process.pid, flush=True)
backend.run("isqrt", [np.array([int(sys.argv[2])], np.int32)], {})
"""


def test_a_program_dies_with_its_parent():
    """Where the suite's own process is killed, nobody is left to end a program that hangs."""
    hanging = str(stranger.FIRST + stranger.MODES.index("hang"))
    command = [sys.executable, "-c", PARENT, f"command:{sys.executable} {STRANGER}", hanging]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        child = parent.stdout.readline().strip()
        assert running(child)
        parent.kill()
    for _ in range(200):
        if not running(child):
            return
        time.sleep(0.05)
    raise AssertionError("the program still runs")


def test_a_program_outlives_the_thread_that_started_it(backend):
    with ThreadPoolExecutor(1) as pool:
        again = pool.submit(load, backend.name).result()
    assert roots(again, 25) == [5]


@pytest.mark.parametrize("dtype", wire.DTYPES)
@pytest.mark.parametrize("size", [0, 1, wire.INLINE, wire.INLINE + 1])
def test_tensors_come_back(dtype, size, tmp_path):
    holds = np.iinfo(dtype)
    array = np.resize(np.array([holds.min, holds.max, 0, 1], dtype), size)
    fields = wire.format_tensor("x", array, tmp_path, "file")
    assert ("path" in fields) == (size > wire.INLINE)
    back = wire.parse_tensor(wire.parse_line(wire.format_line(fields)), "x", {"file": tmp_path / "file"})
    assert back.dtype == array.dtype and back.tolist() == array.tolist()


def test_a_file_has_exactly_the_bytes_of_its_tensor(tmp_path):
    fields = wire.format_tensor("x", np.arange(100, dtype=np.int32), tmp_path, "file")
    (tmp_path / "file").write_bytes(bytes(399))
    with pytest.raises(WireError, match="has 399 bytes, want 400"):
        wire.parse_tensor(fields, "x", {"file": tmp_path / "file"})
    (tmp_path / "file").unlink()
    with pytest.raises(WireError, match="isn't there"):
        wire.parse_tensor(fields, "x", {"file": tmp_path / "file"})


def test_every_op_has_forms_of_its_results():
    x = np.zeros((2, 3, 8), np.int16)
    assert wire.result_forms("quantize_rows", [x], {}) == [
        wire.Form("q", ("int8",), (2, 3, 8)),
        wire.Form("e", ("int32",), (2, 3)),
    ]
    with pytest.raises(spec.DomainError):
        wire.result_forms("quantize_rows", [x.astype(np.int32)], {})


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.sampled_from(["int8", "1 2", "-1"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["dtype", "shape", "data", "path", "name", "x"]), inner, max_size=5)
    ),
    max_leaves=12,
)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=60) | JSON.map(lambda value: wire.format_line({"value": value})))
def test_lines_of_strangers_are_objects_or_errors(line):
    try:
        assert isinstance(wire.parse_line(line), dict)
    except WireError as error:
        assert str(error).isprintable()


@settings(max_examples=300, deadline=None)
@given(JSON)
def test_tensors_of_strangers_are_arrays_or_errors(fields):
    try:
        assert isinstance(wire.parse_tensor(fields, "x", {}), np.ndarray)
    except WireError as error:
        assert str(error).isprintable() and len(str(error)) < 700
