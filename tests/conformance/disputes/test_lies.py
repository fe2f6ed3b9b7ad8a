"""Planted lies: an audit finds each, and a dispute with an honest transcript names the liar and the place."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from mamba_integer.backends import load
from mamba_integer.backends.transcripts.audit import audit, drawn_stretches
from mamba_integer.backends.transcripts.errors import CountError, RequestError, TranscriptError, TruncatedRunError
from mamba_integer.backends.transcripts.folder import Writer, read_transcript
from mamba_integer.backends.transcripts.leaf import STATE, Leaf, OpCall, Place, leaf_digest, tensor_digest
from mamba_integer.backends.transcripts.opening import opening_path, read_opening, save_opening
from mamba_integer.backends.transcripts.run import Replay, commit
from mamba_integer.conformance.disputes.dispute import settle
from mamba_integer.conformance.disputes.referee import referee
from mamba_integer.spec.model import initial_parameters

GOLDEN = load("golden")
FLIPPED = 3  # where a row stands in its chunk when the liar's state is wrong


class OneBit:
    """The golden ops, but for the lowest bit of one element of a state, at one position of a chunk."""

    def __getattr__(self, name):
        return getattr(GOLDEN.ops, name)

    def ssd_chunk_scan_step(self, *arrays, **parameters):
        y, h, *rest = GOLDEN.ops.ssd_chunk_scan_step(*arrays, **parameters)
        if arrays[-1][0] == FLIPPED:
            h = h.copy()
            h[0, 0, 0, 0] ^= 1
        return y, h, *rest


class Skipped:
    """A layer that hands on what it got."""

    def __init__(self, block):
        self.label = block.label

    def __call__(self, call, r, state):
        return r, {name: array for name, array in state.items() if name.startswith(f"{self.label}.")}


def one_bit(small, folder):
    commit(folder, small.header, replace(GOLDEN, ops=OneBit()), small.build)


def skipped_layer(small, folder):
    def build(backend):
        computation = small.build(backend)
        blocks = computation.model.network.blocks
        blocks[1] = Skipped(blocks[1])
        return computation

    commit(folder, small.header, GOLDEN, build)


def other_weights(small, folder):
    commit(
        folder, small.header, GOLDEN, lambda backend: small.build(backend, None, initial_parameters(small.config, 1))
    )


def other_prompt(small, folder):
    request = replace(small.request, prompt=tuple(b"It was the past"))
    commit(folder, small.header, GOLDEN, lambda backend: small.build(backend, request))


def reordered_step(small, folder):
    """Two steps change places, and their leaves and results with them."""
    honest = small.transcript
    order = [0, 1, 2, 3, 5, 4, 6, 7, 8, 9, 10]
    writer = Writer(folder, small.header)
    for call, source in enumerate(order):
        for place, digest in honest.leaves(range(source, source + 1)):
            writer.add(Leaf(Place(call, place.segment, place.op), "", OpCall("", {}, (), ()), digest))
    writer.result = [honest.result[i] for i in (0, 2, 1, 3, 4, 5, 6, 7)]
    for calls in (4, 8):
        writer.save_state(calls, honest.state(calls, 1 << 20))
    writer.finish()


def other_text(small, folder):
    """Every leaf is right, but the text that the customer is shown isn't."""
    honest = small.transcript
    writer = Writer(folder, small.header)
    for place, digest in honest.leaves(range(honest.calls)):
        writer.add(Leaf(place, "", OpCall("", {}, (), ()), digest))
    writer.result = [*honest.result[:3], honest.result[3] ^ 1, *honest.result[4:]]
    for calls in (4, 8):
        writer.save_state(calls, honest.state(calls, 1 << 20))
    writer.finish()


def false_state(small, folder):
    """Every op is right, but the state from which an auditor is to start isn't the one that was left."""
    honest = small.transcript
    states = {calls: honest.state(calls, 1 << 20) for calls in (4, 8)}
    states[4] = {**states[4], "last": states[4]["last"] ^ 1}
    outputs = [tensor_digest(states[4][name]) for name in sorted(states[4])]
    writer = Writer(folder, small.header)
    for place, digest in honest.leaves(range(honest.calls)):
        if place == Place(3, 5, 0):
            digest = leaf_digest(small.header.run_id, place, STATE, STATE, {}, (), outputs)
        writer.add(Leaf(place, "", OpCall("", {}, (), ()), digest))
    writer.result = honest.result
    for calls, arrays in states.items():
        writer.save_state(calls, arrays)
    writer.finish()


LIES = {
    false_state: "leaf 3.5.0 (call 3, state, state)",
    one_bit: "leaf 4.2.12 (call 4, layers.1, ssd_chunk_scan_step)",
    skipped_layer: "leaf 0.2.0 (call 0, layers.1, norm_quantize)",
    other_weights: "leaf 0.0.0 (call 0, embedding, embedding)",
    other_prompt: "leaf 1.0.0 (call 1, embedding, embedding)",
    reordered_step: "leaf 4.0.0 (call 4, embedding, embedding)",
    other_text: "call 6, the result",
}


