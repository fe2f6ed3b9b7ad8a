"""The parts of a diagnosis: the catalogue leaves no trace, shrinking keeps a failure, what is common is told."""

import contextlib
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from random import Random
from types import SimpleNamespace

import numpy as np
import pytest

from mamba_integer import spec
from mamba_integer.backends import Backend
from mamba_integer.conformance import oracle
from mamba_integer.conformance.citations import Parts
from mamba_integer.conformance.diagnosis import explanation
from mamba_integer.conformance.diagnosis.catalogue import REPLACED, RULES, same, variants
from mamba_integer.conformance.diagnosis.common import in_common
from mamba_integer.conformance.diagnosis.explanation import Explanation, explain, search
from mamba_integer.conformance.diagnosis.intermediates import right_values
from mamba_integer.conformance.diagnosis.layout import SAYS, layout_alone
from mamba_integer.conformance.diagnosis.relation import calls_of
from mamba_integer.conformance.diagnosis.shrink import shrink
from mamba_integer.conformance.engine.calls import check_case
from mamba_integer.conformance.engine.cases import draw_case, extreme_cases
from mamba_integer.conformance.engine.comparison import Failure
from mamba_integer.conformance.engine.dimensions import ODD
from mamba_integer.conformance.engine.generated import plain
from mamba_integer.conformance.engine.judge import conform_op
from mamba_integer.conformance.engine.layouts import CONTIGUOUS, LAYOUTS
from mamba_integer.conformance.engine.relations import InapplicableError, RelationCase, draw_relation
from mamba_integer.conformance.engine.vector import Vector, as_vector
from mamba_integer.conformance.mutants.slip import addressed, pitches
from mamba_integer.conformance.render import explained
from mamba_integer.spec import integers

ARITHMETIC = [*REPLACED, *RULES]
LONG = 1e9
SMALL = 600  # integers of a call


def small_vectors(op: str, count: int) -> list[Vector]:
    drawn = (as_vector(draw_case(op, Random(f"test {op} {i}"))) for i in range(60))
    short = (v for v in drawn if sum(a.size for a in v.arrays) < SMALL and all(r.size for r in v.results))
    return [vector for vector, _ in zip(short, range(count), strict=False)]


class Mistaken:
    """The golden ops, one of them with a mistake of the catalogue."""

    def __init__(self, op: str, says: str):
        self.op, self.says = op, says

    def __getattr__(self, name: str) -> Callable:
        if name not in spec.OPS:
            raise AttributeError(name)
        return self.run if name == self.op else spec.OPS[name]

    def run(self, *arrays, **parameters):
        op = spec.OPS[self.op]
        shown = dict(variants(op, arrays, parameters, only=[self.says]))
        return shown.get(self.says) or op.golden(*arrays, **parameters)


def test_the_catalogue_is_long():
    assert len(ARITHMETIC) >= 50


@pytest.mark.parametrize("op", spec.OPS)
def test_mistakes_are_recognised_on_the_ops_that_they_spoil(op, monkeypatch):
    """Each op with the next of the mistakes that change it: all mistakes together are met many times over.

    The search is told again what the whole catalogue says of a call, since to ask it takes long.
    """
    whole = {}

    def remembered(op, arrays, parameters, only=None, **limit):
        known = whole.get(tuple(map(id, arrays))) if only is None else None
        return known or variants(op, arrays, parameters, only, **limit)

    monkeypatch.setattr(explanation, "variants", remembered)
    monkeypatch.setattr(explanation, "MORE", 8)  # these tell where a mistake shows, which is not asked here
    vectors, shown = [], []
    for vector in small_vectors(op, 8):
        vectors.append(vector)
        every = whole[tuple(map(id, vector.arrays))] = [*variants(spec.OPS[op], vector.arrays, vector.parameters)]
        shown += [says for says, _ in every if says not in shown]
        if len(shown) > 10:
            break
    says = shown[list(spec.OPS).index(op) * 7 % len(shown)]
    backend = Backend("mistaken", Mistaken(op, says))
    failing = [v for v in vectors if explanation.fails(backend, v)]
    account = Explanation(failing[0], ())
    search(account, backend, failing, LONG)
    assert account.explained == account.failing == len(failing)
    # Another mistake may come first only if these calls can't tell the two apart.
    for vector in failing:
        results = dict(variants(spec.OPS[op], vector.arrays, vector.parameters, only=[says, account.mistakes[0]]))
        assert same(results[says], results[account.mistakes[0]])


def test_every_mistake_of_arithmetic_spoils_some_op():
    left = set(ARITHMETIC)
    for op in spec.OPS:
        for vector in small_vectors(op, 2) + [
            as_vector(case) for case, _ in zip(extreme_cases(op), range(8), strict=False)
        ]:
            if sum(array.size for array in vector.arrays) < SMALL and left:
                left -= {says for says, _ in variants(spec.OPS[op], vector.arrays, vector.parameters, only=left)}
    assert not left


