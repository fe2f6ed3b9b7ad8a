"""The page EVIDENCE.md, made from the citations: ``python -m mamba_integer.conformance.evidence`` writes it anew."""

from pathlib import Path

from mamba_integer.backends.files.atomic import write_atomically
from mamba_integer.spec import OPS

from .citations import CITATIONS

PAGE = Path(__file__).parent / "EVIDENCE.md"
HEAD = """# Evidence for every clause

For each clause of each contract, this page names what holds a backend to it: a known mistake that a listed vector of
the op shows, a relation that is checked, or a test. A test of the suite finds each of them again. The page is made by
`python -m mamba_integer.conformance.evidence`; the [op reference](../spec/ops/README.md) states the clauses in full.
"""


def text() -> str:
    parts = [HEAD]
    for name, op in OPS.items():
        parts.append(f"\n## {name}\n\n| clause | evidence |\n| --- | --- |\n")
        cited = CITATIONS.get(name, {})
        parts += [f"| {label} | {described(cited.get(label, 'none'))} |\n" for label in op.clauses]
    return "".join(parts)


def described(evidence: str) -> str:
    """Return evidence as a reader wants it: a relation's name, a link to a test's file, or the mistake."""
    kind, _, name = evidence.partition(" ")
    if kind == "relation":
        return f"the relation {name}"
    if kind == "test":
        path, _, function = name.partition("::")
        return f"[`{function}`](../{path})"
    return evidence.replace("`", "").replace("|", "\\|").replace("**", "\\*\\*")


if __name__ == "__main__":
    write_atomically(PAGE, text().encode())
