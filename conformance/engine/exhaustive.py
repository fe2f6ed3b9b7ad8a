"""Every input of an op, where they are few enough: int16, bytes, ternary products; on a GPU all of int32."""

import itertools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property

import numpy as np

from mamba_integer import spec
from mamba_integer.backends import Backend
from mamba_integer.spec.contract import find_op

from ..plans.activation import offsets
from .calls import check_case, filled_memory, on_cuda
from .comparison import Failure, crashes_as_failures

BLOCK = 1 << 26
INT16 = np.arange(-32767, 32768, dtype=np.int16)
INT8 = np.arange(-127, 128, dtype=np.int8)
LARGEST = (1 << 31) - 1


@dataclass(frozen=True)
class ExhaustiveCase:
    """All inputs of one group under one choice of parameters; ``start`` is the first of a block of int32."""

    op: str
    exhaustive: str
    parameters: Mapping[str, int] = field(default_factory=dict)
    start: int = 0

    def to_json(self) -> str:
        return json.dumps(asdict(self), separators=(",", ":"))

    @property
    def purpose(self) -> str:
        return f"every input of the group {self.exhaustive}"

    @cached_property
    def arrays(self) -> tuple[np.ndarray, ...]:
        return GROUPS[self.exhaustive].arrays(self)

    def check(self, backend: Backend) -> int:
        return GROUPS[self.exhaustive].check(backend, self)


class Group:
    """A finite set of inputs that an op is run on."""

    def parameters(self, op: str, backend: Backend) -> Iterator[tuple[dict[str, int], int]]:
        """Yield parameters and start of each case of the op; nothing where the group has none."""
        raise NotImplementedError

    def arrays(self, case: ExhaustiveCase) -> tuple[np.ndarray, ...]:
        raise NotImplementedError

    def check(self, backend: Backend, case: ExhaustiveCase) -> int:
        return check_case(backend, case)


def every_parameter(op: str) -> Iterator[dict[str, int]]:
    """Yield every choice of an op's parameters, which must not depend on sizes."""
    parameters = find_op(op).parameters
    ranges = [p.range(None) for p in parameters]
    for values in itertools.product(*(range(r.low, r.high + 1) for r in ranges)):
        yield dict(zip((p.name for p in parameters), values, strict=True))


class Int16(Group):
    """All int16 inputs of an elementwise op, under every or chosen parameters; of a gate, against a few factors."""

    factors = np.array([-32767, 1, 32767], np.int16)

    def parameters(self, op, backend):
        contract = find_op(op)
        elementwise = all(tensor.shape == "..." for tensor in (*contract.inputs, *contract.outputs))
        narrow = all("int16" in tensor.dtypes for tensor in contract.inputs)
        few = len(contract.parameters) <= 1 or op in CHOSEN
        if elementwise and narrow and few:
            yield from ((chosen, 0) for chosen in CHOSEN.get(op) or every_parameter(op))

    def arrays(self, case):
        grid = np.meshgrid(*[self.factors] * (len(find_op(case.op).inputs) - 1), INT16)
        return tuple(np.ascontiguousarray(axis) for axis in grid)


class Digits(Group):
    """Every ternary tuple of one byte."""

    sizes: Mapping[str, int] = {"pack_ternary": 4, "pack_trits": 5}

    def parameters(self, op, backend):
        if op in self.sizes:
            yield {}, 0

    def arrays(self, case):
        return (np.array(list(itertools.product((-1, 0, 1), repeat=self.sizes[case.op])), np.int8),)


class ValidBytes(Digits):
    """Every byte that holds digits."""

    def parameters(self, op, backend):
        packer = find_op(op).inverse_of
        if packer in self.sizes:
            yield {"K": self.sizes[packer]}, 0

    def arrays(self, case):
        packer = find_op(find_op(case.op).inverse_of)
        digits = super().arrays(ExhaustiveCase(packer.name, case.exhaustive))
        return (packer.golden(*digits),)


class InvalidBytes(ValidBytes):
    """Every other byte: each alone must raise an error."""

    def arrays(self, case):
        return (np.setdiff1d(np.arange(256, dtype=np.uint8), super().arrays(case)[0])[:, None],)

    def check(self, backend, case):
        for byte in case.arrays[0]:
            with crashes_as_failures(backend, case):
                try:
                    backend.run(case.op, [byte], case.parameters)
                except Exception:
                    continue
            raise Failure(backend, case, "accepted", f"the invalid byte {byte[0]:#04x} raised no error")
        return len(case.arrays[0])


class Products(Group):
    """Every int8 times every ternary weight."""

    def parameters(self, op, backend):
        if op == "ternary_linear":
            yield from (({"num": num, "shift": shift}, 0) for num, shift in ((1, 0), (1, 1), (3, 2), (32767, 15)))

    def arrays(self, case):
        weights = spec.pack_ternary(np.array([[-1], [0], [1]], np.int8))
        return INT8[:, None], np.zeros(INT8.size, np.int32), weights


