"""Vectors in files: each format comes back, answers are compared, strangers' files are read safely."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from random import Random

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mamba_integer import spec
from mamba_integer.backends.app.main import main
from mamba_integer.backends.programs.wire import parse_line
from mamba_integer.conformance.engine import replay
from mamba_integer.conformance.engine.cases import draw_case, extreme_cases
from mamba_integer.conformance.engine.vector import Vector, VectorError, as_vector, parse_vector, vectors_of
from mamba_integer.conformance.vectors import core, folder, formats

FORMATS = tuple(formats.FORMATS)
OPS = ["gradient_add", "philox4x32", "quantize_rows"]  # int64 at its ends, all int32, two results of different ranks


def command(monkeypatch, capsys, *arguments: str) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["mamba-integer", "vectors", *arguments])
    with pytest.raises(SystemExit) as exit:
        main()
    out, err = capsys.readouterr()
    return exit.value.code, out, err


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    root = tmp_path_factory.mktemp("vectors")
    for form in FORMATS:
        folder.export(root / form, OPS, "minimal", 0, form)
    return root


@pytest.fixture
def copied(exported, tmp_path):
    return Path(shutil.copytree(exported / "jsonl", tmp_path / "jsonl"))


def answer(place: Path, form: str, change=lambda array: array) -> None:
    """Write the right results of gradient_add as a stranger would, each changed."""
    for i, vector in enumerate(formats.LINES.read(place, "gradient_add")):
        (result,) = vector.results
        changed = change(result.copy())
        if form == "npy":
            np.save(place / f"gradient_add/{i}/y.got.npy", changed)
        elif form == "hex":
            words = "".join(f"{value & (1 << 64) - 1:x} // word\n" for value in changed.ravel().tolist())
            (place / f"gradient_add/{i}/y.got.hex").write_text(f"// 0x00000000\n{words}")


@pytest.mark.parametrize("form", FORMATS)
def test_every_format_is_checked(exported, form):
    checked = folder.check(exported / form)
    assert checked.vectors > 60 and not checked.answers
    assert checked.vectors == sum(map(len, folder.read_manifest(exported / form / folder.MANIFEST)["vectors"].values()))


def test_vectors_of_every_op_are_those_of_their_preset_and_seed(tmp_path):
    folder.export(tmp_path, spec.OPS, "smoke", 2, "jsonl")
    assert folder.check(tmp_path).vectors > 20 * len(spec.OPS)


@pytest.mark.parametrize("form", ["npy", "hex"])
def test_answers_in_files_are_compared(exported, tmp_path, form):
    place = Path(shutil.copytree(exported / form, tmp_path / form))
    answer(place, form)
    checked = folder.check(place)
    assert checked.right == checked.answers > 20 and not checked.failures
    answer(place, form, lambda array: np.where(array == array.max(initial=0), array - 1, array))
    checked = folder.check(place)
    assert checked.failures and checked.failures[0].kind == "value"
    assert checked.failures[0].got == checked.failures[0].want - 1


def answer_lines(place: Path) -> None:
    """Write the right results of all vectors as a program does that is fed their requests."""
    for op in OPS:
        expected = (place / f"{op}.expected.jsonl").read_text().replace(".want.", ".got.")
        for path in (place / f"{op}.files").glob("*.want.*"):
            shutil.copy(path, str(path).replace(".want.", ".got."))
        (place / f"{op}.answers.jsonl").write_text('{"name":"mine"}\n' + expected)


@pytest.mark.parametrize(
    ("change", "missing", "repeated", "says"),
    [
        (lambda lines: lines[:-1], [-1], [], ["no answer to seq {last}"]),
        (lambda lines: [*lines, lines[3]], [], [2], ["several answers to seq 2"]),
        (lambda lines: [*lines[:-1], lines[3]], [-1], [2], ["no answer to seq {last}", "several answers to seq 2"]),
        (lambda lines: lines[:1], None, [], ["no answer to seq 0, 1, 2, 3, 4, 5, 6, 7 and {more} more"]),
    ],
)
def test_a_vector_without_one_answer_is_named(change, missing, repeated, says, copied, monkeypatch, capsys):
    answer_lines(copied)
    path = copied / "gradient_add.answers.jsonl"
    lines = path.read_text().splitlines()
    path.write_text("\n".join(change(lines)))
    last = len(lines) - 2
    code, out, _ = command(monkeypatch, capsys, "check", str(copied))
    assert code == 1 and "FAILED: " in out
    for line in says:
        assert f"gradient_add: {line.format(last=last, more=last - 7)}\n" in out
    code, out, _ = command(monkeypatch, capsys, "check", str(copied), "--json")
    told = json.loads(out)
    gone = list(range(last + 1)) if missing is None else [last for _ in missing]
    assert code == 1 and told["missing"] == ({"gradient_add": gone} if gone else {})
    assert told["repeated"] == ({"gradient_add": repeated} if repeated else {})
    assert command(monkeypatch, capsys, "check", str(copied), "--no-answers")[0] == 0


def test_answers_in_lines_are_compared(copied, monkeypatch, capsys):
    code, out, _ = command(monkeypatch, capsys, "check", str(copied))
    assert code == 1 and "--no-answers checks the vectors alone" in out, "no answers are no pass"
    assert command(monkeypatch, capsys, "check", str(copied), "--no-answers")[0] == 0
    answer_lines(copied)
    code, out, _ = command(monkeypatch, capsys, "check", str(copied))
    assert code == 0 and out.startswith("equal: ")
    lines = (copied / "philox4x32.answers.jsonl").read_text().splitlines()
    lines[3] = '{"seq":2,"skipped":"four words are too many"}'
    (copied / "philox4x32.answers.jsonl").write_text("\n".join(lines))
    code, out, _ = command(monkeypatch, capsys, "check", str(copied))
    assert code == 1 and "philox4x32 skipped: four words are too many" in out
    (copied / "philox4x32.answers.jsonl").write_text('{"seq":0,"outputs":[{"dtype":"int32","shape":[2],"data":"1 2"}]}')
    code, out, _ = command(monkeypatch, capsys, "check", str(copied), "--json")
    assert code == 1 and json.loads(out)["failures"][0]["kind"] == "shape"


@pytest.mark.parametrize(
    ("name", "old", "new", "says"),
    [
        ("gradient_add.requests.jsonl", '"data":"', '"data":"1', "gradient_add"),
        ("gradient_add.expected.jsonl", '"data":"', '"data":"1', "gradient_add.expected.jsonl"),
        ("gradient_add.expected.jsonl", '{"outputs"', '{"outputs":[],"x"', "gradient_add.expected.jsonl"),
        (
            "gradient_add.requests.jsonl",
            '"cmd":"start"',
            '"cmd":"stop"',
            "requests.jsonl: line 1: found {'cmd': 'stop'",
        ),
        ("gradient_add.requests.jsonl", '"protocol":1', '"protocol":2', "requests.jsonl: line 1: found"),
        ("gradient_add.requests.jsonl", '"dtypes":"int64"', '"dtypes":"int32"', "line 2 asks for other results"),
        ("gradient_add.requests.jsonl", '"cmd":"run"', '"cmd":"stop"', "line 2 asks for other results"),
        ("gradient_add.requests.jsonl", '"cmd":"run"', '"also":0,"cmd":"run"', "line 2 asks for other results"),
        ("vectors.json", '"gradient_add"', '"gradient_sub"', "unknown op 'gradient_sub'"),
        ("vectors.json", '"format": "jsonl"', '"format": "exe"', "format: found 'exe', allowed jsonl, npy"),
        ("vectors.json", '"format": "jsonl"', '"format": []', "format: found [], allowed jsonl, npy"),
        ("vectors.json", f'"{spec.SPEC_VERSION}"', '"0.1"', f"spec_version: found '0.1', allowed '{spec.SPEC_VERSION}"),
        ("vectors.json", "{", "[", "not JSON"),
        ("vectors.json", "{", '{"seed": 0,', "key 'seed' stands twice"),
        ("vectors.json", "{", '{"speed": 0,', "found an unknown field 'speed', allowed spec_version, protocol"),
        ("vectors.json", "{", "[" * 100_000 + "{", "not JSON: nested too deep"),
        ("vectors.json", '"protocol": 1', '"protocol": true', "protocol: found True, allowed 1"),
        ("vectors.json", '"preset": "minimal"', '"preset": {}', "preset: found {}, allowed smoke, minimal, full"),
        ("vectors.json", '"preset": "minimal"', '"preset": "full"', "preset and seed: found 'full' and 0"),
        ("vectors.json", '"seed": 0', '"seed": -1', "seed: found -1, allowed an integer from 0 on"),
        ("vectors.json", '"seed": 0', '"seed": 3', "preset and seed: found 'minimal' and 3"),
        ("vectors.json", '"root": "', '"root": "0', "root: found '0"),
        ("vectors.json", '"gradient_add": [', '"gradient_add": [7,', "vectors: found {"),
        ("vectors.json", '"gradient_add": [', '"gradient_add": 7, "isqrt": [', "vectors: found {"),
    ],
)
def test_a_changed_folder_is_refused(copied, name, old, new, says, monkeypatch, capsys):
    text = (copied / name).read_text()
    assert old in text
    (copied / name).write_text(text.replace(old, new, 1))
    code, out, err = command(monkeypatch, capsys, "check", str(copied), "--no-answers")
    assert code == 2 and not out and says in err and err.count("\n") == 1


@pytest.mark.parametrize("form", FORMATS)
def test_each_file_of_a_vector_is_checked(exported, tmp_path, form):
    place = Path(shutil.copytree(exported / form, tmp_path / form))
    files = [path for pattern in ("*/0/*", "*.files/0.*", "*.h", "*.jsonl") for path in place.glob(pattern)]
    assert len(files) >= 2 * len(OPS)
    for path in files:
        content = path.read_bytes()
        path.write_bytes(content[:-2] + bytes([content[-2] ^ 1]) + content[-1:] if content else b"0\n")
        with pytest.raises(VectorError, match=path.name.split(".")[0]):
            folder.check(place)
        path.write_bytes(content)
    assert folder.check(place).vectors > 60


def test_vectors_of_other_plans_are_checked_alone(copied):
    manifest = json.loads((copied / "vectors.json").read_text())
    for name in ("preset", "seed"):
        del manifest[name]
    (copied / "vectors.json").write_text(json.dumps(manifest))
    assert folder.check(copied).vectors > 60


def test_a_file_outside_the_folder_is_never_read(copied):
    (copied / "philox4x32.answers.jsonl").write_text(
        '{"seq":0,"outputs":[{"dtype":"int32","shape":[3],"path":"../../etc/passwd"}]}'
    )
    with pytest.raises(VectorError, match="isn't the one asked for"):
        folder.check(copied)


def test_a_file_may_be_missing(copied):
    (copied / "gradient_add.expected.jsonl").unlink()
    with pytest.raises(VectorError, match="No such file"):
        folder.check(copied)


@pytest.mark.parametrize(
    ("form", "content"),
    [
        ("npy", b""),
        ("npy", b"\x93NUMPY\x01\x00" + b"\xff" * 200),
        ("npy", b"\x93NUMPY\x01\x00v\x00" + b"{'descr': '|O', 'fortran_order': False, 'shape': (9999999999,), }"),
        ("npy", b"\x80\x04\x95"),
        ("npy", b"0" * (1 << 21)),
        ("hex", b"xx\n"),
        ("hex", b"\xff"),
        ("hex", b"1ffffffffffffffff\n"),
        ("hex", b"-1\n"),
        ("hex", b"1 " * (1 << 21)),
    ],
)
def test_files_of_strangers_are_read_safely(exported, tmp_path, form, content):
    place = Path(shutil.copytree(exported / form, tmp_path / form))
    (place / f"gradient_add/5/y.got.{form}").write_bytes(content)
    with pytest.raises(VectorError, match=r"gradient_add/5/y\.got"):
        folder.check(place)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_bytes_of_a_file_are_an_error_or_an_answer(exported, tmp_path, data):
    """Cut, changed and random bytes of each kind of file."""
    form = data.draw(st.sampled_from(["npy", "hex"]))
    vector = formats.LINES.read(exported / form, "gradient_add")[0]
    right = (exported / form / f"gradient_add/0/y.want.{form}").read_bytes()
    content = bytearray(right[: data.draw(st.integers(0, len(right)))])
    for _ in range(data.draw(st.integers(0, 4))):
        if content:
            content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path / "file"
    path.write_bytes(content)
    try:
        read = formats.FORMATS[form].read_array(path, vector.results[0])
        assert read.shape == vector.results[0].shape
    except ValueError:
        pass


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_change_of_a_folder_is_an_error_or_right(exported, tmp_path_factory, data):
    place = Path(shutil.copytree(exported / "jsonl", tmp_path_factory.mktemp("changed") / "jsonl"))
    (place / "gradient_add.answers.jsonl").write_bytes((place / "gradient_add.expected.jsonl").read_bytes())
    path = place / data.draw(st.sampled_from(["requests", "expected", "answers"]).map("gradient_add.{}.jsonl".format))
    content = bytearray(path.read_bytes())
    start = data.draw(st.integers(0, len(content) - 1))
    content[start : start + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    path.write_bytes(content)
    try:
        folder.check(place)
    except VectorError as error:
        assert str(error).isprintable()


def test_a_vector_asks_for_no_more_than_there_is():
    fields = parse_line(as_vector(draw_case("embedding_backward", Random(3))).line)
    fields["inputs"] = [
        {"dtype": "int32", "shape": [1], "data": "0"},
        {"dtype": "int32", "shape": [1, 1024], "data": " ".join(["1"] * 1024)},
    ]
    with pytest.raises(VectorError, match="integers"):
        parse_vector(fields | {"parameters": {"V": "65536"}})


def test_an_interrupted_export_leaves_nothing_and_can_be_repeated(tmp_path, monkeypatch, capsys):
    def interrupted(op, *arguments):
        if op == "isqrt":
            raise KeyboardInterrupt
        return vectors_of(op, *arguments)

    export = ("export", str(tmp_path / "new"), "--op", "gradient_add", "--op", "isqrt", "--preset", "smoke")
    with monkeypatch.context() as patch:
        patch.setattr(folder, "vectors_of", interrupted)
        assert command(patch, capsys, *export)[0] == 130
    assert list(tmp_path.iterdir()) == []
    assert command(monkeypatch, capsys, *export)[0] == 0
    assert folder.check(tmp_path / "new").vectors


def test_export_does_not_write_over_anything(exported, tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_text("mine")
    for place in (tmp_path, tmp_path / "file", exported / "hex"):
        code, _, err = command(monkeypatch, capsys, "export", str(place), "--op", "isqrt")
        assert code == 2 and err.startswith("mamba-integer: FOLDER: ") and str(place) in err and err.count("\n") == 1
    for wrong in (["--format", "zip"], ["--preset", "huge"], ["--op", "sqrt"]):
        assert command(monkeypatch, capsys, "export", str(tmp_path / "new"), *wrong)[0] == 2
    assert not (tmp_path / "new").exists()


def test_the_header_is_c(exported, tmp_path):
    text = "".join(f'#include "{exported}/c-header/{op}.h"\n' for op in OPS)
    count = len(formats.LINES.read(exported / "c-header", "gradient_add"))
    (tmp_path / "main.c").write_text(f"""{text}#include <stdio.h>
