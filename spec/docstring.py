"""The sections of an op's docstring that its contract determines: parameters, results, errors and clauses."""

import re
import textwrap
from collections.abc import Callable
from inspect import Parameter as Argument
from inspect import Signature
from typing import TYPE_CHECKING, Any

from .tensors import Parameter, Tensor, number_text, shape_text

if TYPE_CHECKING:
    from .contract import Op

WIDTH = 116
HANGING: dict[str, Any] = {"subsequent_indent": "    ", "break_on_hyphens": False}
ERRORS = "An array of another dtype or shape, or with a value outside its range; a parameter outside its range"


def complete(entry: "Op", written: str | None) -> str:
    """Return the written docstring of an op with the generated sections before its notes and its example."""
    if not written:
        return ""
    lines = textwrap.dedent(f"    {written}").splitlines()
    underlines = (i for i, line in enumerate(lines) if line and not line.strip("-"))
    first_section = next(underlines, len(lines) + 1) - 1
    meaning, rest = "\n".join(lines[:first_section]).rstrip(), "\n".join(lines[first_section:])
    generated = (f"{title}\n{'-' * len(title)}\n{body}" for title, body in sections(entry))
    return "\n\n".join(part for part in (meaning, *generated, rest) if part)


def sections(entry: "Op") -> list[tuple[str, str]]:
    """Return titles and bodies of the generated sections, in NumPy's style."""
    arguments = [_tensor(tensor) for tensor in entry.inputs] + [_parameter(p) for p in entry.parameters]
    fixed = [
        ("Parameters", "\n".join(arguments)),
        ("Returns", "\n".join(_tensor(tensor) for tensor in entry.outputs)),
        ("Raises", f"DomainError\n{_indented(f'{errors(entry)}.')}"),
    ]
    clauses = (textwrap.fill(f"{label}: {clause}", WIDTH, **HANGING) for label, clause in entry.clauses.items())
    return [*fixed, *([("Clauses", "\n".join(clauses))] if entry.clauses else [])]


def document(implementation: Callable, entry: "Op") -> None:
    """Give an implementation the signature of its op and, where it has no docstring, that of the op.

    Notes and example are left out: the example calls the golden op with NumPy arrays.
    """
    types = implementation.__annotations__
    arrays = [
        Argument(t.name, Argument.POSITIONAL_ONLY, annotation=types.get(t.name, Argument.empty)) for t in entry.inputs
    ]
    integers = [Argument(p.name, Argument.KEYWORD_ONLY, annotation=int) for p in entry.parameters]
    about: Any = implementation
    about.__signature__ = Signature([*arrays, *integers], return_annotation=types.get("return", Signature.empty))
    about.__doc__ = implementation.__doc__ or re.split(r"\n\n(?:Notes|Examples)\n-", entry.__doc__ or "")[0]


def errors(entry: "Op") -> str:
    """Return the conditions under which an op raises DomainError."""
    sizes = "".join(
        f"; a size {name} outside [{low}, {number_text(high)}]" for name, (low, high) in entry.sizes.items()
    )
    return f"{ERRORS}{sizes}; sizes and parameters for which an intermediate would not fit its type"


def _tensor(tensor: Tensor) -> str:
    return _entry(f"{tensor.name} : {' or '.join(tensor.dtypes)} array, shape {shape_text(tensor.shape)}", tensor)


def _parameter(parameter: Parameter) -> str:
    return _entry(f"{parameter.name} : int", parameter)


def _entry(head: str, argument: Tensor | Parameter) -> str:
    domain = argument.domain
    within = f" in {domain}" if domain.startswith("[") else f": {domain}"
    within = f",{within}" if domain.startswith("[") and isinstance(argument, Tensor) else within
    if len(head + within) > WIDTH:
        within = f"\n{_indented(f'in {domain}')}"
    where = (f"where {name} = {text}" for name, text in argument.definitions.items())
    return "\n".join([head + within, *map(_indented, where), *map(_indented, filter(None, [argument.meaning]))])


def _indented(text: str) -> str:
    if len(text) <= WIDTH - 4:
        return f"    {text}"
    return textwrap.fill(text, WIDTH, initial_indent="    ", **HANGING)
