"""A run that a GPU committed to is audited on this machine, and lies that are planted in it are found."""

import json
import shutil
from pathlib import Path

import pytest

from mamba_integer.backends.files.container import save_arrays
from mamba_integer.backends.transcripts.folder import Writer, read_transcript, state_header
from mamba_integer.backends.transcripts.leaf import Leaf, OpCall, Place

REMOTE = Path(__file__).parent / "transcript-gpu"
ROOT = json.loads((REMOTE / "transcript.json").read_text())["root"]
ALL = ("--model", "tiny", "--backend", "numba", "-k", 4)  # as many as there are stretches after the first


def forged(folder, calls=None, result=lambda result: result, digest=lambda place, digest: digest):
    """Write a transcript that leads to its own root, with other leaves, another result or fewer calls."""
    honest = read_transcript(REMOTE)
    writer = Writer(folder, honest.header)
    for place, right in honest.leaves(range(calls or honest.calls)):
        writer.add(Leaf(place, "", OpCall("", {}, (), ()), digest(place, right)))
    writer.result = result(honest.result)
    writer.finish()
    shutil.copytree(REMOTE / "states", folder / "states")
    return folder


def one_leaf(folder):
    return forged(folder, digest=lambda place, right: bytes(32) if place == Place(17, 2, 5) else right)


def two_steps_that_change_places(folder):
    honest = read_transcript(REMOTE)
    leaves = {place: digest for call in (22, 23) for place, digest in honest.leaves(range(call, call + 1))}
    return forged(folder, digest=lambda place, right: leaves.get(place._replace(call=45 - place.call), right))


def another_token(folder):
    return forged(folder, result=lambda result: [*result[:33], result[33] ^ 1, *result[34:]])


LIES = {one_leaf: "leaf 17.2.5", two_steps_that_change_places: "leaf 22.", another_token: "call 34"}


def test_the_run_of_a_gpu_is_accepted(cli):
    done = cli("audit", REMOTE, *ALL)
    assert done.code == 0 and done.out.startswith(f"accepted: root {ROOT}"), done.err


def test_this_machine_makes_the_same_transcript(cli, tmp_path):
    prompt = ("--prompt", "It was the best of times", "--max-tokens", 40, "--seed", 7, "--every", 10)
    assert cli("commit", tmp_path / "mine", "--model", "tiny", *prompt).code == 0
    for file in (path for path in REMOTE.rglob("*") if path.is_file()):
        assert (tmp_path / "mine" / file.relative_to(REMOTE)).read_bytes() == file.read_bytes()


@pytest.mark.parametrize("lie", LIES, ids=lambda lie: lie.__name__)
def test_a_lie_that_is_planted_in_it_is_found(lie, cli, tmp_path):
    folder = lie(tmp_path / "forged")
    refused = cli("audit", folder, *ALL)
    assert refused.code == 1 and refused.out.startswith("FALSE")
    disputed = cli("dispute", REMOTE, folder, "--model", "tiny", "--backend", "numba")
    assert disputed.code == 1 and LIES[lie] in disputed.out
    assert disputed.out.splitlines()[-1].startswith(f"liar: {folder}")


def test_a_shorter_run_is_refused(cli, tmp_path):
    folder = forged(tmp_path / "forged", calls=31, result=lambda result: result[:30])
    done = cli("audit", folder, *ALL)
    assert done.code == 2 and "truncated run: found 31 calls, its request asks for 41" in done.err


def test_a_changed_state_is_refused(cli, tmp_path):
    folder = shutil.copytree(REMOTE, tmp_path / "forged")
    state = read_transcript(REMOTE).state(20, 1 << 20)
    name = next(iter(state))
    save_arrays(
        folder / "states/20.safetensors",
        state | {name: state[name] ^ 1},
        state_header(20, read_transcript(REMOTE).header.run_id),
    )
    done = cli("audit", folder, *ALL)
    assert done.code == 2 and "not the state that the transcript committed to after 20 calls" in done.err
