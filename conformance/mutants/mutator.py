"""Mutants of a module: its syntax tree with one node changed, as a slip of the hand would change it.

A tool of our own, since those that exist change files and start an interpreter for each mutant. A golden op is judged
in milliseconds, and kernels that Numba compiles must be compiled again with no cache of what the file on disk says.
"""

import ast
import functools
import hashlib
import types
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

COMPARISONS: dict[type, tuple[type, ...]] = {
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
}
OPERATORS: dict[type, type] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Add,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.FloorDiv,
    ast.Pow: ast.Mult,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
    ast.BitXor: ast.BitOr,
}
ORDERED = ast.Sub, ast.FloorDiv, ast.Mod, ast.Pow, ast.LShift, ast.RShift, ast.MatMult
PAIRS = [("min", "max"), ("minimum", "maximum"), ("any", "all"), ("argmax", "argmin"), ("zeros", "ones")]
PAIRS += [("zeros_like", "ones_like"), ("shift_round", "shift_floor"), ("shift_even", "shift_round")]
PAIRS += [("round_div", "floor_div"), ("cumsum", "cumprod")]
NAMES = {right: left for left, right in PAIRS} | dict(PAIRS)
# Calls of one argument that change its type, its sign or its place in memory, but hand it through else.
TYPES = {f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)}
PASSING = TYPES | {"abs", "ascontiguousarray", "int"}
METHODS = {"astype", "copy"}
SIGNS = ast.Add, ast.Sub
ANNOTATIONS = {"annotation", "returns"}
MODULE = "(module)"


@dataclass(frozen=True)
class Mutant:
    """A module with ``before``, a statement of ``function``, turned into ``after``."""

    module: str
    function: str
    line: int
    before: str
    after: str
    tree: ast.Module
    change: tuple[Any, str, int | None, Any]

    def code(self, path: str) -> Any:
        """Compile the module with the change, and undo it."""
        right = replace(*self.change)
        try:
            return compile(self.tree, path, "exec")
        finally:
            replace(*self.change[:3], right)

    @property
    def key(self) -> tuple[str, str, str, str]:
        return self.module, self.function, self.before, self.after

    def lot(self, seed: int) -> bytes:
        """Return the mutant's place in the order of a sample, which no change of another module moves."""
        return hashlib.sha256("\0".join((str(seed), *self.key)).encode()).digest()

    def __str__(self) -> str:
        return f"{self.module}:{self.line} {self.function}: {self.before}  ->  {self.after}"


def replace(parent: Any, name: str, index: int | None, new: Any) -> Any:
    """Put another node in a place of the tree; return the one that was there."""
    if index is None:
        old = getattr(parent, name)
        setattr(parent, name, new)
    else:
        field = getattr(parent, name)
        old, field[index] = field[index], new
    return old


def mutants(module: str, source: str) -> Iterator[Mutant]:
    """Yield every mutant of a module, in the order of its lines; two that read the same are one."""
    tree, known = ast.parse(source), set()
    written = functools.cache(headline)  # of statements as they are: one has many mutants
    for function, statement, place in places(tree):
        node = place_of(*place)
        for new in variants(node):
            ast.copy_location(new, node)
            ast.fix_missing_locations(new)
            before = written(statement)
            right = replace(*place, new)
            after = headline(new if statement is node else statement)
            replace(*place, right)
            mutant = Mutant(module, function, node.lineno, before, after, tree, (*place, new))
            if after != before and (statement.lineno, after) not in known:
                known.add((statement.lineno, after))
                yield mutant


def headline(statement: ast.stmt) -> str:
    """Return a statement on one line; of a compound one, the line that opens it."""
    if isinstance(statement, ast.FunctionDef | ast.ClassDef):
        decorators = " ".join(f"@{ast.unparse(decorator)}" for decorator in statement.decorator_list)
        arguments = ast.unparse(statement.args) if isinstance(statement, ast.FunctionDef) else ""
        return f"{decorators} {statement.name}({arguments})"
    text = ast.unparse(statement)
    compound = hasattr(statement, "body")
    return text.split(":\n")[0] if compound else text


