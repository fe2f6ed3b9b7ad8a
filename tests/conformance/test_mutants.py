"""The slips are wrong where they say, and what is listed finds them, whatever the seed."""

from collections import Counter
from dataclasses import replace

import pytest

from mamba_integer import spec
from mamba_integer.backends import Backend, UnsupportedError, load
from mamba_integer.conformance.engine import replay
from mamba_integer.conformance.engine.calls import Caller
from mamba_integer.conformance.engine.cases import Case, ExtremeCase
from mamba_integer.conformance.engine.comparison import Failure
from mamba_integer.conformance.engine.layouts import CONTIGUOUS, place_all
from mamba_integer.conformance.engine.listed import listed
from mamba_integer.conformance.mutants import slips
from mamba_integer.conformance.mutants.slip import SLIPS, Slip, bind

OPS = sorted({slip.op for slip in SLIPS.values()})
GOLDEN = load("golden")


def test_a_slip_is_wrong_at_its_witness():
    assert [name for name, slip in SLIPS.items() if not slip.is_wrong()] == []


def test_a_slip_that_is_right_is_noticed():
    right = Slip("right", "saturate", "nothing", {"leading": (3,), "bits": 8}, gives={"y": lambda y, call: y})
    assert not right.is_wrong()


def test_slips_are_on_most_ops_and_found_by_name():
    assert len(SLIPS) >= 150 and len(OPS) >= 50
    assert max(Counter(slip.op for slip in SLIPS.values()).values()) <= 15
    name = "rows_k_apart"
    assert load(f"{slips.__name__}:{name}").names == [SLIPS[name].op]


class Golden:
    """The golden op, which computes each call of a case once for all the mistakes that are judged on it."""

    def __init__(self, op: str):
        self.op, self.results = op, {}

    def __call__(self, *arrays, **parameters):
        key = (*parameters.items(), *((array.dtype, array.shape, array.tobytes()) for array in arrays))
        if key not in self.results:
            self.results[key] = spec.OPS[self.op].golden(*arrays, **parameters)
        results = self.results[key]
        return tuple(result.copy() for result in results) if isinstance(results, tuple) else results.copy()


class Right(UnsupportedError):
    """A slip is right at a call, as it says itself."""


def stopped_where_right(mistake: Slip, golden: Golden) -> Slip:
    """Return a slip that stops a call at which it would return the golden result, which tells no judge anything."""
    forgetful = mistake.forgetful(golden)

    def when(call):
        if not forgetful.when(call):
            raise Right
        return True

    return replace(forgetful, when=when, keeps=None)


def call_of(case: Case | ExtremeCase):
    """Return a case's sizes, parameters and arrays as a slip sees them."""
    layouts = case.layouts or (CONTIGUOUS,) * len(case.arrays)
    placed = place_all(GOLDEN, case.arrays, layouts)
    return bind(case.op, [argument.view for argument in placed], case.parameters)


def missed(op: str, mistakes: list[Slip], places: dict[str, int]) -> set[str]:
    """Return the mistakes that no listed case of an op finds; each is run until it fails.

    The places among the cases at which mistakes were found are looked at first; those of this search are noted.
    """
    golden = Golden(op)
    waiting = {slip.name: (slip, Caller(Backend(slip.name, stopped_where_right(slip, golden)))) for slip in mistakes}
    for wanted in (dict(places), None):
        for place, case in enumerate(listed(op)) if waiting else ():
            tried = [one for name, one in waiting.items() if wanted is None or wanted.get(name) == place]
            if not tried:
                continue
            golden.results.clear()
            call = call_of(case)
            for slip, caller in tried:
                if not slip.keeps and not slip.when(call):
                    continue
                try:
                    replay.check(caller, case)
                except Right:
                    continue
                except Failure:
                    del waiting[slip.name]
                    if not slip.keeps:  # one that remembers earlier calls must see each call once
                        places[slip.name] = place
            if not waiting:
                break
    return set(waiting)


@pytest.fixture
def places(request):
    """Where in the listed cases of an op each slip was found, as the last run noted it."""
    cache, name = getattr(request.config, "cache", None), f"slips/{request.node.callspec.params['op']}"
    noted = cache.get(name, {}) if cache else {}
    before = dict(noted)
    yield noted
    if cache and noted != before:
        cache.set(name, noted)


@pytest.mark.parametrize("op", OPS)
def test_listed_cases_find_every_slip(op, places):
    mistakes = [slip for slip in SLIPS.values() if slip.op == op]
    assert missed(op, mistakes, places) == set()


def test_places_of_slips_are_looked_at_first_and_believed_by_nobody():
    op, name = "saturate", next(name for name, slip in SLIPS.items() if slip.op == "saturate" and not slip.keeps)
    found: dict[str, int] = {}
    assert missed(op, [SLIPS[name]], found) == set() and found.keys() == {name}
    for wrong in (found[name] + 1, 10**9):
        assert missed(op, [SLIPS[name]], {name: wrong}) == set()
    hidden = replace(SLIPS[name], name="hidden", when=lambda call: False)
    assert missed(op, [hidden], {"hidden": found[name]}) == {"hidden"}


def test_a_slip_that_no_case_shows_is_reported():
    op = "saturate"
    hidden = Slip(
        "hidden", op, "a size that nobody lists", {"leading": (3,), "bits": 8}, when=lambda call: call.size == 99991
    )
    assert missed(op, [hidden], {}) == {"hidden"}


def test_every_slip_is_of_an_op():
    assert all(slip.op in spec.OPS for slip in SLIPS.values())
