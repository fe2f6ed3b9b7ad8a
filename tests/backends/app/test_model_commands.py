"""The commands for models: what they print, what they write, and one line for each thing that can be wrong."""

import json
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest

from mamba_integer.backends.app import inspection
from mamba_integer.backends.app.opening import open_model
from mamba_integer.backends.files.folder import TRAINED, fresh_model, save_model
from mamba_integer.backends.files.model import load_checkpoint
from mamba_integer.conformance.chains.training import MINUTE
from mamba_integer.spec import SPEC_VERSION
from mamba_integer.spec.model import CONFIGS

ROOT = Path(__file__).parents[3]
PROMPTED = ("generate", "--model", "tiny", "--prompt", "It was", "--seed", "7", "--max-tokens")


@pytest.fixture
def result(cli):
    """A function that runs a command with --json and returns what it prints."""

    def call(*arguments, code: int = 0, stdin: bytes = b""):
        done = cli(*arguments, "--json", stdin=stdin)
        assert done.code == code, done.err
        return json.loads(done.out)

    return call


def test_generate_prints_the_text_and_the_speed(cli, result):
    code, out, err = cli(*PROMPTED, 9)
    fields = result(*PROMPTED, 9)
    assert code == 0 and out == fields["text"] + "\n"
    assert err.startswith("9 tokens, ") and "tokens/s" in err
    assert len(fields["tokens"]) == 9 and fields["tokens_per_second"] > 0
    assert (fields["model"], fields["backend"], fields["device"]) == ("tiny", "numba", "cpu")
    assert fields["model_sha256"] == fresh_model(CONFIGS["tiny"], 0).checkpoint.sha256


@pytest.mark.parametrize(("backend", "count"), [("golden", 9), ("torch", 9), ("triton", 2)])
def test_generate_is_the_same_on_every_backend(backend, count, result, tmp_path):
    path = tmp_path / "minute"
    save_model(path, fresh_model(MINUTE, 0))
    drawn = ("--seed", 7, "--temperature", "0.8", "--top-k", "50", "--top-p", "0.9", "--max-tokens", count)
    sampled = result("generate", "--model", path, "--prompt", "It", *drawn)
    other = result("generate", "--model", path, "--prompt", "It", *drawn, "--backend", backend)
    assert other["backend"] == backend
    assert other["text"] == sampled["text"] and other["tokens"] == sampled["tokens"]


