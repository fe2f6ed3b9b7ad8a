"""A circuit of one op's call: the golden function itself, with wires for arrays."""

import types
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from types import FunctionType, SimpleNamespace
from typing import Any

import numpy as np

from mamba_integer.spec import integers
from mamba_integer.spec.bounds import Interval
from mamba_integer.spec.contract import (
    Constant,
    Op,
    Packed,
    PackedTernary,
    Tensor,
    dtype_name,
    find_op,
    trusted_values,
)

from . import rules
from .arrays import SymbolicNumPy, Wires, bounded, wires
from .constraints import MODULUS, PRODUCT, BranchError, Circuit, CircuitError, Integer, Number, value_of

NUMPY = SymbolicNumPy()
SPECIFICATION = integers.__name__.rpartition(".")[0]

PUBLIC, PRIVATE, FIXED = "public", "private", "fixed"


class Symbolic:
    """Functions of the specification with another ``np``; a root and a length are stated instead of computed.

    The code objects are those of the specification. Each name that they look up is replaced in turn.
    """

    def __init__(self) -> None:
        self.replaced: dict[int, Any] = {id(np): NUMPY}
        self.replaced |= {id(f): stated(rule) for f, rule in STATED.items()}

    def __call__(self, value: Any) -> Any:
        if id(value) in self.replaced:
            return self.replaced[id(value)]
        if isinstance(value, Op):
            self.replaced[id(value)] = operation = SimpleNamespace()
            operation.golden = self.function(value.golden)
            return operation
        if isinstance(value, FunctionType) and value.__module__.startswith(SPECIFICATION):
            return self.function(value)
        if isinstance(value, types.ModuleType) and value.__name__.startswith(SPECIFICATION):
            self.replaced[id(value)] = module = Names(self, vars(value))
            return module
        return value

    def function(self, original: Any) -> Any:
        if id(original) not in self.replaced:
            looked_up = {name: value for name, value in original.__globals__.items() if name in names_in(original)}
            scope = {"__builtins__": original.__globals__["__builtins__"]}
            made = FunctionType(
                original.__code__, scope, original.__name__, original.__defaults__, original.__closure__
            )
            made.__kwdefaults__ = original.__kwdefaults__
            self.replaced[id(original)] = made
            scope |= {name: self(value) for name, value in looked_up.items()}
        return self.replaced[id(original)]


class Names:
    """The functions of a module, replaced as they are looked up."""

    def __init__(self, symbolic: Symbolic, names: Mapping[str, Any]):
        self._symbolic, self._names = symbolic, names

    def __getattr__(self, name: str) -> Any:
        return self._symbolic(self._names[name])


def names_in(function: FunctionType) -> set[str]:
    names, codes = set(), [function.__code__]
    while codes:
        code = codes.pop()
        names |= set(code.co_names)
        codes += [constant for constant in code.co_consts if isinstance(constant, types.CodeType)]
    return names


STATED = {integers.isqrt: rules.isqrt, integers.bit_length: rules.bit_length}


def stated(rule: Callable) -> Callable:
    return lambda x: wires(np.frompyfunc(rule, 1, 1)(np.asarray(wires(x))))


symbolic = Symbolic()
# NumPy's words for an array of wires where it needs numbers: as an index, in a view of its bytes.
UNSUPPORTED = (TypeError, IndexError, AttributeError, ValueError)


class CircuitOps:
    """Every op of the specification, on arrays of wires; a network that runs on them becomes one circuit."""

    def __getattr__(self, name: str) -> Callable:
        contract = find_op(name)
        golden = symbolic(contract).golden

        def run(*arrays: Any, **parameters: int) -> Any:
            at = checked(contract, arrays, parameters)
            try:
                results = golden(*arrays, **parameters)
            except CircuitError:
                raise
            except UNSUPPORTED as error:
                raise CircuitError(
                    f"{name}: its golden code has a call without constraints; NumPy says {str(error)!r}"
                ) from error
            proved = contract.widths(at)
            outputs = []
            whole = results if isinstance(results, tuple) else (results,)
            for tensor, array in zip(contract.outputs, whole, strict=True):
                bounds = proved[tensor.name].range if tensor.name in proved else tensor.range(at)
                outputs.append(bounded(array, bounds) if isinstance(array, Wires) else array)
            return tuple(outputs) if len(outputs) > 1 else outputs[0]

        return run


OPERATIONS = CircuitOps()


def checked(contract: Op, arrays: Sequence[Any], parameters: Mapping[str, int]) -> SimpleNamespace:
    """Check the shapes and parameters of a call: wires have no dtype, so they stand as the first that is allowed."""
    shapes = [
        SimpleNamespace(shape=array.shape, dtype=tensor.dtypes[0]) if isinstance(array, Wires) else array
        for tensor, array in zip(contract.inputs, arrays, strict=True)
    ]
    with trusted_values():
        return contract.check(shapes, parameters)


@dataclass
class Statement:
    """A circuit with its inputs and outputs by name, about which a proof speaks."""

    circuit: Circuit
    inputs: dict[str, Any]
    outputs: dict[str, Any]
    public: list[int]  # wires: outputs, then inputs
    public_inputs: int
    private: list[int]

    @property
    def public_values(self) -> list[int]:
        """The public values that a verifier gets beside the proof, as elements of the field."""
        return [self.circuit.values[wire] % MODULUS for wire in self.public]

    @property
    def counts(self) -> dict[str, int]:
        constraints = len(self.circuit.constraints)
        return {**self.circuit.counts, "constraints": constraints, "wires": len(self.circuit.values)}


