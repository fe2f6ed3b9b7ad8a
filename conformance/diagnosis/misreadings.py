"""Known-wrong ops: the golden code with one thing in it misread, as somebody who ports it line by line would.

Each misreading is an edit of the syntax tree of a function that an op runs: a term left out, an operation or constant
in the place of another, two of them exchanged, a loop that runs the other way. Its code is put into the function for
as long as it is needed.
"""

import ast
import contextlib
import linecache
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import combinations, pairwise
from types import CodeType, FunctionType
from typing import Any

from mamba_integer.spec import integers
from mamba_integer.spec.contract import Op

from ..mutants import mutator
from .sites import Site, constants, functions

Place = tuple[Any, str, int | None]
Edit = tuple[str, int, list[tuple[Place, Any]]]  # what it says, its line, and what stands in which places instead
CODES = (8, 16)  # bits to which a value may be saturated too early
WIDE_ONE = "np.int64(1)"  # added to an array of a narrow type, it doesn't overflow it
LONGEST = 100  # characters of code that are told
MOVED = ast.Assign, ast.AugAssign
CHAINED = ast.Add, ast.Mult, ast.BitXor, ast.BitOr, ast.BitAnd


@dataclass(frozen=True)
class Misreading:
    """Code that may stand in the place of a function's."""

    says: str
    function: FunctionType
    code: CodeType


@dataclass(frozen=True)
class Names:
    """The names of a function: its variables, and the integer constants that it may read."""

    variables: tuple[str, ...]
    constants: tuple[str, ...]


@contextlib.contextmanager
def in_place(misreading: Misreading) -> Iterator[None]:
    """Let a function of the golden code be misread inside the block."""
    right = misreading.function.__code__
    misreading.function.__code__ = misreading.code
    try:
        yield
    finally:
        misreading.function.__code__ = right


def misreadings(op: Op) -> Iterator[Misreading]:
    """Yield misreadings of the functions that an op runs, but for those of the number system, the most usual first."""
    known: set[str] = set()
    trees = [(each, definition(each)) for each in functions(op) if each.__module__ != integers.__name__]
    for kind in KINDS:
        for function, tree in trees:
            names = Names(
                function.__code__.co_varnames,
                tuple(name for module, name, _ in constants(op) if module is function.__globals__),
            )
            for says, line, replacements in kind(tree, names):
                text = f"{says} {Site(function.__code__.co_filename, line).text}"
                if text not in known and (code := compiled(tree, function, replacements)) is not None:
                    known.add(text)
                    yield Misreading(text, function, code)


def definition(function: FunctionType) -> ast.FunctionDef:
    """Return the syntax tree of a function, without its decorators, at its own lines."""
    code = function.__code__
    for node in ast.walk(ast.parse("".join(linecache.getlines(code.co_filename)))):
        if isinstance(node, ast.FunctionDef) and node.name == code.co_name:
            first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
            if first == code.co_firstlineno:
                node.decorator_list = []
                return node
    raise LookupError(f"{function.__qualname__} isn't in {code.co_filename}")


def compiled(tree: ast.FunctionDef, function: FunctionType, replacements: list[tuple[Place, Any]]) -> CodeType | None:
    """Return the code of a function with some nodes replaced; the tree itself is restored."""
    code = function.__code__
    before = [(place, mutator.replace(*place, new)) for place, new in replacements]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SyntaxWarning)
            module = compile(ast.fix_missing_locations(ast.Module([tree], [])), code.co_filename, "exec")
    except (SyntaxError, ValueError, TypeError):
        return None
    finally:
        for (parent, name, index), old in reversed(before):
            mutator.replace(parent, name, index, old)
    new_code = next(each for each in module.co_consts if isinstance(each, CodeType) and each.co_name == tree.name)
    return new_code if new_code.co_freevars == code.co_freevars else None


