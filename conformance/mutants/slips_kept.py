"""Slips that keep a kernel or a result under all that it depends on but one parameter, or a table of a first call."""

from collections.abc import Callable
from functools import partial
from math import prod
from typing import Any

import numpy as np

from mamba_integer.spec.contract import OPS, trusted_values

from .slip import Array, bind, slip
from .slips_chunk import GRADIENTS as CHUNKS
from .slips_layout import LION, SELECTIVE, SSD
from .slips_number import ENTROPY, RATE, ROUND

Values = dict[str, Callable[[Any], Array]]


def kept_but(op: str, forgotten: str, last: bool, contents: bool) -> tuple[Callable[[Any], bool], Callable[..., Any]]:
    """Return when an op is wrong that takes a parameter as it was at the call that it remembers, and that op.

    It remembers each call or the ``last`` one, by shapes and the other parameters, and with the arrays' ``contents``.
    """
    kept: dict[Any, int] = {}
    names = [tensor.name for tensor in OPS[op].inputs]
    other_names = [parameter.name for parameter in OPS[op].parameters if parameter.name != forgotten]

    def key_of(call: Any) -> Any:
        arrays = (getattr(call, name) for name in names)
        forms = ((array.dtype, array.shape, array.tobytes() if contents else b"") for array in arrays)
        return tuple(getattr(call, name) for name in other_names), *forms

    def when(call: Any) -> bool:
        key = key_of(call)
        if last and key not in kept:
            kept.clear()
        return kept.setdefault(key, getattr(call, forgotten)) != getattr(call, forgotten)

    def run(op: str, arrays: tuple[Array, ...], parameters: dict[str, int]) -> Any:
        with trusted_values():
            before = kept[key_of(bind(op, arrays, parameters))]
            return OPS[op].golden(*arrays, **{**parameters, forgotten: before})

    return when, run


def ramp(call: Any) -> Array:
    """Return states that are allowed in every format."""
    shape = (call.B, call.H, call.P, call.S) if hasattr(call, "S") else (call.B, call.D, call.N)
    return np.arange(prod(shape), dtype=np.int32).reshape(shape)


STATES: Values = {"h": ramp, "dh": ramp, "n": lambda c: np.full((c.B, c.L, c.H), 9, np.int16)}
OPEN: Values = STATES | {"mod": lambda c: np.full((c.B, c.L, c.D), 9, np.int16)}
OPEN |= {"base": lambda c: np.full((c.D, c.N), 99, np.int16)}
HIGH: Values = {"x": lambda c: np.full(c.leading, 32767, np.int16)}
TIMES: Values = {"step": lambda c: np.array([20, 40, 60], np.int32)}
WEIGHTS: Values = {"w": lambda c: np.arange(-100, 200, 40, dtype=np.int32)}


def forgets(
    op: str,
    forgotten: str,
    later: int,
    at: dict[str, Any],
    last: bool = False,
    contents: bool = False,
    values: Values = STATES,
) -> None:
    what = "the results of the last call" if last and contents else "results" if contents else "a kernel"
    slip(
        f"{op}_kept_without_{forgotten}",
        op,
        f"{what} kept under all parameters but {forgotten}",
        keeps=partial(kept_but, op, forgotten, last, contents),
        at=at,
        then={forgotten: later},
        calls=2,
        values=values,
    )


SLOPE = {"leading": (40,), "f": 12, "offset": 0}
STEPS = {"s_g": 5, "s_w": 0, "s_n": 4, "s_x": 9, "s_b": 9, "s_c": 9}
SCAN = {name: value for name, value in SELECTIVE.items() if name != "s_y"} | STEPS
GRADIENT = CHUNKS | {"L": 9} | dict.fromkeys(("s_x", "s_d", "s_b", "s_c"), 9)
forgets("selective_scan", "convex", 1, SELECTIVE)
forgets("ternary_linear_backward", "K", 7, {"leading": (3,), "N": 4, "K": 6, "num": 1, "shift": 1})
forgets("ssd_chunk_scan_backward", "q", 3, GRADIENT, last=True)
forgets("lion_update", "high", 200, LION | {"low": -300, "high": 999}, contents=True, values=WEIGHTS)
forgets("cross_entropy_pow2_backward", "seed", 6, ENTROPY | {"leading": (40,)}, contents=True)
forgets("learning_rate", "total", 50, RATE, contents=True, values=TIMES)
forgets("ssd_scan", "k", 9, SSD | {"n_max": 100}, contents=True)
forgets("squareplus_backward", "offset", 4095, SLOPE, last=True, contents=True, values=HIGH)
forgets("stochastic_round_rows", "step", 2, ROUND, last=True, contents=True)
forgets("selective_scan_backward", "s_w", 9, SCAN, last=True, contents=True, values=OPEN)


def kept_range(name: str) -> tuple[Callable[[Any], bool], Callable[..., Any]]:
    """Return when a call goes beyond the range that an input had at the first one of its parameters, and such an op."""
    kept: dict[Any, tuple[int, int]] = {}

    def when(call: Any) -> bool:
        array, key = getattr(call, name), getattr(call, "f", None)
        if not array.size:
            return False
        low, high = kept.setdefault(key, (int(array.min()), int(array.max())))
        return bool(array.min() < low or array.max() > high)

    def run(op: str, arrays: tuple[Array, ...], parameters: dict[str, int]) -> Any:
        low, high = kept[parameters.get("f")]
        names = [tensor.name for tensor in OPS[op].inputs]
        seen = (array.clip(low, high) if other == name else array for other, array in zip(names, arrays, strict=True))
        return OPS[op].golden(*seen, **parameters)

    return when, run


def tabulates(op: str, name: str, first: Array, later: Array, at: dict[str, Any]) -> None:
    slip(
        f"{op}_table_of_the_first_{name}",
        op,
        f"a table over the range of {name} at the first call of its parameters, to which later calls are clipped",
        keeps=partial(kept_range, name),
        at=at | {"leading": first.shape},
        values={name: lambda c: first},
        later={name: later},
        calls=2,
    )


GATES = np.array([50, -9], np.int16)
tabulates("silu_gate", "z", GATES, GATES * np.int16(99), {"f": 8})
tabulates("isqrt", "v", np.array([99], np.int32), np.array([9801], np.int32), {})