class Builder:
    """A statement in the making: declare inputs, run ops on them, publish what comes out."""

    def __init__(self) -> None:
        self.circuit = Circuit()
        self.inputs: dict[str, Any] = {}
        self.outputs: dict[str, Any] = {}
        self.public_inputs: list[int] = []
        self.private: list[int] = []
        self.published: list[int] = []

    def input(self, name: str, array: Any, bounds: Interval, visibility: str = PUBLIC) -> Any:
        """Return an input's wires; the range of a private one is constrained, that of a public one is seen."""
        if visibility == FIXED:
            return array
        whole = np.empty(np.shape(array), object)
        for index, value in np.ndenumerate(np.asarray(array)):
            whole[index] = self.element(int(value), bounds, visibility)
        self.inputs[name] = whole.view(Wires)
        return self.inputs[name]

    def element(self, value: int, bounds: Interval, visibility: str) -> Number:
        """Return one input; its wire is there even where the range has one value alone."""
        wire = self.circuit.new_wire(value)
        (self.public_inputs if visibility == PUBLIC else self.private).append(wire)
        if bounds.low == bounds.high:
            if visibility == PRIVATE:
                self.circuit.tie(wire, bounds.low)
            return bounds.low
        element = Integer(self.circuit, {wire: 1}, 0, bounds.low, bounds.high, value)
        if visibility == PRIVATE:
            rules.require_range(element, bounds)
        return element

    def publish(self, name: str, array: Any) -> None:
        """Make an array an output: one wire and one equality for each element, also where no input changes it."""
        self.outputs[name] = wires(array)
        for number in np.asarray(self.outputs[name]).ravel():
            wire = self.circuit.new_wire(value_of(number))
            self.circuit.tie(wire, number)
            self.published.append(wire)

    def named(self, wires_: Collection[int]) -> list[str]:
        """Return the inputs that have one of these wires."""
        numbers = {name: np.asarray(array).ravel() for name, array in self.inputs.items()}
        held = {name: {w for x in row if isinstance(x, Integer) for w in x.terms} for name, row in numbers.items()}
        return [name for name, terms in held.items() if terms & set(wires_)]

    def statement(self) -> Statement:
        public = self.published + self.public_inputs
        return Statement(self.circuit, self.inputs, self.outputs, public, len(self.public_inputs), self.private)


def lower(
    op: str,
    arrays: Sequence[Any],
    parameters: Mapping[str, int],
    private: Collection[str] = (),
    fixed: Collection[str] = (),
) -> Statement:
    """Return the circuit of one call of an op.

    Parameters
    ----------
    op : str
    arrays : sequence of NumPy arrays
        The inputs, which the witness is of. The constraints depend on their shapes, and on the elements of fixed ones.
    parameters : mapping of names to integers
    private : names of inputs
        A proof hides them; the constraints hold them in their range.
    fixed : names of inputs
        They are constants of the circuit, as all packed weights are, and inputs that the golden code branches on or
        takes as an index.

    Raises
    ------
    DomainError
        The call is outside the op's domain.
    CircuitError
        The golden code does something that has no constraints yet.
    """
    contract = find_op(op)
    at = contract.check(arrays, parameters)
    builder = Builder()
    calls = []
    for tensor, array in zip(contract.inputs, arrays, strict=True):
        visibility = PRIVATE if tensor.name in private else FIXED if is_fixed(tensor, fixed) else PUBLIC
        if visibility == PRIVATE and (reason := unproved(tensor)):
            raise CircuitError(f"{op}: argument {tensor.name}: found private, allowed fixed: {reason}")
        calls.append(builder.input(tensor.name, array, tensor.range(at, dtype_name(array)), visibility))
        if visibility == PRIVATE and isinstance(tensor, PackedTernary):
            require_codes(calls[-1], getattr(at, tensor.packed))
    try:
        results = getattr(OPERATIONS, op)(*calls, **parameters)
    except BranchError as error:
        decided = builder.named(error.wires)
        if not decided or set(decided) & {*private, *fixed}:
            raise
        return lower(op, arrays, parameters, private, {*fixed, *decided})
    for tensor, array in zip(contract.outputs, results if isinstance(results, tuple) else (results,), strict=True):
        builder.publish(tensor.name, array)
    return builder.statement()


def require_codes(packed: Any, digits: int) -> None:
    """Constrain packed bytes to the codes of `PackedTernary`: none is 10, and those after the last digit are 00."""
    for (*_, place), byte in np.ndenumerate(np.asarray(packed)):
        bits, _ = rules.decompose(byte)
        for i in range(4):
            low, high = bits[2 * i], bits[2 * i + 1]
            if 4 * place + i < digits:
                byte.circuit.constrain(PRODUCT, high, rules.subtract(1, low), 0)
            else:
                byte.circuit.equate(low, 0)
                byte.circuit.equate(high, 0)


def unproved(tensor: Tensor) -> str:
    """Return the part of an input's domain that no constraint enforces, or an empty text."""
    if isinstance(tensor, Constant):
        return "the sizes and parameters determine it"
    return "its codes have no check" if isinstance(tensor, Packed) and not isinstance(tensor, PackedTernary) else ""


def is_fixed(tensor: Tensor, fixed: Collection[str]) -> bool:
    return tensor.name in fixed or isinstance(tensor, Packed | Constant)
