"""The reference pages, one per family of ops, generated from contracts and docstrings."""

import doctest
import importlib
import inspect
import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from .contract import OPS, Op
from .describe import describe, related, size_text, summary, symbols
from .tensors import LEADING, Parameter, Tensor, number_text, shape_text

FOLDER = "reference"
COMMAND = "mamba-integer ops --pages spec/ops"
EVIDENCE = "../../../conformance/EVIDENCE.md"  # seen from the pages of the families
RELATIONS = {
    "step": "One step",
    "step_of": "One step of",
    "inverse": "Inverse",
    "backward": "Backward",
    "backward_of": "Backward of",
    "composed_of": "Composed of",
}
INDEX = """# The ops

One page per family. Each op has one contract, in the module of its family. These pages, the docstrings and
`mamba-integer ops` are generated from it.

How to read a page:

- A shape is a tuple of sizes. `B` is the batch, `L` the length of a sequence, `...` any leading dimensions, the same
  for all arrays of a call.
- Bounds are Python expressions of the sizes and parameters. `ceil_div(a, b)` is a / b rounded up. `shift_round(x, s)`
  is x / 2\\*\\*s rounded to the nearest integer, ties toward plus infinity; `shift_even` has its ties go to even.
- Q.f is a format with f fraction bits: the integer x stands for x / 2\\*\\*f.
- `floor` rounds toward minus infinity, and `saturate(x, bits)` clamps to [-(2\\*\\*(bits-1) - 1), 2\\*\\*(bits-1) - 1].
- An intermediate has a range that is proved from the sizes and parameters. "Attained" says that some input reaches
  both ends. `mamba-integer ops --op NAME --at SIZE=INTEGER …` gives the numbers for any sizes and parameters.
- A call outside these bounds raises `DomainError`.
"""


def pages() -> dict[str, str]:
    """Return the text of every page by its path below the folder of the ops."""
    families: dict[str, list[Op]] = {}
    for entry in OPS.values():
        families.setdefault(entry.family, []).append(entry)
    texts = {"README.md": _index(families)}
    for family, entries in families.items():
        texts[f"{FOLDER}/{family}.md"] = _family(family, entries)
    return texts


def _index(families: Mapping[str, Sequence[Op]]) -> str:
    lines = [INDEX]
    for family, entries in families.items():
        rows = [(_link(entry.name, f"{FOLDER}/"), _prose(summary(entry), f"{FOLDER}/")) for entry in entries]
        lines.append(f"## [{family}]({FOLDER}/{family}.md)\n\n{_table(('op', 'meaning'), rows)}\n")
    return "\n".join(lines)


def _family(family: str, entries: Sequence[Op]) -> str:
    module = inspect.getdoc(importlib.import_module(entries[0].golden.__module__)) or ""
    made = f"Generated from the contracts in [{family}.py](../{family}.py) by `{COMMAND}`."
    head = f"# {family}\n\n{_prose(module)}\n\n{made}\n"
    return "\n".join([head, *map(op_section, entries)])


