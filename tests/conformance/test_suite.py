"""The suite catches what is wrong: null backends, planted bugs, crashes, races; and says so in every form it has."""

import importlib
import io
import itertools
from functools import partial
from random import Random

import numpy as np
import pytest
from rich.console import Console

from mamba_integer import spec
from mamba_integer.backends import Backend, load
from mamba_integer.backends.files.source import LONGEST
from mamba_integer.backends.programs.wire import result_forms
from mamba_integer.conformance.chains import model as model_cases
from mamba_integer.conformance.chains import text as real_text
from mamba_integer.conformance.engine import drawing, exhaustive, judge, relations
from mamba_integer.conformance.engine import replay as repeat
from mamba_integer.conformance.engine.calls import check_case
from mamba_integer.conformance.engine.cases import Case, draw_case, draw_sharing, extreme_cases
from mamba_integer.conformance.engine.comparison import Failure, hexadecimal, in_form
from mamba_integer.conformance.engine.drawing import check_drawn
from mamba_integer.conformance.engine.exhaustive import CHOSEN, POSTCONDITIONS, ExhaustiveCase
from mamba_integer.conformance.engine.judge import conform_op
from mamba_integer.conformance.engine.relations import RELATIONS, check_relation, draw_relation
from mamba_integer.conformance.engine.run import conform
from mamba_integer.conformance.mutants import forward as broken
from mamba_integer.conformance.mutants import training as broken_training
from mamba_integer.conformance.render import failure_card

BROKEN = "mamba_integer.conformance.mutants.forward"


def card_text(failure: Failure) -> str:
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(failure_card(failure))
    return console.export_text()


@pytest.mark.parametrize("op", spec.OPS)
def test_golden_passes_every_op(op):
    report = conform(load("golden"), [op], preset="smoke")
    assert not report.failures
    assert report.exit_code == 0 and report.complete


def test_every_group_of_cases_is_counted():
    ops = ("causal_conv1d", "selective_scan_backward", "norm_quantize", "pack_ternary", "stochastic_round_rows")
    report = conform(load("golden"), ops, preset="smoke")
    groups = {group for result in report.results for group in result.groups}
    assert groups == {
        "first",
        "drawn",
        "extremes",
        "again",
        "large",
        "layouts",
        "leading",
        "sizes",
        "far",
        "pairs",
        "values",
        "successive",
        *RELATIONS,
    }


class Compiling(broken.Golden):
    """A backend that compiles an op for each value of a parameter, and notes those that it is called with."""

    def __init__(self, op, names):
        self.values = set()
        self.compiled_for = lambda wanted: names if wanted == op else ()
        super().__init__(**{op: lambda *arrays, **parameters: self.noting(op, arrays, parameters, names)})

    def noting(self, op, arrays, parameters, names):
        self.values.add(tuple(parameters[name] for name in names))
        return spec.OPS[op].golden(*arrays, **parameters)


@pytest.mark.parametrize("op, names", [("ssd_scan", ("k", "s_v", "s_h", "s_y")), ("rope", ("s",))])
def test_a_backend_that_compiles_for_parameters_is_given_few_of_them(op, names, monkeypatch):
    """Drawn cases share them; what is listed has them all. Inputs, sizes and the other parameters stay free."""
    for cases in ("first_cases", "extreme_cases", "moved_cases", "large_cases", "listed_cases"):
        monkeypatch.setattr(judge, cases, lambda *_: ())
    backend = Compiling(op, names)
    result = conform_op(Backend("compiling", backend), op)
    assert result.status == "passed" and result.groups["drawn"] >= 25 and len(backend.values) <= 4
    cases = [draw_sharing(op, names, 2, 0, Random(i)) for i in range(30)]
    assert len({case.to_json() for case in cases}) > 25


@pytest.mark.parametrize("name", broken.NULL)
def test_null_backend_fails_every_op(name):
    report = conform(load(f"{BROKEN}:{name}"))
    assert [r.op for r in report.results] == list(spec.OPS)
    assert {r.status for r in report.results} == {"failed"}
    assert report.exit_code == 1
    for failure in report.failures:
        assert failure.case.op in card_text(failure)


