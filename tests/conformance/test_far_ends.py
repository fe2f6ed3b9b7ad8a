"""The far ends of ops, here at sizes that a CPU has room for: long dimensions, and rows that repeat a few."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from mamba_integer import spec
from mamba_integer.backends import Backend, load
from mamba_integer.conformance.engine import far_ends, judge, replay
from mamba_integer.conformance.engine.calls import Caller
from mamba_integer.conformance.engine.comparison import Failure
from mamba_integer.conformance.engine.far_ends import FarCase, long_cases, row_cases
from mamba_integer.conformance.engine.journal import Journal
from mamba_integer.conformance.engine.run import conform

ROOM = 1 << 20  # bytes


class Late:
    """A backend that is wrong from a row on."""

    from_numpy = staticmethod(lambda array, device: load("torch").load(array))
    to_numpy = staticmethod(lambda array: load("torch").store(array))

    def saturate(self, x, *, bits):
        (y,) = load("torch").call("saturate", [x], {"bits": bits})
        if len(y) > 1000:
            y[1000:] += 1
        return y


def test_every_dimension_has_a_long_call():
    for op in spec.OPS:
        sizes = {case.far for case in long_cases(op)}
        assert sizes or not spec.OPS[op].inputs[0].shape, op


def test_most_ops_have_rows_to_repeat():
    assert sum(any(row_cases(op, ROOM)) for op in spec.OPS) > 40


@pytest.mark.parametrize("op", ["causal_conv1d", "ternary_linear"])
def test_a_right_backend_passes(op):
    caller = Caller(load("torch", "cpu"))
    for case in (*[replace(long, size=min(long.size, 70)) for long in long_cases(op)], *row_cases(op, ROOM)):
        assert replay.check(caller, replay.parse(case.to_json(), op)) > 0


def test_a_row_that_is_wrong_far_away_is_found():
    (case,) = row_cases("saturate", ROOM)
    with pytest.raises(Failure, match="differ from those of the row that they repeat"):
        replay.check(Backend("late", Late()), case)
    with pytest.raises(Failure):
        replay.check(Backend("late", Late()), FarCase("saturate", "...", 2000))


def test_memory_decides_how_many_rows_there_are():
    few, many = (next(row_cases("saturate", room)) for room in (ROOM, 4 * ROOM))
    assert 3 * few.elements < many.elements < 5 * few.elements
    assert next(row_cases("saturate", 1 << 60)).elements == far_ends.ELEMENTS


def test_the_domain_decides_how_many_rows_there_are():
    """The gradient of a convolution's weights is a sum over rows, which must fit an int64."""
    (case,) = row_cases("causal_conv1d_backward", 1 << 60)
    assert 0 < case.elements < far_ends.ELEMENTS
    assert far_ends.times_allowed(case, case.elements // max(a.size for a in case.arrays))
    assert not far_ends.times_allowed(case, 4 * case.elements)


def test_a_trial_leaves_what_the_contract_knows_of_a_call():
    """Calls of one kind share their sizes: a trial of many rows once made later calls of few rows fail."""
    few = FarCase("isqrt", far_ends.ROWS, far_ends.FEW_ROWS, far_ends.ELEMENTS)
    assert far_ends.times_allowed(few, 1000)
    assert spec.isqrt.check(few.arrays, few.parameters).leading == (far_ends.FEW_ROWS,)


def test_neither_the_trial_nor_the_far_call_leaves_the_domain(monkeypatch):
    """The trial of 2**24 elements measures a call's memory; the far call repeats the rows as often as was allowed."""
    calls = []

    class Counting(Late):
        def causal_conv1d_backward(self, dy, *arrays, s):
            calls.append(len(dy))
            return load("torch").call("causal_conv1d_backward", [dy, *arrays], {"s": s})

    for name in ("reset_peak_memory_stats", "memory_allocated", "max_memory_allocated"):
        monkeypatch.setattr(torch.cuda, name, lambda device: 0)
    backend = Backend("counting", Counting())
    (case,) = row_cases("causal_conv1d_backward", 1 << 60)
    few = replace(case, elements=far_ends.ELEMENTS)
    assert far_ends.measured(backend, few) == 0
    far_ends.check_rows(backend, case)
    assert len(calls) == 3 and calls[0] == far_ends.FEW_ROWS < calls[1]
    times = case.elements // max(array.size for _, array in far_ends.arrays_of(few))
    assert calls[2] == far_ends.FEW_ROWS * times
    assert all(far_ends.times_allowed(few, -(-rows // far_ends.FEW_ROWS)) for rows in calls)


def test_where_memory_ends_half_the_rows_are_tried_and_said(monkeypatch):
    class Small(Late):
        def saturate(self, x, *, bits):
            if len(x) > 1 << 18:
                raise torch.OutOfMemoryError("no room")
            return load("torch").call("saturate", [x], {"bits": bits})[0]

    monkeypatch.setattr(judge, "memory_of", lambda backend: 16 << 20)
    monkeypatch.setattr(judge, "LEAST_ELEMENTS", 1 << 10)
    result = judge.conform_rows(Backend("small", Small()), "saturate", 1, Journal())
    assert result.status == "passed" and result.groups["far ends"] == judge.LARGE_RUNS
    assert len(result.notes) == 1 and "elements of 2,147,483,649" in result.notes[0]
    monkeypatch.setattr(judge, "LEAST_ELEMENTS", 1 << 30)
    assert judge.conform_rows(Backend("small", Small()), "saturate", 1, Journal()).failure.kind == "crash"


def test_the_full_preset_runs_them_on_a_gpu(monkeypatch):
    """Each far end runs three times, and counts; without a GPU there are none."""
    for module in (judge, far_ends):
        monkeypatch.setattr(module, "on_cuda", lambda backend: True)
    monkeypatch.setattr(far_ends, "memory_of", lambda backend: ROOM)
    monkeypatch.setattr(far_ends, "measured", lambda backend, few: 1000)
    monkeypatch.setattr(judge, "memory_of", lambda backend: ROOM)
    result = judge.conform_rows(load("torch", "cpu"), "saturate", 2, Journal())
    assert result.status == "passed" and result.groups == {"far ends": judge.LARGE_RUNS}
    monkeypatch.undo()
    report = conform(load("numba"), ["isqrt"], "full")
    assert report.complete and "far ends" not in report.results[0].groups


def test_arrays_are_the_same_everywhere():
    first, again = (FarCase("rope", "L", 40).arrays for _ in range(2))
    assert all(map(np.array_equal, first, again))
