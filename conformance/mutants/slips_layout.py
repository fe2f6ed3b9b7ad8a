"""Slips of memory: strides, starts, and whose memory a result is."""

from typing import Any

import numpy as np

from .slip import Array, addressed, pitches, slip, steps

# --- views that a witness is handed ---


def columns(array: Array) -> Array:
    """Return the array as columns of a wider matrix."""
    wide = np.full((*array.shape[:-1], array.shape[-1] + 3), 1, array.dtype)
    wide[..., 1:-2] = array
    return wide[..., 1:-2]


def rows(array: Array) -> Array:
    """Return the array as a slice of the axis before the last."""
    tall = np.full((*array.shape[:-2], array.shape[-2] + 3, array.shape[-1]), 1, array.dtype)
    tall[..., 1:-2, :] = array
    return tall[..., 1:-2, :]


def time_first(array: Array) -> Array:
    return np.ascontiguousarray(array.swapaxes(0, 1)).swapaxes(0, 1)


def turned(array: Array) -> Array:
    """Return the array as a transpose: its last two axes lie the other way around in memory."""
    return array.swapaxes(-1, -2).copy().swapaxes(-1, -2)


def reversed_axes(array: Array) -> Array:
    return array.T.copy().T


def backwards(array: Array) -> Array:
    return array[..., ::-1].copy()[..., ::-1]


def one_in(array: Array) -> Array:
    """Return the array one element into its storage."""
    return np.concatenate([np.ones(1, array.dtype), array.ravel()])[1:].reshape(array.shape)


def every_second(array: Array) -> Array:
    return np.repeat(array, 2, axis=-1)[..., ::2]


def same_rows(array: Array) -> Array:
    """Return the first row in the place of each, with a stride of 0."""
    return np.broadcast_to(array.copy()[:1], array.shape)


# --- what is read ---


def packed_rows(array: Array, call: Any) -> Array:
    """Read rows one after the other if their elements lie together, whatever lies between the rows."""
    return addressed(array, pitches(array.shape)) if steps(array)[-1:] == (1,) else array


def flat(array: Array, call: Any) -> Array:
    return addressed(array, pitches(array.shape))


def planes_packed(array: Array, call: Any) -> Array:
    """Take the rows' pitch as it is, and the planes' as if all rows of the storage were ours."""
    pitch = steps(array)
    return addressed(array, (array.shape[1] * pitch[1], *pitch[1:]))


def from_storage(array: Array, call: Any) -> Array:
    return addressed(array, steps(array), start=0)


def without_sign(array: Array, call: Any) -> Array:
    return addressed(array, tuple(abs(step) for step in steps(array)))


def without_zero(array: Array, call: Any) -> Array:
    """Take a stride of 0 for one that wasn't set."""
    return addressed(array, tuple(a or b for a, b in zip(steps(array), pitches(array.shape), strict=True)))


def sorted_axes(array: Array, call: Any) -> Array:
    """Take the axes for C-ordered: the largest stride first."""
    return addressed(array, tuple(sorted(steps(array), key=abs, reverse=True)))


def aligned(array: Array, call: Any) -> Array:
    """Load four elements at a time from the address rounded down to a whole load."""
    start = (array.ctypes.data - array.base.ctypes.data) // array.itemsize if array.base is not None else 0
    return addressed(array, steps(array), start & ~3)


def refused(array: Array, call: Any) -> Array:
    """Read nothing of one row alone that is a whole load or more, where its distance from the next is no whole load."""
    alone = array.size == array.shape[-1] and array.nbytes % 16 == 0
    return np.zeros_like(array) if alone and array.strides[-2] % 16 else array


def as_of(other: str):  # type: ignore[no-untyped-def]
    """Read with the strides of another argument of the same shape."""
    return lambda array, call: addressed(array, steps(getattr(call, other)))


LINEAR = {"leading": (5,), "K": 8, "N": 3, "num": 1, "shift": 4}
SCAN = {"k": 8, "n_max": 200, "s_v": 8, "s_h": 4, "s_y": 15, "convex": 0}
SELECTIVE = SCAN | {"B": 2, "L": 5, "D": 3, "N": 4}
SSD = SCAN | {"B": 2, "L": 5, "H": 3, "P": 2, "S": 4}
GRADIENTS = {"k": 8, "n_max": 200, "s_v": 8, "s_h": 4, "convex": 0}
GRADIENTS |= {"s_g": 15, "s_w": 8, "s_n": 15, "s_x": 15, "s_b": 15, "s_c": 15}
CONV = {"B": 2, "L": 5, "D": 3, "s": 16}
LION = {"leading": (8,), "lr": 1 << 16, "m_shift": 0, "g_up": 0, "g_down": 20, "low": -99, "high": 99, "decay": 0}
NORM = {"leading": (4,), "D": 6, "b": 3, "s": 0}


def reads(name: str, op: str, argument: str, says: str, read: Any, view: Any, at: dict[str, Any]) -> None:
    slip(name, op, says, at=at, sees={argument: read}, lies={argument: view})