def test_the_catalogue_leaves_no_trace():
    before = {name: value for name, value in vars(integers).items()}
    for op in ("philox4x32", "selective_scan", "bitshift_norm"):
        (vector,) = small_vectors(op, 1)
        copies = [array.copy() for array in vector.arrays]
        first = [
            (says, [r.tolist() for r in results])
            for says, results in variants(spec.OPS[op], vector.arrays, vector.parameters)
        ]
        again = [
            (says, [r.tolist() for r in results])
            for says, results in variants(spec.OPS[op], vector.arrays, vector.parameters)
        ]
        assert first == again and len(dict(first)) == len(first)
        assert same(vector.arrays, copies)
        assert same(vector.results, Vector(op, vector.arrays, vector.parameters).results)
    assert before == vars(integers)


def test_variants_are_wrong_and_in_form():
    for op in ("quantize_rows", "causal_conv1d"):
        (vector,) = small_vectors(op, 1)
        for _, results in variants(spec.OPS[op], vector.arrays, vector.parameters):
            assert not same(results, vector.results)
            assert [(r.dtype, r.shape) for r in results] == [(r.dtype, r.shape) for r in vector.results]


@pytest.mark.parametrize("op", ["dyadic_transform", "sample", "bitshift_norm"])
def test_a_variant_is_the_same_alone_as_among_all(op):
    """All of them leave out what a call lacks, one ends the search: constants of one name are told apart."""
    (vector,) = small_vectors(op, 1)
    call = spec.OPS[op], vector.arrays, vector.parameters
    every = list(variants(*call))
    assert [says for says, _ in every] == [says for says, _ in variants(*call, only=Parts([""]))]
    assert len(dict(every)) == len(every)
    for says, results in every:
        ((alone, again),) = variants(*call, only=[says])
        assert alone == says and same(again, results)


def test_shrinking_cuts_to_what_fails():
    rows = np.arange(60, dtype=np.int16).reshape(3, 20)
    small = shrink(Vector("quantize_rows", (rows,), {}), lambda v: (v.arrays[0] >= 17).any(), LONG)
    assert small.arrays[0].tolist() == [[17]]
    even = Vector("bit_length", (np.array([3, -16777214], np.int32),), {})
    small = shrink(even, lambda v: any(x < 0 and x % 2 == 0 for x in v.arrays[0]), LONG)
    assert small.arrays[0].tolist() == [-2]
    packed = spec.OPS["pack_ternary"].golden(np.ones((5, 9), np.int8))
    linear = Vector("ternary_linear", (np.ones((2, 9), np.int8), np.zeros(2, np.int32), packed), {"num": 3, "shift": 9})
    small = shrink(linear, lambda v: v.arrays[0].shape[-1] > 4 and v.parameters["num"] > 1, LONG)
    assert small.arrays[0].shape == (1, 5) and small.arrays[2].shape == (1, 2)
    long = Vector(
        "ternary_linear", (np.ones((1, 2002), np.int8), np.zeros(1, np.int32), np.full((1, 501), 85, np.uint8)), {}
    )
    long.arrays[2][0, -1] = 5
    loud = shrink(replace(long, parameters={"num": 1, "shift": 0}), lambda v: v.results[0].max() > 1000, LONG)
    assert loud.arrays[0].shape[-1] < 20, "fewer, larger integers"
    assert small.parameters == {"num": 3, "shift": 0} or small.parameters["num"] == 2


def test_what_failing_calls_have_in_common():
    def vector(columns, rows=2, s=1, dtype="int32"):
        return Vector("requantize", (np.zeros((rows, columns), dtype),), {"shift": s})

    wide = [vector(n) for n in (4, 8, 12, 16, 20)]
    narrow = [vector(n) for n in (3, 7, 11, 5, 9)]
    assert in_common(wide, narrow) == "only rows % 4 == 0"
    assert in_common(wide, narrow, [vector(13)]) == "", "a smaller call refutes it"
    assert in_common([vector(n) for n in (1, 2, 3, 5, 6)], [vector(0)] * 5) == "only rows > 0"
    shifted = [vector(n, s=s) for n, s in ((1, 8), (2, 9), (2, 12), (1, 9), (3, 11))]
    assert in_common(shifted, [vector(1, s=3), *(vector(2, s=s) for s in (7, 1, 2, 4))]) == "only shift >= 8"
    types = [vector(n, dtype="int16") for n in range(1, 6)]
    assert in_common(types, [vector(n) for n in range(1, 6)]) == "only dtype of x = int16"
    assert in_common(wide[:4], narrow) == in_common(wide, narrow[:4]) == ""


def whole_and_pieces(op: str) -> RelationCase:
    for number in range(100):
        with contextlib.suppress(InapplicableError):
            case = draw_relation("chunks", partial(draw_case, op), Random(number))
            if case.place and 0 < case.place[0] < case.arrays[0].shape[1] and all(array.size for array in case.arrays):
                return case
    raise AssertionError("no such case is drawn")