@pytest.mark.parametrize(
    "command", [("generate", "--prompt", "a"), ("score", __file__), ("inspect",), ("commit", "out", "--prompt", "a")]
)
def test_a_backend_of_some_ops_is_told_which_one_a_model_needs(command, cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, err = cli(*command, "--model", "tiny", "--backend", "mamba_integer.spec.ops.activation")
    assert code == 2 and not out
    assert "the backend has no op embedding, which a model needs" in err and err.count("\n") == 1


def test_a_batch_has_a_text_for_each_prompt(cli, result, tmp_path):
    path = tmp_path / "prompt"
    path.write_text("the worst\nof times")
    several = ("generate", "--model", "tiny", "--prompt", "It was", "--prompt", "é", "--file", path, "--max-tokens", 5)
    batch = result(*several)
    assert len(batch["tokens"]) == len(batch["text"]) == 3
    alone = result("generate", "--model", "tiny", "--file", path, "--max-tokens", 5, "--stream", 2)
    assert alone["tokens"] == batch["tokens"][2] and alone["text"] == batch["text"][2]
    code, out, _ = cli(*several)
    assert code == 0 and out == "".join(f"--- {i}\n{text}\n" for i, text in enumerate(batch["text"]))
    lines = result("generate", "--model", "tiny", "--file", path, "--lines", "--max-tokens", 1)
    assert len(lines["tokens"]) == 2


def test_stdin_is_a_prompt(result):
    whole = result("generate", "--model", "tiny", "--greedy", "--max-tokens", 4, "--prompt", "It was")
    assert (
        result("generate", "--model", "tiny", "--greedy", "--max-tokens", 4, stdin=b"It was")["tokens"]
        == whole["tokens"]
    )


@pytest.mark.parametrize(("first", "second"), [("numba", "torch"), ("torch", "golden")])
def test_a_saved_state_goes_on_elsewhere(first, second, result, tmp_path):
    whole = result(*PROMPTED, 9)["tokens"]
    state = tmp_path / "state"
    start = result(*PROMPTED, 4, "--backend", first, "--save-state", state)["tokens"]
    rest = result(
        "generate", "--model", "tiny", "--seed", "7", "--max-tokens", 5, "--backend", second, "--load-state", state
    )["tokens"]
    assert start + rest == whole


def test_a_state_of_another_model_is_refused(cli, result, tmp_path):
    result(*PROMPTED, 1, "--save-state", tmp_path / "state")
    code, out, err = cli("generate", "--model", "tiny", "--load-state", tmp_path / "state", "--init-seed", 1)
    assert code == 2 and not out and "a state of model" in err


def test_traces_part_where_the_seeds_do(cli, result, tmp_path):
    for name, seed, backend in (("a", 7, "numba"), ("b", 7, "torch"), ("c", 8, "numba")):
        result(*PROMPTED[:5], "--seed", seed, "--max-tokens", 3, "--backend", backend, "--trace", tmp_path / name)
    assert result("diff-trace", tmp_path / "a", tmp_path / "b") == {"equal": True, "first": None}
    difference = result("diff-trace", tmp_path / "a", tmp_path / "c", code=1)
    assert difference["first"]["place"] == "call 2, token 6, embedding" and difference["first"]["tensor"] == "residual"
    code, out, _ = cli("diff-trace", tmp_path / "a", tmp_path / "c")
    assert code == 1 and out.startswith("the traces differ from line ") and difference["first"]["a"] in out
    assert cli("diff-trace", tmp_path / "a", tmp_path / "a")[:2] == (0, "equal\n")


def test_a_vocabulary_larger_than_bytes_is_spelled_by_number(result):
    fields = result("generate", "--model", "small", "--prompt", "a", "--max-tokens", 6)
    assert max(fields["tokens"]) >= 256
    assert all(f"⟨{token}⟩" in fields["text"] for token in fields["tokens"] if token >= 256)


def test_score_is_the_same_on_every_backend(cli, result, tmp_path):
    path = tmp_path / "text"
    path.write_text("It was the best of times, it was the worst of times. é")
    scored = ("score", path, "--model", "tiny")
    scores = result(*scored)
    assert scores["tokens"] == scores["bytes"] == len(path.read_bytes()) - 1
    assert abs(float(scores["bits_per_byte"]) - scores["loss_q16"] / 65536 / scores["bytes"]) < 0.0001
    for other in (result(*scored, "--backend", "torch"), result(*scored, "--chunk", 7)):
        assert other["loss_q16"] == scores["loss_q16"]
    code, out, _ = cli(*scored)
    assert code == 0 and out.startswith(f"{scores['bits_per_byte']} bits per byte")


def test_inspect_shows_ranges_within_bounds(cli, result, tmp_path):
    fields = result("inspect", "--model", "tiny", "--plot", tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")
    parameters = fresh_model(CONFIGS["tiny"], 0).checkpoint.parameters
    assert fields["bytes"] == sum(array.nbytes for array in parameters.values())
    assert 0.3 < fields["ternary"]["zeros"] / fields["ternary"]["weights"] < 0.37
    for entry in fields["tensors"]:
        assert entry["bound"][0] <= entry["seen"][0] <= entry["seen"][1] <= entry["bound"][1]
    places = {(entry["layer"], entry["tensor"]) for entry in fields["tensors"]}
    assert {("layers.0", "scan_state"), ("layers.1", "decay"), ("head", "logits"), ("layers.0", "in_proj")} <= places
    code, out, _ = cli("inspect", "--model", "tiny")
    assert code == 0 and "33.4" in out and "2-bit ternary" in out and fields["model_sha256"] in out


def test_saturated_values_are_counted():
    rows = {row.tensor: row for row in inspection.formats_table(CONFIGS["tiny"]) if row.layer == "layers.0"}
    array = np.array([32767, -32767, 0, 5, 32766], np.int16)
    seen = inspection.look(rows["scan"], array)
    assert (seen.low, seen.high, seen.at_limit) == (-32767, 32767, 2)


def test_init_train_and_generate_from_a_folder(cli, result, tmp_path):
    text = tmp_path / "text"
    text.write_text("It was the best of times, it was the worst of times. " * 20)
    tokenizer, folder = tmp_path / "t.json", tmp_path / "model"
    assert result("tokenizer", "train", text, "--vocabulary", 270, "--out", tokenizer)["vocab_size"] == 270
    made = result("init", folder, "--model", "small", "--seed", 3, "--tokenizer", tokenizer)
    assert load_checkpoint(folder / "model.safetensors").sha256 == made["model_sha256"]
    stored = result("generate", "--model", folder, "--prompt", "times", "--max-tokens", 3)
    fresh = result(
        *("generate", "--model", "small", "--init-seed", 3, "--tokenizer", tokenizer),
        *("--prompt", "times", "--max-tokens", 3),
    )
    assert stored["model_sha256"] == fresh["model_sha256"] == made["model_sha256"]
    assert stored["tokens"] == fresh["tokens"]
    code, _, err = cli("init", folder, "--model", "tiny")
    assert code == 2 and "--force" in err
    assert cli("init", folder, "--model", "tiny", "--force")[0] == 0
    tokenizer.replace(folder / "tokenizer.json")
    code, _, err = cli("generate", "--model", folder, "--prompt", "a")
    assert code == 2 and "tokenizer.json: found" in err


def test_a_tokenizer_larger_than_the_model_is_refused(cli, tmp_path):
    text, tokenizer = tmp_path / "text", tmp_path / "t.json"
    text.write_text("It was the best of times, it was the worst of times. " * 20)
    assert cli("tokenizer", "train", text, "--vocabulary", 270, "--out", tokenizer)[0] == 0
    code, _, err = cli("generate", "--model", "tiny", "--tokenizer", tokenizer, "--prompt", "a")
    assert code == 2 and "270" in err and "256" in err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("generate", "--model", "huge", "--prompt", "a"), "known are shakespeare, tiny, verse, small, base"),
        (
            ("generate", "--model", "/tmp", "--prompt", "a"),
            "/tmp: found no model.safetensors and no tokenizer.json, allowed a folder that init",
        ),
        (("generate", "--model", "tiny", "--prompt", ""), "--prompt: found no text"),
        (("generate",), "stdin: found no text, allowed a prompt: give one with --prompt"),
        (("generate", "--model", "tiny", "--prompt", "a", "--file", "/dev/null"), "--file /dev/null: found no text"),
        (("generate", "--model", "tiny", "--lines", "--file", "/dev/null"), "--lines: found 0 lines"),
        (("commit", "/tmp/never", "--prompt", ""), "--prompt: found no text"),
        (("score", str(ROOT / "README.md"), "--model", "/tmp"), "/tmp: found no model.safetensors and no tokenizer"),
        (("inspect", "--model", "/tmp"), "/tmp: found no model.safetensors and no tokenizer.json"),
        (("generate", "--model", "tiny", "--prompt", "a", "--temperature", "0"), "temperature"),
        (("generate", "--model", "tiny", "--prompt", "a", "--temperature", "hot"), "temperature"),
        (("generate", "--model", "tiny", "--prompt", "a", "--top-p", "2"), "--top-p"),
        (("generate", "--model", "tiny", "--prompt", "a", "--top-k", "0"), "--top-k"),
        (("generate", "--model", "tiny", "--prompt", "a", "--seed", "-1"), "--seed"),
        (("generate", "--model", "tiny", "--prompt", "a", "--max-tokens", "-1"), "--max-tokens"),
        (("generate", "--model", "tiny", "--prompt", "a", "--backend", "nowhere"), "unknown backend"),
        (("generate", "--model", "tiny", "--prompt", "a", "--backend", "torch", "--device", "nowhere"), "nowhere"),
        (("generate", "--model", "tiny", "--prompt", "a", "--backend", "torch", "--device", "gpu"), "allowed cpu"),
        (("generate", "--model", "tiny", "--prompt", "a", "--device", "cuda"), "found 'cuda', allowed cpu for numba"),
        (("generate", "--model", "tiny", "--prompt", "a", "--save-state", "/no/such/folder/s"), "no folder"),
        (("generate", "--model", str(ROOT / "README.md"), "--prompt", "a"), "no safetensors file"),
        (("generate", "--model", "tiny", "--prompt", "\udcff"), "not UTF-8"),
        (("generate", "--model", "tiny", "--file", "/no/such/file"), "/no/such/file"),
        (("generate", "--model", "tiny", "--prompt", "a", "--trace", "/no/such/folder/t"), "--trace"),
        (("generate", "--model", "tiny", "--load-state", "/no/such/file"), "/no/such/file"),
        (("generate", "--model", "tiny", "--prompt", "a", "--tokenizer", "/no/such/file"), "/no/such/file"),
        (("score", "/no/such/file"), "/no/such/file"),
        (("score", "/dev/null", "--model", "tiny"), "2 tokens or more"),
        (("score",), "file"),
        (("inspect", "--text", "/no/such/file"), "/no/such/file"),
        (("inspect", "--model", "tiny", "--plot", "/no/such/folder/p.png"), "--plot"),
        (("inspect", "--model", "tiny", "--plot", "/tmp/plot.nothing"), "--plot"),
        (("diff-trace", "/no/such/file", "/dev/null"), "/no/such/file"),
        (("init", "/tmp/never", "--model", "huge"), "huge"),
        (("tokenizer", "train", "/no/such/file", "--vocabulary", "300", "--out", "/tmp/never"), "/no/such/file"),
        (("tokenizer", "train", "/dev/null", "--vocabulary", "300", "--out", "/tmp/never"), "tokens"),
        (("tokenizer", "train", "/dev/null", "--vocabulary", "10", "--out", "/tmp/never"), "256"),
    ],
)
def test_an_error_is_one_line_and_code_2(arguments, says, cli):
    code, out, err = cli(*arguments)
    assert code == 2 and not out
    assert err.startswith("mamba-integer: ") and err.count("\n") == 1 and "internal" not in err
    assert says in err


