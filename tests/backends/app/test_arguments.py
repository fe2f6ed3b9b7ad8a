"""Arguments and options that a command can't use are refused, with the option or the command that was meant."""

import json
import shlex

import pytest

from mamba_integer.backends.files.folder import fresh_model, save_model
from mamba_integer.spec.model import CONFIGS

GENERATE = "generate --model tiny --prompt a --max-tokens 1"
COMMIT = "commit out --model tiny"
COMPARE = "compare --op isqrt --backends golden,numba"


@pytest.fixture
def refusal(cli, tmp_path, monkeypatch):
    """A function that runs a command line in an empty folder and returns the one line that refuses it."""
    monkeypatch.chdir(tmp_path)

    def run(line: str) -> str:
        before = sorted(tmp_path.rglob("*"))
        done = cli(*shlex.split(line))
        assert done.code == 2 and not done.out and done.err.count("\n") == 1, done
        assert sorted(tmp_path.rglob("*")) == before
        return done.err.removeprefix("mamba-integer: ").rstrip()

    return run


@pytest.mark.parametrize(
    ("line", "meant"),
    [
        ("ops squareplus", "--op squareplus"),
        ("ops squareplus f=8", "--op squareplus --at f=8"),
        ("ops squareplu", "--op squareplu"),
        ("generate ROMEO:", "--prompt ROMEO:"),
        ("generate To be or", "--prompt 'To be or'"),
        ("generate --prompt To be", "--prompt 'To be'"),
        ("generate --prompt a tiny", "--model tiny"),
        ("generate text.txt", "--file text.txt"),
        ("generate argmax", "--prompt argmax"),
        (f"generate {'long' * 99}", f"--prompt {'long' * 99}"),
        ("generate model", "--model model"),
        ("commit out It was", "--prompt 'It was'"),
        ("commit out --prompt It was", "--prompt 'It was'"),
        ("commit out text.txt", "--score text.txt"),
        ("conform numba isqrt", "--backend numba --op isqrt"),
        ("conform mine.ops:best", "--backend mine.ops:best"),
        ("conform 'command:./mine -v'", "--backend 'command:./mine -v'"),
        ("conform cuda:1", "--device cuda:1"),
        ("circuit ssd_scan_step S=1", "--size S=1"),
        ("bench isqrt", "--op isqrt"),
        ("inspect base", "--model base"),
        ("audit transcript tiny", "--model tiny"),
        ("vectors export build isqrt", "--op isqrt"),
    ],
)
def test_an_argument_without_its_option_is_given_one(line, meant, refusal, tmp_path):
    (tmp_path / "text.txt").write_text("It was")
    save_model(tmp_path / "model", fresh_model(CONFIGS["tiny"], 0))
    assert refusal(line).endswith(f"; did you mean {meant}?")


def test_an_argument_for_no_option_is_refused_with_the_arguments_allowed(refusal):
    said = "diff-trace: found c, allowed no argument after A B; see mamba-integer diff-trace --help"
    assert refusal("diff-trace a b c") == said
    said = "compare: found golden, allowed no argument; see mamba-integer compare --help"
    assert refusal(f"{COMPARE} golden") == said
    said = "freeze: found now, allowed no argument; see mamba-integer vectors freeze --help"
    assert refusal("vectors freeze now") == said


@pytest.mark.parametrize(
    ("line", "meant"),
    [
        ("genrate", "; did you mean mamba-integer generate?"),
        ("squareplus", "; did you mean mamba-integer ops --op squareplus?"),
        ("vectors exprt", "; did you mean mamba-integer vectors export?"),
        ("tokenizer text.txt", "found the command 'text.txt', allowed train"),
    ],
)
def test_an_unknown_command_is_refused_with_the_one_meant(line, meant, refusal):
    assert refusal(line).endswith(meant)


@pytest.mark.parametrize(
    ("line", "meant"),
    [("ops --opp isqrt", "--op"), ("generate --max_tokens 3", "--max-tokens"), ("--verson", "--version")],
)
def test_an_unknown_option_is_refused_with_the_one_meant(line, meant, refusal):
    assert f"(Possible options: {meant}" in refusal(line)


