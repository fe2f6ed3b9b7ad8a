"""A dispute: two transcripts of one request are cut down to the first op on which they differ, which is run again."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from mamba_integer.backends.transcripts.errors import AlteredError, TranscriptError
from mamba_integer.backends.transcripts.folder import Transcript, check_length
from mamba_integer.backends.transcripts.header import same_request, segment_roots
from mamba_integer.backends.transcripts.leaf import Leaf, OpCall, Place, leaf_digest, tensor_digest
from mamba_integer.backends.transcripts.opening import Opening, opening_path, read_opening
from mamba_integer.backends.transcripts.recorder import BY_OP
from mamba_integer.backends.transcripts.run import Replay, compare, outcomes
from mamba_integer.backends.transcripts.tree import first_difference
from mamba_integer.spec.contract import OPS

from ..engine.comparison import Failure
from ..engine.vector import Vector
from .verdict import Verdict, failures_of, mistakes_of


@dataclass(frozen=True)
class Parting:
    """The place of the first leaf on which two transcripts differ, and the number of rounds that found it."""

    place: Place
    rounds: int


def parting_of(a: Transcript, b: Transcript) -> Parting | None:
    """Return the first leaf on which two transcripts of as many calls differ; None where only their results do."""
    if a.call_roots == b.call_roots:
        return None
    call, rounds = first_difference(a.call_roots, b.call_roots)
    layers = [transcript.segments(call) for transcript in (a, b)]
    segment, more = first_difference(*(segment_roots(call, one) for one in layers))
    rounds += more
    ops = [one[segment] if segment < len(one) else [] for one in layers]
    op, more = first_difference(*ops)
    return Parting(Place(call, segment, op), rounds + more)


def settle(
    sides: Sequence[tuple[str, Transcript]],
    replay: Callable[[], Replay],
    progress: Callable[[int, int], Any] = lambda done, all: None,
) -> Verdict:
    """Return the side that is wrong about a run; ``replay`` repeats the run on a backend that the referee trusts.

    Raises
    ------
    RequestError
        The transcripts answer different requests: both may be right.
    TranscriptError
        No state before the difference can be read from either.
    """
    (_, a), (_, b) = sides
    same_request(a.header, b.header)
    if truncated := wrong_lengths(sides):
        return truncated
    if a.root == b.root:
        return Verdict((), "", "the transcripts are equal")
    parting = parting_of(a, b)
    if parting is None:
        return settle_results(sides, replay(), progress)
    return settle_leaf(sides, parting, replay(), progress)


def wrong_lengths(sides: Sequence[tuple[str, Transcript]]) -> Verdict | None:
    """Return a verdict against those whose run isn't as long as the request asks for."""
    wrong = {}
    for name, transcript in sides:
        try:
            check_length(transcript)
        except TranscriptError as error:
            wrong[name] = str(error)
    return Verdict(tuple(wrong), "the end of the run", "; ".join(wrong.values())) if wrong else None


def settle_leaf(
    sides: Sequence[tuple[str, Transcript]], parting: Parting, replay: Replay, progress: Callable[[int, int], Any]
) -> Verdict:
    """Run the stretch again up to the leaf, whose op the golden code runs: that gives the right leaf."""
    place, rounds = parting.place, parting.rounds
    names = tuple(name for name, _ in sides)
    (_, a), _ = sides
    start, state = agreed_state([transcript for _, transcript in sides], replay, place.call)
    made: list[Leaf] = []
    for call, made, _ in replay.leaves(state, range(start, place.call + 1)):
        progress(call + 1 - start, place.call + 1 - start)
        agreed = [(at, digest) for at, digest in a.leaves(range(call, call + 1)) if at < place]
        if difference := compare([leaf for leaf in made if leaf.place < place], agreed):
            where = difference.leaf.where if difference.leaf else f"leaf {difference.place.name}"
            return Verdict(names, where, f"both agree there, and neither is right: {difference.says}", rounds)
    right = next((by_golden_code(leaf, replay) for leaf in made if leaf.place == place), None)
    digest = right.digest if right else None
    stated = {n: dict(t.leaves(range(place.call, place.call + 1))).get(place) for n, t in sides}
    liars = tuple(name for name in names if stated[name] != digest)
    says = "; ".join(f"{n} has {short(stated[n])}" for n in liars) + f"; the golden code gives {short(digest)}"
    failures: dict[str, tuple[Failure, Opening]] = {}
    for name, transcript in sides:
        if name in liars:
            try:
                if (opening := opening_of(transcript, place)) is None:
                    continue
                if other := differing_call(opening, right):
                    says += f"; {name} ran {other}"
                failures |= failures_of([(name, opening)])
            except TranscriptError as error:  # nobody escapes a verdict by a damaged opening
                says += f"; its opening can't be used: {error}"
    shown = tuple(failure for failure, _ in failures.values())
    where = right.where if right else f"leaf {place.name}"
    return Verdict(liars, where, says, rounds, shown, mistakes_of(failures.values()), place.name)


