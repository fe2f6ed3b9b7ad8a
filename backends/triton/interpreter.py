"""Triton's interpreter without its needless work, which was most of the time of a kernel.

At each call of a function of a kernel it looks through its whole language for what to replace, although all of it is
replaced already. To each sum, difference and product it adds a check of overflow of ten operations, whose outcome it
drops unless it debugs. For each array it builds its table of dtypes, its type and its shape anew.
"""

import dataclasses

import triton.language as tl
from triton.language import core
from triton.runtime import interpreter

# Names that another release of Triton may lack.
USED = {interpreter: ("_patch_lang", "_get_np_dtype", "interpreter_builder"), core.block_type: ("with_element_ty",)}


class Replaced:
    """The language as a kernel leaves it: it stays replaced, so there is nothing to restore."""

    def restore(self):
        pass


def languages():
    """Name, as a function of a kernel does, the modules in which the interpreter replaces functions."""
    return tl, core


def quicken():
    """Leave the needless work out, from now on and in this process alone; do nothing in an unknown release."""
    if not all(hasattr(place, name) for place, names in USED.items() for name in names):
        return
    interpreter._patch_lang(languages)
    interpreter._patch_lang = lambda kernel: Replaced()
    builder = interpreter.interpreter_builder
    builder.options = dataclasses.replace(builder.options, sanitize_overflow=False)
    interpreter._get_np_dtype = remembered(interpreter._get_np_dtype, lambda kind: kind.name)
    block = core.block_type
    block.with_element_ty = remembered(block.with_element_ty, lambda kind, unit: (kind.name, unit.name))
    builder.get_block_ty = remembered(builder.get_block_ty, lambda unit, shape: (tuple(shape), unit.name))
    core.tensor.__init__ = like_the_first_of_its_type(core.tensor.__init__)


def remembered(function, key):
    """Return the function with its results kept by a key of its arguments."""
    results = {}

    def call(*arguments):
        name = key(*arguments)
        if name not in results:
            results[name] = function(*arguments)
        return results[name]

    return call


def like_the_first_of_its_type(initialise):
    """Return the initialiser of arrays that copies what follows from an array's type from the first of that type."""
    kept = {}

    def initialise_quickly(self, handle, type):
        if type.name not in kept:
            initialise(self, handle, type)
            kept[type.name] = {name: value for name, value in vars(self).items() if name != "handle"}
        vars(self).update(kept[type.name], handle=handle)

    return initialise_quickly
