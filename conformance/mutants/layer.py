"""The specification's modules as text: which names use which, and how a mutant takes the place of a module."""

import ast
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from graphlib import TopologicalSorter
from importlib.util import resolve_name
from types import ModuleType
from typing import Any

from .mutator import MODULE, Mutant


class Layer:
    """Loaded modules, and the parts of them that an edit of one module reaches."""

    def __init__(self, modules: Iterable[ModuleType]):
        self.modules = {module.__name__: module for module in modules}
        self.sources = {name: read(module) for name, module in self.modules.items()}
        self.trees = {name: ast.parse(source) for name, source in self.sources.items()}

    @cached_property
    def imported(self) -> dict[str, set[str]]:
        """For each module, the others that it imports."""
        return {name: self.imports(name) for name in self.modules}

    @cached_property
    def order(self) -> list[str]:
        """The modules' names, each after those that it imports."""
        return list(TopologicalSorter(self.imported).static_order())

    def imports(self, name: str) -> set[str]:
        module, wanted = self.modules[name], set()
        for node in executed(self.trees[name]):
            if isinstance(node, ast.ImportFrom):
                origin = resolve_name("." * node.level + (node.module or ""), module.__package__ or "")
                paths = [f"{origin}.{alias.name}" for alias in node.names]
                wanted |= {path if path in self.modules else origin for path in paths}
        return wanted & self.modules.keys() - {name}

    @cached_property
    def codes(self) -> dict[str, Any]:
        return {name: compile(source, path_of(self.modules[name]), "exec") for name, source in self.sources.items()}

    def stale(self, changed: str) -> list[str]:
        """Return the modules that a change of one reaches: itself, and after it each that imports one of them."""
        stale = [changed]
        for name in self.order:
            if name != changed and not self.imported[name].isdisjoint(stale):
                stale.append(name)
        return stale

    def install(self, mutant: Mutant) -> None:
        """Run the mutant in the place of its module, and then each module that a change of it reaches."""
        self.run(mutant.module, mutant.code(path_of(self.modules[mutant.module])))
        for name in self.stale(mutant.module)[1:]:
            self.run(name, self.codes[name])

    def run(self, name: str, code: Any) -> None:
        """Run a module's code in its namespace, which is emptied first: a name that isn't defined must be missed."""
        namespace = vars(self.modules[name])
        for defined in [
            key for key in namespace if not key.startswith("__") and not isinstance(namespace[key], ModuleType)
        ]:
            del namespace[defined]
        exec(code, namespace)

    @cached_property
    def users(self) -> dict[str, set[str]]:
        """For each name, the functions and constants in whose text it occurs; ``@f`` is the decoration of f."""
        users: dict[str, set[str]] = defaultdict(set)
        for tree in self.trees.values():
            for statement in tree.body:
                for user, nodes in parts(statement):
                    for name in names(nodes):
                        users[name] |= user
        return users

    @cached_property
    def used(self) -> dict[str, set[str]]:
        """The names in the text of each function and constant."""
        used: dict[str, set[str]] = defaultdict(set)
        for name, users in self.users.items():
            for user in users:
                used[user].add(name)
        return used

    def changed(self, mutant: Mutant) -> set[str]:
        """Return the part that a mutant changes: a function, or the constants that a statement assigns."""
        name = mutant.function.split(".")[0]
        if name != MODULE:
            return {name}
        statement = next(s for s in self.trees[mutant.module].body if s.lineno <= mutant.line <= (s.end_lineno or 0))
        return set().union(*(user for user, _ in parts(statement)))

    def reached(self, mutant: Mutant) -> set[str]:
        """Return the functions and constants that a mutant may change."""
        return closure(self.changed(mutant), lambda name: self.users[name.removeprefix("@")])


def executed(node: ast.AST) -> Iterator[ast.AST]:
    """Yield the nodes of a tree but for the blocks that only a type checker reads, which may import in a circle."""
    yield node
    for child in ast.iter_child_nodes(node):
        if not (isinstance(child, ast.If) and isinstance(child.test, ast.Name) and child.test.id == "TYPE_CHECKING"):
            yield from executed(child)


def closure(names: set[str], following: Callable[[str], set[str]]) -> set[str]:
    """Return names and all names that are reached from them."""
    reached: set[str] = set()
    while names:
        reached |= names
        names = set().union(*map(following, names)) - reached
    return reached


def read(module: ModuleType) -> str:
    with open(path_of(module), encoding="utf-8") as file:
        return file.read()


def path_of(module: ModuleType) -> str:
    assert module.__file__
    return module.__file__


def parts(statement: ast.stmt) -> Iterator[tuple[set[str], list[ast.AST]]]:
    """Yield the names that a statement of a module defines, with the nodes that define them."""
    match statement:
        case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
            decorators = statement.decorator_list
            yield {f"@{name}"}, list(decorators)
            yield {name}, [node for node in ast.iter_child_nodes(statement) if node not in decorators]
        case ast.Assign() | ast.AnnAssign() | ast.AugAssign():
            targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
            yield names(targets), [statement.value] if statement.value else []


def names(nodes: Iterable[ast.AST]) -> set[str]:
    """Return the names that are read or assigned in nodes, but for those that are a function's own."""
    inner = [child for node in nodes for child in ast.walk(node)]
    within = {node.arg for node in inner if isinstance(node, ast.arg)}
    if within:
        within |= {node.id for node in inner if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    read = {node.id for node in inner if isinstance(node, ast.Name)} - within
    return read | {node.attr for node in inner if isinstance(node, ast.Attribute)}


def loaded(*prefixes: str) -> list[ModuleType]:
    """Return the loaded modules that have a file of one of these names, or lie in a package of one."""
    return [
        module
        for name, module in sys.modules.items()
        if any(name == prefix or name.startswith(f"{prefix}.") for prefix in prefixes) and module.__file__
    ]
