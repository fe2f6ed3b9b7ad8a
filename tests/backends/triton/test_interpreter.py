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


def test_an_unknown_release_is_left_as_it_is(monkeypatch):
    monkeypatch.delattr(runtime, "_get_np_dtype")
    patched, options = runtime._patch_lang, runtime.interpreter_builder.options
    interpreter.quicken()
    assert runtime._patch_lang is patched and runtime.interpreter_builder.options is options
