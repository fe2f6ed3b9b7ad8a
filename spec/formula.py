"""Bounds as formulas: one text, shown to people and computed for given sizes and parameters."""

import ast
from typing import Any

from .integers import shift_even, shift_round


def ceil_div(a: int, b: int) -> int:
    """Return the least integer q with ``q * b >= a``, for ``b > 0``."""
    return -(-a // b)


FUNCTIONS = {"min": min, "max": max, "ceil_div": ceil_div, "shift_round": shift_round, "shift_even": shift_even}
ALLOWED = (
    *(ast.Expression, ast.Constant, ast.Name, ast.Load, ast.Call, ast.IfExp),
    *(ast.BinOp, ast.Add, ast.Sub, ast.Mult, ast.FloorDiv, ast.Pow, ast.UnaryOp, ast.USub),
)


class Formula:
    """An integer expression of an op's sizes and parameters.

    The text is Python: integers, names, ``+ - * // **``, ``a if c else b`` and the calls ``min``, ``max``,
    ``ceil_div``, ``shift_round`` and ``shift_even``. A name in ``where`` stands for an expression of its own, which may
    use the names defined before it. Every other name is a size or a parameter. Called with an object that has these as
    attributes, a formula returns its value.

    Raises
    ------
    ValueError
        The text is no such expression.
    """

    def __init__(self, text: str, **where: str):
        self.text, self.where = text, where
        defined: dict[str, ast.expr] = {}
        for name, definition in where.items():
            defined[name] = _parse(definition, defined)
        body = _parse(text, defined)
        self.names = tuple(dict.fromkeys(n.attr for n in ast.walk(body) if isinstance(n, ast.Attribute)))
        function = ast.Expression(ast.Lambda(ast.arguments([], [ast.arg("at")], None, [], [], None, []), body))
        code = compile(ast.fix_missing_locations(function), f"<formula {text}>", "eval")
        self._compute = eval(code, {"__builtins__": {}} | FUNCTIONS)

    def __call__(self, at: Any) -> int:
        return self._compute(at)

    def __repr__(self) -> str:
        return f"Formula({self.text!r}, **{self.where!r})"


class _Resolve(ast.NodeTransformer):
    """Put definitions in place of the names that have one, and ``at.name`` in place of all others."""

    def __init__(self, defined: dict[str, ast.expr]):
        self.defined = defined

    def visit_Name(self, node: ast.Name) -> ast.expr:
        unit = ast.Name("at", ast.Load())
        return self.defined.get(node.id) or ast.Attribute(unit, node.id, ast.Load())

    def visit_Call(self, node: ast.Call) -> ast.expr:
        return ast.Call(node.func, [self.visit(argument) for argument in node.args], [])


def _parse(text: str, defined: dict[str, ast.expr]) -> ast.expr:
    tree = ast.parse(text, mode="eval")
    for node in ast.walk(tree):
        if not isinstance(node, ALLOWED) or (isinstance(node, ast.Constant) and type(node.value) is not int):
            raise ValueError(f"formula {text!r}: {ast.unparse(node)!r} is no part of a formula")
        if isinstance(node, ast.Call) and (node.keywords or ast.unparse(node.func) not in FUNCTIONS):
            raise ValueError(f"formula {text!r}: {ast.unparse(node)!r} calls none of {', '.join(FUNCTIONS)}")
    return _Resolve(defined).visit(tree.body)
