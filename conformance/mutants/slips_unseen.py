"""Slips that were written without a look at the plans; some passed, and cases listed since find them."""

from typing import Any

import numpy as np

from mamba_integer.spec.contract import OPS
from mamba_integer.spec.philox import rounding_words

from .slip import Array, addressed, pitches, slip, steps
from .slips_layout import CONV, SSD, columns, rows

# --- numbers ---


def in_float32(y: Array, call: Any) -> Array:
    """Multiply in float32, which has 24 bits of a product of 30."""
    product = (np.float32(call.x) * np.float32(call.num)).astype(np.int64)
    total = call.r + ((product + ((1 << call.shift) >> 1)) >> call.shift)
    return total.clip(1 - 2**23, 2**23 - 1)


slip(
    "product_in_float32",
    "residual_add",
    "products in float32 where the shift is long",
    when=lambda c: c.shift > 15,
    gives={"y": in_float32},
    at={"leading": (9999,), "num": 32767, "shift": 16},
)
slip(
    "top_k_is_a_byte",
    "sample",
    "top_k in a byte, unless it keeps all",
    when=lambda c: c.top_k < 65536,
    takes=lambda c: {"top_k": c.top_k % 256 or 1},
    at={"B": 3, "V": 700, "seed": 1, "f": 8, "num": 1, "shift": 15, "top_k": 300, "top_p": 65536},
)
slip(
    "first_without_sign",
    "stochastic_round_rows",
    "the first row without the bit that would be its sign",
    when=lambda c: c.first >= 2**31,
    takes=lambda c: {"first": c.first - 2**31},
    at={"leading": (64,), "K": 4, "shift": 20, "bits": 16, "seed": 1, "step": 1, "stream": 1, "first": 2**31 + 5},
)
CHUNKS = {"B": 1, "L": 9, "H": 1, "P": 70, "S": 1, "q": 2, "s_h": 16, "s_g": 0}
slip(
    "dskip_in_32_bits",
    "ssd_chunk_scan_backward",
    "the gradient of skip is summed in int32",
    gives={"dskip": lambda dskip, c: dskip.astype(np.int32)},
    values={
        "x": lambda c: np.full((c.B, c.L, c.H, c.P), 127, np.int8),
        "dy": lambda c: np.full((c.B, c.L, c.H, c.P), 32767, np.int16),
    },
    at=CHUNKS | {"s_x": 9, "s_d": 9, "s_b": 9, "s_c": 9},
)

# --- sizes ---


def odd_rows_cut(op: str, arrays: tuple[Array, ...], parameters: Any) -> Any:
    """Look for the peak of a long row in pairs, and never at the last element of an odd one."""
    (x,) = arrays
    q, e = OPS[op].golden(x)
    if x.shape[-1] % 2 and x.shape[-1] >= 129:
        e = OPS[op].golden(x[..., :-1])[1]
        unit = e[..., None].astype(np.int64)
        q = ((x + ((1 << unit) >> 1)) >> unit).clip(-127, 127).astype(np.int8)
    return q, e


slip(
    "pairs_without_the_last",
    "quantize_rows",
    "the peak of an odd row of 129 or more is looked for in pairs",
    runs=odd_rows_cut,
    values={"x": lambda c: (999 * (np.arange(c.K) == c.K - 1)).astype(np.int16)[None]},
    at={"leading": (1,), "K": 129},
)

# --- layouts ---


def flat_if_one(array: Array, call: Any) -> Array:
    """Take an array of one row for contiguous, whatever its other strides."""
    return addressed(array, pitches(array.shape)) if array.shape[0] == 1 else array


slip(
    "one_row_is_contiguous",
    "ssd_scan",
    "an array whose first axis has one element is taken for contiguous",
    sees={"b": flat_if_one},
    lies={"b": columns},
    at=SSD | {"B": 1},
)
slip(
    "errors_at_the_pitch_of_inputs",
    "causal_conv1d_backward",
    "dy is read with the strides of x, whose rows are dense",
    sees={"dy": lambda dy, c: addressed(dy, steps(c.x)) if steps(c.x)[-1] == 1 else dy},
    lies={"x": rows},
    at=CONV,
)