@pytest.fixture
def told(request, small, tmp_path):
    """A transcript with a lie, and the place where it shows."""
    request.param(small, tmp_path / "lie")
    return SimpleNamespace(transcript=read_transcript(tmp_path / "lie"), where=LIES[request.param])


def replay_of(small, backend="numba"):
    return Replay(small.header, load(backend), small.build)


@pytest.mark.parametrize("told", LIES, indirect=True)
def test_an_audit_of_all_finds_it(told, small):
    verdict = audit(told.transcript, replay_of(small), b"nonce", 2)
    assert not verdict.accepted
    assert verdict.audited == [0, 1, 2]
    if told.where.startswith("leaf"):
        assert verdict.difference.leaf.where == told.where


@pytest.mark.parametrize("told", LIES, indirect=True)
@pytest.mark.parametrize("first", ["honest", "liar"])
def test_a_dispute_names_the_liar(told, small, first):
    sides = [("honest", small.transcript), ("liar", told.transcript)]
    verdict = settle(sides if first == "honest" else sides[::-1], lambda: replay_of(small))
    assert verdict.liars == ("liar",) and verdict.where == told.where
    assert verdict.rounds <= 4 + 3 + 5


@pytest.mark.parametrize("lie", [one_bit, skipped_layer, other_weights])
def test_leaves_per_layer_name_the_liar_too(lie, small, tmp_path):
    layered = SimpleNamespace(**vars(small) | {"header": replace(small.header, leaves="layer"), "build": small.build})
    commit(tmp_path / "honest", layered.header, GOLDEN, small.build)
    lie(layered, tmp_path / "lie")
    sides = [(name, read_transcript(tmp_path / name)) for name in ("honest", "lie")]
    assert not audit(sides[1][1], replay_of(layered), b"", 2).accepted
    assert settle(sides, lambda: replay_of(layered)).liars == ("lie",)


def test_two_liars_are_both_named(small, tmp_path):
    for lie in (one_bit, other_weights):
        lie(small, tmp_path / lie.__name__)
    sides = [(lie.__name__, read_transcript(tmp_path / lie.__name__)) for lie in (one_bit, other_weights)]
    assert settle(sides, lambda: replay_of(small)).liars == ("other_weights",)  # the other lied later
    prompted = replace(small.request, prompt=tuple(b"It is the worst"))
    commit(
        tmp_path / "c", small.header, GOLDEN, lambda b: small.build(b, prompted, initial_parameters(small.config, 1))
    )
    sides = [("a", sides[1][1]), ("c", read_transcript(tmp_path / "c"))]
    verdict = settle(sides, lambda: replay_of(small))
    assert verdict.liars == ("a", "c") and "leaf 0.0.0" in verdict.where


def test_a_truncated_run(small, tmp_path):
    def build(backend):
        computation = small.build(backend)
        computation.calls = 7
        return computation

    commit(tmp_path / "lie", small.header, GOLDEN, build)
    transcript = read_transcript(tmp_path / "lie")
    with pytest.raises(TruncatedRunError, match="7 calls, its request asks for 11"):
        audit(transcript, replay_of(small), b"", 2)
    verdict = settle([("honest", small.transcript), ("liar", transcript)], lambda: replay_of(small))
    assert verdict.liars == ("liar",) and "truncated" in verdict.says


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        (lambda result: [*result, 33], CountError, "found 9 integers in the result, its request asks for 8"),
        (lambda result: [33, *result], CountError, "found 9 integers in the result"),
        (lambda result: result[:-1], TruncatedRunError, "found 7 integers in the result"),
    ],
)
def test_a_text_of_another_length(change, error, says, small, tmp_path):
    """Every leaf is right, and the shown text has a token more or less: an audit of one stretch would not see it."""
    honest = small.transcript
    writer = Writer(tmp_path / "lie", small.header)
    for place, digest in honest.leaves(range(honest.calls)):
        writer.add(Leaf(place, "", OpCall("", {}, (), ()), digest))
    writer.result = change(honest.result)
    writer.finish()
    transcript = read_transcript(tmp_path / "lie")
    with pytest.raises(error, match=says):
        audit(transcript, replay_of(small), b"", 0)
    verdict = settle([("honest", honest), ("liar", transcript)], lambda: replay_of(small))
    assert verdict.liars == ("liar",) and says in verdict.says


