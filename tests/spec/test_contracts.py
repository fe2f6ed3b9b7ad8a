"""Every op keeps its contract: examples run, bounds are attained, the first value outside the domain raises."""

import doctest
import pickle
from itertools import chain
from types import SimpleNamespace

import numpy as np
import pytest

from mamba_integer import spec
from mamba_integer.conformance import oracle as unbounded
from mamba_integer.conformance.engine.cases import draw_case, large_cases
from mamba_integer.conformance.oracle.observe import recording
from mamba_integer.conformance.plans import PLANS
from mamba_integer.spec.contract import DomainError, dtype_name

OPS = sorted(spec.OPS)
every_op = pytest.mark.parametrize("op", OPS)


def a_case(op: str, minimum: int = 1):
    """Return a case of the op whose arrays all have elements."""
    import random

    source = random.Random(0)
    while True:
        case = draw_case(op, source)
        if all(array.size >= minimum for array in case.arrays):
            return case


@every_op
def test_worked_example(op):
    finder = doctest.DocTestParser()
    test = finder.get_doctest(spec.OPS[op].golden.__doc__, {"np": np} | dict(spec.OPS), op, None, None)
    assert test.examples, f"{op} has no worked example"
    failures = []
    doctest.DocTestRunner().run(test, out=failures.append)
    assert not failures, "".join(failures)


@every_op
def test_extremes_attain_every_width(op):
    """Run in unbounded integers, the extreme vectors reach both ends of each proved range, and nothing passes them."""
    contract, extremes = spec.OPS[op], list(PLANS[op].extremes())
    assert extremes, f"the plan of {op} lists no extremes"
    for extreme in extremes:
        with recording() as record:
            for arrays in extreme.calls:
                at = contract.check(arrays, extreme.parameters)
                getattr(unbounded, op)(*arrays, **extreme.parameters)
        widths = contract.widths(at)
        assert record.keys() == widths.keys()
        for name, (low, high) in record.items():
            proved = widths[name].range
            if widths[name].attained:
                assert (low, high) == (proved.low, proved.high), name
            else:
                assert low in proved and high in proved, name


@every_op
def test_drawn_cases_stay_within_every_width(op):
    import random

    source = random.Random(1)
    for _ in range(30):
        case = draw_case(op, source)
        at = spec.OPS[op].check(case.arrays, case.parameters)
        with recording() as record:
            getattr(unbounded, op)(*case.arrays, **case.parameters)
        widths = spec.OPS[op].widths(at)
        for name, (low, high) in record.items():
            assert low in widths[name].range and high in widths[name].range, (name, low, high, widths[name])


@every_op
def test_results_of_drawn_cases_stay_within_their_domain(op):
    import random

    contract, source = spec.OPS[op], random.Random(2)
    for _ in range(20):
        case = draw_case(op, source)
        results = contract.golden(*case.arrays, **case.parameters)
        for tensor, result in zip(contract.outputs, results if isinstance(results, tuple) else (results,), strict=True):
            if result.size:
                tensor.check_values(op, result, case.at)


@every_op
def test_large_cases_take_the_sizes_that_are_listed(op):
    """A misspelled size would be drawn, and no case be large."""
    plan = PLANS[op]
    assert plan.large, f"the plan of {op} lists no large sizes"
    cases = [zip((*plan.large, *plan.crowded), large_cases(op, seed), strict=True) for seed in range(4)]
    for sizes, case in chain.from_iterable(cases):
        assert sizes.keys() <= plan.sizes.keys() | plan.parameters.keys() | {"..."}
        sizes_of_case = dict(case.sizes) | dict(case.parameters) | {"...": case.leading[0] if case.leading else 0}
        assert {name: sizes_of_case[name] for name in sizes} == dict(sizes)
        spec.OPS[op].check(case.arrays, case.parameters)


@every_op
def test_first_value_outside_raises(op):
    contract, case = spec.OPS[op], a_case(op)
    for i, tensor in enumerate(contract.inputs):
        allowed = tensor.range(case.at, dtype_name(case.arrays[i]))
        holds = np.iinfo(case.arrays[i].dtype)
        for value in (allowed.low - 1, allowed.high + 1):
            if holds.min <= value <= holds.max:
                arrays = [array.copy() for array in case.arrays]
                arrays[i].reshape(-1)[-1] = value
                with pytest.raises(DomainError) as error:
                    contract(*arrays, **case.parameters)
                assert (error.value.op, error.value.argument, error.value.found) == (op, tensor.name, value)


@every_op
def test_parameters_outside_raise(op):
    contract, case = spec.OPS[op], a_case(op)
    for parameter in contract.parameters:
        at = SimpleNamespace(**vars(case.at))
        allowed = parameter.range(at)
        for value in (allowed.low - 1, allowed.high + 1, True, 1.0, None):
            with pytest.raises(DomainError) as error:
                contract(*case.arrays, **dict(case.parameters) | {parameter.name: value})
            assert error.value.op == op


@every_op
def test_wrong_dtype_rank_and_type_raise(op):
    contract, case = spec.OPS[op], a_case(op)
    for i, tensor in enumerate(contract.inputs):
        wrong = [case.arrays[i].astype(np.float32), case.arrays[i].astype(np.float64), case.arrays[i].tolist()]
        if "..." not in tensor.shape:
            wrong.append(case.arrays[i][None])
        for bad in wrong:
            arrays = [*case.arrays[:i], bad, *case.arrays[i + 1 :]]
            with pytest.raises(DomainError) as error:
                contract(*arrays, **case.parameters)
            assert (error.value.op, error.value.argument) == (op, tensor.name)
    with pytest.raises(DomainError):
        contract(*case.arrays, case.arrays[0], **case.parameters)


@every_op
def test_zero_size_reductions_raise(op):
    contract, case = spec.OPS[op], a_case(op)
    for name, (low, _) in contract.sizes.items():
        if low == 0 or not any(name in t.shape.split() for t in contract.inputs):
            continue
        arrays = []
        for tensor, array in zip(contract.inputs, case.arrays, strict=True):
            names = tensor.shape.split()
            axes = [axis - len(names) for axis, n in enumerate(names) if n.split("/")[0] == name]
            arrays.append(array if not axes else np.take(array, [], axis=axes[0]))
        with pytest.raises(DomainError) as error:
            contract(*arrays, **case.parameters)
        assert error.value.op == op


@every_op
def test_every_face_exists(op):
    """The four implementations and the unbounded oracle are found by the op's name alone."""
    from mamba_integer.backends import load

    for backend in ("golden", "unbounded", "numba", "torch", "triton"):
        assert load(backend).has(op), f"{backend} lacks {op}"
    assert op in PLANS
    assert spec.OPS[op].clauses


@every_op
def test_arrays_by_keyword_are_refused(op):
    contract, case = spec.OPS[op], a_case(op)
    last = contract.inputs[-1].name
    with pytest.raises(DomainError, match="found a keyword argument, allowed an array by position"):
        contract(*case.arrays[:-1], **{last: case.arrays[-1]}, **case.parameters)


def test_an_error_comes_whole_from_another_process():
    error = DomainError("isqrt", "v", -1, "[0, 7]", (2,))
    again = pickle.loads(pickle.dumps(error))
    assert str(again) == str(error) == "isqrt: argument v: found -1 at index (2,), allowed [0, 7]"
    assert vars(again) == vars(error)
