"""The protocol of backends, and the search for one by name.

A backend is any object (a module, a class instance, a namespace) whose attributes bear the ops' names. It may have a
subset of the ops. Each takes the op's arrays by position and its parameters by keyword, and returns an array, or a
tuple of arrays where the op has several results: as the golden op does.

Arrays. A backend gets NumPy arrays, unless it has ``from_numpy(array, device)`` and ``to_numpy(array)``.
``from_numpy`` copies, takes views of any layout, and returns an object that has ``shape`` and can be sliced as a NumPy
array. ``default_device()`` chooses where no device is named. ``conformance/examples/triton`` is a whole backend with
these three functions. Where `implements` makes the ops, their package's ``ARRAYS`` (an `ArrayKind`) tells which arrays
they take: anything else raises DomainError.

Inputs may be views of any layout: slices of any axis, transposed axes, negative strides (NumPy alone has them), strides
of 0, a start anywhere in a larger array. Two inputs may be one array. An op that reads memory by its address must look
at the strides or copy first. An op never writes to its inputs.

Results are fresh memory and the caller's: a result is no input, no view of an input, no view with strides of 0, and
nothing that a later call writes to. Results of one call don't overlap.

The rest is optional, and changes no integer.

For models:

- ``activated_conv(x, w, bias, state, s, f, offset)`` is `causal_conv1d` with its result after `squareplus`. It is
  called where nobody observes the result in between.
- ``decode(model, session, options)`` returns what `generate` yields, computed faster, or None.
- ``repeated(function)`` returns a function that computes ``function(arrays, *constants)``, from arrays by name to
  arrays by name, faster for shapes and constants that it has seen before.

For training:

- ``concatenate(arrays, axis)`` is needed where arrays aren't NumPy's.
- ``largest_magnitudes(arrays)`` joins `largest_magnitude` of each array.
- ``narrow_gate_gradients(dy, x, z, f, x_shift, z_shift)`` is `silu_gate_backward` with its results in 16 bits.
- ``narrow_chunk_gradients`` is `ssd_chunk_scan_backward` likewise, with dx after `saturate_backward`.
- ``narrow_conv_gradients(dy, x, w, bias, state, dz, f, offset, s, shift)`` is `squareplus_backward` at the
  convolution's result, then `causal_conv1d_backward` and `round_to_int16`, joined with dz.
- ``rounded_weight_gradient(dy, q, e, ...)`` is `stochastic_round_rows`, then `ternary_linear_backward_weight`; it also
  returns the largest magnitude in between.
- ``replayed(function)`` returns a function that computes ``function(arrays, integers, take)`` again and again, for
  arrays of one shape. Its results, and the parts of them that it hands to ``take``, are valid until the next call.
- ``lion_updates(arrays)`` returns a function that runs `lion_update` on these tuples of arrays, whose gradients are
  int64 or int32. It is given a dict of int64 arrays with a parameter of each tuple. It returns lists of the masters and
  of the momenta, and the counts of clipped masters in pieces to be joined.

For the suite:

- ``variants(op)`` names the paths of an op that the backend doesn't take by itself at small sizes;
  ``variant(name)`` is a context in which it takes them.
- ``interpreted`` is about how many elements a case may have, where a backend runs one program at a time.
- ``compiled_for(op)`` names the parameters for whose every value the backend compiles the op anew: drawn cases then
  share a few values of these.

Names come from the entry-point group ``mamba_integer.backends``. ``module`` and ``module:attribute`` work without one,
and ``command:./mine`` starts a program that speaks JSON lines, in any language (see ``conformance/PROTOCOL.md``).
A public name that is nearly that of an op, which the backend lacks, is warned of.
A name alone proves nothing: many libraries have an ``argmax``. So a module that is no entry point counts as a backend
only if one of its functions bears an op's name and also names the op's parameters or, where it has none, its arrays.
"""

import difflib
import importlib
import inspect
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from types import FunctionType, ModuleType
from typing import Any

import numpy as np

from mamba_integer import spec

ENTRY_POINTS = "mamba_integer.backends"
ENVIRONMENT = "MAMBA_INTEGER_BACKEND"
COMMAND = "command:"
ALIASES = {"numpy": "golden"}
NEAR = 0.88  # of difflib: a letter or two of an op's name may differ


class BackendError(RuntimeError):
    """A backend that can't be found, lacks an op, crashes, or returns something other than an array."""


class UnsupportedError(Exception):
    """A backend raises it, with the reason, for a call that it leaves out: such a case is skipped and never passed."""


@dataclass(frozen=True)
class Backend:
    """An ops namespace together with the device its arrays live on."""

    name: str
    ops: Any
    device: str = "cpu"

    def __reduce__(self):
        """Let another process find the backend again by its name: its ops may be a module, which can't be sent."""
        return load, (self.name, self.device)

    def has(self, op: str) -> bool:
        return callable(getattr(self.ops, op, None))

    @property
    def names(self) -> list[str]:
        return [name for name in spec.OPS if self.has(name)]

    @property
    def misspelt(self) -> dict[str, str]:
        """Names that are nearly that of an op, with this op, which the backend lacks."""
        lacking = [name for name in spec.OPS if not self.has(name)]
        public = (name for name in dir(self.ops) if lacking and name not in spec.OPS and not name.startswith("_"))
        near = ((name, difflib.get_close_matches(name.lower(), lacking, 1, NEAR)) for name in public)
        return {name: meant[0] for name, meant in near if meant}

    def load(self, array: np.ndarray) -> Any:
        convert = getattr(self.ops, "from_numpy", None)
        return convert(array, self.device) if convert else array

    def store(self, array: Any) -> np.ndarray:
        convert = getattr(self.ops, "to_numpy", None)
        return convert(array) if convert else array

    def call(self, op: str, arrays: Sequence[Any], parameters: Mapping[str, int]) -> tuple[Any, ...]:
        """Run an op on arrays of this backend; a single result comes as a tuple of one."""
        if not self.has(op):
            raise BackendError(f"backend {self.name} has no op {op}")
        result = getattr(self.ops, op)(*arrays, **parameters)
        return result if isinstance(result, tuple) else (result,)

    def run(self, op: str, arrays: Sequence[np.ndarray], parameters: Mapping[str, int]) -> tuple[np.ndarray, ...]:
        """Run an op on NumPy arrays and return NumPy arrays."""
        return tuple(self.store(r) for r in self.call(op, [self.load(a) for a in arrays], parameters))


