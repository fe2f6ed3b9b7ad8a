"""The presets of the suite: how many cases each op gets, and how large they may be."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Preset:
    """The number of cases that a run takes for each op; ``cost`` bounds a listed case, in products of all its sizes.

    ``line`` is what one line of Python in a loop of the golden code costs. ``thin`` takes a part of what is listed,
    ``extremes`` is how many extremes are taken, and ``share`` how many drawn cases one process runs: each process that
    runs a part of an op looks for the op's sensitive cases anew, and compiles it.
    """

    drawn: int
    cost: int
    line: int = 6
    thin: bool = False
    extremes: int | None = None
    share: int = 15
    repetitions: int = 1  # of each listed case in a variant of a backend, which may race


SMOKE = Preset(5, 1 << 9, thin=True, extremes=8)
PRESETS = {
    "smoke": SMOKE,
    "minimal": Preset(25, 340_000, share=25),
    "full": Preset(150, 1 << 20, share=50, repetitions=3),
}
# Backends that say of themselves that they are interpreted take these cases under the preset of the same name.
INTERPRETED = {
    "smoke": SMOKE,
    "minimal": Preset(3, 1 << 11, line=1, thin=True, extremes=8),
    "full": Preset(60, 1 << 13, line=1, repetitions=4),
}
TIMEOUT = 120.0  # seconds for one case, of which a compiler may take most
LONGER = 10  # times as long as a case may a chain of ops take, or whatever runs between two cases
