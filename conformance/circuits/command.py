"""The command that counts an op's constraints and writes its circuit and a witness."""

import json
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Annotated

import typer

from mamba_integer.backends.app.arguments import assignments
from mamba_integer.backends.app.outputs import output_file
from mamba_integer.backends.app.terminal import Json, UsageError, console_for
from mamba_integer.backends.files.atomic import write_atomically
from mamba_integer.spec.contract import find_op
from mamba_integer.spec.describe import LEADING_SIZE, symbols

SIZE = "Size or parameter of the call, as name=value; leading is the number of rows. May be repeated."


def circuit_command(
    op: Annotated[str, typer.Argument(help="The op.")],
    size: Annotated[list[str] | None, typer.Option(help=SIZE)] = None,
    private: Annotated[
        list[str] | None, typer.Option(help="Input that a proof hides; its range is constrained. May be repeated.")
    ] = None,
    fixed: Annotated[
        list[str] | None, typer.Option(help="Input that is a constant of the circuit. May be repeated.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the drawn inputs, which the witness holds.")] = 0,
    r1cs: Annotated[
        Path | None, typer.Option(help="Write the constraints to this file, as circom does.", callback=output_file)
    ] = None,
    wtns: Annotated[
        Path | None, typer.Option(help="Write the witness to this file, as circom does.", callback=output_file)
    ] = None,
    as_json: Json = False,
) -> None:
    """Count the rank-1 constraints of an op, over the scalar field of BN254, and write them with a witness.

    Constraints come from a run of the op's golden code on wires. Exit code 0: done; 2: a usage error, or an op that has
    no circuit yet.
    """
    from ..engine.cases import draw_case
    from ..engine.foreign import check_size
    from .constraints import CircuitError
    from .counts import reason_of, usual_case
    from .files import r1cs_bytes, wtns_bytes
    from .lowering import lower

    contract = find_op(op)
    usual = usual_case(op)
    names = set(symbols(contract))
    sizes = assignments("--size", size or ())
    if unknown := set(sizes) - names:
        raise UsageError(f"--size: found {min(unknown)!r}, allowed {', '.join(sorted(names))}")
    rows = sizes.pop(LEADING_SIZE, usual.leading)
    inputs = {tensor.name for tensor in contract.inputs}
    for option, chosen in (("private", private), ("fixed", fixed)):
        if unknown := set(chosen or ()) - inputs:
            raise UsageError(f"--{option}: found {min(unknown)!r}, allowed {', '.join(sorted(inputs))}")
    if both := set(private or ()) & set(fixed or ()):
        raise UsageError(f"--fixed: found {min(both)!r}, which is private; allowed one of the two")
    wanted = replace(
        usual,
        sizes={name: sizes.get(name, value) for name, value in usual.sizes.items()},
        leading=rows if isinstance(rows, tuple) else (rows,),
        parameters={name: sizes.get(name, value) for name, value in usual.parameters.items()},
    )
    try:
        check_size(wanted)
    except ValueError as error:
        raise UsageError(f"--size: {error}") from error
    drawn = draw_case(op, Random(seed), {**wanted.sizes, **wanted.parameters, "...": wanted.leading})
    case = replace(wanted, patterns=("uniform",) * len(drawn.patterns), seed=drawn.seed, layouts=())
    try:
        statement = lower(op, case.arrays, case.parameters, private or (), fixed or ())
    except CircuitError as error:
        raise UsageError(f"circuit: {op} has no circuit for this call: {reason_of(error, op)}") from error
    except ValueError as error:
        raise UsageError(f"--size: {error}") from error
    for path, encode in ((r1cs, r1cs_bytes), (wtns, wtns_bytes)):
        if path:
            write_atomically(path, encode(statement))
    call = {**case.sizes, **({LEADING_SIZE: list(case.leading)} if case.leading else {}), **case.parameters}
    fields = {"op": op, "call": call, **statement.counts, "public": len(statement.public)}
    if as_json:
        print(json.dumps(fields))
    else:
        console = console_for()
        console.print(f"{op}: {', '.join(f'{k} = {v}' for k, v in call.items())}", markup=False)
        for name, count in statement.counts.items():
            console.print(f"{count:>12,} {name}", markup=False)
        outputs = len(statement.public) - statement.public_inputs
        console.print(f"{outputs:>12,} of the wires are public outputs, {statement.public_inputs:,} are public inputs")
