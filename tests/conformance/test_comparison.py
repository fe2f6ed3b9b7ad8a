"""The comparison judges the number of results, their types, dtypes and shapes, and each of their integers."""

import json
import pickle
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import mamba_integer.backends
from mamba_integer.backends import Backend
from mamba_integer.backends.programs.wire import result_forms
from mamba_integer.conformance.engine.cases import Case
from mamba_integer.conformance.engine.comparison import (
    Failure,
    Form,
    compare,
    crashes_as_failures,
    hexadecimal,
    in_form,
    raised_at,
)

BACKEND = Backend("tested", None, "cpu")
CASE = Case("quantize_rows", {"K": 3}, (2,), {}, ("uniform",), 1)
Q = np.array([[1, 2, 3], [4, 5, 6]], np.int8)
E = np.array([0, 7], np.int32)


def failure_of(*got, want=(Q, E), **named) -> Failure:
    with pytest.raises(Failure) as raised:
        compare(BACKEND, CASE, got, want, **named)
    return raised.value


def changed(array: np.ndarray, index: tuple[int, ...], by: int) -> np.ndarray:
    other = array.copy()
    other[index] += by
    return other


def test_equal_results_are_counted():
    assert compare(BACKEND, CASE, (Q.copy(), E.copy()), (Q, E)) == 8
    assert compare(BACKEND, CASE, (np.int64(3),), (np.array(3),), ["scalar"]) == 1


@pytest.mark.parametrize("by", [-1, 1, 100])
@pytest.mark.parametrize("index", [(0, 0), (0, 2), (1, 2)])
def test_one_wrong_integer_anywhere_is_found(index, by):
    failure = failure_of(changed(Q, index, by), E)
    assert (failure.kind, failure.output, failure.count, failure.compared) == ("value", "q", 1, 6)
    assert (failure.index, failure.got, failure.want) == (index, int(Q[index]) + by, int(Q[index]))
    assert failure.differs and "1 of 6 integers differ" in str(failure)
    assert f"first at {index}: got {int(Q[index]) + by}, want {int(Q[index])}" in failure.message
    shown = failure.to_dict()
    assert shown["got_hex"] == hexadecimal(failure.got, 8) and shown["want_hex"] == hexadecimal(failure.want, 8)
    assert shown["xor_hex"] == hexadecimal(failure.got ^ failure.want, 8)
    assert (shown["index"], shown["count"], shown["compared"]) == (list(index), 1, 6)


def test_the_first_of_several_is_named():
    wrong = changed(changed(Q, (0, 1), 1), (1, 1), 1)
    failure = failure_of(wrong, E)
    assert (failure.index, failure.count) == ((0, 1), 2)
    assert failure_of(Q, changed(E, (1,), 1)).output == "e"


def test_forms_of_results():
    assert failure_of(Q).message == "1 results, want 2"
    assert failure_of(Q, E, E).message == "3 results, want 2"
    assert failure_of(Q.astype(np.int16), E).message == "q has dtype int16, want int8"
    assert failure_of(Q, E[None]).message == "e has shape (1, 2), want (2,)"
    assert failure_of(Q.tolist(), E).message == "q is a list, want an array"
    assert "MaskedArray, want a numpy.ndarray" in failure_of(np.ma.masked_array(Q), E).message
    tensor = SimpleNamespace(__array__=None)
    assert failure_of(tensor, E).message.endswith("has from_numpy and to_numpy (see backends/protocol.py)")
    kinds = [failure_of(*got).kind for got in ((Q,), (Q.astype(np.int16), E), (Q, E[None]), (Q.tolist(), E))]
    assert kinds == ["result", "dtype", "shape", "result"]
    shapeless = failure_of(Q)
    assert (shapeless.count, shapeless.compared, shapeless.index, shapeless.got, shapeless.want) == (0, 0, (), 0, 0)
    assert (shapeless.output, shapeless.reference) == ("", "golden")
    assert not failure_of(Q).differs and "got_hex" not in failure_of(Q).to_dict()


def test_each_result_has_a_name():
    with pytest.raises(ValueError, match="argument"):
        compare(BACKEND, CASE, (Q, E), (Q, E), ["q"])


def test_a_failure_is_plain():
    """Its numbers can be written as JSON, and it can be kept in a set, as exceptions can."""
    failure = failure_of(changed(Q, (0, 0), 1), E)
    assert json.loads(json.dumps(failure.to_dict())) == failure.to_dict()
    assert len({failure, failure_of(changed(Q, (0, 0), 1), E)}) == 2


