"""Slips of memory: results that are not the caller's alone, and leftovers of one call in the next."""

import itertools
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from mamba_integer.spec.contract import OPS

from .slip import Array, as_tuple, slip
from .slips_layout import CONV, LINEAR, LION, NORM, SELECTIVE

FLAT = {"leading": (9,)}


def one_buffer() -> Callable[..., Any]:
    """Return the results in buffers that the next call of the same shapes writes to as well."""
    buffers: dict[Any, Array] = {}

    def run(op: str, arrays: tuple[Array, ...], parameters: dict[str, int]) -> Any:
        results = OPS[op].golden(*arrays, **parameters)
        kept = []
        for i, result in enumerate(as_tuple(results)):
            kept.append(buffers.setdefault((i, result.shape), result.copy()))
            kept[-1][...] = result
        return tuple(kept) if isinstance(results, tuple) else kept[0]

    return run


def returned(position: int, output: int = 0) -> Callable[..., Any]:
    """Write a result into the memory of an input."""

    def run(op: str, arrays: tuple[Array, ...], parameters: dict[str, int]) -> Any:
        results = OPS[op].golden(*arrays, **parameters)
        several = list(as_tuple(results))
        arrays[position][...] = several[output]
        several[output] = arrays[position]
        return tuple(several) if isinstance(results, tuple) else several[0]

    return run


def input_if_same(op: str, arrays: tuple[Array, ...], parameters: dict[str, int]) -> Any:
    """Return the first input itself where the op leaves it unchanged."""
    result = OPS[op].golden(*arrays, **parameters)
    same = result.dtype == arrays[0].dtype and np.array_equal(result, arrays[0])
    return arrays[0] if same else result


def not_turned(call: Any) -> bool:
    return not (call.lam.any() or call.gam.any() or call.quadrant.any())


def input_as_result(op: str, arrays: tuple[Array, ...], parameters: dict[str, int]) -> Any:
    return arrays[0].astype(np.int32, copy=False)


def view_of_state(op: str, arrays: tuple[Array, ...], parameters: dict[str, int]) -> Any:
    """Return the last inputs as a view of them, where there are enough."""
    y, state = OPS[op].golden(*arrays, **parameters)
    x = arrays[0]
    return y, x[:, -3:] if x.shape[1] >= 3 else state


def shared_exponents() -> Callable[..., Any]:
    """Return e as a view of a buffer that the next call overwrites."""
    buffer = np.zeros(1 << 17, np.int32)

    def run(op: str, arrays: tuple[Array, ...], parameters: dict[str, int]) -> Any:
        r, e = OPS[op].golden(*arrays, **parameters)
        buffer[: e.size] = e.ravel()
        return r, buffer[: e.size].reshape(e.shape)

    return run


def cached_by_address(position: int) -> Callable[..., Any]:
    """Prepare weights once for each address, whatever was written there since."""
    prepared: dict[Any, Array] = {}

    def run(op: str, arrays: tuple[Array, ...], parameters: dict[str, int]) -> Any:
        weights = arrays[position]
        prepared_weights = prepared.setdefault((weights.ctypes.data, weights.shape, weights.strides), weights.copy())
        return OPS[op].golden(*arrays[:position], prepared_weights, *arrays[position + 1 :], **parameters)

    return run


def not_cleared(output: int = 0) -> Callable[..., Any]:
    """Add to a workspace that only the first call of a shape has cleared."""
    workspaces: dict[Any, Array] = {}

    def run(op: str, arrays: tuple[Array, ...], parameters: dict[str, int]) -> Any:
        results = OPS[op].golden(*arrays, **parameters)
        several = list(as_tuple(results))
        total = workspaces.get(several[output].shape, 0) + several[output]
        workspaces[total.shape] = total
        several[output] = total.astype(several[output].dtype)
        return tuple(several) if isinstance(results, tuple) else several[0]

    return run


def counting() -> Callable[..., Any]:
    """Draw with a counter of the generator's own beside the row's position."""
    drawn = itertools.count()

    def run(op: str, arrays: tuple[Array, ...], parameters: dict[str, int]) -> Any:
        logits, stream, position = arrays
        return OPS[op].golden(logits, stream, position + np.int32(next(drawn)), **parameters)

    return run


