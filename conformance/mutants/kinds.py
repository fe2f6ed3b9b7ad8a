"""Kinds of mutants of kernels that compute the same: the specification doesn't say how fast a result is made."""

import ast

from mamba_integer.spec import compiled

from .mutator import Mutant, place_of

WIDENED = {f"int{bits}" for bits in (8, 16, 32, 64)}
CAST = "Numba computes in 64 bits what it isn't told to narrow, and what is narrowed fits: the same integers."
# Calls of all layouts judge such a mutant: one whose kernel needs what it drops is killed.
STRIDES = "Numba compiles for the strides, or NumPy copies when it reshapes: the same integers, more slowly."
UNKNOWN = "NumPy takes any negative size for the unknown one."
LIGHTNESS = "It only says from how many elements on other threads are woken."


def kind_of(mutant: Mutant) -> str:
    """Return why a mutant may survive that changes a kernel's types, strides or threads alone; else nothing."""
    if not mutant.module.startswith(f"{compiled.__name__}."):
        return ""
    parent, name, index, new = mutant.change
    match place_of(parent, name, index):
        case ast.Call(ast.Attribute(ast.Name("np"), kind), [argument], []) if argument is new:
            if kind in WIDENED and is_compiled(mutant) and not is_fraction(argument):
                return CAST
            return STRIDES if kind == "ascontiguousarray" else ""
        case node if is_lightness(node, mutant):
            return LIGHTNESS
        case ast.Constant(1) if is_unknown_size(parent, mutant) and isinstance(new, ast.Constant) and new.value == 2:
            return UNKNOWN
    return ""


def is_fraction(argument: ast.AST) -> bool:
    """Tell whether a number may be a float, of which a cast to an integer cuts what no other step may cut."""
    words = {getattr(node, "attr", getattr(node, "id", "")) for node in ast.walk(argument)}
    return bool(words & {"float64", "math"}) or any(isinstance(node, ast.Div) for node in ast.walk(argument))


def is_compiled(mutant: Mutant) -> bool:
    """Tell whether a mutant is of a function that Numba compiles."""
    functions = [node for node in mutant.tree.body if isinstance(node, ast.FunctionDef)]
    text = "".join(ast.unparse(d) for f in functions if f.name == mutant.function for d in f.decorator_list)
    return any(word in text for word in ("njit", "spread", "compiled"))


def is_lightness(node: ast.AST, mutant: Mutant) -> bool:
    """Tell whether a node is the lightness of a kernel, or a part of it."""
    keywords = (other for other in ast.walk(mutant.tree) if isinstance(other, ast.keyword) and other.arg == "lightness")
    return any(node is part for keyword in keywords for part in ast.walk(keyword.value))


def is_unknown_size(parent: ast.AST, mutant: Mutant) -> bool:
    """Tell whether a node is the minus of a size -1 that an array is reshaped to."""
    calls = (node for node in ast.walk(mutant.tree) if isinstance(node, ast.Call))
    shapes = (call.args for call in calls if isinstance(call.func, ast.Attribute) and call.func.attr == "reshape")
    return isinstance(parent, ast.UnaryOp) and any(parent in arguments for arguments in shapes)
