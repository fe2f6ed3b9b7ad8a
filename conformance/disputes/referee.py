"""A referee who has two openings of one leaf and the specification, and neither the model nor the runs."""

from collections.abc import Sequence

from mamba_integer.backends.transcripts.errors import TranscriptError
from mamba_integer.backends.transcripts.header import same_request
from mamba_integer.backends.transcripts.opening import Opening

from .verdict import Verdict, failures_of, mistakes_of


def referee(sides: Sequence[tuple[str, Opening]]) -> Verdict:
    """Return the sides whose leaf differs from the golden code's results for its inputs.

    Raises
    ------
    RequestError
        The openings are of different requests.
    TranscriptError
        They are of different leaves, or each is right for its own inputs, which differ.
    CountError
        A call asks for more integers than a referee computes.
    """
    (first, a), (second, b) = sides
    same_request(a.header, b.header)
    if a.leaf.place != b.leaf.place:
        raise TranscriptError(f"two different leaves: {first} opens {a.leaf.where}, {second} opens {b.leaf.where}")
    if failures := failures_of(sides):
        says = "; ".join(f"{name}: {failure.message}" for name, (failure, _) in failures.items())
        shown = tuple(failure for failure, _ in failures.values())
        return Verdict(tuple(failures), a.leaf.where, says, 0, shown, mistakes_of(failures.values()))
    if a.leaf.digest != b.leaf.digest:
        raise TranscriptError(
            f"{first} and {second} are each right for their own inputs, parameters or op, which differ; the command "
            "dispute runs the stretch before them again and finds whose are right"
        )
    return Verdict((), a.leaf.where, "the leaves are equal, and right for their inputs")