@pytest.mark.parametrize("op", ["selective_scan", "causal_conv1d"])
def test_a_relation_tells_which_side_is_wrong(op):
    case = whole_and_pieces(op)
    calls = calls_of(Backend("golden", spec), case)
    assert len(calls) >= 3 and any(
        same(call.arrays, case.arrays) for call in calls if len(call.arrays[0][0]) > case.place[-1]
    )

    class ShortWrong:
        def __getattr__(self, name):
            if name not in spec.OPS:
                raise AttributeError(name)

            def run(*arrays, **parameters):
                results = spec.OPS[name].golden(*arrays, **parameters)
                if name != op or arrays[0].shape[1] < case.arrays[0].shape[1]:
                    return (results[0] + np.int16(1), *results[1:])
                return results

            return run

    wrong = Backend("wrong", ShortWrong())
    failure = Failure(wrong, case, "value", "")
    account = explain(failure, LONG)
    assert account is not None and account.side.startswith("a part is wrong: call ")
    assert account.side.endswith(f"cut at {', '.join(map(str, case.place))}")


def test_right_values_are_named_as_the_widths():
    (vector,) = small_vectors("bitshift_norm", 1)
    values = right_values(vector)
    at = spec.OPS["bitshift_norm"].check(vector.arrays, vector.parameters)
    assert set(values) <= set(spec.OPS["bitshift_norm"].widths(at))
    assert values["y"] == vector.results[0].ravel().tolist()
    with oracle.observe.recording() as record:
        oracle.bitshift_norm(*vector.arrays, **vector.parameters)
    assert record["sum"] == (min(values["sum"]), max(values["sum"]))


def test_a_crash_tells_the_backends_line(tmp_path, monkeypatch):
    (tmp_path / "crashing.py").write_text("def isqrt(v):\n    return v.no_such_thing\n")
    monkeypatch.syspath_prepend(tmp_path)
    import crashing

    failure = conform_op(Backend("crashing", crashing), "isqrt").failure
    assert failure is not None and failure.kind == "crash"
    assert failure.message.endswith(f"(at {Path(crashing.__file__)}:2: return v.no_such_thing)")
    found = explain(failure)
    assert found is not None and not found.got and [array.tolist() for array in found.vector.arrays] == [[0]]
    shown = dict(explained(found))
    assert shown["smallest"] == "v = [0]" and "looks like" not in shown
    assert explain(replace(failure, process_ended=True)) is None


def test_a_call_that_passes_by_itself_says_so():
    failure = Failure(Backend("golden", spec), draw_case("isqrt", Random(1)), "value", "isqrt is wrong in a view")
    account = explain(failure)
    assert account is not None and not account.failing and not account.mistakes
    (label, text) = list(explained(account))[-1]
    assert label == "fails" and text == "not in a call by itself: an earlier call decides"


def reading_flat(*names):
    """Return an op that takes these arguments as if they were contiguous, where all of them are not."""

    def ssd_scan(*arrays, **parameters):
        inputs = [tensor.name for tensor in spec.OPS["ssd_scan"].inputs]
        places = [inputs.index(name) for name in names]
        if not any(arrays[i].flags.c_contiguous for i in places):
            arrays = [addressed(a, pitches(a.shape)) if i in places else a for i, a in enumerate(arrays)]
        return spec.ssd_scan.golden(*arrays, **parameters)

    return ssd_scan


@pytest.mark.parametrize(
    "names, layout, says",
    [
        ("c", "last axes swapped", "c is transposed"),
        ("c", "columns of a wider array", "c is a slice of a wider array's columns"),
        ("bc", "each second row", "b is each second row of a larger array and c is each second row of a larger array"),
    ],
)
def test_a_mistake_of_layout_alone_is_named(names, layout, says):
    backend, op = Backend("flat", SimpleNamespace(ssd_scan=reading_flat(*names))), spec.OPS["ssd_scan"]
    layouts = tuple(layout if tensor.name in "xbc" else CONTIGUOUS for tensor in op.inputs)
    case = replace(plain("ssd_scan", ODD), layouts=layouts)
    with pytest.raises(Failure) as raised:
        check_case(backend, case)
    account = explain(raised.value)
    assert account is not None and not account.failing
    assert account.common == f"equal on contiguous arrays, wrong only when argument {says}"
    assert list(explained(account))[-1] == ("fails", account.common)
    wrong = Backend(
        "wrong", SimpleNamespace(ssd_scan=lambda *a, **p: tuple(y + 1 for y in spec.ssd_scan.golden(*a, **p)))
    )
    assert layout_alone(Failure(wrong, case, "value", "wrong in any layout")) == ""


def test_every_layout_has_its_words():
    assert set(SAYS) == set(LAYOUTS) - {CONTIGUOUS}


@pytest.mark.parametrize(
    "says",
    [
        "h isn't carried from chunk to chunk of 4 steps",
        "h starts from the first state in every chunk of 4 steps",
        "h is carried a step too early from each chunk of 4 steps",
    ],
)
def test_a_state_lost_between_chunks_is_named(says):
    failure = conform_op(Backend("mistaken", Mistaken("selective_scan", says)), "selective_scan").failure
    assert failure is not None
    account = explain(failure, LONG)
    assert account is not None and says in account.mistakes