def sorts_in_place(op: str, arrays: tuple[Array, ...], parameters: dict[str, int]) -> Any:
    """Mask the logits that aren't kept in the caller's array."""
    token = OPS[op].golden(*arrays, **parameters)
    logits = arrays[0]
    if parameters["top_k"] < logits.shape[1]:
        logits[logits < np.sort(logits, axis=-1)[:, -parameters["top_k"], None]] = -32767
    return token


PACKED = {"leading": (2,), "K": 8}
SAMPLE = {"B": 3, "V": 9, "seed": 1, "f": 8, "num": 1, "shift": 3, "top_k": 2, "top_p": 65536}


def keeps(name: str, op: str, says: str, makes: Callable[[], Any], at: dict[str, Any]) -> None:
    slip(name, op, says, makes=makes, at=at, calls=2)


keeps("next_call_overwrites", "bitshift_norm", "one result buffer for all calls", one_buffer, NORM)
keeps("scan_buffer", "selective_scan", "one result buffer for all calls", one_buffer, SELECTIVE)
keeps("gate_buffer", "silu_gate", "one result buffer for all calls", one_buffer, FLAT | {"f": 8})
keeps("exponent_buffer", "ternary_linear_requant", "exponents in a shared buffer", shared_exponents, LINEAR)
slip(
    "stream_in_place", "residual_add", "y is written to r", runs=returned(0), at=FLAT | {"num": 3, "shift": 1}, calls=2
)
slip("momentum_in_place", "lion_update", "m is updated where it lies", runs=returned(1, 1), at=LION, calls=2)
slip("cache_in_place", "selective_scan_step", "the new h is written to h", runs=returned(6, 1), at=SELECTIVE, calls=2)
slip(
    "identity_shared",
    "saturate",
    "x itself where nothing saturates",
    runs=input_if_same,
    at=FLAT | {"bits": 32},
    calls=2,
)
slip("shift_by_nothing", "shift_round", "x itself for s = 0", runs=input_if_same, at=FLAT | {"s": 0}, calls=2)
for op, shape in (("dyadic_rotate_inverse", (3,)), ("rope", (2, 3))):
    nothing = {"lam": np.zeros(shape, np.int32), "gam": np.zeros(shape, np.int32), "quadrant": np.zeros(shape, np.int8)}
    slip(
        f"{op}_by_nothing",
        op,
        "x itself where all coefficients and quadrants are zero",
        when=not_turned,
        runs=input_as_result,
        values={name: lambda c, array=array: array for name, array in nothing.items()},
        at={"leading": (2,), "B": 2, "L": 2, "P": 3, "s": 14},
        calls=2,
    )
slip("state_is_a_view", "causal_conv1d", "the new state is a view of x", runs=view_of_state, at=CONV, calls=2)
slip("logits_masked", "sample", "logits are masked in place", runs=sorts_in_place, at=SAMPLE, calls=2)
keeps(
    "weights_by_address", "ternary_linear", "unpacked w is kept by its address", partial(cached_by_address, 2), LINEAR
)
keeps(
    "table_by_address",
    "embedding",
    "a table is kept by its address",
    partial(cached_by_address, 1),
    {"leading": (3,), "V": 5, "D": 2, "shift": 1},
)
keeps("taps_by_address", "conv1d_step", "taps are kept by their address", partial(cached_by_address, 1), CONV)
keeps("workspace_kept", "embedding_backward", "dtable is cleared once", not_cleared, {"leading": (5,), "V": 3, "D": 2})
keeps(
    "half_sums_kept",
    "ternary_linear_backward_weight",
    "partial sums are cleared once",
    not_cleared,
    {"leading": (4,), "N": 3, "K": 5, "bits": 8},
)
keeps("clipped_kept", "lion_update", "the count of clipped weights goes on", partial(not_cleared, 2), LION)
keeps(
    "generator_counts", "sample", "the generator has a counter of its own", counting, SAMPLE | {"top_k": 9, "shift": 15}
)