def by_golden_code(leaf: Leaf, replay: Replay) -> Leaf:
    """Return a leaf with the results of the golden code; the inputs are those of the agreed leaves before it."""
    call = leaf.call
    if call.op not in OPS:  # a state: it consists of results whose leaves are right
        return leaf
    inputs = tuple(replay.store(array) for array in call.inputs)
    outputs = Vector(call.op, inputs, dict(call.parameters)).results
    sides = [inputs if replay.header.leaves == BY_OP else (), outputs]
    digests = [[tensor_digest(array) for array in side] for side in sides]
    digest = leaf_digest(replay.header.run_id, leaf.place, leaf.label, call.op, call.parameters, *digests)
    return Leaf(leaf.place, leaf.label, OpCall(call.op, call.parameters, inputs, outputs), digest)


def agreed_state(transcripts: Sequence[Transcript], replay: Replay, call: int) -> tuple[int, Any]:
    """Return a call at or before this one and the state before it, from whichever side has it whole."""
    every = replay.header.every
    for start in range(call - call % every, 0, -every):
        for transcript in transcripts:
            try:
                return start, replay.state_before(transcript, start)
            except TranscriptError:
                continue
    return 0, replay.computation.start()


def opening_of(transcript: Transcript, place: Place) -> Opening | None:
    """Return the opening that lies beside a transcript, if it is one of this leaf."""
    path = opening_path(transcript.folder, place)
    if not path.exists():
        return None
    opening = read_opening(path)
    if opening.root != transcript.root or opening.leaf.place != place:
        raise AlteredError(f"{path}: an opening of another transcript or leaf")
    return opening


def differing_call(opening: Opening, right: Leaf | None) -> str:
    """Return the difference of an opening's call from the right call, results aside, or an empty text."""
    call = opening.leaf.call
    if right is None or (call.op, opening.leaf.label) != (right.call.op, right.label):
        return f"{call.op} of {opening.leaf.label}"
    if dict(call.parameters) != dict(right.call.parameters):
        return "it with other parameters"
    contract = OPS[call.op]
    inputs = zip(contract.inputs, opening.inputs, right.call.inputs, strict=True)
    other = [tensor.name for tensor, digest, array in inputs if digest != tensor_digest(array)]
    return f"it on another {', '.join(other)}" if other else ""


def settle_results(
    sides: Sequence[tuple[str, Transcript]], replay: Replay, progress: Callable[[int, int], Any]
) -> Verdict:
    """All leaves are equal: run the stretch again in which the stated results differ."""
    (_, a), (_, b) = sides
    request = a.header.request
    silent = request.calls - request.result_length
    number = next((i for i, (x, y) in enumerate(zip(a.result, b.result, strict=False)) if x != y), len(a.result))
    call = min(silent + number, replay.computation.calls - 1)
    start, state = agreed_state([a, b], replay, call)
    calls = range(start, call + 1)
    outcomes_again = []
    for done, _, after in replay.leaves(state, calls):
        progress(done + 1 - start, len(calls))
        outcomes_again.append(replay.computation.outcome(done, after))
    right = [one for one in outcomes_again if one is not None]
    liars = tuple(name for name, t in sides if outcomes(t, calls)[: len(right)] != right)
    return Verdict(liars, f"call {call}, the result", f"every leaf is equal; the run gives {outcomes_again[-1]}")


def short(digest: bytes | None) -> str:
    return digest.hex()[:16] if digest else "no leaf there"