def place_of(parent: Any, name: str, index: int | None) -> Any:
    field = getattr(parent, name)
    return field if index is None else field[index]


def places(tree: ast.Module) -> Iterator[tuple[str, Any, tuple[Any, str, int | None]]]:
    """Yield each node that may change: its function, its statement, and its place in the tree."""

    def walk(parent: Any, function: str, statement: Any) -> Iterator[tuple[str, Any, tuple[Any, str, int | None]]]:
        for name, field in ast.iter_fields(parent):
            if name in ANNOTATIONS:
                continue
            for index, node in enumerate(field) if isinstance(field, list) else [(None, field)]:
                if not isinstance(node, ast.AST):
                    continue
                if isinstance(node, ast.Import | ast.ImportFrom | ast.JoinedStr) or is_prose(node):
                    continue
                inner = function
                if name == "decorator_list":
                    inner = f"@{parent.name}"
                elif isinstance(node, ast.FunctionDef | ast.ClassDef):
                    inner = node.name if function == MODULE else f"{function}.{node.name}"
                nearest = node if isinstance(node, ast.stmt) else statement
                if hasattr(node, "lineno"):
                    yield inner, nearest, (parent, name, index)
                yield from walk(node, inner, nearest)

    return walk(tree, MODULE, None)


def is_prose(node: Any) -> bool:
    """Tell docstrings, bodies of dots, and the list of a module's names: nothing that they say is computed."""
    match node:
        case ast.Expr(ast.Constant(str() | types.EllipsisType())) | ast.Assign([ast.Name("__all__")]):
            return True
    return False


def variants(node: Any) -> Iterator[Any]:
    """Yield the nodes that may stand in the place of a node."""
    match node:
        case ast.Compare(left, ops, comparators):
            for i, operator in enumerate(ops):
                for other in COMPARISONS[type(operator)]:
                    yield ast.Compare(left, [*ops[:i], other(), *ops[i + 1 :]], comparators)
        case ast.BinOp(left, operator, right):
            if type(operator) in OPERATORS:
                yield ast.BinOp(left, OPERATORS[type(operator)](), right)
            if isinstance(operator, ORDERED):
                yield ast.BinOp(right, operator, left)
            if isinstance(operator, ast.LShift | ast.RShift) and not isinstance(right, ast.Constant):
                yield from (ast.BinOp(left, operator, ast.BinOp(right, by(), ast.Constant(1))) for by in SIGNS)
        case ast.AugAssign(target, operator, value):
            yield ast.Pass()
            if type(operator) in OPERATORS:
                yield ast.AugAssign(target, OPERATORS[type(operator)](), value)
        case ast.BoolOp(operator, values):
            yield ast.BoolOp(ast.And() if isinstance(operator, ast.Or) else ast.Or(), values)
        case ast.UnaryOp(_, operand):
            yield operand
        case ast.IfExp(_, body, orelse):
            yield from (body, orelse)
        case ast.If(_, body, orelse):
            yield from (ast.If(ast.Constant(value), body, orelse) for value in (True, False))
        case ast.Assign() | ast.Expr():
            yield ast.Pass()
        case ast.Constant(bool(value)):
            yield ast.Constant(not value)
        case ast.Constant(int(value)):
            yield from (ast.Constant(value + 1), ast.Constant(value - 1))
        case ast.Call(function, arguments, keywords):
            yield from calls(function, arguments, keywords)


def calls(function: Any, arguments: list[Any], keywords: list[Any]) -> Iterator[Any]:
    name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
    if name in NAMES:
        other = ast.Attribute(function.value, NAMES[name], ast.Load()) if isinstance(function, ast.Attribute) else None
        yield ast.Call(other or ast.Name(NAMES[name], ast.Load()), arguments, keywords)
    if name in PASSING and len(arguments) == 1 and not keywords:
        yield arguments[0]
    if name in METHODS and isinstance(function, ast.Attribute):
        yield function.value
    if name == "where" and len(arguments) == 3:
        yield ast.Call(function, [arguments[0], arguments[2], arguments[1]], keywords)
