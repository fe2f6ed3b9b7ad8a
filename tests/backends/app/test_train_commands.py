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

from mamba_integer.backends import processors
from mamba_integer.backends.app import train_commands as train_cli
from mamba_integer.backends.app.terminal import UsageError
from mamba_integer.spec.model import ModelConfig

SIZES = {
    "d_model": 8,
    "d_inner": 16,
    "n_layer": 2,
    "mamba1_d_state": 2,
    "mamba2_d_state": 4,
    "headdim": 8,
    "dt_rank": 2,
}
QUICK = ["--steps", "8", "--batch", "3", "--length", "16", "--save-every", "3", "--validate-every", "4"]

CLI = [
    sys.executable,
    "-c",
    "import sys; from mamba_integer.backends.app.main import main; sys.argv[0] = ''; main()",
]


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "book.txt"
    path.write_text("It is a truth universally acknowledged, that a single man in want of a wife …\n" * 12)
    return path


def run_cli(*arguments):
    return subprocess.run([*CLI, *map(str, arguments)], capture_output=True, text=True)


def start_cli(*arguments):
    return subprocess.Popen(
        [*CLI, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def last(done):
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def micro_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("config") / "micro.json"
    path.write_text(json.dumps(ModelConfig("micro", 256, nheads=2, **SIZES).to_dict()))
    return path


@pytest.fixture(scope="module")
def finished(text, micro_file, tmp_path_factory):
    out = tmp_path_factory.mktemp("finished") / "run"
    done = run_cli("train", "--config", micro_file, "--text", text, *QUICK, "--seed", 1, "--out", out, "--json")
    return out, last(done)


def test_train_command(finished):
    out, result = finished
    assert set(result) >= {"checkpoint_sha256", "step", "bits_per_byte"} and result["step"] == 8
    names = {path.name for path in out.iterdir()}
    assert names >= {"training.safetensors", "model.safetensors", "tokenizer.json", "log.jsonl", "loss.png"}


@pytest.mark.parametrize("ranks", [2, 3])
def test_ranks_change_nothing(ranks, finished, text, micro_file, tmp_path):
    _, alone = finished
    arguments = ["--config", micro_file, "--text", text, *QUICK, "--seed", 1, "--out", tmp_path / "run", "--json"]
    done = last(run_cli("train", *arguments, "--ranks", ranks, "--backend", "torch", "--device", "cpu"))
    assert done["checkpoint_sha256"] == alone["checkpoint_sha256"] and done["ranks"] == ranks
    assert done["bits_per_byte"] == alone["bits_per_byte"]


def test_killed_and_resumed(finished, text, micro_file, tmp_path):
    _, whole = finished
    out = tmp_path / "run"
    arguments = ["train", "--config", micro_file, "--text", text, *QUICK, "--seed", 1, "--out", out, "--json"]
    kills = 0
    for lines in (1, 4, 7):
        process = start_cli(*arguments, *(["--resume"] if out.exists() else []))
        for _ in range(lines):
            if not process.stdout.readline():
                break
        process.send_signal(signal.SIGKILL)
        kills += process.wait() == -signal.SIGKILL
    assert kills
    done = last(run_cli(*arguments, "--resume"))
    assert done["checkpoint_sha256"] == whole["checkpoint_sha256"]


def test_two_runs_in_one_folder_do_not_meet(text, micro_file, tmp_path):
    running = start_cli(*endless(text, micro_file, tmp_path / "run"))
    running.stdout.readline()
    second = run_cli(*endless(text, micro_file, tmp_path / "run"), "--resume")
    assert second.returncode == 2 and "another run is training in this folder" in second.stderr
    assert running.poll() is None
    running.kill()
    running.wait()


def test_a_refused_run_leaves_no_folder(micro_file, tmp_path):
    (tmp_path / "empty.txt").write_text("")
    done = run_cli("train", "--config", micro_file, "--text", tmp_path / "empty.txt", *QUICK, "--out", tmp_path / "run")
    assert done.returncode == 2 and not (tmp_path / "run").exists()


def test_a_dead_rank_is_named(text, micro_file, tmp_path):
    process = start_cli(*endless(text, micro_file, tmp_path / "run"), "--ranks", 2)
    for _ in range(4):
        process.stdout.readline()
    os.kill(int(ranks_of(process)[0]), signal.SIGKILL)
    deadline = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.1)
    process.kill()
    error = process.stderr.read()
    assert process.returncode == 2 and "of 2 ended with" in error, error


def test_ranks_end_with_the_command(text, micro_file, tmp_path):
    process = start_cli(*endless(text, micro_file, tmp_path / "run"), "--ranks", 2)
    process.stdout.readline()
    ranks = ranks_of(process)
    assert len(ranks) == 2
    process.kill()
    deadline = time.monotonic() + 10
    while any(map(cmdline, ranks)) and time.monotonic() < deadline:
        time.sleep(0.1)
    left = [pid for pid in ranks if cmdline(pid)]
    for pid in left:
        os.kill(int(pid), signal.SIGKILL)
    assert not left


def test_ranks_report_as_one_process_does(finished, text, micro_file, tmp_path):
    out = tmp_path / "run"
    shutil.copytree(finished[0], out)
    going = ["train", "--config", micro_file, "--text", text, "--resume", "--out", out, *QUICK, "--steps"]
    alone, shared = (run_cli(*going, 9, "--ranks", ranks) for ranks in (1, 2))
    assert shared.stderr == alone.stderr
    with (out / "training.safetensors").open("r+b") as file:
        file.truncate(100)
    damaged = run_cli(*going, 8, "--ranks", 2)
    for done, message in ((shared, "option steps: it has 8"), (damaged, "training.safetensors: ")):
        assert done.returncode == 2 and message in done.stderr and len(done.stderr.splitlines()) == 1, done.stderr


def test_an_interrupt_ends_ranks_without_a_word(text, micro_file, tmp_path):
    process = start_cli(*endless(text, micro_file, tmp_path / "run"), "--ranks", 2)
    process.stdout.readline()
    ranks = ranks_of(process)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130 and not error.strip(), error
    assert not any(map(cmdline, ranks))


def test_cores_are_counted_where_there_is_no_affinity(monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    assert processors.cores() == (os.cpu_count() or 1)


def endless(text, config, out):
    return ["train", "--config", config, "--text", text, *QUICK, "--steps", 100000, "--out", out, "--json"]


def ranks_of(process):
    children = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True).stdout.split()
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


def test_a_run_whose_plot_fails_is_complete(finished, text, micro_file, tmp_path):
    whole, result = finished
    out = tmp_path / "run"
    shutil.copytree(whole, out)
    (out / "loss.png").unlink()
    (out / "loss.png").mkdir()
    arguments = ["--config", micro_file, "--text", text, *QUICK, "--seed", 1, "--out", out, "--resume", "--json"]
    done = run_cli("train", *arguments)
    assert last(done)["checkpoint_sha256"] == result["checkpoint_sha256"]
    assert "no loss.png: IsADirectoryError" in done.stderr and len(done.stderr.splitlines()) == 1


def test_a_run_whose_output_nobody_reads_goes_on(text, micro_file, tmp_path):
    read, write = os.pipe()
    os.close(read)
    arguments = ["train", "--config", micro_file, "--text", text, *QUICK, "--out", tmp_path / "run", "--json"]
    done = subprocess.run([*CLI, *map(str, arguments)], stdout=write, stderr=subprocess.PIPE, text=True)
    os.close(write)
    assert done.returncode == 0 and done.stderr == "mamba-integer: nobody reads stdout any more; the run goes on\n"
    assert len((tmp_path / "run/log.jsonl").read_text().splitlines()) == 8


def test_finetune(finished, micro_file, tmp_path):
    out, result = finished
    other = tmp_path / "other.txt"
    other.write_text("All happy families are alike; every unhappy family is unhappy in its own way. " * 20)
    done = last(run_cli("finetune", out, "--text", other, *QUICK, "--out", tmp_path / "fine", "--json"))
    assert done["step"] == 8 and done["checkpoint_sha256"] != result["checkpoint_sha256"]
    (tmp_path / "model").mkdir()
    for name in ("model.safetensors", "tokenizer.json"):
        (tmp_path / "model" / name).write_bytes((out / name).read_bytes())
    done = last(run_cli("finetune", tmp_path / "model", "--text", other, *QUICK, "--out", tmp_path / "fine2", "--json"))
    assert done["step"] == 8
    done = run_cli("finetune", tmp_path / "model", "--text", other, *QUICK, "--out", tmp_path / "model" / "../model")
    assert done.returncode == 2 and "holds a model" in done.stderr


def test_a_model_of_the_package_is_trained_further(text, tmp_path):
    small = ["--steps", "1", "--batch", "1", "--length", "8", "--windows", "1"]
    done = last(run_cli("finetune", "shakespeare", "--text", text, *small, "--out", tmp_path / "run", "--json"))
    assert done["step"] == 1


def test_the_trained_model_writes(finished):
    out, _ = finished
    done = run_cli("generate", "--model", out, "--prompt", "It was", "--max-tokens", 4, "--json")
    assert len(json.loads(done.stdout)["tokens"]) == 4


@pytest.mark.parametrize("text, units", [("0", 0), ("0.001", 16777), ("1e-7", 2), ("0.125", 1 << 21)])
def test_decimals_are_rounded_to_units(text, units):
    assert train_cli.decimal("--rate", text, 1 << 24, 1 << 21) == units


@pytest.mark.parametrize(
    "text", ["fast", "nan", "-inf", "1/2", "-1", "0.126", "1e-9", "1e99999999", "1e-99999999", "0." + "1" * 99]
)
def test_decimals_out_of_range(text):
    with pytest.raises(UsageError, match=f"--rate: found '{text}', allowed 0 or a decimal from 5.96046e-08 to 0.125"):
        train_cli.decimal("--rate", text, 1 << 24, 1 << 21)


def test_usage_errors(finished, text, micro_file, tmp_path):
    out, _ = finished
    base = ["train", "--text", text, *QUICK]
    empty = tmp_path / "empty.txt"
    empty.write_text("")
    for arguments, message in (
        ([*base, "--config", micro_file, "--out", out], "--resume goes on"),
        ([*base, "--config", micro_file, "--out", out, "--resume", "--seed", 2], "option seed"),
        ([*base, "--config", "nosuch", "--out", tmp_path / "x"], "nosuch"),
        ([*base, "--config", micro_file, "--out", tmp_path / "x", "--ranks", 4], "--ranks"),
        ([*base, "--config", micro_file, "--out", tmp_path / "x", "--ranks", 2, "--device", "cuda:1"], "--device"),
        ([*base, "--config", micro_file, "--out", tmp_path / "x", "--rate", "fast"], "--rate"),
        ([*base, "--config", micro_file, "--out", tmp_path / "x", "--decay", "1"], "--decay: found '1'"),
        (["train", "--text", empty, *QUICK, "--out", tmp_path / "y"], "no text"),
    ):
        done = run_cli(*arguments)
        assert done.returncode == 2 and message in done.stderr and len(done.stderr.splitlines()) == 1, done.stderr