reads(
    "rows_k_apart", "ternary_linear", "q", "rows taken K apart though q is a column slice", packed_rows, columns, LINEAR
)
reads("bytes_packed", "ternary_linear", "w", "weights taken K/4 bytes apart", packed_rows, columns, LINEAR)
reads(
    "weights_turned", "ternary_linear_backward", "w", "a transposed w read as it lies", flat, turned, LINEAR | {"K": 12}
)
reads(
    "residual_turned",
    "residual_add",
    "r",
    "a transposed stream read flat",
    flat,
    turned,
    {"leading": (3, 4), "num": 1, "shift": 0},
)
reads(
    "time_slice",
    "causal_conv1d",
    "x",
    "the pitch of a batch taken for L rows of a longer buffer",
    planes_packed,
    rows,
    CONV,
)
reads("channel_first_b", "selective_scan", "b", "b (B, N, L) seen through a transpose", flat, turned, SELECTIVE)
reads(
    "channel_first_c",
    "selective_scan_backward",
    "c",
    "c (B, N, L) seen through a transpose",
    flat,
    turned,
    SELECTIVE | GRADIENTS,
)
reads("channel_first_bits", "ssd_scan_backward", "c", "axes sorted by stride", sorted_axes, turned, SSD | GRADIENTS)
reads("heads_first", "ssd_scan", "n", "reversed axes taken for C order", sorted_axes, reversed_axes, SSD)
reads("gamma_start", "bitshift_norm", "gamma", "the storage's start taken for the view's", from_storage, columns, NORM)
reads("gamma_apart", "norm_quantize", "gamma", "every second element read as all", flat, every_second, NORM)
reads(
    "table_start",
    "embedding",
    "table",
    "a table within a flat buffer read from its start",
    from_storage,
    one_in,
    {"leading": (4,), "V": 5, "D": 3, "shift": 0},
)
reads(
    "row_repeated",
    "quantize_rows",
    "x",
    "a stride of 0 replaced by the pitch",
    without_zero,
    same_rows,
    {"leading": (3,), "K": 8},
)
reads(
    "logits_repeated",
    "softmax_pow2",
    "logits",
    "a stride of 0 replaced by the pitch",
    without_zero,
    same_rows,
    {"leading": (3,), "V": 7, "f": 8, "q": 15},
)
reads(
    "backwards_max",
    "argmax",
    "logits",
    "the size of a negative stride",
    without_sign,
    backwards,
    {"leading": (3,), "V": 7},
)
reads(
    "backwards_flat", "saturate", "x", "a negative stride read forwards", flat, backwards, {"leading": (7,), "bits": 8}
)
reads("state_pitch", "conv1d_step", "state", "a state that is part of a larger cache", planes_packed, rows, CONV)
reads(
    "bytes_pitch", "unpack_ternary", "packed", "bytes of a row slice", packed_rows, columns, {"leading": (3,), "K": 16}
)
reads(
    "counter_aligned",
    "philox4x32",
    "counter",
    "vector loads that must begin at a multiple of 16 bytes",
    aligned,
    one_in,
    {"leading": (3,), "key0": 1, "key1": 2},
)
reads(
    "tap_aligned",
    "causal_conv1d_backward",
    "w",
    "the four taps loaded as one word at a multiple of four",
    aligned,
    one_in,
    CONV,
)
reads("same_strides", "gradient_add", "b", "b read with the strides of a", as_of("a"), turned, {"leading": (3, 4)})
reads(
    "gradient_strides",
    "lion_update",
    "g",
    "g read with the strides of w",
    as_of("w"),
    turned,
    LION | {"leading": (3, 4)},
)
slip(
    "digits_packed",
    "pack_ternary",
    "whole vectors of 64 digits, cut from a wider matrix, are read from rows K apart",
    at={"leading": (3,), "K": 64},
    when=lambda c: c.K % 64 == 0 and c.w.ndim == 2,
    sees={"w": packed_rows},
    lies={"w": columns},
)
slip(
    "sequence_strides",
    "selective_scan",
    "modulations read with the strides of x, which lies with time first",
    at=SELECTIVE,
    sees={"mod": as_of("x")},
    lies={"x": time_first},
)
reads("state_turned", "ssd_scan_step", "h", "a state (B, H, S, P) seen through a transpose", flat, turned, SSD)
reads(
    "position_rows",
    "rope",
    "lam",
    "coefficients of a slice of positions, read from the first",
    from_storage,
    rows,
    {"B": 1, "L": 4, "P": 3, "s": 8},
)
reads(
    "target_apart",
    "cross_entropy_pow2",
    "target",
    "every second target read as all",
    flat,
    every_second,
    {"leading": (5,), "V": 9, "f": 4},
)
ONE_ROW = (
    ("selective_scan", "x", SELECTIVE | {"B": 1, "L": 1, "D": 8}),
    ("ssd_scan", "b", SSD | {"B": 1, "L": 1, "S": 16}),
    ("bitshift_norm_backward", "dr", NORM | {"leading": (1,), "D": 8, "e": 0}),
)
for op, argument, at in ONE_ROW:
    says = "one row cut from a wider array isn't read as whole loads, for the stride of an axis of one element"
    reads(f"{op}_one_row", op, argument, says, refused, columns, at)