def test_a_reordered_training_step(micro, tmp_path):
    from mamba_integer.backends.transcripts.computation import computation_for
    from mamba_integer.backends.transcripts.header import Header
    from mamba_integer.backends.transcripts.request import Train
    from mamba_integer.spec.training import Run

    class Reordered:
        def batch(self, seed, step, rows, length):
            return micro.corpus.batch(seed, {1: 2, 2: 1}.get(step, step), rows, length)

    options = replace(micro.options, steps=4)
    request = Train(micro.config, options, micro.corpus.sha256, "0" * 64)
    header = Header("0" * 64, request, "op", 1)
    builds = [
        lambda backend, corpus=corpus: computation_for(request, Run(micro.config, options, backend), corpus)
        for corpus in (micro.corpus, Reordered())
    ]
    for name, build in zip(("honest", "liar"), builds, strict=True):
        commit(tmp_path / name, header, load("numba"), build)
    honest, liar = (read_transcript(tmp_path / name) for name in ("honest", "liar"))
    replay = Replay(header, load("numba"), builds[0])
    assert audit(honest, replay, b"", 3).accepted
    assert audit(liar, replay, b"", 3).difference.place.call == 1
    verdict = settle([("honest", honest), ("liar", liar)], lambda: replay)
    assert verdict.liars == ("liar",) and "call 1, embedding" in verdict.where


def test_an_honest_dispute(small):
    assert settle([("a", small.transcript), ("b", small.transcript)], lambda: replay_of(small)).liars == ()


def test_different_requests_are_no_dispute(small, tmp_path):
    header = replace(small.header, model_sha256="1" * 64)
    commit(tmp_path, header, GOLDEN, small.build)
    with pytest.raises(RequestError, match="model_sha256"):
        settle([("a", small.transcript), ("b", read_transcript(tmp_path))], lambda: replay_of(small))


def opened(small, folder, backend, place):
    """Return the opening that a side writes beside its transcript."""
    transcript = read_transcript(folder)
    replay = Replay(small.header, backend, small.build)
    start = place.call - place.call % small.header.every
    *_, (_, leaves, _) = replay.leaves(replay.state_before(transcript, start), range(start, place.call + 1))
    path = opening_path(folder, place)
    save_opening(path, transcript, next(leaf for leaf in leaves if leaf.place == place), np.asarray)
    return read_opening(path)


def test_a_referee_needs_the_two_leaves_alone(small, tmp_path):
    one_bit(small, tmp_path / "lie")
    place = Place(4, 2, 12)
    honest = opened(small, small.folder, GOLDEN, place)
    lie = opened(small, tmp_path / "lie", replace(GOLDEN, ops=OneBit()), place)
    verdict = referee([("honest", honest), ("liar", lie)])
    assert verdict.liars == ("liar",)
    (failure,) = verdict.failures
    assert failure.output == "h" and failure.index == (0, 0, 0, 0) and failure.got ^ failure.want == 1
    transcripts = [("honest", small.transcript), ("liar", read_transcript(tmp_path / "lie"))]
    assert settle(transcripts, lambda: replay_of(small)).failures[0].index == (0, 0, 0, 0)
    assert referee([("honest", honest), ("copy", honest)]).liars == ()
    with pytest.raises(TranscriptError, match="different leaves"):
        referee([("honest", honest), ("liar", opened(small, small.folder, GOLDEN, Place(4, 2, 11)))])
    later = opened(small, tmp_path / "lie", replace(GOLDEN, ops=OneBit()), Place(5, 2, 12))
    with pytest.raises(TranscriptError, match="right for their own inputs"):
        referee([("honest", opened(small, small.folder, GOLDEN, Place(5, 2, 12))), ("liar", later)])


def test_a_damaged_opening_doesn_t_save_a_liar(small, tmp_path):
    one_bit(small, tmp_path / "lie")
    path = opening_path(tmp_path / "lie", Place(4, 2, 12))
    path.parent.mkdir()
    path.write_bytes(b"nothing")
    sides = [("honest", small.transcript), ("liar", read_transcript(tmp_path / "lie"))]
    verdict = settle(sides, lambda: replay_of(small))
    assert verdict.liars == ("liar",) and "can't be used" in verdict.says


def test_the_draw_follows_the_commitment():
    draws = [drawn_stretches(root, nonce, 40, 5) for root in (b"a" * 32, b"b" * 32) for nonce in (b"", b"\0", b"1")]
    assert len({tuple(draw) for draw in draws}) == 6
    assert all(draw[0] == 0 and len(set(draw)) == 6 and draw == sorted(draw) for draw in draws)
    assert drawn_stretches(b"", b"", 3, 50) == [0, 1, 2]
    seen = {number for i in range(100) for number in drawn_stretches(b"", bytes([i]), 40, 5)}
    assert seen == set(range(40))


def test_the_chances_that_an_audit_prints(small):
    verdict = audit(small.transcript, replay_of(small), b"", 1)
    assert verdict.accepted and verdict.calls == 8 - (2 in verdict.audited)
    assert (verdict.chance_of_one.numerator, verdict.chance_of_one.denominator) == (1, 2)
    assert float(verdict.chance_of_tenth) == 0.1
