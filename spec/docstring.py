"""The sections of an op's docstring that its contract determines: parameters, results and errors."""

import textwrap
from typing import TYPE_CHECKING

from .tensors import Parameter, Tensor, number_text, shape_text

if TYPE_CHECKING:
    from .contract import Op

WIDTH = 116
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
    return [
        ("Parameters", "\n".join(arguments)),
        ("Returns", "\n".join(_tensor(tensor) for tensor in entry.outputs)),
        ("Raises", f"DomainError\n{_indented(f'{errors(entry)}.')}"),
    ]


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
    return textwrap.fill(text, WIDTH, initial_indent="    ", subsequent_indent="    ", break_on_hyphens=False)
