"""Slips that only a long axis, a sum just past int32, or a large result shows."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np

from mamba_integer.spec import integers
from mamba_integer.spec.contract import OPS
from mamba_integer.spec.ops.scan import state_range

from .slip import Array, addressed, pitches, slip, steps
from .slips_layout import columns

# --- views of long axes ---


def turned(array: Array) -> Array:
    return np.ascontiguousarray(array.swapaxes(-1, -2)).swapaxes(-1, -2)


def later_steps_dense(x: Array, call: Any) -> Array:
    return np.concatenate([x[:, :64], addressed(x, pitches(x.shape))[:, 64:]], axis=1)


slip(
    "many_are_contiguous",
    "residual_add",
    "a kernel for 1,024 elements and more takes x for contiguous",
    when=lambda c: c.x.size >= 1024,
    sees={"x": lambda x, c: addressed(x, pitches(x.shape))},
    lies={"x": turned},
    at={"leading": (40, 40), "num": 300, "shift": 4},
)
slip(
    "long_rows_are_dense",
    "ternary_linear",
    "rows of 256 digits and more are taken for dense",
    when=lambda c: c.K >= 256,
    sees={"q": lambda q, c: addressed(q, pitches(q.shape))},
    lies={"q": columns},
    at={"leading": (3,), "K": 300, "N": 2, "num": 3, "shift": 2},
)
slip(
    "long_rows_share_a_pitch",
    "silu_gate_backward",
    "rows of 32 elements and more lie in z as they lie in x",
    when=lambda c: c.z.ndim == 2 and c.z.shape[1] >= 32,
    sees={"z": lambda z, c: addressed(z, steps(c.x))},
    lies={"z": columns},
    at={"leading": (3, 40), "f": 8},
)
slip(
    "second_tile_of_steps_is_dense",
    "selective_scan",
    "steps from the 64th on are taken for contiguous",
    when=lambda c: c.L > 64,
    sees={"x": later_steps_dense},
    lies={"x": turned},
    at={"B": 1, "L": 70, "D": 4, "N": 2, "k": 12, "n_max": 4000, "s_v": 6, "s_h": 6, "s_y": 8, "convex": 0},
)

# --- sums just past int32, and numbers of 16 bits ---


def terms_alone_fit(op: str, arrays: tuple[Array, ...], parameters: Any) -> Any:
    """Add up in int32 where the sum over the states fits, whatever x and skip add to it."""
    y, h = OPS[op].golden(*arrays, **parameters)
    x, c, skip, s_h, s_y = arrays[0], arrays[4], arrays[5], parameters["s_h"], parameters["s_y"]
    sums = ((h.astype(np.int64) >> s_h) * c[:, None]).sum(axis=-1)
    if c.shape[-1] * 127 * (state_range(SimpleNamespace(**parameters)).magnitude().high >> s_h) < 2**31:
        total = (sums + x.astype(np.int64) * skip).astype(np.int32).astype(np.int64)
        y = integers.saturate(integers.shift_round(total, s_y), 16).astype(np.int16)
    return y, h


slip(
    "bound_without_skip",
    "selective_scan_step",
    "sums are of 32 bits where those over the states fit, without what skip adds",
    runs=terms_alone_fit,
    values={
        "x": lambda c: np.full((1, 1), 32767, np.int16),
        "skip": lambda c: np.full(1, 32767, np.int16),
        "b": lambda c: np.full((1, c.N), 127, np.int8),
        "c": lambda c: np.full((1, c.N), 127, np.int8),
    },
    at={"B": 1, "D": 1, "N": 4, "k": 12, "n_max": 0, "s_v": 0, "s_h": 0, "s_y": 20, "convex": 1},
)


def short_sums(op: str, arrays: tuple[Array, ...], parameters: Any) -> Array:
    dy, w = arrays
    if dy.dtype != np.int8 or dy.shape[-1] > 512:
        return OPS[op].golden(*arrays, **parameters)
    digits = OPS["unpack_ternary"].golden(w, K=parameters["K"]).astype(np.int64)
    sums = (dy.astype(np.int64) @ digits).astype(np.int16).astype(np.int64)
    return integers.saturate(integers.shift_round(sums * parameters["num"], parameters["shift"]), 16).astype(np.int16)


slip(
    "short_sums_of_512",
    "ternary_linear_backward",
    "up to 512 gradients of 8 bits are summed in int16",
    runs=short_sums,
    values={
        "dy": lambda c: np.full((1, c.N), 127, np.int8),
        "w": lambda c: OPS["pack_ternary"].golden(np.ones((c.N, c.K), np.int8)),
    },
    at={"leading": (1,), "N": 400, "K": 1, "num": 3, "shift": 4, "dtype": "int8"},
)
slip(
    "targets_of_16_bits",
    "cross_entropy_pow2_backward",
    "a target is a number of 16 bits",
    sees={"target": lambda target, c: target.astype(np.int16).astype(np.int32) % c.V},
    values={"target": lambda c: np.array([39999], np.int32)},
    at={"leading": (1,), "V": 40000, "f": 4, "seed": 3, "step": 2, "stream": 3, "first": 5},
)


def gained_in_int32(m: Array, call: Any) -> Array:
    return (m.astype(np.int64) << 5).astype(np.int32).clip(1 - 2**27, 2**27 - 1)


slip(
    "gain_of_five_bits",
    "lion_update",
    "momenta gain up to five bits in int32, which has room for four",
    when=lambda c: c.m_shift == -5,
    sees={"m": gained_in_int32},
    takes=lambda c: {"m_shift": 0},
    values={"m": lambda c: np.full(1, 2**27 - 1, np.int32)},
    at={"leading": (1,), "lr": 1, "m_shift": -5, "g_up": 0, "g_down": 0, "low": -5, "high": 5, "decay": 0},
)

# --- large results ---


def large_workspace() -> Callable[..., Any]:
    """Return results of 65,536 elements and more in a buffer that the next large call overwrites."""
    buffers: dict[int, Array] = {}

    def run(op: str, arrays: tuple[Array, ...], parameters: Any) -> Array:
        y = OPS[op].golden(*arrays, **parameters)
        if y.size < 65536:
            return y
        buffer = buffers.setdefault(y.size, np.empty(y.size, y.dtype)).reshape(y.shape)
        buffer[...] = y
        return buffer

    return run


slip(
    "large_results_share",
    "bitshift_norm",
    "large results of one size lie in one buffer",
    makes=large_workspace,
    calls=2,
    at={"leading": (70,), "D": 1000, "b": 2, "s": 2},
)
