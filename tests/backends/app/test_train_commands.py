"""The commands that train: runs that are killed, shared among ranks or asked for the impossible."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mamba_integer import backends
from mamba_integer.backends import processors
from mamba_integer.backends.app import train_commands as train_cli
from mamba_integer.backends.app.terminal import UsageError
from mamba_integer.backends.files.config_file import CONFIG_FILE, config_fields
from mamba_integer.backends.files.corpus import CORPUS_FILE
from mamba_integer.backends.files.folder import TRAINED
from mamba_integer.backends.launch import RankError
from mamba_integer.spec.model import ModelConfig, find_config

SIZES = {
    "d_model": 8,
    "d_inner": 16,
    "n_layer": 2,
    "mamba1_d_state": 2,
    "mamba2_d_state": 4,
    "headdim": 8,
    "dt_rank": 2,
}
QUICK = ["--steps", "8", "--batch", "4", "--length", "16", "--save-every", "3", "--validate-every", "4"]
GOLDEN = ["--backend", "golden"]  # it is loaded sooner than others are, and steps of such a model take it a moment


def test_the_config_beside_a_model_is_a_config(tmp_path):
    assert train_cli.read_config(str(TRAINED["shakespeare"] / CONFIG_FILE)) == find_config("verse")
    older = tmp_path / "older.json"
    older.write_text(json.dumps(config_fields(find_config("tiny")) | {"spec_version": "0.1.0"}))
    with pytest.raises(UsageError, match="field spec_version"):
        train_cli.read_config(str(older))


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "book.txt"
    path.write_text("It is a truth universally acknowledged, that a single man in want of a wife …\n" * 12)
    return path


@pytest.fixture(scope="module")
def micro_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("config") / "micro.json"
    path.write_text(json.dumps(ModelConfig("micro", 256, nheads=2, **SIZES).to_dict()))
    return path


@pytest.fixture(scope="module")
def finished(text, micro_file, tmp_path_factory, run_cli):
    out = tmp_path_factory.mktemp("finished") / "run"
    done = run_cli("train", "--config", micro_file, "--text", text, *QUICK, "--seed", 1, "--out", out, "--json")
    return out, done.json()


def test_train_command(finished):
    out, result = finished
    assert set(result) >= {"checkpoint_sha256", "step", "bits_per_byte"} and result["step"] == 8
    names = {path.name for path in out.iterdir()}
    assert names >= {"training.safetensors", "model.safetensors", "tokenizer.json", "log.jsonl", "loss.png"}


def test_ranks_change_nothing(finished, text, micro_file, run_cli, tmp_path):
    """Three ranks share four sequences, so that one of them has two."""
    _, alone = finished
    arguments = ["--config", micro_file, "--text", text, *QUICK, "--seed", 1, "--out", tmp_path / "run", "--json"]
    done = run_cli("train", *arguments, "--ranks", 3, "--backend", "torch", "--device", "cpu").json()
    assert done["checkpoint_sha256"] == alone["checkpoint_sha256"] and done["ranks"] == 3
    assert done["bits_per_byte"] == alone["bits_per_byte"]


def test_killed_and_resumed(finished, text, micro_file, run_cli, start_cli, tmp_path):
    _, whole = finished
    out = tmp_path / "run"
    run = ["--config", micro_file, "--text", text, "--seed", 1, "--out", out]
    arguments = ["train", *run, *QUICK, *GOLDEN, "--json"]
    kills = 0
    for lines in (1, 4, 7):
        with start_cli(*arguments, *(["--resume"] if out.exists() else [])) as process:
            for _ in range(lines):
                if not process.stdout.readline():
                    break
            process.kill()
            kills += process.wait() == -signal.SIGKILL
    assert kills
    done = run_cli(*arguments, "--resume").json()
    assert done["checkpoint_sha256"] == whole["checkpoint_sha256"]


def test_two_runs_in_one_folder_do_not_meet(text, micro_file, cli, start_cli, tmp_path):
    with start_cli(*endless(text, micro_file, tmp_path / "run")) as running:
        running.stdout.readline()
        second = cli(*endless(text, micro_file, tmp_path / "run"), "--resume")
        assert second.code == 2 and "another run is training in this folder" in second.err
        assert running.poll() is None


def test_a_refused_run_leaves_no_folder(micro_file, cli, tmp_path):
    (tmp_path / "empty.txt").write_text("")
    done = cli("train", "--config", micro_file, "--text", tmp_path / "empty.txt", *QUICK, "--out", tmp_path / "run")
    assert done.code == 2 and not (tmp_path / "run").exists()


def test_a_dead_rank_is_named(text, micro_file, start_cli, tmp_path):
    with start_cli(*endless(text, micro_file, tmp_path / "run"), "--ranks", 2) as process:
        process.stdout.readline()
        os.kill(int(ranks_of(process)[0]), signal.SIGKILL)
        _, error = process.communicate()
    assert process.returncode == 2 and "of 2 ended with" in error, error


IGNORED = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)"


def test_ranks_end_with_a_command_that_was_started_in_the_background(text, micro_file, start_process, tmp_path):
    """Such a command ignores an interrupt. A termination ends it, and its ranks see that it has gone."""
    arguments = [*endless(text, micro_file, tmp_path / "run"), "--ranks", 2]
    code = f"{IGNORED}; from mamba_integer.backends.app.main import main; main()"
    with start_process([sys.executable, "-c", code, *arguments]) as process:
        process.stdout.readline()
        ranks = ranks_of(process)
        assert len(ranks) == 2
        os.killpg(process.pid, signal.SIGINT)
        assert process.stdout.readline() and process.poll() is None
        process.terminate()
        assert process.wait() == 128 + signal.SIGTERM
        deadline = time.monotonic() + 60
        while any(map(cmdline, ranks)) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not any(map(cmdline, ranks))


def test_ranks_report_as_one_process_does(finished, text, micro_file, cli, run_cli, tmp_path):
    out = tmp_path / "run"
    shutil.copytree(finished[0], out)
    run = ["--config", micro_file, "--text", text, "--seed", 1, "--out", out]
    going = ["train", *run, "--resume", *QUICK, *GOLDEN]
    alone, shared = cli(*going, "--steps", 9), run_cli(*going, "--steps", 9, "--ranks", 2)
    assert shared == alone and alone.code == 2
    assert "its step 1 had learning rate" in alone.err and alone.err.count("\n") == 1
    with (out / "training.safetensors").open("r+b") as file:
        file.truncate(100)
    damaged = cli(*going)
    assert damaged.code == 2 and "training.safetensors: " in damaged.err and damaged.err.count("\n") == 1


def test_an_interrupt_ends_ranks_without_a_word(text, micro_file, start_cli, tmp_path):
    with start_cli(*endless(text, micro_file, tmp_path / "run"), "--ranks", 2) as process:
        process.stdout.readline()
        ranks = ranks_of(process)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        _, error = process.communicate()
        assert process.returncode == 130 and not error.strip(), error
        assert not any(map(cmdline, ranks))


def test_an_interrupted_run_says_how_it_goes_on(finished, text, micro_file, cli, monkeypatch, tmp_path):
    def interrupted(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(train_cli, "train", interrupted)
    shutil.copytree(finished[0], tmp_path / "held")
    arguments = ["train", "--config", micro_file, "--text", text, *QUICK, "--seed", 1, "--resume", "--out"]
    for folder, says in (("held", "--resume goes on from the last"), ("new", "no checkpoint yet; the first one is")):
        done = cli(*arguments, tmp_path / folder)
        assert done.code == 130 and not done.out
        assert "interrupted: " in done.err and says in done.err and done.err.count("\n") == 1


def test_a_rank_names_a_library_that_is_missing(monkeypatch):
    monkeypatch.delitem(sys.modules, "mamba_integer.backends.distributed", raising=False)
    monkeypatch.delattr(backends, "distributed", raising=False)
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(RankError, match="torch isn't installed; pip install"):
        train_cli.rank_work(0, None, "")


def test_cores_are_counted_where_there_is_no_affinity(monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    assert processors.cores() == (os.cpu_count() or 1)


def endless(text, config, out):
    return ["train", "--config", config, "--text", text, *QUICK, *GOLDEN, "--steps", 100000, "--out", out, "--json"]


def ranks_of(process):
    listed = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True, timeout=60)
    children = listed.stdout.split()
    return [pid for pid in children if b"spawn_main" in cmdline(pid)]


def cmdline(pid):
    """Return what runs as a process: nothing if it ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def test_a_full_disk_names_the_folder(text, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(train_cli, "prepare_corpus", full)
    with pytest.raises(OSError, match="No space left") as caught:
        train_cli.train_command([text], tmp_path, 1)
    assert caught.value.filename == str(tmp_path)


def test_a_run_whose_plot_fails_is_complete(finished, text, micro_file, cli, tmp_path):
    whole, result = finished
    out = tmp_path / "run"
    shutil.copytree(whole, out)
    (out / "loss.png").unlink()
    (out / "loss.png").mkdir()
    arguments = ["--config", micro_file, "--text", text, *QUICK, "--seed", 1, "--out", out, "--resume", "--json"]
    done = cli("train", *arguments)
    assert done.json()["checkpoint_sha256"] == result["checkpoint_sha256"]
    assert "no loss.png: IsADirectoryError" in done.err and len(done.err.splitlines()) == 1


def test_a_run_whose_output_nobody_reads_goes_on(text, micro_file, run_cli, tmp_path):
    read, write = os.pipe()
    os.close(read)
    run = ["--config", micro_file, "--text", text, "--out", tmp_path / "run"]
    done = run_cli("train", *run, *QUICK, *GOLDEN, "--json", stdout=write)
    os.close(write)
    assert done.code == 0 and done.err == "mamba-integer: nobody reads stdout any more; the run goes on\n"
    assert len((tmp_path / "run/log.jsonl").read_text().splitlines()) == 8


def test_a_run_of_a_constant_rate_is_made_longer(text, micro_file, cli, tmp_path):
    command = ["train", "--config", micro_file, "--text", text, *QUICK, "--rate", "0.001"]
    constant = [*command, "--last-rate", "0.001", "--warmup", 1, "--json", "--steps"]
    cli(*constant, 3, "--out", tmp_path / "a")
    longer = cli(*constant, 5, "--out", tmp_path / "a", "--resume")
    whole = cli(*constant, 5, "--out", tmp_path / "b")
    assert longer.json()["checkpoint_sha256"] == whole.json()["checkpoint_sha256"]
    cli(*command, "--steps", 3, "--out", tmp_path / "c")
    falling = cli(*command, "--steps", 5, "--out", tmp_path / "c", "--resume")
    assert falling.code == 2 and "where last_rate is equal to rate" in falling.err and falling.err.count("\n") == 1
    refused = cli(*command, "--steps", 3, "--last-rate", "0.002", "--out", tmp_path / "d")
    assert refused.code == 2 and "--last-rate: found '0.002', allowed 0 or a decimal from" in refused.err


def test_finetune(finished, micro_file, cli, tmp_path):
    out, result = finished
    other = tmp_path / "other.txt"
    other.write_text("All happy families are alike; every unhappy family is unhappy in its own way. " * 20)
    done = cli("finetune", out, "--text", other, *QUICK, "--out", tmp_path / "fine", "--json").json()
    assert done["step"] == 8 and done["checkpoint_sha256"] != result["checkpoint_sha256"]
    (tmp_path / "model").mkdir()
    for name in ("model.safetensors", "tokenizer.json"):
        (tmp_path / "model" / name).write_bytes((out / name).read_bytes())
    done = cli("finetune", tmp_path / "model", "--text", other, *QUICK, "--out", tmp_path / "fine2", "--json").json()
    assert done["step"] == 8
    done = cli("finetune", tmp_path / "model", "--text", other, *QUICK, "--out", tmp_path / "model" / "../model")
    assert done.code == 2 and "holds a model" in done.err


def test_a_model_of_the_package_is_trained_further(text, cli, tmp_path):
    small = ["--steps", "1", "--batch", "1", "--length", "2", "--windows", "1", "--backend", "golden"]
    done = cli("finetune", "shakespeare", "--text", text, *small, "--out", tmp_path / "run", "--json").json()
    assert done["step"] == 1


def test_the_trained_model_writes(finished, cli):
    out, _ = finished
    done = cli("generate", "--model", out, "--prompt", "It was", "--max-tokens", 4, "--json")
    assert len(json.loads(done.out)["tokens"]) == 4


@pytest.mark.parametrize("text, units", [("0", 0), ("0.001", 16777), ("1e-7", 2), ("0.125", 1 << 21)])
def test_decimals_are_rounded_to_units(text, units):
    assert train_cli.decimal("--rate", text, 1 << 24, 1 << 21) == units


@pytest.mark.parametrize(
    "text", ["fast", "nan", "-inf", "1/2", "-1", "0.126", "1e-9", "1e99999999", "1e-99999999", "0." + "1" * 99]
)
def test_decimals_out_of_range(text):
    with pytest.raises(UsageError, match=f"--rate: found '{text}', allowed 0 or a decimal from 5.96046e-08 to 0.125"):
        train_cli.decimal("--rate", text, 1 << 24, 1 << 21)


def test_usage_errors(finished, text, micro_file, cli, tmp_path):
    out, _ = finished
    base = ["train", "--text", text, *QUICK]
    empty = tmp_path / "empty.txt"
    empty.write_text("")
    unfinished = tmp_path / "unfinished"
    unfinished.mkdir()
    shutil.copy(out / CORPUS_FILE, unfinished)
    for arguments, message in (
        ([*base, "--config", micro_file, "--out", out], "--resume goes on"),
        ([*base, "--config", micro_file, "--out", out, "--resume", "--seed", 2], "allowed 1; other runs need another"),
        ([*base, "--config", "nosuch", "--out", tmp_path / "x"], "--config: found 'nosuch', allowed tiny"),
        ([*base, "--config", micro_file, "--out", tmp_path / "x", "--ranks", 5], "--ranks"),
        ([*base, "--config", micro_file, "--out", tmp_path / "x", "--ranks", 2, "--device", "cuda:1"], "--device"),
        ([*base, "--config", micro_file, "--out", tmp_path / "x", "--rate", "fast"], "--rate"),
        ([*base, "--config", micro_file, "--out", tmp_path / "x", "--decay", "1"], "--decay: found '1'"),
        (["generate", "--model", unfinished, "--prompt", "a"], "found an unfinished run"),
        (["finetune", tmp_path / "z", "--text", text, *QUICK, "--out", tmp_path / "y"], "the package: shakespeare"),
        (["init", tmp_path / "z", "--model", "nosuch"], "--model: found 'nosuch', allowed tiny"),
        (["train", "--text", empty, *QUICK, "--out", tmp_path / "y"], "no text"),
    ):
        done = cli(*arguments)
        assert done.code == 2 and message in done.err and len(done.err.splitlines()) == 1, done.err


def test_a_text_that_is_too_short_leaves_nothing_behind(cli, tmp_path):
    """So the next try, with a longer text, finds no tokens of the short one."""
    text, run = tmp_path / "text", tmp_path / "run"
    text.write_text("It was the best of times.")
    command = ("train", "--text", text, "--out", run, "--steps", 1, "--batch", 1, "--length", 32)
    code, _, err = cli(*command)
    assert code == 2 and "training: found 23, allowed 33 tokens or more" in err, err
    assert not run.exists()
    text.write_text("It was the best of times. " * 20)
    assert cli(*command).code == 0