@pytest.mark.parametrize("name", broken.BUGS)
def test_planted_bug_fails_its_ops(name):
    report = conform(load(f"{BROKEN}:{name}"), broken.BUGS[name])
    assert {r.op: r.status for r in report.results} == dict.fromkeys(broken.BUGS[name], "failed")
    for op, failure in zip(broken.BUGS[name], report.failures, strict=True):
        card = card_text(failure)
        assert op in card
        assert all(label in card for label in spec.OPS[op].clauses)
        if failure.differs:
            assert hexadecimal(failure.got, failure.bits) in card and hexadecimal(failure.want, failure.bits) in card
            assert hexadecimal(failure.got ^ failure.want, failure.bits) in card


# A race, long sequences, sums beyond int32 or float32, values at an edge: what drawn cases can't repeat or seldom meet.
SELDOM = {"race", "tiles_apart", "weight_wraps", "int8_weight_wraps", "gamma_wraps", "errors_rounded"}
SELDOM |= {"end_saturated", "halves_kept", "masters_rounded", "votes_late", "saturation_unseen"}
SELDOM |= {"double_rounding", "forward_in_float32", "ties_rise", "weight_rounded"}


def test_a_seed_gives_the_same_cases_whatever_modules_are_loaded(tmp_path, monkeypatch):
    def cases() -> list[str]:
        cases = []
        check_drawn(60, 7, partial(draw_case, "selective_scan"), lambda case: cases.append(case.to_json()))
        return cases

    before = cases()
    (tmp_path / "full_of_integers.py").write_text(f"x = {[*range(200)]}\ny = {[*range(10**6, 10**9, 10**6)]}")
    monkeypatch.syspath_prepend(tmp_path)
    importlib.import_module("full_of_integers")
    assert len(before) == 60 and cases() == before


@pytest.mark.parametrize("name", broken.BUGS)
def test_listed_cases_alone_find_every_bug(name):
    backend = load(f"{BROKEN}:{name}")
    for op in broken.BUGS[name]:
        with pytest.raises(Failure):
            for case in extreme_cases(op):
                check_case(backend, case)


@pytest.mark.parametrize("name", [name for name in broken.BUGS if name not in SELDOM])
def test_drawn_cases_alone_find_every_bug_and_repeat_it(name):
    backend = load(f"{BROKEN}:{name}")
    for op in broken.BUGS[name]:
        with pytest.raises(Failure) as failure:
            check_drawn(300, 0, partial(draw_case, op), partial(check_case, backend))
        again = repeat.parse(failure.value.case.to_json(), op)
        with pytest.raises(Failure) as repeated:
            repeat.check(backend, again)
        assert str(repeated.value) == str(failure.value)


def test_failing_case_is_shrunk():
    def wrong_beyond_a_thousand(x, **parameters):
        y = spec.squareplus.golden(x, **parameters)
        return y + (np.abs(x) > 1000).astype(np.int16)

    backend = Backend("wrong", broken.Golden(squareplus=wrong_beyond_a_thousand))
    with pytest.raises(Failure) as failure:
        check_drawn(100, 0, partial(draw_case, "squareplus"), partial(check_case, backend))
    assert failure.value.case.leading == (1,)


@pytest.mark.parametrize("seconds", [0, 0.05, 0.2])
def test_shrinking_that_is_stopped_is_not_reported_as_unstable(seconds, monkeypatch):
    monkeypatch.setattr(drawing, "SHRINKING_SECONDS", seconds)
    backend = load(f"{BROKEN}:half_away")
    with pytest.raises(Failure) as failure:
        check_drawn(100, 0, partial(draw_case, "sigmoid_gate"), partial(check_case, backend))
    assert failure.value.kind == "value"


def test_what_is_right_most_times_is_found_on_a_gpu():
    calls = []

    def rarely_wrong(result, arrays, parameters):
        calls.append(arrays[0].size)
        return result ^ (calls.count(70001) == 2 and arrays[0].size == 70001)

    ops = broken.Golden(bit_length=broken.after("bit_length", rarely_wrong))
    assert conform_op(Backend("sound", ops), "bit_length", "smoke").status == "passed"
    calls.clear()
    result = conform_op(Backend("racing", ops, "gpu"), "bit_length", "smoke")
    assert result.status == "failed" and result.failure.kind == "unstable"