class Edges(Group):
    """Squares, powers of two, their neighbours, and a sample of int32 in even strides."""

    def parameters(self, op, backend):
        if op in POSTCONDITIONS:
            yield from ((chosen, 0) for chosen in every_parameter(op))

    def arrays(self, case):
        centres = [np.arange(46341) ** 2, 1 << np.arange(31), np.arange(0, LARGEST, 65521), np.array([LARGEST])]
        positive = ascending(np.concatenate([c + d for c in centres for d in (-1, 0, 1)]).clip(0, LARGEST))
        low = find_op(case.op).inputs[0].range(None).low
        return (ascending(np.concatenate([positive, -positive])).clip(low, LARGEST).astype(np.int32),)


def ascending(values: np.ndarray) -> np.ndarray:
    """Return what `np.unique` does, in a tenth of the time that its hashing takes for this many integers."""
    values = np.sort(values)
    return values[np.append(True, values[1:] != values[:-1])]


def is_isqrt(v, r):
    return (r >= 0) & (r * r <= v) & ((r + 1) * (r + 1) > v)


def is_bit_length(x, b):
    size, length = x.abs(), b.clamp(0, 32)
    return (length == b) & (size < (1 << length)) & ((length == 0) | (2 * size >= (1 << length)))


def is_shift_round(x, y, s):
    doubled = 2 * x + (1 << s)
    return ((y << (s + 1)) <= doubled) & (doubled < ((y + 1) << (s + 1)))


def is_saturate(x, y, bits):
    limit = (1 << (bits - 1)) - 1
    inside = x.abs() <= limit
    return (inside & (y == x)) | (~inside & (y == limit * x.sign()))


POSTCONDITIONS: dict[str, Callable] = {
    "isqrt": is_isqrt,
    "bit_length": is_bit_length,
    "shift_round": is_shift_round,
    "saturate": is_saturate,
}
# Every shift and width is tried on the edges; on all of int32, those around the sizes that the ops use. Squareplus has
# too many offsets to try each on all of int16.
SQUAREPLUS = [{"f": f, "offset": offset} for f in range(15) for offset in offsets(f)]
CHOSEN: dict[str, Sequence[dict[str, int]]] = {
    "squareplus": SQUAREPLUS,
    "squareplus_backward": SQUAREPLUS,
    "shift_round": [{"s": s} for s in (0, 1, 2, 7, 8, 15, 16, 30, 31)],
    "saturate": [{"bits": bits} for bits in (2, 8, 16, 24, 31, 32)],
}


class Int32(Group):
    """All int32 inputs in the domain, on a CUDA device, held there against the clause in Torch's int64."""

    def parameters(self, op, backend):
        if op in POSTCONDITIONS and on_cuda(backend):
            allowed = find_op(op).inputs[0].range(None)
            for chosen in CHOSEN.get(op, [{}]):
                yield from ((chosen, start) for start in range(allowed.low, allowed.high + 1, BLOCK))

    def arrays(self, case):
        stop = min(case.start + BLOCK, find_op(case.op).inputs[0].range(None).high + 1)
        return (np.arange(case.start, stop, dtype=np.int32),)

    def check(self, backend, case):
        import torch

        stop = min(case.start + BLOCK, find_op(case.op).inputs[0].range(None).high + 1)
        wide = torch.arange(case.start, stop, device=backend.device)
        narrow = wide.to(torch.int32)
        with crashes_as_failures(backend, case), filled_memory():
            (result,) = backend.call(case.op, [narrow], case.parameters)
        if not isinstance(result, torch.Tensor) or result.dtype != torch.int32 or result.shape != wide.shape:
            raise Failure(backend, case, "result", f"want an int32 tensor of shape {tuple(wide.shape)}")
        if not torch.equal(narrow.long(), wide):
            raise Failure(backend, case, "mutation", "the op changed its input")
        right = POSTCONDITIONS[case.op](wide, result.long(), **case.parameters)
        if not bool(right.all()):
            first = int((~right).to(torch.uint8).argmax())
            value, got = int(wide[first]), int(result[first])
            want = int(find_op(case.op)(np.array(value, np.int32), **case.parameters))
            count = int((~right).sum())
            message = f"{count} of {right.numel()} integers break the clause; first for {value}: got {got}, want {want}"
            name = find_op(case.op).outputs[0].name
            raise Failure(backend, case, "value", message, name, count, right.numel(), (first,), got, want)
        return right.numel()


GROUPS: dict[str, Group] = {
    "int16": Int16(),
    "digits": Digits(),
    "bytes": ValidBytes(),
    "invalid bytes": InvalidBytes(),
    "products": Products(),
    "edges": Edges(),
    "int32": Int32(),
}


def exhaustive_cases(op: str, backend: Backend) -> Iterator[ExhaustiveCase]:
    """Return every exhaustive case that the op has on this backend's device."""
    for name, group in GROUPS.items():
        for parameters, start in group.parameters(op, backend):
            yield ExhaustiveCase(op, name, parameters, start)
