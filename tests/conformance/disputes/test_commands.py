"""The five commands from a prompt to a verdict, as a stranger runs them, and one line for each thing that is wrong."""

import hashlib
import json
import re
import shlex
import shutil
from pathlib import Path

import pytest

from mamba_integer.backends.app.transcript_commands import about_text, chances_text, rounded_down
from mamba_integer.backends.transcripts.audit import Audit

CONFORMANCE = Path(__file__).parents[3] / "conformance"
PAGE, EXAMPLES = CONFORMANCE / "VERIFY.md", CONFORMANCE / "examples/python"
RUN = ("--model", "tiny", "--prompt", "ab", "--max-tokens", 8, "--every", 3)


@pytest.fixture
def result(cli):
    """A function that runs a command with --json and returns what it prints."""

    def call(*arguments, code: int = 0):
        done = cli(*arguments, "--json")
        assert done.code == code, done.err
        return json.loads(done.out)

    return call


def test_the_page_leads_to_the_verdict(cli, tmp_path, monkeypatch):
    """Every command of VERIFY.md, in order, ends as the page says."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    monkeypatch.chdir(tmp_path)
    (block,) = [one for one in re.findall(r"```sh\n(.*?)```", PAGE.read_text(), re.DOTALL) if "liar" in one]
    (copied,) = re.findall(r"^cp -r (\S+) remote$", block, re.MULTILINE)
    shutil.copytree(CONFORMANCE.parent / copied, "remote")
    commands = [shlex.split(line, comments=True) for line in block.splitlines() if line.startswith("mamba-integer ")]
    names = "audit commit commit audit dispute open open referee"
    assert [words[1] for words in commands] == names.split()
    done = [cli(*words[1:]) for words in commands]
    assert [one.code for one in done] == [0, 0, 0, 1, 1, 0, 0, 1]
    accepted, made, _, refused, disputed, _, _, refereed = (one.out for one in done)
    root = json.loads(Path("remote/transcript.json").read_text())["root"]
    assert accepted.startswith(f"accepted: root {root}") and "equal" in accepted
    assert f"root {root}" in made
    assert refused.startswith("FALSE: leaf 15.2.12 (call 15, layers.1, ssd_chunk_scan_step)")
    for verdict in (disputed, refereed):
        assert "leaf 15.2.12" in verdict and verdict.splitlines()[-1].startswith("liar: theirs")
    assert "ssd_chunk_scan_step on theirs" in refereed and "0x00000001" in refereed  # the failure card
    failures = json.loads(cli("dispute", "theirs", "remote", "--model", "tiny", "--json").out)["failures"]
    assert [one["got"] ^ one["want"] for one in failures] == [1]  # the openings lie beside the transcripts
    code, _, err = cli("open", "theirs", "--leaf", "15.2.12", "--model", "tiny")
    assert code == 2 and "another leaf than the committed one" in err


def test_what_json_holds(result, tmp_path):
    mine = tmp_path / "mine"
    made = result("commit", mine, *RUN, "--backend", "torch")
    assert (made["calls"], made["backend"], len(made["text"]) > 0) == (9, "torch", True)
    assert result("generate", *RUN[:6])["tokens"] == made["result"]
    accepted = result("audit", mine, "--model", "tiny", "-k", 1, "--nonce", "0" * 32)
    assert accepted["accepted"] and accepted["audited"][0] == 0 and accepted["chance_of_one"] == "0.5000"
    assert (accepted["root"], accepted["text"], accepted["prompt"]) == (made["root"], made["text"], "ab")
    assert accepted["usual_tokens"] and accepted["request"]["options"]["max_tokens"] == 8


@pytest.mark.parametrize(
    ("stretches", "audited", "says"),
    [
        (1, 1, ["every stretch was run again"]),
        (9, 9, ["every stretch was run again"]),
        (9, 1, ["only the first stretch was run again"]),
        (3, 2, ["at least 50.0 %", "of at least 10.0 %"]),
        (20_001, 20_000, ["at least 99.9 %"]),  # 99.995 %
        (20_001, 101, ["of at least 99.9 %"]),  # 99.997 %
    ],
)
def test_an_audit_promises_no_more_than_it_did(stretches, audited, says):
    verdict = Audit(stretches, list(range(audited)), 1, None)
    text = chances_text(verdict)
    assert all(one in text for one in says) and "100" not in text
    assert (rounded_down(verdict.chance_of_one, 4) == "1.0000") == (audited == stretches)


def test_an_audit_shows_what_was_asked_and_holds_the_published_root(cli, result, micro, tmp_path):
    made = result("commit", tmp_path / "mine", *RUN, "--seed", 5)
    audited = ("audit", tmp_path / "mine", "--model", "tiny", "-k", 0)
    code, out, _ = cli(*audited, "--root", made["root"])
    assert code == 0 and "max_tokens 8" in out and "seed 5" in out and "prompt 'ab'" in out
    code, _, err = cli(*audited, "--root", "0" * 64)
    assert code == 2 and "the published one" in err
    scored = result("commit", tmp_path / "score", "--model", "tiny", "--score", micro.text)
    assert scored["text_sha256"] == hashlib.sha256(micro.text.read_bytes()).hexdigest()
    equal = result(
        "dispute", tmp_path / "mine", shutil.copytree(tmp_path / "mine", tmp_path / "copy"), "--model", "tiny"
    )
    assert set(equal["roots"].values()) == {made["root"]}


def test_a_prompt_in_other_tokens_is_told():
    request = {"kind": "generate", "request": {"kind": "generate", "size": 1}, "usual_tokens": False}
    assert "another way than the tokenizer does" in about_text(request)


def test_a_text_and_a_training_run(cli, result, micro, tmp_path):
    scored = result("commit", tmp_path / "score", "--model", "tiny", "--score", micro.text, "--leaves", "layer")
    assert result("score", micro.text, "--model", "tiny")["loss_q16"] == scored["result"][-1]
    assert result("audit", tmp_path / "score", "--model", "tiny")["accepted"]
    trained = ("--train", micro.text, "--steps", 2, "--batch", 1, "--length", 8, "--every", 1)
    result("commit", tmp_path / "train", "--model", "tiny", *trained)
    assert result("audit", tmp_path / "train", "--train", micro.text)["calls_repeated"] == 2
    code, _, err = cli("audit", tmp_path / "train")
    assert code == 2 and "--train" in err
    other = tmp_path / "other.txt"
    other.write_text(micro.TEXT.upper(), "utf-8")
    code, _, err = cli("audit", tmp_path / "train", "--train", other)
    assert code == 2 and "--train: found SHA-256" in err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("commit", "out"), "--prompt, --score and --train"),
        (("commit", "out", "--prompt", "a", "--score", "b"), "--prompt, --score and --train"),
        (("commit", "out", "--model", "tiny", "--prompt", ""), "--prompt: found no text"),
        (("commit", "out", "--model", "tiny", "--prompt", "a", "--leaves", "all"), "op or layer"),
        (("commit", "out", "--model", "tiny", "--prompt", "a", "--every", "0"), "--every"),
        (("commit", "out", "--model", "tiny", "--score", "/no/such/file"), "/no/such/file"),
        (("commit", "out", "--model", "tiny", "--prompt", "a", "--backend", "nowhere"), "unknown backend"),
        (("commit", "out", "--model", "tiny", "--prompt", "a", "--max-tokens", "9999999"), "calls"),
        (("audit", "/no/such/folder"), "can't be read"),
        (("open", "/no/such/folder", "--leaf", "1.1.1"), "can't be read"),
        (("dispute", "/no/such/folder", "/no/other"), "can't be read"),
        (("dispute", "/no/such/folder", "/no/such/folder"), "twice"),
        (("referee", "/no/such/file", "/no/other"), "can't be read"),
    ],
)
def test_an_error_is_one_line_and_code_2(arguments, says, cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, err = cli(*arguments)
    assert code == 2 and not out
    assert err.startswith("mamba-integer: ") and err.count("\n") == 1 and "internal" not in err
    assert says in err


def test_a_folder_is_not_overwritten(cli, result, tmp_path):
    result("commit", tmp_path, *RUN)
    code, _, err = cli("commit", tmp_path, *RUN)
    assert code == 2 and "allowed a new or an empty folder" in err
    for leaf in ("1.1", "99.0.0", "1.1.99", "1.9.0", "a.b.c", "1.1.-1"):
        code, _, err = cli("open", tmp_path, "--leaf", leaf, "--model", "tiny")
        assert code == 2 and "--leaf" in err
    for nonce in ("xyz", "", "00"):
        code, _, err = cli("audit", tmp_path, "--model", "tiny", "--nonce", nonce)
        assert code == 2 and "--nonce" in err


@pytest.mark.parametrize("command", ["commit", "open", "audit", "dispute", "referee"])
def test_help_has_an_example(command, cli):
    code, out, _ = cli(command, "--help")
    assert code == 0 and f"Example: mamba-integer {command} " in " ".join(out.split())