def nodes_of(tree: ast.FunctionDef) -> list[tuple[ast.stmt, Place, Any]]:
    """Return the nodes that may be edited, each with its statement and its place."""
    return [
        (statement, place, mutator.place_of(*place)) for _, statement, place in mutator.places(ast.Module([tree], []))
    ]


def of_nodes(variants: Callable[[Any, Names], Iterable[Any]]) -> Callable[[ast.FunctionDef, Names], Iterator[Edit]]:
    """Return edits of single nodes, given the nodes that may stand in a node's place."""

    def edits(tree: ast.FunctionDef, names: Names) -> Iterator[Edit]:
        for statement, place, node in nodes_of(tree):
            for new in variants(node, names):
                # A node that is already there stays at its place, by which its values are known.
                before, after = text(node), text(new if hasattr(new, "lineno") else ast.copy_location(new, node))
                if before != after:
                    yield told(statement, place, before, after, new), node.lineno, [(place, new)]

    return edits


def told(statement: ast.stmt, place: Place, before: str, after: str, new: Any) -> str:
    """Return the description of an edit of one node: the new node, or the new statement where the node is long."""
    if after == "pass":
        return "this line is left out:"
    if 2 * len(before) < len(mutator.headline(statement)):
        return f"`{after}` in place of `{before}`, in"
    right = mutator.replace(*place, new)
    line = text(statement if statement is not right else new)
    mutator.replace(*place, right)
    return f"`{line}` in place of"


def text(node: ast.AST) -> str:
    short = mutator.headline(node) if isinstance(node, ast.stmt) else ast.unparse(node).replace(WIDE_ONE, "1")
    return short if len(short) <= LONGEST else f"{short[:LONGEST]} ..."


def is_name(node: Any, names: tuple[str, ...]) -> bool:
    return isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and node.id in names


def left_out(node: Any, names: Names) -> Iterator[Any]:
    """Yield an operation's operands alone, and calls' arguments where the call may have been forgotten."""
    match node:
        case ast.BinOp(left, operator, right):
            yield left
            if isinstance(operator, CHAINED):
                yield right
        case ast.Call(_, [argument, *_], _):
            yield argument


