"""The commands for vectors in files: export, check, freeze, reproduce, promote."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mamba_integer.backends.app.arguments import chosen_ops, refuse
from mamba_integer.backends.app.main import EQUAL, MISMATCH
from mamba_integer.backends.app.outputs import new_folder
from mamba_integer.backends.app.terminal import Json, UsageError, console_for, counted, progress_bar
from mamba_integer.backends.escapes import escaped

from ..presets import PRESETS

if TYPE_CHECKING:
    from ..engine.vector import Vector

app = typer.Typer(
    help="Export and check vectors: calls with all their integers, for machines beyond the suite's reach.",
    no_args_is_help=True,
)
Folder = Annotated[Path, typer.Argument(help="The folder of the vectors.")]
NO_ANSWERS = (
    "no answer lies in the folder: conformance/VECTORS.md names the files that your program writes there, and "
    "--no-answers checks the vectors alone"
)
NAMED = 8  # vectors of an op that are named where more have no answer
KINDS = ("jsonl", "npy", "hex", "c-header")


@app.command("export", epilog="Example: mamba-integer vectors export build --op selective_scan_step --format hex")
def export_command(
    folder: Annotated[Path, typer.Argument(help="A new or empty folder for the vectors.", callback=new_folder)],
    op: Annotated[list[str] | None, typer.Option(help="Only this op; may be repeated.")] = None,
    preset: Annotated[str, typer.Option(help=f"Number of cases: {', '.join(PRESETS)}.")] = "minimal",
    seed: Annotated[int, typer.Option(min=0, help="Seed of the drawn cases.")] = 0,
    form: Annotated[str, typer.Option("--format", help=f"Files beside the JSON lines: {', '.join(KINDS)}.")] = "jsonl",
    as_json: Json = False,
) -> None:
    """Write vectors to a new folder: requests as a program gets them, the right answers, and a manifest with hashes.

    The files are described in conformance/VECTORS.md.
    """
    from .folder import export

    if preset not in PRESETS:
        raise UsageError(f"--preset: found {preset!r}, allowed {', '.join(PRESETS)}")
    if form not in KINDS:
        raise UsageError(f"--format: found {form!r}, allowed {', '.join(KINDS)}")
    names = chosen_ops(op)
    with progress_bar() as bar:
        manifest = export(folder, bar.track(names, description="export"), preset, seed, form)
    count = sum(map(len, manifest["vectors"].values()))
    fields = {"folder": str(folder), "ops": len(names), "vectors": count, "root": manifest["root"]}
    line = f"{counted(count, 'vector')} of {counted(len(names), 'op')} in {folder}, root {manifest['root'][:16]}"
    print(json.dumps(fields) if as_json else escaped(line))


@app.command("check", epilog="Example: mamba-integer vectors check build")
def check_command(
    folder: Folder,
    no_answers: Annotated[bool, typer.Option("--no-answers", help="Check the vectors alone.")] = False,
    as_json: Json = False,
) -> None:
    """Check that exported vectors are the specification's, and compare the answers beside them with the right ones.

    Exit code 0: all vectors are unchanged, each has an answer, and every integer of the answers is right. 1: an answer
    is missing or wrong. 2: a file can't be read or was changed.
    """
    from ..engine.vector import VectorError
    from ..render import show_recorded
    from .folder import check
    from .recorded import explain_answers

    try:
        checked = check(folder)
    except VectorError as error:
        raise UsageError(str(error)) from error
    right = checked.vectors > 0 and (no_answers or checked.all_right)
    fields = {
        "vectors": checked.vectors,
        "answers": checked.answers,
        "right": checked.right,
        "integers": checked.integers,
        "left_out": dict(checked.left_out),
        "missing": checked.missing,
        "repeated": checked.repeated,
        "failures": [failure.to_dict() for failure in checked.failures],
    }
    wrong = dict.fromkeys(failure.case.op for failure in checked.failures)
    explanations = {op: explain_answers(checked.returned.get(op, ())) for op in wrong}
    if as_json:
        told = {op: explanation.to_dict() for op, explanation in explanations.items() if explanation}
        print(json.dumps(fields | {"explanations": told}))
    else:
        console = console_for()
        for op, explanation in explanations.items():
            show_recorded(console, [f for f in checked.failures if f.case.op == op], explanation)
        for said, kind in (("no answer", checked.missing), ("several answers", checked.repeated)):
            for op, numbers in kind.items() if checked.answers and not no_answers else ():
                console.print(f"{op}: {said} to {numbers_shown(numbers)}", style="red", markup=False)
        for reason, count in checked.left_out.items():
            console.print(f"{counted(count, 'vector')}: {reason}", style="yellow", markup=False)
        answers = f"{counted(checked.answers, 'answer')}, {checked.right} of them right"
        answers += f", {counted(checked.integers, 'integer')} compared"
        verdict = "equal" if right and not no_answers else "unchanged" if right else "FAILED"
        style = "bold green" if right else "bold red"
        console.print(f"{verdict}: {counted(checked.vectors, 'vector')}, {answers}", style=style, markup=False)
        if not (checked.answers or no_answers):
            console.print(NO_ANSWERS, markup=False)
    raise typer.Exit(EQUAL if right and not checked.failures else MISMATCH)


def numbers_shown(numbers: list[int]) -> str:
    """Return the first numbers of vectors, as their requests have them, and how many more there are."""
    more = f" and {len(numbers) - NAMED} more" if len(numbers) > NAMED else ""
    return f"seq {', '.join(map(str, numbers[:NAMED]))}{more}"


@app.command("freeze", epilog="Example: mamba-integer vectors freeze")
def freeze_command(
    context: typer.Context,
    anew: Annotated[bool, typer.Option("--anew", help="Let frozen results change under the same version.")] = False,
    verify_only: Annotated[bool, typer.Option("--verify", help="Compare the frozen core and change nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Update the frozen core of this checkout: keep what is frozen, add vectors of new ops, write the manifest."""
    from ..engine.vector import VectorError
    from . import core

    if verify_only:
        refuse(context, "--verify", "anew")
    try:
        manifest = core.verify() if verify_only else core.freeze(anew=anew)
    except VectorError as error:
        raise UsageError(str(error)) from error
    size = sum(path.stat().st_size for path in core.CORE.iterdir())
    count, ops = manifest["count"], len(manifest["vectors"])
    fields = {"vectors": count, "ops": ops, "bytes": size, "root": manifest["root"]}
    line = f"{counted(count, 'vector')} of {counted(ops, 'op')}, {size:,} bytes, root {manifest['root'][:16]}"
    print(json.dumps(fields) if as_json else escaped(line))