def one_element(array: Array) -> Array:
    """Return an array of an array's shape whose elements are all its first, with strides of 0."""
    return np.broadcast_to(array[(slice(1),) * array.ndim], array.shape)


slip(
    "no_strides_no_gradient",
    "bitshift_norm_backward",
    "dr is taken for an expanded zero where all its strides are 0",
    sees={"dr": lambda dr, c: dr if any(dr.strides) else np.zeros_like(dr)},
    lies={"dr": one_element},
    at={"leading": (2,), "D": 5, "b": 1, "e": 4},
)

# --- keys and shortcuts ---


def sorted_by_narrow_keys(op: str, arrays: tuple[Array, ...], parameters: Any) -> Any:
    """Sort the places by a key of 32 bits, which holds an id and a place only where their product is small."""
    ids, dy = arrays
    places, size = ids.size, parameters["V"]
    key = np.sort((ids.reshape(-1).astype(np.int64) * places + np.arange(places)).astype(np.int32))
    dtable, rows = np.zeros((size, dy.shape[-1]), np.int64), dy.reshape(places, dy.shape[-1])
    inside = key >= 0
    np.add.at(dtable, key[inside] // max(places, 1), rows[key[inside] % max(places, 1)])
    return dtable


slip(
    "sorted_by_a_narrow_key",
    "embedding_backward",
    "ids are sorted with their places in one key of 32 bits",
    runs=sorted_by_narrow_keys,
    at={"leading": (13120,), "D": 1, "V": 163800},
)
slip(
    "no_modulation_no_clamp",
    "decay_modulate",
    "without any modulation the decays are the base, which may exceed n_max",
    when=lambda c: not c.mod.any(),
    gives={"n": lambda n, c: np.broadcast_to(c.base, n.shape)},
    values={"mod": lambda c: np.zeros((c.B, c.L, c.D), np.int16)},
    at={"B": 1, "L": 2, "D": 3, "N": 4, "k": 8, "n_max": 100},
)
slip(
    "no_gradient_no_step",
    "lion_update",
    "without any gradient the momentum stays as it is",
    when=lambda c: not c.g.any(),
    gives={"m": lambda m, c: c.m},
    values={"g": lambda c: np.zeros(c.leading, np.int64)},
    at={"leading": (9,), "lr": 9, "m_shift": 0, "g_up": 0, "g_down": 0, "low": -99, "high": 99, "decay": 0},
)

# --- shifts by the width of a word ---


def upper_half_of_the_word(op: str, arrays: tuple[Array, ...], parameters: Any) -> Any:
    """Round by a shift of 16 with the upper half of each random word, which needs no mask."""
    x, e = arrays
    if parameters["shift"] != 16:
        return OPS[op].golden(*arrays, **parameters)
    where = {name: parameters[name] for name in ("seed", "step", "stream", "first")}
    words = rounding_words(e.size, x.shape[-1], **where).astype(np.int64).reshape(x.shape)
    limit = (1 << (parameters["bits"] - 1)) - 1
    rounded = ((x.astype(np.int64) << e.astype(np.int64)[..., None]) + (words >> 16)) >> 16
    return rounded.clip(-limit, limit).astype(np.int8 if parameters["bits"] <= 8 else np.int16)


slip(
    "noise_from_the_upper_half",
    "stochastic_round_rows",
    "a shift of 16 takes the upper half of each random word",
    runs=upper_half_of_the_word,
    at={"leading": (3,), "K": 40, "shift": 16, "bits": 16, "seed": 1, "step": 1, "stream": 1, "first": 0},
)
slip(
    "upper_half_of_the_product",
    "residual_add",
    "a shift of 16 takes the upper half of the product, unrounded",
    when=lambda c: c.shift == 16,
    gives={"y": lambda y, c: (c.r + ((c.x.astype(np.int64) * c.num) >> 16)).clip(1 - 2**23, 2**23 - 1)},
    at={"leading": (9,), "num": 32767, "shift": 16},
)
