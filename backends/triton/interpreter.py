"""Triton's interpreter without its needless work, which was most of the time of a kernel.

At each call of a function of a kernel it looks through its whole language for what to replace, although all of it is
replaced already. To each sum, difference and product it adds a check of overflow of ten operations, whose outcome it
drops unless it debugs. For each array it builds its table of dtypes, its type and its shape anew; for each constant of
an expression it derives a type and fills an array; and it copies what it shifts.
"""

import dataclasses
import functools

import numpy as np
import triton.language as tl
from triton.language import core, semantic
from triton.runtime import interpreter

# Names that another release of Triton may lack.
USED = {
    interpreter: (
        "_patch_attr",
        "_patch_lang",
        "_get_np_dtype",
        "interpreter_builder",
        "InterpreterBuilder",
        "TensorHandle",
    ),
    core: ("_unwrap_if_constexpr",),
    core.block_type: ("with_element_ty",),
    semantic: ("TritonSemantic",),
    getattr(semantic, "TritonSemantic", None): ("binary_op_type_checking_impl",),
    getattr(interpreter, "InterpreterBuilder", None): ("create_ashr", "binary_op"),
}
KEPT = 1 << 12  # constants of expressions, and the elements of an array that is kept


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
    core._unwrap_if_constexpr = unwrapped(core._unwrap_if_constexpr)
    interpreter._patch_attr = replace_builtin
    interpreter._patch_lang(languages)
    interpreter._patch_lang = lambda kernel: Replaced()
    builder = interpreter.interpreter_builder
    builder.options = dataclasses.replace(builder.options, sanitize_overflow=False)
    interpreter._get_np_dtype = remembered(interpreter._get_np_dtype, lambda kind: kind.name)
    block = core.block_type
    block.with_element_ty = remembered(block.with_element_ty, lambda kind, unit: (kind.name, unit.name))
    builder.get_block_ty = remembered(builder.get_block_ty, lambda unit, shape: (tuple(shape), unit.name))
    core.tensor.__init__ = like_the_first_of_its_type(core.tensor.__init__)
    meaning = semantic.TritonSemantic
    meaning.binary_op_type_checking_impl = alike_at_once(meaning.binary_op_type_checking_impl)
    interpreter.InterpreterBuilder.create_ashr = shifted(interpreter.InterpreterBuilder.create_ashr)


def replace_builtin(place, name, member, builder, scope):
    """Replace a function of the language by one that knows its meaning."""
    function, meaning = getattr(member, "__wrapped__", member), semantic.TritonSemantic(builder)

    def call(*arguments, **options):
        options["_semantic"] = meaning
        return function(*arguments, **options)

    scope.set_attr(place, name, call)


def unwrapped(unwrap):
    """Return the function that takes constants out of what holds them, at once where there is nothing to take out."""
    plain = {int, bool, str, type(None), core.tensor, core.dtype, core.block_type, core.pointer_type}

    def unwrap_quickly(value):
        return value if type(value) in plain else unwrap(value)

    return unwrap_quickly


def alike_at_once(check):
    """Return the function that gives two operands one type, at once where they are known: constants, and types.

    Known are two types of arrays of which neither changes but by being repeated, and the types that they then have.
    """
    constants, known = {}, {}

    @functools.wraps(check)
    def check_quickly(self, left, right, *rules, **options):
        kinds = type(left), type(right)
        if kinds == (core.tensor, core.tensor):
            key = (left.type.name, right.type.name, rules, *options.items())
            if key in known:
                return tuple(map(repeated, (left, right), known[key]))
            operands = check(self, left, right, *rules, **options)
            pairs = tuple(zip((left, right), operands, strict=True))
            if all(before.type.scalar == after.type.scalar for before, after in pairs):
                known[key] = tuple(None if before is after else after.type for before, after in pairs)
            return operands
        if kinds == (core.tensor, int):
            array, number, place = left, right, 1
        elif kinds == (int, core.tensor):
            array, number, place = right, left, 0
        else:
            return check(self, left, right, *rules, **options)
        key = (array.type.name, number, place, rules, *options.items())
        if key not in constants:
            operands = check(self, left, right, *rules, **options)
            if operands[1 - place] is not array or operands[place].handle.data.size > KEPT:
                return operands
            if len(constants) == KEPT:
                constants.clear()
            constants[key] = operands[place]
        return (array, constants[key]) if place else (constants[key], array)

    return check_quickly


def repeated(array, kind):
    """Return an array as one of a type whose shape it is repeated to; without a type, as it is."""
    if kind is None:
        return array
    shape = [int(size) for size in kind.shape]
    return core.tensor(interpreter.TensorHandle(np.broadcast_to(array.handle.data, shape), array.dtype), kind)


def shifted(shift):
    """Return the arithmetic shift to the right that copies no signed integers."""

    def shift_quickly(self, left, right):
        if left.data.dtype.kind == right.data.dtype.kind == "i":
            return self.binary_op(left, right, np.right_shift)
        return shift(self, left, right)

    return shift_quickly


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