def op_section(entry: Op) -> str:
    """Return what a page says of one op."""
    written = _sections(entry)
    at, example = worked_example(entry)
    parts = [
        f"## {entry.name}\n\n{_prose(written['Summary'])}",
        f"```python\n{_call(entry)}\n```",
        f"### Inputs\n\n{_tensors(entry.inputs)}",
        f"### Outputs\n\n{_tensors(entry.outputs)}",
        f"### Parameters\n\n{_parameters(entry.parameters)}" if entry.parameters else "",
        _constraints(entry),
        f"### Clauses\n\n{_fenced(_clauses(entry.clauses))}",
        f"[Evidence for each clause]({EVIDENCE}#{entry.name})",
        _intermediates(entry, at),
        _related(entry),
        f"### Notes\n\n{_prose(written['Notes'])}" if "Notes" in written else "",
        f"### Example\n\n```pycon\n{example}\n```",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _sections(entry: Op) -> dict[str, str]:
    """Return the parts of a docstring by their titles."""
    text = inspect.cleandoc(entry.__doc__ or "")
    pieces = re.split(r"\n\n(\w+)\n-+\n", text)
    return {"Summary": pieces[0]} | dict(zip(pieces[1::2], pieces[2::2], strict=True))


def worked_example(entry: Op) -> tuple[dict[str, int], str]:
    """Run the example of a docstring; return the sizes and parameters of its last call of the op, and its text."""
    text = _sections(entry)["Examples"]
    calls: list[Any] = []

    def recorded(*arrays: Any, **parameters: int) -> Any:
        calls.append(entry.check(arrays, parameters))
        return entry(*arrays, **parameters)

    names = {"np": np} | dict(OPS) | {entry.name: recorded}
    for step in doctest.DocTestParser().get_examples(text):
        exec(compile(step.source, f"<example of {entry.name}>", "exec"), names)
    values = {name: getattr(calls[-1], name) for name in symbols(entry) if hasattr(calls[-1], name)}
    if LEADING in (name for tensor in (*entry.inputs, *entry.outputs) for name in tensor.dimensions):
        values["leading"] = int(np.prod(calls[-1].leading))
    return values, text


def _call(entry: Op) -> str:
    results = ", ".join(tensor.name for tensor in entry.outputs)
    arguments = [tensor.name for tensor in entry.inputs] + [f"{p.name}={p.name}" for p in entry.parameters]
    line = f"{results} = {entry.name}({', '.join(arguments)})"
    if len(line) <= 120:
        return line
    listed = f"    {', '.join(arguments)}"
    if len(listed) > 120:  # as a formatter of Python has it
        listed = "\n".join(f"    {argument}," for argument in arguments)
    return f"{results} = {entry.name}(\n{listed}\n)"


def _tensors(tensors: Iterable[Tensor]) -> str:
    rows = [
        (_code(t.name), " or ".join(t.dtypes), _code(shape_text(t.shape)), _domain(t), _prose(t.meaning))
        for t in tensors
    ]
    return _table(("name", "dtype", "shape", "values", "meaning"), rows) + _long_domains(tensors)


def _parameters(parameters: Iterable[Parameter]) -> str:
    rows = [(_code(p.name), _domain(p), _prose(p.meaning)) for p in parameters]
    return _table(("name", "values", "meaning"), rows) + _long_domains(parameters)


def _constraints(entry: Op) -> str:
    sizes = [f"- size {_code(size_text(name, allowed))}" for name, allowed in entry.sizes.items()]
    return "### Constraints\n\n" + "\n".join([*sizes, "- every intermediate fits its type"])


def _clauses(clauses: Mapping[str, str]) -> str:
    width = max(map(len, clauses)) + 2
    return "\n".join(_wrapped(clause, f"{label:<{width}}", " " * width) for label, clause in clauses.items())


def _wrapped(text: str, first: str, later: str) -> str:
    return textwrap.fill(text, 118, initial_indent=first, subsequent_indent=later, break_on_hyphens=False)


def _intermediates(entry: Op, at: Mapping[str, int]) -> str:
    described = describe(entry, at)["intermediates"]
    values = f" at {', '.join(f'{name} = {value}' for name, value in at.items())}" if at else ""
    rows = [
        (
            _code(label),
            _code(f"[{width['low']}, {width['high']}]"),
            width["dtype"],
            "yes" if width["attained"] else "no",
        )
        for label, width in described.items()
    ]
    return f"### Intermediates\n\nIn the example{values}:\n\n" + _table(("name", "range", "type", "attained"), rows)


def _related(entry: Op) -> str:
    lines = [f"- {RELATIONS[kind]}: {', '.join(map(_link, names))}" for kind, names in related(entry).items() if names]
    if entry.inverse_limit:
        lines.append(f"- The inverse always takes the result back for inputs up to {number_text(entry.inverse_limit)}.")
    return "### Related ops\n\n" + "\n".join(lines) if lines else ""


def _domain(argument: Tensor | Parameter) -> str:
    if _is_long(argument):
        return "see below"
    return _code(argument.domain) if argument.domain.startswith("[") else argument.domain


def _is_long(argument: Tensor | Parameter) -> bool:
    return argument.domain.startswith("[") and (len(argument.domain) > 60 or bool(argument.definitions))


def _long_domains(arguments: Iterable[Tensor | Parameter]) -> str:
    """Return the formulas that don't fit a table, below it."""
    lines = []
    for argument in filter(_is_long, arguments):
        lines.append(f"{argument.name} in {argument.domain}")
        lines += [f"    where {name} = {text}" for name, text in argument.definitions.items()]
    return "\n\n" + _fenced("\n".join(lines)) if lines else ""


def _code(text: str) -> str:
    return f"`{text}`"


def _link(name: str, folder: str = "") -> str:
    return f"[`{name}`]({folder}{OPS[name].family}.md#{name})"


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _prose(text: str, folder: str = "") -> str:
    """Return a docstring's text as Markdown: names of ops become links, and ruled tables are kept as they stand."""
    blocks = text.split("\n\n")
    return "\n\n".join(_fenced(block) if block.startswith("===") else _inline(block, folder) for block in blocks)


def _fenced(text: str) -> str:
    return f"```text\n{text}\n```"


def _inline(text: str, folder: str) -> str:
    pieces = re.split(r"(``.+?``|`.+?`)", text, flags=re.DOTALL)
    return "".join(_piece(piece, folder) for piece in pieces)


def _piece(piece: str, folder: str) -> str:
    if piece.startswith("``"):
        return _code(piece.strip("`"))
    if piece.startswith("`"):
        name = piece.strip("`")
        return _link(name, folder) if name in OPS else piece
    return re.sub(r"([*<])", r"\\\1", piece)
