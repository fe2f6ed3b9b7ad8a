"""Pairwise covering: few choices of parameters in which each two meet at both ends of each, where a domain has it."""

from collections.abc import Iterator, Mapping
from copy import copy
from dataclasses import replace
from itertools import combinations, product
from random import Random

from .cases import Case
from .dimensions import settings
from .sensitivity import in_domain

ENDS = ("low", "high")
BESIDE = ("low + 1", "high - 1")
COMPLETIONS = 12  # of a pair that are tried before it is taken to be outside the domain

Levels = dict[str, str]


def assignments(case: Case) -> Iterator[tuple[dict[str, int], tuple[str, ...]]]:
    """Yield parameters and the points that they cover, at the sizes of a case; its own parameters are typical."""
    names = [parameter.name for parameter in settings(case.op)]
    random = Random(f"pairs {case.op}")
    wanted = {pair for pair in pairs_of(names)}
    for name, level in product(names, BESIDE):
        values = resolved(case, {name: level})
        if values is not None:
            yield values, (f"{name} {level}",)
    for pair in pairs_of(names):
        if pair not in wanted:
            continue
        wanted.discard(pair)
        for values, levels in completions(case, names, dict(pair), wanted, random):
            if in_domain(replace(case, parameters=values)):
                covered = {pair, *(other for other in wanted if holds(levels, other))}
                wanted -= covered
                yield values, tuple(sorted(" ".join(f"{n} {level}" for n, level in other) for other in covered))
                break


Pair = tuple[tuple[str, str], ...]


def pairs_of(names: list[str]) -> list[Pair]:
    if len(names) == 1:
        return [((names[0], level),) for level in ENDS]
    ends = product(ENDS, ENDS)
    return [((a, low), (b, high)) for (a, b), (low, high) in product(combinations(names, 2), list(ends))]


def holds(levels: Levels, pair: Pair) -> bool:
    return all(levels.get(name) == level for name, level in pair)


def completions(
    case: Case, names: list[str], fixed: Levels, wanted: set[Pair], random: Random
) -> Iterator[tuple[dict[str, int], Levels]]:
    """Yield choices that hold a pair: first one that covers many others, then others at random, then typical ones."""
    greedy = dict(fixed)
    for name in names:
        if name not in greedy:
            greedy[name] = max(ENDS, key=lambda level: sum(new(greedy | {name: level}, name, p) for p in wanted))
    tries = [greedy]
    for _ in range(COMPLETIONS):
        tries.append(fixed | {name: random.choice(("typical", *ENDS)) for name in names if name not in fixed})
    for levels in (*tries, fixed):
        values = resolved(case, levels)
        if values is not None:
            yield values, levels


def new(levels: Levels, name: str, pair: Pair) -> bool:
    return any(part[0] == name for part in pair) and holds(levels, pair)


def resolved(case: Case, levels: Mapping[str, str]) -> dict[str, int] | None:
    """Return the parameters of these levels, typical where none is given; None where a range has no such level."""
    at = copy(case.at)
    values = dict(case.parameters)
    for parameter in settings(case.op):
        allowed = parameter.range(at)
        level = levels.get(parameter.name, "typical")
        value = {
            "low": allowed.low,
            "low + 1": allowed.low + 1,
            "high": allowed.high,
            "high - 1": allowed.high - 1,
            "typical": min(max(allowed.low, values[parameter.name]), allowed.high),
        }[level]
        if not allowed.low <= value <= allowed.high:
            return None
        values[parameter.name] = value
        setattr(at, parameter.name, value)
    return values
