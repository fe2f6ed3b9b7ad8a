"""Cases of strangers: what no op allows is refused at once, before any integer is drawn or any array is made."""

import json
import os
import subprocess
import sys
from itertools import chain, islice
from random import Random

import pytest

from mamba_integer import spec
from mamba_integer.backends.app.main import main
from mamba_integer.conformance.engine import replay
from mamba_integer.conformance.engine.cases import ExtremeCase, draw_case, extreme_cases, large_cases, moved_cases
from mamba_integer.conformance.engine.far_ends import FarCase, long_cases
from mamba_integer.conformance.engine.foreign import as_case
from mamba_integer.conformance.engine.relations import RELATIONS, draw_relation

# A process of its own: nothing in this one could end a shift by 10**30 bits, which holds Python's lock.
HUGE_CASES = """
import json, resource, signal, sys
from random import Random
signal.alarm(60)
resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
from mamba_integer import spec
from mamba_integer.conformance.engine import replay
from mamba_integer.conformance.engine.cases import draw_case
from mamba_integer.spec.describe import describe, symbols
for name in spec.OPS:
    case = draw_case(name, Random(1))
    for parameter in spec.OPS[name].parameters:
        for value in (10**11, 10**30, -(10**30), 10**5000):
            print(name, parameter.name, value.bit_length(), flush=True)
            try:
                spec.OPS[name](*case.arrays, **{**case.parameters, parameter.name: value})
            except spec.DomainError as error:
                assert parameter.name in str(error) or "intermediate" in str(error), error
            else:
                assert (parameter.name, value) == ("seed", 10**11)
    for kind in ("sizes", "parameters"):
        for field in case.written[kind]:
            for value in (10**11, 10**30, -(10**30)):
                fields = {**case.written, kind: {**case.written[kind], field: value}}
                print(name, kind, field, value, flush=True)
                try:
                    usual = {**dict.fromkeys(symbols(spec.OPS[name]), 1), **case.sizes, **case.parameters}
                    describe(spec.OPS[name], {**usual, field: value})
                except (spec.DomainError, TypeError) as error:
                    assert field in str(error) or "intermediate" in str(error), error
                try:
                    replay.parse(json.dumps(fields), name)
                except replay.CaseError as error:
                    assert field in str(error) or "intermediate" in str(error), error
                else:
                    assert (field, value) == ("seed", 10**11)
"""


@pytest.mark.parametrize(
    ("op", "size", "says"),
    [
        ("ssd_scan_step", f"S={10**11}", f"--size: S: found {10**11}, allowed an integer from 1 to 65536"),
        ("ssd_scan_step", f"H={10**11}", f"--size: H: found {10**11}, allowed an integer from 0 to 16777216"),
        ("ssd_scan_step", "H=-1", "--size: H: found -1, allowed an integer from 0"),
        ("selective_scan_step", f"k={10**11}", f"argument k: found {10**11}, allowed [1, 15]"),
        ("selective_scan_step", f"k=-{10**11}", f"argument k: found -{10**11}, allowed [1, 15]"),
        ("dyadic_transform", f"m={10**11}", f"--size: m: found {10**11}, allowed an integer from"),
        ("squareplus", f"leading={10**11}", f"--size: found 'leading={10**11}', allowed 0 to 2147483647 rows"),
    ],
)
def test_a_circuit_of_a_huge_call_is_refused_at_once(op, size, says, run_cli):
    done = run_cli("circuit", op, "--size", size)
    assert done.code == 2 and says in done.err and done.err.count("\n") == 1, done.err


def test_huge_sizes_and_parameters_of_every_op_are_refused_at_once():
    done = subprocess.run([sys.executable, "-c", HUGE_CASES], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, f"{done.stdout.splitlines()[-1:]} {done.stderr}"


@pytest.fixture
def drawn():
    return dict(draw_case("selective_scan_step", Random(1)).written)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"seed": -1}, "seed: found -1, allowed an integer from 0"),
        ({"seed": 2**64}, "seed: found 18446744073709551616"),
        ({"seed": True}, "seed: found True"),
        ({"sizes": []}, "sizes: found [], allowed an object of B, D, N"),
        ({"sizes": {"B": 1, "D": 1}}, "sizes: found"),
        ({"sizes": {"B": 1.5, "D": 1, "N": 1}}, "B: found 1.5, allowed an integer"),
        ({"sizes": {"B": -1, "D": 1, "N": 1}}, "B: found -1"),
        ({"sizes": {"B": 60000, "D": 60000, "N": 1}}, "x: found sizes of 3600000000 integers, allowed 16777216"),
        ({"parameters": {}}, "parameters: found {}, allowed an object of k, n_max"),
        ({"leading": 5}, "leading: found 5, allowed a list"),
        ({"leading": [1] * 17}, "leading: found 17 dimensions, allowed 16"),
        ({"leading": ["1"]}, "leading: found '1', allowed an integer from 0 to 16777216"),
        ({"leading": [-1]}, "leading: found -1, allowed an integer from 0 to 16777216"),
        ({"leading": [99999999999999]}, "leading: found 99999999999999, allowed an integer from 0 to 16777216"),
        ({"patterns": ["uniform"]}, "patterns: found 1, allowed 7, one for each input"),
        ({"patterns": [[]] * 7}, "patterns: found [], allowed"),
        ({"layouts": ["upside down"] * 7}, "layouts: found 'upside down', allowed"),
        ({"op": ["isqrt"]}, "found no field op"),
        ({"op": "isqrt"}, "the case is of the op isqrt, not selective_scan_step"),
        ({"colour": 1}, "found an unknown field colour"),
        ({"entry": 1}, "found no field call"),
        ({"far": 1}, "found an unknown field"),
        ({"exhaustive": 1}, "exhaustive: found 1, allowed bytes"),
        ({"inputs": 1}, "inputs are 1, want 7"),
        ({"case": []}, "found no field op"),
    ],
)
def test_a_drawn_case_names_the_field_that_is_wrong(drawn, change, says):
    with pytest.raises(replay.CaseError) as raised:
        replay.parse(json.dumps(drawn | change), "selective_scan_step")
    assert says in str(raised.value) and str(raised.value).isprintable()


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        (FarCase("isqrt", "...", 10**30), "size: found 1000000000000000000000000000000"),
        (FarCase("isqrt", "...", 10, 10**30), "elements: found"),
        (FarCase("isqrt", "depth"), "far: found 'depth', allowed ..."),
        (ExtremeCase("isqrt", 10**30, 0), "entry: found"),
        (ExtremeCase("isqrt", 0, -1), "call: found -1, allowed 0 alone"),
        (ExtremeCase("isqrt", 0, 0, 10**30), "turned: found"),
    ],
)
def test_other_cases_name_the_field_that_is_wrong(fields, says):
    with pytest.raises(replay.CaseError) as raised:
        replay.parse(fields.to_json(), "isqrt")
    assert says in str(raised.value)