int main(void) {{
    printf("%d %d %lld\\n", GRADIENT_ADD_VECTORS, (int)PHILOX4X32_0_KEY0, (long long)gradient_add_0_want_y[0]);
    return 0;
}}
""")
    options = ["-std=c99", "-Wall", "-Wextra", "-Werror", "-Wno-unused-variable", "-Wno-unused-const-variable"]
    subprocess.run(["cc", *options, "main.c", "-o", "main"], cwd=tmp_path, check=True)
    printed = subprocess.run([tmp_path / "main"], capture_output=True, text=True, check=True).stdout.split()
    first = formats.LINES.read(exported / "c-header", "gradient_add")[0].results[0]
    assert printed[0] == str(count) and printed[2] == str(first.ravel()[0])


def test_c_has_the_least_int64():
    assert formats.c_literal(-(2**63)) == "(INT64_C(-9223372036854775807) - 1)"


@pytest.mark.parametrize("op", spec.OPS)
def test_a_vector_is_a_case_that_its_json_rebuilds(op):
    vector = as_vector(draw_case(op, Random(3)))
    again = replay.parse(vector.to_json(), op)
    assert isinstance(again, Vector) and again.line == vector.line
    assert parse_vector(parse_line(vector.line)).sha256 == vector.sha256


def test_vectors_begin_with_what_is_listed():
    listed = len(list(extreme_cases("isqrt")))
    assert len(list(vectors_of("isqrt", "minimal", 0))) == listed + 25


def test_the_core_is_what_the_specification_says():
    manifest = core.verify()
    assert manifest["spec_version"] == spec.SPEC_VERSION
    assert set(manifest["vectors"]) == set(spec.OPS)
    assert manifest["count"] >= core.FLOOR
    assert sum(path.stat().st_size for path in core.CORE.iterdir()) <= core.MOST_BYTES


@pytest.fixture
def small_core(tmp_path, monkeypatch):
    monkeypatch.setattr(core, "FLOOR", 1)
    place = tmp_path / "core"
    core.freeze(place, ops=("isqrt", "saturate"))
    return place


def test_freezing_again_changes_nothing(small_core):
    before = {path.name: path.read_bytes() for path in small_core.iterdir()}
    core.freeze(small_core, ops=("isqrt", "saturate"))
    assert before == {path.name: path.read_bytes() for path in small_core.iterdir()}


def test_a_frozen_result_does_not_change_under_the_same_version(small_core, monkeypatch):
    monkeypatch.setattr(spec.OPS["isqrt"], "golden", lambda v: v)
    with pytest.raises(VectorError, match=r"isqrt\.jsonl: line 1"):
        core.verify(small_core)
    with pytest.raises(VectorError, match=r"isqrt\.jsonl: line 1"):
        core.freeze(small_core, ops=("isqrt",))
    manifest = json.loads((small_core / core.MANIFEST).read_bytes())
    (small_core / core.MANIFEST).write_text(json.dumps(manifest | {"spec_version": "0.0"}))
    core.freeze(small_core, ops=("isqrt",))
    assert core.verify(small_core)["spec_version"] == spec.SPEC_VERSION


def test_a_new_version_drops_what_it_no_longer_has(small_core):
    manifest = json.loads((small_core / core.MANIFEST).read_bytes())
    (small_core / "sqrt.jsonl").write_bytes((small_core / "isqrt.jsonl").read_bytes().replace(b"isqrt", b"sqrt"))
    outside = Vector("saturate", (np.array([5], np.int32),), {"bits": 8}).line.replace(b'"bits":"8"', b'"bits":"99"')
    (small_core / "saturate.jsonl").write_bytes((small_core / "saturate.jsonl").read_bytes() + outside)
    with pytest.raises(VectorError):
        core.freeze(small_core, ops=("isqrt", "saturate"))
    assert core.freeze(small_core, ops=("isqrt", "saturate"), anew=True) == manifest == core.verify(small_core)


@pytest.mark.parametrize("hole", ["line", "file", "all", "byte"])
def test_a_core_with_a_hole_is_no_core(small_core, hole, monkeypatch):
    path = small_core / "isqrt.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    if hole == "line":
        path.write_bytes(b"".join(lines[1:]))
    elif hole == "file":
        path.unlink()
    elif hole == "byte":
        path.write_bytes(lines[0].replace(b'"op"', b' "op"') + b"".join(lines[1:]))
    else:
        monkeypatch.setattr(core, "FLOOR", 1000)
    with pytest.raises(VectorError):
        core.verify(small_core)


@pytest.mark.parametrize(
    ("manifest", "says"),
    [("[]", "found a list, allowed an object"), ("{", "no JSON"), ('{"root":1,"root":1}', "key 'root' stands twice")],
)
def test_a_core_needs_its_manifest(small_core, manifest, says):
    (small_core / core.MANIFEST).write_text(manifest)
    for work in (core.verify, core.freeze):
        with pytest.raises(VectorError, match=says):
            work(small_core)


def test_a_failure_becomes_a_permanent_vector(small_core):
    vector = Vector("isqrt", (np.array([123456], np.int32),), {})
    assert core.promote(vector, small_core) and not core.promote(vector, small_core)
    core.freeze(small_core, ops=("isqrt",))
    assert vector.sha256 in core.verify(small_core)["vectors"]["isqrt"]


@pytest.mark.parametrize("case", ["{}", "[]", "3", '{"case":{}}'])
def test_a_case_without_an_op_says_what_is_allowed(case, monkeypatch, capsys):
    for verb in ("reproduce", "promote"):
        code, _, err = command(monkeypatch, capsys, verb, "--case", case)
        assert code == 2 and "found no field op, allowed the JSON of one case" in err


def test_the_commands_of_the_core_answer_in_json(monkeypatch, capsys):
    code, out, _ = command(monkeypatch, capsys, "freeze", "--verify", "--json")
    fields = json.loads(out)
    assert code == 0 and fields["ops"] == len(spec.OPS) and fields["vectors"] >= core.FLOOR
    monkeypatch.setattr(core, "promote", lambda vector: True)
    vector = Vector("isqrt", (np.array([123456], np.int32),), {})
    code, out, _ = command(monkeypatch, capsys, "promote", "--case", vector.to_json(), "--json")
    assert code == 0 and json.loads(out) == {
        "op": "isqrt",
        "sha256": vector.sha256,
        "new": True,
        "core": str(core.CORE),
    }
