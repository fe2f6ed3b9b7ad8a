"""The generated blocks of the pages are those of the committed results; commands, links and examples work."""

import json
import re
import shlex
from pathlib import Path

import pytest

from mamba_integer.spec import OPS, SPEC_VERSION

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
PAGES = ["README.md", "benchmarks/README.md"]
LONGEST_README = 150


def test_the_readme_fits_the_first_five_minutes():
    assert len(README.splitlines()) <= LONGEST_README


@pytest.mark.parametrize("page", PAGES)
def test_generated_blocks_are_current(page, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    from benchmarks.tables import filled

    assert filled(page) == (ROOT / page).read_text(), "run python -m benchmarks.tables"


def test_a_missing_block_is_an_error(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    from benchmarks.tables import fill

    with pytest.raises(SystemExit, match="no block nothing"):
        fill(README, "nothing", "")


@pytest.mark.parametrize("parts", [("triton",), ("torch", "torch-others")])
def test_every_op_was_equal_on_a_gpu(parts):
    reports = [json.loads((ROOT / f"benchmarks/results/conformance-{part}-gpu.json").read_text()) for part in parts]
    for report in reports:
        assert report["spec_version"] == SPEC_VERSION and report["preset"] == "full" and report["exhaustive"]
        assert "NVIDIA" in report["environment"]["devices"][parts[0]]
    results = [result for report in reports for result in report["results"]]
    assert {(result["backend"], result["status"]) for result in results} == {(parts[0], "passed")}
    assert sorted(result["op"] for result in results) == sorted(OPS)


@pytest.mark.parametrize("part", ["triton", "torch-chains"])
def test_every_chain_of_ops_was_equal_on_a_gpu(part):
    report = json.loads((ROOT / f"benchmarks/results/conformance-{part}-gpu.json").read_text())
    assert report["passed"] and report["complete"] and report["spec_version"] == SPEC_VERSION
    assert report["preset"] == "full" and report["text"] and len(report["model"]) >= 6
    assert {text["status"] for text in report["text"] + report["model"]} == {"passed"}
    assert report["whole_specification"] == (part == "triton")


def test_one_hash_on_every_machine():
    files = (ROOT / f"benchmarks/results/one-hash-{where}.json" for where in ("gpu", "cpu"))
    reports = [json.loads(file.read_text()) for file in files]
    assert reports[0]["options"] == reports[1]["options"]
    # A version of the specification has one hash; the machines may have been measured at different versions.
    hashes = {(report["spec_version"], row["checkpoint_sha256"]) for report in reports for row in report["rows"]}
    assert len(hashes) == len({report["spec_version"] for report in reports})
    assert {row["ranks"] for report in reports for row in report["rows"]} == {1, 2, 3}


def test_python_example_says_what_happens():
    from mamba_integer import spec

    code = re.search(r"```python\n(.*?)```", README, re.DOTALL)[1]
    raising = next(line for line in code.splitlines() if "DomainError" in line)
    names: dict = {}
    exec(code, names)
    with pytest.raises(spec.DomainError) as error:
        exec(re.search(r"# (.*): DomainError", raising)[1], names)
    assert str(error.value) in raising


def test_a_fresh_model_writes_what_is_shown(cli):
    command, shown = re.search(r"\$ (mamba-integer generate --model base .*) --backend golden\n(.*)\n", README).groups()
    done = cli(*shlex.split(command)[1:], "--backend", "numba")
    assert done.out.strip("\n") == shown


def test_commands_of_the_readme_exist():
    from mamba_integer.backends.app.command_line import app

    known = {command.name for command in app.registered_commands} | {group.name for group in app.registered_groups}
    commands = "\n".join(
        re.findall(r"```sh\n(.*?)```", README, re.DOTALL) + re.findall(r"`(mamba-integer [^`]+)`", README)
    )
    used = set(re.findall(r"mamba-integer ([a-z-]+)", commands))
    assert used and used <= known, used - known


@pytest.mark.parametrize("page", PAGES)
def test_linked_files_exist(page):
    linked = re.findall(r"\]\(([^)#:]+)\)", (ROOT / page).read_text())
    assert linked and [name for name in linked if not (ROOT / page).parent.joinpath(name).exists()] == []


@pytest.mark.parametrize(
    "where, sentence", [("gpu", r"difference is (\S+) to three decimals"), ("cpu", r"is within (\S+) of its twin")]
)
def test_what_the_prose_says_of_the_study_was_measured(where, sentence):
    study = json.loads((ROOT / f"benchmarks/results/learning-{where}.json").read_text())
    ends = {line["kind"]: line["mean"] for line in study["summary"]}
    assert (
        re.search(sentence, (ROOT / "benchmarks/README.md").read_text())[1]
        == f"{abs(ends['integer'] - ends['float ternary']):.3f}"
    )


def test_integer_runs_of_the_small_study_are_equal_on_a_gpu():
    studies = (ROOT / f"benchmarks/results/learning-{name}.json" for name in ("cpu", "small-gpu"))
    on_cpu, on_gpu = (
        {
            (run["kind"], run["rate"], run["seed"]): run["curve"]
            for run in json.loads(study.read_text())["runs"]
            if run["kind"].startswith("integer")
        }
        for study in studies
    )
    both = on_cpu.keys() & on_gpu.keys()
    assert (len(both), len(on_cpu)) == (9, 12)  # as benchmarks/README.md says
    assert {key: on_cpu[key] for key in both} == {key: on_gpu[key] for key in both}


def test_curves_of_the_study_are_drawn(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(ROOT))
    from benchmarks.learning_curves import draw

    draw(json.loads((ROOT / "benchmarks/results/learning-cpu.json").read_text()), tmp_path / "curves.png")
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