def test_a_case_of_an_op_without_parameters_has_an_empty_object():
    case = dict(draw_case("isqrt", Random(1)).written)
    with pytest.raises(replay.CaseError, match=r"parameters: found \{'k': 1\}, allowed an empty object"):
        replay.parse(json.dumps(case | {"parameters": {"k": 1}}), "isqrt")


def test_a_relation_is_one_of_its_op():
    case = json.loads(draw_relation("alone", lambda random: draw_case("quantize_rows", random), Random(1)).to_json())
    assert replay.parse(json.dumps(case), "quantize_rows").relation == "alone"
    applying = [name for name, kind in RELATIONS.items() if kind.needs("quantize_rows") is not None]
    for change, says in (
        ({"relation": "steps"}, f"relation: found 'steps', allowed {', '.join(sorted(applying))}"),
        ({"relation": {}}, "relation: found {}"),
        ({"place": 5}, "place: found 5, allowed a list"),
        ({"place": [10**30]}, "place: found 1000"),
        ({"case": 5}, "found no field op"),
        ({"case": {"op": "quantize_rows", "entry": 0}}, "found no field sizes"),
    ):
        with pytest.raises(replay.CaseError) as raised:
            replay.parse(json.dumps(case | change), "quantize_rows")
        assert says in str(raised.value)


def test_cases_of_other_kinds_have_their_fields():
    for op, fields, says in (
        ("isqrt", {"op": "isqrt", "relation": "alone"}, "found no field case"),
        (
            "saturate",
            {"op": "saturate", "exhaustive": "edges", "parameters": []},
            "parameters: found [], allowed an obj",
        ),
        ("saturate", {"op": "saturate", "exhaustive": "edges", "parameters": {"bits": 10**30}}, "argument bits: found"),
        ("saturate", {"op": "saturate", "exhaustive": "edges", "parameters": {"bits": 8}, "start": []}, "start: found"),
    ):
        with pytest.raises(replay.CaseError) as raised:
            replay.parse(json.dumps(fields), op)
        assert says in str(raised.value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[" * 100_000 + "]" * 100_000, "nested too deep"),
        ('{"op":"isqrt","op":"isqrt"}', "key 'op' stands twice"),
        ('{"op":"isqrt","seed":NaN}', "NaN is no JSON number"),
        ("{", "no JSON"),
        ('{"op":"isqrt","seed":' + "9" * 5000 + "}", "an integer of 5000 digits is too long"),
        ('{"op":"isqrt\\u001b[31m"}', r"isqrt\x1b[31m"),
    ],
)
@pytest.mark.parametrize("command", ["compare --op isqrt --backends golden,numba", "vectors reproduce"])
def test_every_command_refuses_cases_of_two_meanings(command, text, says, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(sys, "argv", ["mamba-integer", *command.split(), "--case", text])
    with pytest.raises(SystemExit) as exit:
        main()
    err = capsys.readouterr().err
    assert exit.value.code == 2 and says in err and err.rstrip("\n").isprintable()


def test_a_file_of_cases_is_utf8(monkeypatch, capsys, tmp_path):
    (tmp_path / "case").write_bytes(b'{"op":"\xff"}')
    command = ["mamba-integer", "compare", "--op", "isqrt", "--backends", "golden,numba", "--case"]
    monkeypatch.setattr(sys, "argv", [*command, os.fspath(tmp_path / "case")])
    with pytest.raises(SystemExit):
        main()
    assert "not UTF-8 at byte 7" in capsys.readouterr().err


@pytest.mark.parametrize("op", spec.OPS)
def test_cases_of_every_op_come_back(op):
    drawn = [draw_case(op, Random(seed)) for seed in range(20)]
    some = chain.from_iterable(islice(cases, 5) for cases in (extreme_cases(op), moved_cases(op), long_cases(op)))
    for case in (*drawn, *large_cases(op, 0), *some):
        assert as_case(json.loads(case.to_json()), op) == case