def test_race_is_reported_as_unstable():
    calls = iter(range(10**6))

    def racing(x, *, s):
        return spec.shift_round.golden(x, s=s) + np.int32(next(calls) == 5)

    backend = Backend("racing", broken.Golden(shift_round=racing))
    with pytest.raises(Failure) as failure:
        check_drawn(100, 0, partial(draw_case, "shift_round"), partial(check_case, backend))
    assert failure.value.kind == "unstable"


class Panic(BaseException):
    """An exception of a runtime that isn't Python's."""


@pytest.mark.parametrize("error", [SystemExit(0), Panic("at line 3")])
def test_whatever_an_op_raises_is_a_crash(error):
    def give_up(*arrays, **parameters):
        raise error

    backend = Backend("quitting", broken.Golden(causal_conv1d=give_up, conv1d_step=give_up, unpack_trits=give_up))
    (failure,) = conform(backend, ["causal_conv1d"]).failures
    assert failure.kind == "crash" and type(error).__name__ in failure.message
    with pytest.raises(Failure, match=type(error).__name__):
        check_drawn(
            5, 0, partial(draw_relation, "steps", partial(draw_case, "causal_conv1d")), partial(check_relation, backend)
        )
    with pytest.raises(Failure, match=type(error).__name__):
        ExhaustiveCase("unpack_trits", "invalid bytes", {"K": 5}).check(backend)
    (text,) = real_text.run([backend], real_text.Source.default())
    assert text.status == "failed" and type(error).__name__ in text.message
    (text,) = model_cases.run([backend], real_text.Source.default())
    assert text.status == "failed" and type(error).__name__ in text.message


def test_exhaustive_finds_the_needle():
    backend = load(f"{BROKEN}:needle")
    assert conform(backend, ["isqrt"]).exit_code == 0
    (failure,) = conform(backend, ["isqrt"], exhaustive=True).failures
    assert failure.count == 1 and failure.want == 30011
    with pytest.raises(Failure):
        repeat.check(backend, repeat.parse(failure.case.to_json(), "isqrt"))


def test_accepted_invalid_byte_is_a_failure():
    backend = Backend("trusting", broken.Golden(unpack_ternary=spec.unpack_ternary.golden))
    (failure,) = conform(backend, ["unpack_ternary"], exhaustive=True).failures
    assert failure.kind == "accepted"
    assert conform(load("golden"), ["unpack_ternary"], exhaustive=True).exit_code == 0


@pytest.mark.parametrize("op", POSTCONDITIONS)
def test_postconditions_of_every_int32(op):
    """The check that a GPU runs on all of int32 holds for the golden result and for no neighbour of it."""
    import torch

    (x,) = ExhaustiveCase(op, "edges").arrays
    for parameters in CHOSEN.get(op, [{}]):
        wide = torch.tensor(x).long()
        y = torch.tensor(spec.OPS[op].golden(x, **parameters)).long()
        for offset in (-1, 0, 1):
            right = POSTCONDITIONS[op](wide, y + offset, **parameters)
            assert bool(right.all()) if offset == 0 else not bool(right.any())


def test_block_of_int32_on_torch(monkeypatch):
    monkeypatch.setattr(exhaustive, "BLOCK", 1 << 12)
    torch = load("torch", "cpu")
    case = ExhaustiveCase("isqrt", "int32", {}, 1 << 20)
    assert case.check(torch) == 1 << 12

    class Wrong:
        def __getattr__(self, name):
            return getattr(torch.ops, name)

        def isqrt(self, v):
            return torch.ops.isqrt(v) + (v == (1 << 20) + 77).int()

    with pytest.raises(Failure) as failure:
        case.check(Backend("wrong", Wrong()))
    assert (failure.value.count, failure.value.index) == (1, (77,))
    assert failure.value.want == 1024 and failure.value.got == 1025


