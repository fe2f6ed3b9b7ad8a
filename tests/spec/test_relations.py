"""The relations that contracts state between ops: every named op exists, and shapes, types and parameters agree."""

import pytest

from mamba_integer import spec
from mamba_integer.spec.contract import TIME, Packed

OPS = list(spec.OPS.values())
STEPS = [op for op in OPS if op.step_of]
INVERSES = [op for op in OPS if op.inverse]
BACKWARDS = [op for op in OPS if op.backward_of]
COMPOSITES = [op for op in OPS if op.composed_of]


def named(op):
    return op.name


def form(tensor, without=""):
    return tensor.name, tensor.dtypes, tuple(name for name in tensor.dimensions if name != without)


@pytest.mark.parametrize("step", STEPS, ids=named)
def test_a_step_is_its_sequence_without_time(step):
    whole = spec.find_op(step.step_of)
    assert whole.step is step and [t.name for t in whole.carried] == [t.name for t in step.carried]
    assert [form(t) for t in step.inputs] == [form(t, without=TIME) for t in whole.inputs]
    assert [form(t) for t in step.outputs] == [form(t, without=TIME) for t in whole.outputs]
    assert step.parameters == whole.parameters


@pytest.mark.parametrize("op", INVERSES, ids=named)
def test_an_inverse_takes_the_result_and_gives_the_first_input(op):
    inverse = op.inverse
    assert inverse.inverse is op and inverse.inverse_limit == op.inverse_limit
    assert (op.inverse_of == "") != (inverse.inverse_of == "")
    (result,), (back,) = op.outputs, inverse.outputs
    assert (result.dtypes[0], result.dimensions) == (result.dtypes[0], inverse.inputs[0].dimensions)
    assert result.dtypes[0] in inverse.inputs[0].dtypes
    assert back.dimensions == op.inputs[0].dimensions and back.dtypes[0] in op.inputs[0].dtypes
    assert [form(t) for t in inverse.inputs[1:]] == [form(t) for t in op.inputs[1:]]


@pytest.mark.parametrize("backward", BACKWARDS, ids=named)
def test_a_backward_op_reads_and_returns_forms_of_its_forward_op(backward):
    forward = spec.find_op(backward.backward_of)
    assert backward in forward.backwards
    forms = {tensor.name: tensor for tensor in forward.inputs}
    for tensor in backward.inputs:
        if tensor.name in forms:
            assert form(tensor) == form(forms[tensor.name])
    ranges = {parameter.name: (parameter.domain, parameter.definitions) for parameter in forward.parameters}
    shared = [p for p in backward.parameters if p.name in ranges and (backward.name, p.name) not in OTHER_PARAMETERS]
    assert all((p.domain, p.definitions) == ranges[p.name] for p in shared)
    shapes = [unpacked(tensor) for tensor in forward.inputs]
    for tensor in backward.outputs:
        assert tensor.dimensions in shapes, tensor.name


# The shift of the residual connection's gradient also moves its exponent.
OTHER_PARAMETERS = {("residual_add_backward", "shift")}


def unpacked(tensor):
    if not isinstance(tensor, Packed):
        return tensor.dimensions
    return tuple(tensor.packed if name.startswith(f"{tensor.packed}/") else name for name in tensor.dimensions)


@pytest.mark.parametrize("op", COMPOSITES, ids=named)
def test_a_composite_has_the_inputs_and_parameters_of_its_parts(op):
    assert {p for part in op.parts for p in part.parameters} <= set(op.parameters)
    if op.composed_along:
        (part,) = op.parts
        assert [t.dtypes for t in part.inputs] == [t.dtypes for t in op.inputs]
        assert all(op.composed_along in t.dimensions for t in op.outputs)
        return
    results, remaining = (), list(op.inputs)
    for part in op.parts:
        taken = len(part.inputs) - len(results)
        inputs, remaining = [*results, *remaining[:taken]], remaining[taken:]
        for tensor, wanted in zip(inputs, part.inputs, strict=True):
            assert set(tensor.dtypes) <= set(wanted.dtypes) and len(tensor.dimensions) == len(wanted.dimensions)
        results = part.outputs
    assert not remaining
    assert [t.dtypes for t in results] == [t.dtypes for t in op.outputs]


def test_a_state_is_an_input_and_a_result_of_one_form():
    carrying = {op.name: op for op in OPS if op.carried}
    sequences = {op.step_of for op in STEPS}
    assert sequences <= carrying.keys() and "selective_scan_backward" in carrying
    for op in carrying.values():
        for returned in op.carried:
            (taken,) = (tensor for tensor in op.inputs if tensor.name == returned.name)
            assert form(taken) == form(returned) and taken.domain == returned.domain


def test_every_relation_is_stated():
    assert len(STEPS) >= 3 and len(INVERSES) >= 10 and len(BACKWARDS) >= 14 and len(COMPOSITES) >= 4