Given = Annotated[str, typer.Option("--case", help="The case as JSON, as a failure card prints it.")]


def vector_of(case: str) -> "Vector":
    from ..engine import replay
    from ..engine.vector import as_vector

    try:
        return as_vector(replay.parse_any(case))
    except (ValueError, LookupError) as error:
        raise UsageError(f"--case: {error}") from error


@app.command("reproduce", epilog="Example: mamba-integer vectors reproduce --backend numba --case '{...}' > show.py")
def reproduce_command(
    context: typer.Context,
    case: Given,
    backend: Annotated[str, typer.Option(help="The backend that the script runs.")] = "golden",
    language: Annotated[str, typer.Option(help="python or c.")] = "python",
) -> None:
    """Print one case as a program of its own: a script that runs a backend, or C literals with the right results."""
    from . import reproduction

    if language not in ("python", "c"):
        raise UsageError(f"--language: found {language!r}, allowed python or c")
    if language == "c":
        refuse(context, "--language c", "backend")
    vector = vector_of(case)
    print(reproduction.c(vector) if language == "c" else reproduction.python(vector, backend), end="")


@app.command("promote", epilog="Example: mamba-integer vectors promote --case '{...}'")
def promote_command(case: Given, as_json: Json = False) -> None:
    """Add one case to the frozen core of this checkout, so that it is compared for ever."""
    from . import core

    vector = vector_of(case)
    if len(vector.line) > core.LONGEST_VECTOR:
        raise UsageError(f"--case: its vector has {len(vector.line)} bytes, {core.LONGEST_VECTOR} at most")
    new = core.promote(vector)
    fields = {"op": vector.op, "sha256": vector.sha256, "new": new, "core": str(core.CORE)}
    line = f"{vector.op} {vector.sha256} {'is now' if new else 'was already'} in {core.CORE}"
    print(json.dumps(fields) if as_json else escaped(line))