def load(name: str | None = None, device: str | None = None) -> Backend:
    """Find a backend by entry-point name or ``module:attribute``; without an attribute it is the module itself.

    Without a name, the environment variable MAMBA_INTEGER_BACKEND names it; without that it is the golden code, which
    is also called numpy. Without a device, a backend that has ``default_device()`` chooses.

    Raises
    ------
    BackendError
        No such entry point, module or attribute; or the object has no op of the specification.
    """
    name = name or os.environ.get(ENVIRONMENT) or "golden"
    name = ALIASES.get(name, name)
    ops, declared = _find(name)
    if isinstance(ops, type) and any(isinstance(vars(ops).get(op), FunctionType) for op in spec.OPS):
        raise BackendError(f"backend {name!r}: found a class, allowed an instance of it: module:attribute")
    chosen = device or getattr(ops, "default_device", lambda: "cpu")()
    backend = Backend(name, ops, chosen)
    if not backend.names:
        raise BackendError(f"backend {name} has no op of the specification; {_instead(backend)}")
    if not declared and isinstance(ops, ModuleType) and not any(_signed(op, ops) for op in backend.names):
        raise BackendError(
            f"module {name} is no backend: none of its functions ({', '.join(backend.names)}) takes what the "
            "op of that name takes. In a backend, a function names the op's parameters or, where it has none, its "
            "arrays, as `mamba-integer ops` lists them"
        )
    return backend


@cache
def declared() -> dict[str, EntryPoint]:
    """Return the backends that installed packages declare; to look through those takes milliseconds."""
    return {point.name: point for point in entry_points(group=ENTRY_POINTS)}


def _find(name: str) -> tuple[Any, bool]:
    """Return the namespace of that name, and whether it needn't be looked at to know that it is a backend."""
    if name.startswith(COMMAND):
        from .programs import ProgramOps

        return ProgramOps(name.removeprefix(COMMAND)), True
    if "/" in name or name.endswith(".py"):
        folder, _, file = name.rpartition("/")
        module = f"PYTHONPATH={folder or '.'} and {file.removesuffix('.py')}"
        raise BackendError(f"backend {name!r}: found a path, allowed a module: {module}")
    if name not in declared():
        declared.cache_clear()
    known = declared()
    module, _, attribute = name.partition(":")
    try:
        if name in known:
            return known[name].load(), True
        namespace = importlib.import_module(module)
        return (getattr(namespace, attribute) if attribute else namespace), False
    except ModuleNotFoundError as error:
        if f"{module}.".startswith(f"{error.name}."):
            others = "module:attribute (the module's folder in PYTHONPATH) or command:./program"
            allowed = f"{', '.join(sorted(known))}, {others}"
            raise BackendError(f"unknown backend {name!r}: {error}; known: {allowed}") from error
        raise BackendError(f"backend {name!r} can't be loaded: {error}; is its folder in PYTHONPATH?") from error
    except (ImportError, AttributeError, ValueError) as error:
        raise BackendError(f"backend {name!r} can't be loaded: {error}") from error


def _instead(backend: Backend) -> str:
    """Say where the ops may be that a backend lacks."""
    name, ops = backend.name, backend.ops
    attributes = vars(ops).items() if isinstance(ops, ModuleType) else ()
    holders = [(held, value) for held, value in attributes if any(_takes(op, value) for op in spec.OPS)]
    for held, value in sorted(holders, key=lambda holder: isinstance(holder[1], type)):
        if isinstance(value, type):
            return f"its class {held} has some: name an instance of it, {name}:attribute"
        if not isinstance(value, ModuleType):
            return f"its attribute {held} has some: {name}:{held}"
        if value.__name__.startswith(f"{name}."):
            return f"its module {held} has some: {value.__name__}"
    if backend.misspelt:
        return "; ".join(f"its {found} may be meant for {meant}" for found, meant in backend.misspelt.items())
    return f"it is a {type(ops).__name__}, and has no attribute that `mamba-integer ops` lists"


def _takes(op: str, ops: Any) -> bool:
    return callable(getattr(ops, op, None)) and _signed(op, ops)


def _signed(op: str, ops: Any) -> bool:
    """Return whether the function of that name names the op's parameters or, where it has none, its arrays."""
    try:
        arguments = inspect.signature(getattr(ops, op)).parameters.values()
    except (TypeError, ValueError):  # a function of an extension module that doesn't tell
        return False
    contract = spec.OPS[op]
    if not contract.parameters:
        return [argument.name for argument in arguments] == [tensor.name for tensor in contract.inputs]
    keywords = {a.name for a in arguments if a.kind in (a.POSITIONAL_OR_KEYWORD, a.KEYWORD_ONLY)}
    every = any(a.kind is a.VAR_KEYWORD for a in arguments)
    return every or keywords >= {parameter.name for parameter in contract.parameters}