def scaled(node: Any, names: Names) -> Iterator[Any]:
    """Yield other constants, and loops that end sooner, start later or run the other way."""
    match node:
        case ast.Constant(int(value)) if not isinstance(value, bool) and value > 2:
            yield from (ast.Constant(2 * value), ast.Constant(value // 2))
        case ast.Call(ast.Name("range"), [*first, last], []):
            sooner = ast.BinOp(last, ast.Sub(), ast.Constant(1))
            yield ast.Call(ast.Name("range", ast.Load()), [*first, sooner], [])
            if not first:
                yield ast.Call(ast.Name("range", ast.Load()), [ast.Constant(1), last], [])
            yield ast.Call(ast.Name("reversed", ast.Load()), [node], [])


def split(node: Any, names: Names) -> Iterator[Any]:
    """Yield a rounding shift by a sum as two roundings, by a part of the sum each."""
    match node:
        case ast.Call(function, [value, ast.BinOp(_, ast.Add(), _) as shift], []):
            terms = added(shift)
            for i in range(1, len(terms)):
                for first, last in ((terms[:i], terms[i:]), (terms[i:], terms[:i])):
                    yield ast.Call(function, [ast.Call(function, [value, total(first)], []), total(last)], [])


def added(node: Any) -> list[Any]:
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return [*added(node.left), *added(node.right)]
    return [node]


def total(terms: list[Any]) -> Any:
    first, *rest = terms
    for term in rest:
        first = ast.BinOp(first, ast.Add(), term)
    return first


def usual(node: Any, names: Names) -> Iterator[Any]:
    yield from mutator.variants(node)


def other_names(node: Any, names: Names) -> Iterator[Any]:
    """Yield other variables, or other constants, and variables that are one more or less."""
    if is_name(node, names.variables):
        yield from (ast.BinOp(node, by(), ast.parse(WIDE_ONE, mode="eval").body) for by in mutator.SIGNS)
    for same in (names.constants, names.variables):
        if is_name(node, same):
            yield from (ast.Name(name, ast.Load()) for name in same if name != node.id)


def early(node: Any, names: Names) -> Iterator[Any]:
    """Yield sums whose first term is saturated by itself."""
    match node:
        case ast.BinOp(left, ast.Add() | ast.Sub() as operator, right):
            saturate = ast.Attribute(ast.Name("integers", ast.Load()), "saturate", ast.Load())
            for bits in CODES:
                yield ast.BinOp(ast.Call(saturate, [left, ast.Constant(bits)], []), operator, right)


def everywhere(tree: ast.FunctionDef, names: Names) -> Iterator[Edit]:
    """Yield constants that are exchanged wherever they stand."""
    used = [(place, node) for _, place, node in nodes_of(tree) if is_name(node, names.constants)]
    for one, other in combinations(dict.fromkeys(node.id for _, node in used), 2):
        turned = {one: other, other: one}
        places = [(p, ast.copy_location(ast.Name(turned[n.id], ast.Load()), n)) for p, n in used if n.id in turned]
        yield f"`{one}` and `{other}` are exchanged, from", places[0][1].lineno, list(places)


def exchanged(tree: ast.FunctionDef, names: Names) -> Iterator[Edit]:
    """Yield pairs of expressions of one kind in a statement that are exchanged."""
    by_statement: dict[ast.stmt, list[tuple[Place, Any]]] = {}
    for statement, place, node in nodes_of(tree):
        if isinstance(node, ast.BinOp | ast.Call | ast.IfExp) or is_name(node, (*names.variables, *names.constants)):
            by_statement.setdefault(statement, []).append((place, node))
    for pairs in map(partial(combinations, r=2), by_statement.values()):
        for (place, node), (other_place, other) in pairs:
            before, after = text(node), text(other)
            alike = type(node) is type(other) and before != after
            if alike and other not in ast.walk(node):  # a node comes before those inside it
                yield f"`{before}` and `{after}` are exchanged, in", node.lineno, [(place, other), (other_place, node)]


def reordered(tree: ast.FunctionDef, names: Names) -> Iterator[Edit]:
    """Yield blocks whose statements, or the operations of two of them, come in another order."""
    for parent in ast.walk(tree):
        body = getattr(parent, "body", None)
        if not isinstance(body, list):
            continue
        for i, (one, other) in enumerate(pairwise(body)):
            if isinstance(one, MOVED) and isinstance(other, MOVED):
                says = f"`{text(one)}` comes after `{text(other)}`, at"
                yield says, one.lineno, [((parent, "body", i), other), ((parent, "body", i + 1), one)]
                yield from other_order(one, other)
        for i in range(1, len(body) if isinstance(parent, ast.For | ast.While) else 0):
            places: list[tuple[Place, Any]] = [((parent, "body", j), new) for j, new in enumerate(body[i:] + body[:i])]
            yield f"the loop begins with `{text(body[i])}`, at", body[i].lineno, places


def other_order(one: ast.stmt, other: ast.stmt) -> Iterator[Edit]:
    """Yield ``t = x << e; u = f(t)`` as ``t = f(x); u = t << e``."""
    match one, other:
        case (
            ast.Assign([ast.Name(name)], ast.BinOp(operand, operator, by)),
            ast.Assign(_, ast.Call(function, [ast.Name(argument) as used, *rest], [])),
        ) if argument == name:
            first = ast.copy_location(ast.Call(function, [operand, *rest], []), one)
            last = ast.copy_location(ast.BinOp(used, operator, by), other)
            says = f"`{text(one)}` is done after `{text(other)}`, at"
            yield says, one.lineno, [((one, "value", None), first), ((other, "value", None), last)]


KINDS: tuple[Callable[[ast.FunctionDef, Names], Iterator[Edit]], ...] = (
    *map(of_nodes, (usual, left_out, scaled, split, other_names, early)),
    everywhere,
    reordered,
    exchanged,
)