def offset_first(op: str):
    def change(results, arrays, parameters):
        first, *rest = results if isinstance(results, tuple) else (results,)
        return (first ^ 1, *rest) if rest else first ^ 1

    return broken.after(op, change)


RELATED = {
    "chunks": ("causal_conv1d", "causal_conv1d", broken.forget_state("causal_conv1d", 3)),
    "backward chunks": (
        "selective_scan_backward",
        "selective_scan_backward",
        broken.forget_state("selective_scan_backward", 8),
    ),
    "steps": ("causal_conv1d", "conv1d_step", offset_first("conv1d_step")),
    "alone": ("quantize_rows", "quantize_rows", broken.after("quantize_rows", broken.exponent_of_batch)),
    "micro-batches": (
        "stochastic_round_rows",
        "stochastic_round_rows",
        broken_training.ignoring_first("stochastic_round_rows"),
    ),
    "inverse": ("rope", "rope_inverse", offset_first("rope_inverse")),
    "composite": ("norm_quantize", "quantize_rows", offset_first("quantize_rows")),
}


@pytest.mark.parametrize("relation", RELATIONS)
def test_each_relation_finds_its_bug(relation):
    """The bug is in one op; the relation shows it without the golden op."""
    op, wrong, function = RELATED[relation]
    right, backend = load("golden"), Backend("wrong", broken.Golden(**{wrong: function}))
    for seed in range(20):
        check_drawn(1, seed, partial(draw_relation, relation, partial(draw_case, op)), partial(check_relation, right))
    with pytest.raises(Failure) as failure:
        check_drawn(100, 0, partial(draw_relation, relation, partial(draw_case, op)), partial(check_relation, backend))
    assert RELATIONS[relation].says in str(failure.value)
    with pytest.raises(Failure):
        repeat.check(backend, repeat.parse(failure.value.case.to_json(), op))


MALFORMED = {
    "1 results, want 2": lambda y, state: y,
    "y is a NoneType, want an array": lambda y, state: (None, state),
    "y has dtype int64, want int16": lambda y, state: (y.astype(np.int64), state),
    "y has shape": lambda y, state: (y.reshape(-1), state),
    "RuntimeError: out of shared memory": lambda y, state: broken.crashing(),
}


@pytest.mark.parametrize("message", MALFORMED)
def test_what_a_relation_cannot_compute_with_is_a_failure(message):
    step = broken.after("conv1d_step", lambda results, *_: MALFORMED[message](*results))
    backend = Backend("malformed", broken.Golden(conv1d_step=step))
    (failure,) = conform(backend, ["causal_conv1d"]).failures
    assert failure.message.startswith(f"{RELATIONS['steps'].says}; conv1d_step: {message}")
    assert conform(backend, ["conv1d_step"]).failures


def test_a_relation_that_raises_is_a_failure(monkeypatch):
    def sides(self, call, case):
        raise ValueError("no way on from here")
        yield

    monkeypatch.setattr(relations.Steps, "sides", sides)
    with pytest.raises(Failure, match="step by step equals the whole; ValueError: no way on"):
        check_drawn(
            5,
            0,
            partial(draw_relation, "steps", partial(draw_case, "ssd_scan")),
            partial(check_relation, load("golden")),
        )


def test_every_contract_states_the_forms_of_its_results():
    source = Random(5)
    for op, contract in spec.OPS.items():
        case = draw_case(op, source)
        results = contract.golden(*case.arrays, **case.parameters)
        results = results if isinstance(results, tuple) else (results,)
        assert in_form(load("golden"), case, results, result_forms(op, case.arrays, case.parameters))


def test_an_array_that_hides_its_integers_is_no_array():
    hidden = broken.after("isqrt", lambda result, *_: np.ma.masked_all(result.shape, np.int32))
    (failure,) = conform(Backend("masked", broken.Golden(isqrt=hidden)), ["isqrt"]).failures
    assert failure.kind == "result" and "MaskedArray" in failure.message


def test_a_malformed_reference_is_a_failure():
    listed = broken.after("isqrt", lambda result, *_: result.tolist())
    reference = Backend("lists", broken.Golden(isqrt=listed))
    with pytest.raises(Failure, match="isqrt on lists: result"):
        check_case(load("golden"), draw_case("isqrt", Random(1)), reference)


