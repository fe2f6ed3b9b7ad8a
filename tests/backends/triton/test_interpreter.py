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


def test_an_unknown_release_is_left_as_it_is(monkeypatch):
    monkeypatch.delattr(runtime, "_get_np_dtype")
    patched, options = runtime._patch_lang, runtime.interpreter_builder.options
    interpreter.quicken()
    assert runtime._patch_lang is patched and runtime.interpreter_builder.options is options
