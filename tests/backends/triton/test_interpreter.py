"""Triton's interpreter is rid of its needless work, where it is the release that is known."""

import numpy as np

from mamba_integer import spec
from mamba_integer.backends import load
from mamba_integer.backends.triton import interpreted, interpreter

runtime = interpreter.interpreter


def test_a_kernel_replaces_nothing_in_the_language_and_checks_no_overflow(monkeypatch):
    def looked_through(*arguments):
        raise AssertionError("the language was looked through")

    monkeypatch.setattr(runtime.inspect, "getmembers", looked_through)
    x = np.arange(-30, 30, dtype=np.int16).reshape(4, 15)
    for result, wanted in zip(load("triton").run("quantize_rows", [x], {}), spec.quantize_rows(x), strict=True):
        assert result.dtype == wanted.dtype and (result == wanted).all()
    assert runtime.interpreter_builder.options.sanitize_overflow is not bool(interpreted)


def test_a_dtype_is_the_right_one():
    block = interpreter.core.block_type(interpreter.tl.int16, [4])
    pointer = interpreter.core.pointer_type(interpreter.tl.int8)
    for kind, wanted in ((block, "int16"), (pointer, "uint64"), (interpreter.tl.uint32, "uint32")):
        assert runtime._get_np_dtype(kind) == runtime._get_np_dtype(kind) == np.dtype(wanted)


def test_types_and_shapes_are_those_of_their_own():
    tl = interpreter.tl
    kinds = [interpreter.core.block_type(unit, shape) for unit in (tl.int8, tl.int64) for shape in ([4], [2, 2])]
    others = [kind.with_element_ty(tl.int16) for kind in kinds]
    assert [(kind.element_ty, list(kind.shape)) for kind in others] == [(tl.int16, [4]), (tl.int16, [2, 2])] * 2
    arrays = [tl.tensor(f"of {kind}", kind) for kind in (*kinds, *kinds, tl.int8)]
    assert [array.handle for array in arrays] == [f"of {kind}" for kind in (*kinds, *kinds, tl.int8)]
    assert [array.type for array in arrays] == [*kinds, *kinds, tl.int8]
    assert [[int(size) for size in array.shape] for array in arrays] == [[4], [2, 2]] * 4 + [[]]
    assert [int(array.numel) for array in arrays] == [4] * 8 + [1]


def seen(check, *operands):
    """Return types and integers of two operands after they were given one type, or the error's kind."""
    try:
        return [(str(a.type), a.handle.data.tolist(), str(a.handle.dtype)) for a in check(*operands)]
    except (TypeError, ValueError) as error:
        return type(error)


def test_operands_become_what_they_always_did():
    """Twice: at first what is found is kept, then it is taken."""
    tl, meaning = interpreter.tl, interpreter.semantic.TritonSemantic(runtime.interpreter_builder)
    check = interpreter.semantic.TritonSemantic.binary_op_type_checking_impl
    slowly = getattr(check, "__wrapped__", check)
    quickly = interpreter.alike_at_once(slowly)

    def array(unit, shape):
        data = np.arange(np.prod(shape, dtype=int)).astype(str(unit) if str(unit) != "int1" else bool)
        handle = runtime.TensorHandle(data.reshape(shape or (1,)), unit)
        return tl.tensor(handle, interpreter.core.block_type(unit, shape) if shape else unit)

    arrays = [array(u, s) for u in (tl.int8, tl.uint8, tl.int32, tl.int64) for s in ([], [4], [1, 4], [4, 1], [2, 4])]
    operands = [*arrays, array(tl.int1, [4]), 0, 1, True, -1, 300, 1 << 40]
    pairs = [(a, b) for a in operands for b in operands if not (isinstance(a, int) and isinstance(b, int))]
    for _ in range(2):
        for pair in pairs:
            assert seen(quickly, meaning, *pair) == seen(slowly, meaning, *pair), pair


def test_integers_are_shifted_as_they_always_were():
    shift = runtime.InterpreterBuilder.create_ashr
    for left, right in (("int8", "int8"), ("int64", "int64"), ("uint8", "uint8"), ("uint32", "int32")):
        a = runtime.TensorHandle(np.array([100, 7, 200], "int64").astype(left), getattr(interpreter.tl, left))
        b = runtime.TensorHandle(np.array([3, 0, 2], right), getattr(interpreter.tl, right))
        result = shift(runtime.interpreter_builder, a, b)
        signed = left.removeprefix("u")
        assert result.data.tolist() == (a.data.astype(signed) >> b.data.astype(signed)).tolist()
        assert result.data.dtype == signed and result.dtype == a.dtype


def test_an_unknown_release_is_left_as_it_is(monkeypatch):
    monkeypatch.delattr(runtime, "_get_np_dtype")
    patched, options = runtime._patch_lang, runtime.interpreter_builder.options
    interpreter.quicken()
    assert runtime._patch_lang is patched and runtime.interpreter_builder.options is options