def test_every_relation_is_used():
    """Each relation says something of an op; sequences are cut and stepped, batches cut, composites composed."""
    used = {name: [op for op in spec.OPS if relation.needs(op) is not None] for name, relation in RELATIONS.items()}
    assert all(used.values())
    backward = {name for name, op in spec.OPS.items() if op.backward_of}
    assert backward <= set(used["micro-batches"])
    timed = {name: op for name, op in spec.OPS.items() if any(t.time_axis is not None for t in op.inputs)}
    stateful = {name for name, op in timed.items() if len(op.outputs) > 1} - backward
    assert set(used["chunks"]) == set(used["steps"]) == stateful
    assert set(used["backward chunks"]) == {
        name for name in backward if timed.keys() & {name} and spec.OPS[name].carried
    }
    assert set(used["composite"]) == {name for name, op in spec.OPS.items() if op.composed_of}


def test_a_listed_case_that_passes_when_repeated_is_unstable():
    calls = iter(range(10**6))
    once = broken.after("saturate", lambda result, *_: result + np.int32(next(calls) == 0))
    (failure,) = conform(Backend("once", broken.Golden(saturate=once)), ["saturate"]).failures
    assert failure.kind == "unstable" and "passed when it was repeated" in failure.message


def test_real_text_is_equal_on_numba_and_finds_the_first_wrong_stage():
    source = real_text.Source.default()
    assert b"Beautiful is better than ugly." in source.data
    right, wrong = real_text.run([load("numba"), load(f"{BROKEN}:scan_rounds")], source)
    assert right.status == "passed" and right.stages == right.want and len(right.want) == 17
    assert wrong.status == "failed" and wrong.message.startswith("stage scan (selective_scan) is the first")
    assert wrong.stages["dt_proj"] == wrong.want["dt_proj"] and wrong.stages["residual"] != wrong.want["residual"]


def test_real_text_stages_carry_information():
    """No stage of the chain is dead: each has many values, few of them saturated."""
    golden = Backend("golden", spec)
    for stage, _, (result, *_) in real_text.stages(golden.run, real_text.Source.default().data):
        assert len(np.unique(result)) > 20, stage
        limit = np.iinfo(result.dtype).max
        assert (np.abs(result.astype(np.int64)) == limit).mean() < 0.05, stage


def test_real_text_from_a_file(tmp_path):
    path = tmp_path / "text"
    path.write_bytes(b"To be, or not to be" * 100)
    assert real_text.Source.of_file(path).data == path.read_bytes()[:LONGEST]
    path.write_bytes(b"")
    with pytest.raises(ValueError, match="no text"):
        real_text.Source.of_file(path)


def test_inputs_are_arrays_even_without_dimensions():
    source = Random(7)
    for op in (name for name, op in spec.OPS.items() if any(tensor.shape == "..." for tensor in op.inputs)):
        cases = [*(draw_case(op, source) for _ in range(20)), *itertools.islice(extreme_cases(op), 5)]
        assert all(type(array) is np.ndarray for case in cases for array in case.arrays), op
    case = Case("saturate", {}, (), {"bits": 8}, ("uniform",), 1, ("each second element",))
    kinds = []
    check_case(
        Backend("kinds", broken.Golden(saturate=lambda x, bits: kinds.append(type(x)) or x.clip(-127, 127))), case
    )
    assert kinds == [np.ndarray]


def test_card_says_how_inputs_are_seen():
    for layouts in ((), ("each second element",)):
        case = Case("saturate", {}, (2,), {"bits": 8}, ("uniform",), 1, layouts)
        card = card_text(Failure(load("golden"), case, "value", "differs"))
        assert ("x: each second element" in card) == bool(layouts)


def test_case_survives_json():
    source = Random(3)
    for op in spec.OPS:
        case = draw_case(op, source)
        again = repeat.parse(case.to_json(), op)
        assert again == case
        assert all(np.array_equal(a, b) for a, b in zip(again.arrays, case.arrays, strict=True))
