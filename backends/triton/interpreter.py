"""Triton's interpreter without its needless work, which was most of the time of a kernel.

At each call of a function of a kernel it looks through its whole language for what to replace, although all of it is
replaced already. To each sum, difference and product it adds a check of overflow of ten operations, whose outcome it
drops unless it debugs. For each array it builds its table of dtypes anew.
"""

import dataclasses

import triton.language as tl
from triton.language import core
from triton.runtime import interpreter

USED = ("_patch_lang", "_get_np_dtype", "interpreter_builder")  # names that another release of Triton may lack


class Replaced:
    """What to undo after a kernel: nothing, as the language stays replaced."""

    def restore(self):
        pass


def languages():
    """Name, as a function of a kernel does, the modules in which the interpreter replaces functions."""
    return tl, core


def quicken():
    """Leave the needless work out, from now on and in this process alone; do nothing in an unknown release."""
    if not all(hasattr(interpreter, name) for name in USED):
        return
    interpreter._patch_lang(languages)
    interpreter._patch_lang = lambda kernel: Replaced()
    builder, dtype_of, known = interpreter.interpreter_builder, interpreter._get_np_dtype, {}
    builder.options = dataclasses.replace(builder.options, sanitize_overflow=False)

    def known_dtype(kind):
        if kind.name not in known:
            known[kind.name] = dtype_of(kind)
        return known[kind.name]

    interpreter._get_np_dtype = known_dtype