def test_versions_are_printed(cli):
    done = cli("--version")
    assert done.code == 0 and done.out == f"mamba-integer {version('mamba-integer')}, specification {SPEC_VERSION}\n"


def test_a_folder_without_its_tokenizer(cli, tmp_path):
    save_model(tmp_path, fresh_model(CONFIGS["tiny"], 0))
    (tmp_path / "tokenizer.json").unlink()
    code, _, err = cli("generate", "--model", tmp_path, "--prompt", "a")
    assert code == 2 and f"{tmp_path}: found no tokenizer.json, allowed" in err and err.count("\n") == 1


@pytest.mark.parametrize(
    "command",
    [("generate",), ("score",), ("inspect",), ("diff-trace",), ("init",), ("tokenizer", "train")],
)
def test_help_has_an_example(command, cli):
    code, out, _ = cli(*command, "--help")
    assert code == 0 and f"Example: mamba-integer {' '.join(command)} " in " ".join(out.split())


@pytest.mark.parametrize(
    "command", [("generate", "--prompt", "a", "--max-tokens", 1), ("score", "text"), ("inspect", "--text", "text")]
)
def test_the_packaged_model_has_one_name(command, result, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("text").write_text("It was")
    assert result(*command, "--backend", "golden")["model"] == "shakespeare"
    assert result(*command, "--model", TRAINED["shakespeare"])["model"] == "verse"


def test_inspect_tells_the_packaged_model_from_its_config(cli, tmp_path):
    (tmp_path / "text").write_text("It was")
    assert "\nshakespeare (config verse): 8 layers" in cli("inspect", "--text", tmp_path / "text").out
    assert "\nverse: 8 layers" in cli("inspect", "--text", tmp_path / "text", "--model", "verse").out


def test_inspect_tells_its_progress():
    opened, told = open_model("tiny", 0, None, "golden", None), []
    inspected = inspection.inspect(opened, [1, 2, 3], lambda seen, all: told.append((seen, all)))
    total = len(inspected.rows)
    assert told == [(seen, total) for seen in range(told[0][0], total + 1)] and len(told) > total // 2


def test_the_model_that_comes_with_the_package(result):
    made = json.loads((ROOT / "benchmarks/results/shakespeare-gpu.json").read_text())
    fields = result("generate", "--prompt", "ROMEO:", "--max-tokens", 120, "--temperature", "0.6")
    assert fields["model"] == "shakespeare" and fields["model_sha256"] == made["model_sha256"]
    assert (TRAINED["shakespeare"] / "model.safetensors").stat().st_size < 4 << 20
    assert "\n" in fields["text"] and any(f" {word} " in fields["text"] for word in ("the", "of", "to", "and", "thou"))