@pytest.mark.parametrize(
    ("line", "name"),
    [
        (f"{COMPARE} --case ''", "--case"),
        ("compare --op isqrt --backends=", "--backends"),
        ("conform --backend ''", "--backend"),
        ("conform --backend numba --backend ''", "--backend"),
        ("conform --command ''", "--command"),
        ("conform --op ''", "--op"),
        ("conform --text ''", "--text"),
        ("conform --report ''", "--report"),
        ("conform --known-failures ''", "--known-failures"),
        (f"{GENERATE} --backend ''", "--backend"),
        (f"{GENERATE} --device ''", "--device"),
        (f"{GENERATE} --save-state ''", "--save-state"),
        (f"{GENERATE} --tokenizer ''", "--tokenizer"),
        (f"{COMMIT} --score ''", "--score"),
        ("audit transcript --root ''", "--root"),
        ("ops --pages ''", "--pages"),
        ("init ''", "FOLDER"),
        ("score ''", "FILE"),
        ("diff-trace a ''", "B"),
        ("train --text '' --out run --steps 1", "--text"),
        ("tokenizer train a '' --vocabulary 300 --out t", "FILES"),
        ("vectors check ''", "FOLDER"),
        ("vectors reproduce --case ''", "--case"),
    ],
)
def test_an_empty_value_is_refused_and_asks_for_nothing_else(line, name, refusal):
    """A script's variable that is not set must not be another request that passes."""
    said = refusal(line)
    assert said.startswith(f"{name}: found an empty text, allowed one character or more; give a value"), said


def test_a_value_may_be_empty_where_it_is_so_by_default(cli):
    assert cli(*shlex.split(COMPARE), "--cases", "1", "--variant", "").code == 0


@pytest.mark.parametrize("seconds", ["inf", "nan", "1e300", "1e9", "1000001", "0.09", "-1"])
@pytest.mark.parametrize("command", [f"{COMPARE} --cases 1", "conform --op isqrt --preset smoke"])
def test_a_time_limit_that_no_timer_takes_is_refused(command, seconds, refusal):
    said = f"--timeout: found {float(seconds):g}, allowed 0.1 to 1,000,000 seconds"
    assert refusal(f"{command} --timeout {seconds}") == said


def test_the_longest_time_limit_is_taken(cli):
    assert cli(*shlex.split(COMPARE), "--cases", "1", "--timeout", "1e6").code == 0


def test_an_empty_name_between_commas_is_refused(refusal):
    for names in ("golden,numba,", "golden,,numba", ","):
        said = f"--backends: found '{names}', in which a name is empty; allowed a name on each side of a comma"
        assert refusal(f"compare --op isqrt --backends {names}") == said


@pytest.mark.parametrize(
    ("line", "idle", "beside"),
    [
        *((f"{GENERATE} --greedy --{option} 1", option, "--greedy") for option in ("temperature", "top-k", "top-p")),
        (f"{GENERATE} --greedy --seed 0", "seed", "--greedy"),
        (f"{GENERATE} --greedy --stream 0", "stream", "--greedy"),
        (f"{GENERATE} --lines", "lines", "--prompt"),
        ("generate --model tiny --load-state state --lines", "lines", "--load-state"),
        ("ops --pages pages --op isqrt", "op", "--pages"),
        ("ops --pages pages --at f=8", "at", "--pages"),
        ("ops --pages pages --json", "json", "--pages"),
        (f"{COMMIT} --prompt a --steps 8", "steps", "--prompt"),
        (f"{COMMIT} --prompt a --greedy --seed 1", "seed", "--greedy"),
        (f"{COMMIT} --score text.txt --max-tokens 64", "max-tokens", "--score"),
        (f"{COMMIT} --score text.txt --seed 0", "seed", "--score"),
        (f"{COMMIT} --score text.txt --batch 1", "batch", "--score"),
        (f"{COMMIT} --train text.txt --init-seed 0", "init-seed", "--train"),
        (f"{COMMIT} --train text.txt --greedy", "greedy", "--train"),
        (f"{COMPARE} --case '[]' --cases 100", "cases", "--case"),
        (f"{COMPARE} --case '[]' --seed 0", "seed", "--case"),
        ("vectors freeze --verify --anew", "anew", "--verify"),
        ("vectors reproduce --case {} --language c --backend golden", "backend", "--language c"),
    ],
)
def test_an_option_without_effect_beside_another_is_refused(line, idle, beside, refusal):
    """Even where it has the value that it has by default."""
    said = f"--{idle}: found beside {beside}, which leaves it without effect; leave one out"
    assert refusal(line) == said


