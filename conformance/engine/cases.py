"""Cases: one call of one op, described by a few small values and rebuilt from them anywhere."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cache, cached_property
from random import Random
from types import MappingProxyType, SimpleNamespace

import numpy as np

from mamba_integer.spec.contract import Constant, Packed, Tensor, find_op, known_size

from ..plans import PLANS
from ..plans.plan import Extreme
from .patterns import PATTERNS, draw


@dataclass(frozen=True)
class Case:
    """One call of an op. ``strided`` passes every array as each second element of a larger one."""

    op: str
    sizes: Mapping[str, int]
    leading: tuple[int, ...]
    parameters: Mapping[str, int]
    patterns: tuple[str, ...]
    seed: int
    strided: bool = False

    def to_json(self) -> str:
        return json.dumps(asdict(self), separators=(",", ":"))

    @cached_property
    def at(self) -> SimpleNamespace:
        return SimpleNamespace(leading=self.leading, **self.sizes, **self.parameters)

    @cached_property
    def arrays(self) -> tuple[np.ndarray, ...]:
        """The input arrays, contiguous."""
        inputs = find_op(self.op).inputs
        return tuple(self._array(i, tensor) for i, tensor in enumerate(inputs))

    def _array(self, stream: int, tensor: Tensor) -> np.ndarray:
        if isinstance(tensor, Constant):
            return tensor.value(self.at).copy()
        if isinstance(tensor, Packed):
            digits = (*self.shape(tensor)[:-1], getattr(self.at, tensor.packed))
            return find_op(tensor.packer)(self._draw(stream, digits, -1, 1).astype(np.int8))
        dtype = tensor.dtypes[(self.seed >> stream) % len(tensor.dtypes)]
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
    """A call that the op's plan lists: call ``call`` of entry ``entry`` of its extremes and edges."""

    op: str
    entry: int
    call: int
    strided: bool = False

    def to_json(self) -> str:
        return json.dumps(asdict(self), separators=(",", ":"))

    @cached_property
    def _extreme(self) -> Extreme:
        return listed(self.op)[self.entry]

    @property
    def arrays(self) -> tuple[np.ndarray, ...]:
        return self._extreme.calls[self.call]

    @property
    def parameters(self) -> Mapping[str, int]:
        return self._extreme.parameters


@cache
def listed(op: str) -> list[Extreme]:
    return [*PLANS[op].extremes(), *PLANS[op].edges()]


def extreme_cases(op: str) -> Iterator[ExtremeCase]:
    """Return one case for each call that the op's plan lists, of its extremes and its edges."""
    for entry, extreme in enumerate(listed(op)):
        for call in range(len(extreme.calls)):
            yield ExtremeCase(op, entry, call)


def large_cases(op: str, seed: int) -> Iterator[Case]:
    """Return one case of ordinary values for each of the large sizes that the op's plan lists."""
    for i, sizes in enumerate(PLANS[op].large):
        case = draw_case(op, Random(f"{seed} {i}"), sizes)
        yield replace(case, patterns=("uniform",) * len(case.patterns), strided=False)


def parse_case(text: str) -> Case | ExtremeCase:
    """Parse what ``to_json`` of either kind wrote.

    Raises
    ------
    ValueError
        The text is no JSON object with exactly the fields of a case.
    """
    try:
        fields = json.loads(text)
        if "entry" in fields:
            return ExtremeCase(**fields)
        case = Case(**fields | {"leading": tuple(fields["leading"]), "patterns": tuple(fields["patterns"])})
    except (TypeError, KeyError, json.JSONDecodeError) as error:
        raise ValueError(f"not a case: {error}") from error
    if unknown := [p for p in case.patterns if p not in PATTERNS]:
        raise ValueError(f"case: unknown pattern {unknown[0]!r}; known: {', '.join(PATTERNS)}")
    return case


def draw_case(op: str, random: Random, given: Mapping[str, int] = MappingProxyType({})) -> Case:
    """Draw a case from the op's plan; ``random`` may be hypothesis' source, which then shrinks failures.

    ``given`` are sizes and parameters that aren't drawn, and as "..." the number of rows.
    """
    contract, plan = find_op(op), PLANS[op]
    sizes = {name: given[name] if name in given else random.choice(options) for name, options in plan.sizes.items()}
    leading: tuple[int, ...] = ()
    if any("..." in tensor.shape for tensor in contract.inputs):
        leading = (given["..."],) if "..." in given else random.choice(plan.leading)
    at = SimpleNamespace(leading=leading, **sizes)
    for name, choice in plan.parameters.items():
        drawn = choice(random, at) if callable(choice) else random.choice(choice)
        setattr(at, name, given.get(name, drawn))
    return Case(
        op=op,
        sizes=sizes,
        leading=leading,
        parameters={name: getattr(at, name) for name in plan.parameters},
        patterns=tuple(random.choice(list(PATTERNS)) for _ in contract.inputs),
        seed=random.randrange(1 << 32),
        strided=random.choice((False, True)),
    )
