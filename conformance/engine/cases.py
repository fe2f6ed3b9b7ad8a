"""Cases: one call of one op, described by a few small values and rebuilt from them anywhere."""

import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import MISSING, asdict, dataclass, fields, replace
from functools import cache, cached_property
from random import Random
from types import MappingProxyType, SimpleNamespace
from typing import Any, TypeVar

import numpy as np

from mamba_integer.spec.contract import Constant, DomainError, Packed, Tensor, find_op, known_size

from ..plans import PLANS
from ..plans.plan import Extreme
from .layouts import CONTIGUOUS, LAYOUTS, first_along
from .moved import ONE_IN, turned, turns
from .patterns import DRAWN, draw
from .whole import whole_tiles

Kind = TypeVar("Kind")
Forms = tuple[tuple[tuple[int, ...], str], ...]
# Drawn layouts keep the integers that were drawn, so not those of stride 0.
SEEN = (CONTIGUOUS, *(name for name, layout in LAYOUTS.items() if layout.repeats is None and name != CONTIGUOUS))


@dataclass(frozen=True)
class Case:
    """One call of an op. ``layouts`` says how each argument lies in memory; without them all are contiguous."""

    op: str
    sizes: Mapping[str, int]
    leading: tuple[int, ...]
    parameters: Mapping[str, int]
    patterns: tuple[str, ...]
    seed: int
    layouts: tuple[str, ...] = ()

    def to_json(self) -> str:
        return self._json

    @cached_property
    def _json(self) -> str:
        return json.dumps(self.written, separators=(",", ":"))

    @property
    def written(self) -> dict[str, Any]:
        # Not by asdict, which copies all: a run writes each of its cases down.
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @classmethod
    def from_fields(cls, written: Mapping[str, Any]) -> "Case":
        """Return the case whose fields were read from JSON, which has no tuples."""
        tuples = {name: tuple(written[name]) for name in ("leading", "patterns", "layouts") if name in written}
        return case_of(cls, {**written, **tuples})

    @cached_property
    def at(self) -> SimpleNamespace:
        return SimpleNamespace(leading=self.leading, **self.sizes, **self.parameters)

    @cached_property
    def arrays(self) -> tuple[np.ndarray, ...]:
        """The input arrays, contiguous."""
        inputs = find_op(self.op).inputs
        arrays = (self.array(i, tensor) for i, tensor in enumerate(inputs))
        return tuple(map(with_equal_rows, arrays, self.layouts)) if self.layouts else tuple(arrays)

    @property
    def forms(self) -> Forms:
        """The shape and dtype of each input array, which is known before any integer is drawn."""
        inputs = enumerate(find_op(self.op).inputs)
        return tuple((self.shape(tensor), self.dtype(stream, tensor)) for stream, tensor in inputs)

    def dtype(self, stream: int, tensor: Tensor) -> str:
        return tensor.dtypes[(self.seed >> stream) % len(tensor.dtypes)]

    def array(self, stream: int, tensor: Tensor, dtype: str = "") -> np.ndarray:
        if isinstance(tensor, Constant):
            return tensor.value(self.at).copy()
        if isinstance(tensor, Packed):
            digits = (*self.shape(tensor)[:-1], getattr(self.at, tensor.packed))
            return find_op(tensor.packer)(self._draw(stream, digits, -1, 1).astype(np.int8))
        dtype = dtype or self.dtype(stream, tensor)
        allowed = tensor.range(self.at, dtype)
        return np.asarray(self._draw(stream, self.shape(tensor), allowed.low, allowed.high), dtype)

    def _draw(self, stream: int, shape: tuple[int, ...], low: int, high: int) -> np.ndarray:
        return draw(self.patterns[stream], self.seed, stream, shape, low, high)

    def shape(self, tensor: Tensor) -> tuple[int, ...]:
        names = tensor.shape.split()
        leading = self.leading if names[:1] == ["..."] else ()
        return leading + tuple(known_size(name, self.at) for name in names if name != "...")


@dataclass(frozen=True)
class ExtremeCase:
    """A call that the op's plan lists, or one in whole tiles: call ``call`` of entry ``entry`` of `listed`.

    If it is ``turned`` by a number of rows, its arrays start one element past an aligned address.
    """

    op: str
    entry: int
    call: int
    turned: int | None = None

    def to_json(self) -> str:
        return json.dumps(asdict(self), separators=(",", ":"))

    @cached_property
    def _extreme(self) -> Extreme:
        return listed(self.op)[self.entry]

    @property
    def written_purpose(self) -> str:
        """The purpose that the plan gives the call; empty for a call that attains widths."""
        return self._extreme.purpose

    @property
    def arrays(self) -> tuple[np.ndarray, ...]:
        call = self._extreme.calls[self.call]
        return call if self.turned is None else turned(self.op, call, self.turned)

    @property
    def forms(self) -> Forms:
        return tuple((array.shape, array.dtype.name) for array in self.arrays)

    @property
    def layouts(self) -> tuple[str, ...]:
        return () if self.turned is None else (ONE_IN,) * len(find_op(self.op).inputs)

    @property
    def parameters(self) -> Mapping[str, int]:
        return self._extreme.parameters