def test_options_that_do_not_contradict_each_other_are_taken(cli, tmp_path):
    (tmp_path / "lines").write_text("a\nb\n")
    lines = ("generate", "--model", "tiny", "--max-tokens", "1", "--file", tmp_path / "lines", "--lines")
    assert cli(*lines, "--prompt", "c", "--seed", "1", "--temperature", "0.5", "--top-p", "0.9").code == 0
    assert cli(*lines, "--greedy").code == 0
    assert cli("conform", "--backend", "numba", "--op", "isqrt", "--implemented", "--preset", "smoke").code == 0


def test_a_stored_model_has_no_initial_seed(refusal, tmp_path):
    said = "--init-seed: found 1, allowed for a fresh model alone; a stored model has its own weights"
    for command in ("generate --prompt a", "score text.txt", "inspect", "commit out --prompt a"):
        (tmp_path / "text.txt").write_text("It was")
        assert refusal(f"{command} --init-seed 1") == said


def test_options_are_refused_by_a_transcript_of_another_kind_of_run(cli, refusal, tmp_path):
    (tmp_path / "text.txt").write_text("It was the best of times, it was the worst of times. " * 8)
    train = ("--train", "text.txt", "--steps", "1", "--batch", "1", "--length", "4", "--backend", "golden")
    assert cli("commit", "trained", "--model", "tiny", *train).code == 0
    assert cli("commit", "written", "--model", "tiny", "--prompt", "a", "--max-tokens", "1").code == 0
    said = "found beside a transcript of commit --train, which leaves it without effect; leave one out"
    for command in ("audit trained", "open trained --leaf 0.0.0", "dispute trained written"):
        assert refusal(f"{command} --train text.txt --model tiny") == f"--model: {said}"
        assert refusal(f"{command} --train text.txt --init-seed 0") == f"--init-seed: {said}"
    said = "--train: found beside a transcript of commit without --train, which leaves it without effect; leave one out"
    for command in ("audit written", "open written --leaf 0.0.0", "dispute written trained"):
        assert refusal(f"{command} --train text.txt --model tiny") == said
    other = refusal("audit written")
    assert other.startswith("--model shakespeare: found SHA-256 ") and other.endswith("; name the model of the run")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("generate --model tiny --prompt a --temperature x", "--temperature: found 'x', allowed a decimal like 0.8"),
        ("generate --model tiny --prompt a --top-p 3", "--top-p: found '3', allowed above 0 and at most 1"),
        (f"{COMMIT} --prompt a --top-p 0", "--top-p: found '0', allowed above 0 and at most 1"),
        ("generate --model tiny --prompt a --max-tokens 1073741825", "--max-tokens: found 1073741825, allowed "),
        (f"{COMMIT} --train text.txt --batch 65537", "--batch: found 65537, allowed an integer from 1 to 65536"),
        ("train --text text.txt --out run --steps 5 --warmup 5", "--warmup: found 5, allowed an integer from 0 to 4"),
        ("train --text text.txt --out run --steps 5 --gradient-bits 9", "--gradient-bits: found 9, allowed 8 or 16"),
        ("finetune shakespeare --text text.txt --out run --steps 5 --length 65537", "--length: found 65537, allowed "),
        ("train --text text.txt --out run --steps 5 --config c.json", "--config c.json: config field d_model: found 0"),
        ("generate --model tiny --prompt a --max-tokens -1", "--max-tokens: found '-1', allowed greater than or equal"),
        ("generate --model tiny --prompt a --seed x", "--seed: found 'x', allowed a valid integer"),
        ("generate --prompt", "Option '--prompt' requires an argument; see mamba-integer generate --help"),
        (
            "generate --model tiny --prompt ''",
            "--prompt: found no text, allowed a prompt: give one with --prompt, --file or on stdin",
        ),
        ("generate --model tiny --file empty.txt", "--file empty.txt: found no text, allowed a prompt: give one "),
        ("generate --model tiny", "stdin: found no text, allowed a prompt: give one with --prompt"),
        ("generate --model tiny --prompt a --tokenizer none", "none: can't be read: No such file or directory"),
        ("inspect --plot none/plot.png", "--plot: found no folder none, allowed a file in a folder that exists"),
        ("inspect --plot plot.none", "--plot: found plot.none, allowed a file whose name ends in .png"),
        ("init text.txt", "FOLDER: found text.txt, which is no folder"),
        ("ops --pages text.txt", "--pages: found text.txt, which is no folder"),
        ("commit text.txt --prompt a", "OUT: found text.txt, which is no folder"),
        (f"{COMMIT} --prompt ''", "--prompt: found no text, allowed a prompt of one character or more"),
        (f"{COMMIT} --score empty.txt", "--score: ids: found 0, allowed 2 to "),
        (f"{COMMIT} --train text.txt --steps 9999999", "--train: steps: found 9999999, allowed 1 to "),
        (f"{COMMIT} --train text.txt", "corpus: training: found 6, allowed 65 tokens or more "),
        (f"{COMMIT} --prompt a --every 1048577", "--every: found '1048577', allowed less than or equal to 1048576"),
        ("train --text text.txt --out text.txt --steps 1", "--out: found text.txt, which is no folder"),
        (
            "train --text text.txt --out run --steps 1 --config null.json",
            "--config null.json: found null, allowed a JSON",
        ),
        ("train --text text.txt --out run --steps 1 --config c2.json", "--config c2.json: can't be read: No such file"),
        ("tokenizer train text.txt --vocabulary 300 --out .", "--out: found ., which is no regular file"),
        (
            "tokenizer train text.txt --vocabulary 10 --out t",
            "--vocabulary: found '10', allowed greater than or equal ",
        ),
        ("circuit ssd_scan_step --size S=0", "--size: S: found 0, allowed an integer from 1 to 65536"),
        ("circuit isqrt --wtns .", "--wtns: found ., which is no regular file"),
        ("circuit squareplus --size f=1 --size f=2", "--size: found f=2 after f=1, allowed each name once"),
        ("circuit squareplus --size leading=1 --size leading=1", "--size: found leading=1 after leading=1, allowed "),
        ("ops --op squareplus --at f=1 --at f=2", "--at: found f=2 after f=1, allowed each name once; leave one out"),
        ("bench --op squareplus --out .", "--out: found ., which is no regular file"),
        ("bench --op squareplus --plots text.txt", "--plots: found text.txt, which is no folder"),
        (f"{COMPARE} --variant x", "--variant: found 'x', allowed of isqrt on numba: parallel"),
        (f"{COMPARE} --case null", "--case: found 'null', allowed a JSON object or list, or a file of one that can be"),
        (
            f"{COMPARE} --case none",
            "--case: found 'none', allowed a JSON object or list, or a file of one that can be read",
        ),
        ("vectors promote --case x", "--case: bad case: no JSON: "),
        ("vectors export build --preset x", "--preset: found 'x', allowed smoke, "),
        ("vectors export build --format x", "--format: found 'x', allowed jsonl, "),
        ("vectors reproduce --case {} --language x", "--language: found 'x', allowed python or c"),
    ],
)
def test_a_wrong_value_is_named_by_its_flag_before_the_work_begins(line, said, refusal, tmp_path):
    (tmp_path / "text.txt").write_text("It was")
    (tmp_path / "empty.txt").touch()
    (tmp_path / "null.json").write_text("null")
    (tmp_path / "c.json").write_text(json.dumps(CONFIGS["tiny"].to_dict() | {"d_model": 0}))
    assert refusal(line).startswith(said)