def test_a_relation_says_what_it_is():
    failure = failure_of(changed(Q, (0, 0), 1), E, names=["left", "right"], relation="whole = parts")
    assert failure.output == "left" and failure.message.startswith("whole = parts; left: 1 of 6")


def test_forms_are_those_of_the_contract():
    arrays = (np.zeros((2, 3), np.int16),)
    assert result_forms("quantize_rows", arrays, {}) == [Form("q", ("int8",), (2, 3)), Form("e", ("int32",), (2,))]
    arrays = (np.zeros((2, 5), np.int8),)
    assert result_forms("pack_ternary", arrays, {}) == [Form("packed", ("uint8",), (2, 2))]
    drawn = np.zeros((2, 5), np.int16), np.zeros(2, np.int32), np.zeros(2, np.int32)
    sampling = {"seed": 0, "f": 0, "num": 1, "shift": 0, "top_k": 1, "top_p": 1}
    assert {*result_forms("sample", drawn, sampling)} == {Form("token", ("int32",), (2,))}
    either = [Form("y", ("int16", "int8"), (2,))]
    for dtype in (np.int16, np.int8):
        assert in_form(BACKEND, CASE, [np.zeros(2, dtype)], either)[0].dtype == dtype
    with pytest.raises(Failure, match="want int16 or int8"):
        in_form(BACKEND, CASE, [np.zeros(2, np.int32)], either)


@pytest.mark.parametrize(
    ("value", "bits", "text"),
    [
        (0, 8, "0x00"),
        (-1, 8, "0xff"),
        (-1, 32, "0xffffffff"),
        (127, 16, "0x007f"),
        (-(1 << 31), 32, "0x80000000"),
        ((1 << 63) - 1, 64, "0x7fffffffffffffff"),
    ],
)
def test_hexadecimal_has_the_width_of_the_type(value, bits, text):
    assert hexadecimal(value, bits) == text


def test_crashes_become_failures_and_interrupts_do_not():
    with pytest.raises(Failure, match="step: SystemExit: 3") as raised, crashes_as_failures(BACKEND, CASE, "step: "):
        sys.exit(3)
    assert raised.value.kind == "crash" and isinstance(raised.value.__cause__, SystemExit)
    for error in (KeyboardInterrupt(), raised.value):
        with pytest.raises(type(error)) as same, crashes_as_failures(BACKEND, CASE):
            raise error
        assert same.value is error


def test_a_failure_survives_another_process():
    failure = failure_of(changed(Q, (1, 0), 2), E)
    failure.backend, failure.reference = Backend("golden", None), "numba"
    again = pickle.loads(pickle.dumps(failure))
    assert again.to_dict() == failure.to_dict() | {"backend": "golden", "device": again.backend.device}
    assert again.to_dict()["reference"] == "numba" and "numba,golden" in again.repeat
    assert "--op quantize_rows" in again.repeat and "--device cpu" in again.repeat


def test_a_result_is_as_wide_as_the_widest_type_it_may_have():
    widths = [replace(failure_of(changed(Q, (0, 0), 1), E), output=name).bits for name in ("q", "e", "no such result")]
    assert widths == [8, 32, 64]
    either = replace(CASE, op="stochastic_round_rows")
    assert Failure(BACKEND, either, "value", "", "y").bits == 16  # int16 or int8


def test_the_command_repeats_the_variant_and_the_cases_before():
    failure = failure_of(changed(Q, (0, 0), 1), E)
    assert not failure.process_ended
    assert "--variant" not in failure.repeat and failure.sequence == CASE.to_json()
    failure.variant, failure.before = "few lanes", (CASE.to_json(),)
    assert "--variant 'few lanes' " in failure.repeat
    assert json.loads(failure.sequence) == [json.loads(CASE.to_json())] * 2


def crash_in(file: Path) -> str:
    scope: dict = {}
    exec(compile("def op():\n    raise RuntimeError('no')\n", str(file), "exec"), scope)
    with pytest.raises(Failure) as raised, crashes_as_failures(BACKEND, CASE):
        scope["op"]()
    return raised.value.message


def test_a_crash_is_blamed_on_the_line_of_a_backend_and_never_on_the_suite():
    package = Path(mamba_integer.backends.__path__[0]).parent
    beside = package.parent / "stranger.py"
    assert crash_in(beside).endswith(f"RuntimeError: no (at {beside}:2: )")
    assert "stranger" not in crash_in(package / "backends" / "stranger.py")
    assert raised_at(RuntimeError("raised nowhere")) == ""