@cache
def listed(op: str) -> list[Extreme]:
    extremes, edges = list(PLANS[op].extremes()), list(PLANS[op].edges())
    return [*extremes, *edges, *whole_tiles(op, extremes, edges)]


def extreme_cases(op: str, most: int | None = None) -> Iterator[ExtremeCase]:
    """Yield one case for each call that the op's plan lists, of its extremes and its edges.

    Of the extremes, which are many calls of the same sizes, ``most`` are taken, evenly spaced; of the edges all.
    """
    first_edge = len(list(PLANS[op].extremes()))
    calls = [(entry, call) for entry, extreme in enumerate(listed(op)) for call in range(len(extreme.calls))]
    extremes, edges = ([c for c in calls if (c[0] < first_edge) is inside] for inside in (True, False))
    if most and len(extremes) > most:
        extremes = [extremes[i * len(extremes) // most] for i in range(most)]
    for entry, call in (*extremes, *edges):
        yield ExtremeCase(op, entry, call)


def moved_cases(op: str, most: int | None = None) -> Iterator[ExtremeCase]:
    """Yield the calls of the plan's edges at addresses at which no vector starts: all, or ``most``, evenly spaced."""
    first = len(list(PLANS[op].extremes()))
    entries = range(first, first + len(list(PLANS[op].edges())))
    calls = [(entry, call) for entry in entries for call in range(len(listed(op)[entry].calls))]
    cases = [
        ExtremeCase(op, entry, call, by) for entry, call in calls for by in turns(op, listed(op)[entry].calls[call])
    ]
    taken = range(len(cases)) if most is None else sorted({i * len(cases) // most for i in range(most)})
    for i in taken if cases else ():
        yield cases[i]


def large_cases(op: str, seed: int, crowded: bool = True) -> Iterator[Case]:
    """Yield one case of ordinary values for each of the large sizes that the op's plan lists."""
    plan = PLANS[op]
    for i, sizes in enumerate((*plan.large, *(plan.crowded if crowded else ()))):
        case = draw_case(op, Random(f"{seed} {i}"), sizes)
        yield replace(case, patterns=("uniform",) * len(case.patterns), layouts=())


def twin(case: Case) -> Case:
    """Return a case of the same sizes and parameters: large results may share memory that small ones don't."""
    return replace(case, seed=case.seed + 1)


def draw_sharing(op: str, shared: Collection[str], sets: int, seed: int, random: Random) -> Case:
    """Draw a case that has the ``shared`` parameters of one of a few sets, where its domain allows it.

    A backend that compiles an op for each value of a parameter would else spend its time with the compiler.
    """
    of_a_set = draw_case(op, Random(f"shared {op} {seed} {random.randrange(sets)}"))
    free = {*of_a_set.sizes, *(set(of_a_set.parameters) - set(shared))}
    case = draw_case(op, random, {name: value for name, value in of_a_set.parameters.items() if name not in free})
    try:
        find_op(op).check(case.arrays, case.parameters)
    except (DomainError, ValueError):
        return draw_case(op, random)
    return case


def case_of(kind: type[Kind], written: Mapping[str, Any]) -> Kind:
    """Return the case of one kind that has the fields of a JSON object.

    Raises
    ------
    ValueError
        A field is missing or unknown.
    """
    known = fields(kind)  # type: ignore[arg-type]
    missing = [field.name for field in known if field.default is MISSING and field.name not in written]
    for fault, names in (("no", missing), ("an unknown", sorted(set(written) - {field.name for field in known}))):
        if names:
            raise ValueError(f"found {fault} field {names[0]}, allowed the JSON that a failure prints")
    return kind(**written)


def with_equal_rows(array: np.ndarray, layout: str) -> np.ndarray:
    """Return an array that a layout of stride 0 allows: its first row, column or element, in the place of each."""
    axes = LAYOUTS[layout].repeats
    if axes is None or array.ndim < LAYOUTS[layout].dimensions or not array.size:
        return array
    return np.broadcast_to(first_along(array, axes), array.shape).copy()


def draw_case(op: str, random: Random, chosen: Mapping[str, Any] = MappingProxyType({})) -> Case:
    """Draw a case from the op's plan; ``random`` may be hypothesis' source, which then shrinks failures.

    ``given`` are sizes and parameters that aren't drawn, and as "..." the number of rows or the leading dimensions.
    """
    contract, plan = find_op(op), PLANS[op]
    sizes = {name: chosen[name] if name in chosen else random.choice(options) for name, options in plan.sizes.items()}
    leading: tuple[int, ...] = ()
    if any("..." in tensor.shape for tensor in contract.inputs):
        rows = chosen.get("...")
        leading = random.choice(plan.leading) if rows is None else (rows,) if isinstance(rows, int) else rows
    at = SimpleNamespace(leading=leading, **sizes)
    for name, choice in plan.parameters.items():
        drawn = choice(random, at) if callable(choice) else random.choice(choice)
        setattr(at, name, chosen.get(name, drawn))
    return Case(
        op=op,
        sizes=sizes,
        leading=leading,
        parameters={name: getattr(at, name) for name in plan.parameters},
        patterns=tuple(random.choice(DRAWN) for _ in contract.inputs),
        seed=random.randrange(1 << 32),
        layouts=tuple(random.choice(SEEN) for _ in contract.inputs) if random.choice((False, True)) else (),
    )
