"""Slips at the far ends of sizes, and of leading dimensions."""

from typing import Any

import numpy as np

from mamba_integer.spec.contract import OPS

from .slip import Array, Change, slip
from .slips_layout import LINEAR, LION, NORM, SELECTIVE, SSD
from .slips_size import first, rows_of_two, unwritten


def below(limit: int) -> Change:
    """Read integers of a narrower type."""
    return lambda array, call: (array % limit).astype(array.dtype)


def places_kept(most: int) -> Change:
    """Read the errors of the first places that name a row alone."""

    def see(dy: Array, call: Any) -> Array:
        ids, kept = call.ids.ravel(), dy.reshape(call.ids.size, -1).copy()
        for token in np.unique(ids):
            kept[np.flatnonzero(ids == token)[most:]] = 0
        return kept.reshape(dy.shape)

    return see


def crashes_if_empty(result: Array, call: Any) -> Array:
    """Divide by the rows of the middle dimension."""
    if len(call.leading) > 1 and 0 in call.leading[1:]:
        raise ZeroDivisionError("integer division or modulo by zero")
    return result


far = slip

# --- rows ---

far(
    "squares_of_4096",
    "bitshift_norm",
    "the sum of squares of the first 4,096 elements",
    when=lambda c: c.D > 4096,
    sees={"x": first(4096)},
    gives={},
    at=NORM | {"leading": (1,), "D": 4100},
)
far(
    "peak_past_8192",
    "quantize_rows",
    "a peak past 8,192 missed",
    when=lambda c: c.K > 8192,
    sees={"x": first(8192)},
    at={"leading": (1,), "K": 8200},
)
far(
    "terms_past_1024",
    "ternary_linear",
    "a reduction of the first 1,024 terms",
    sees={"q": first(1024)},
    at=LINEAR | {"K": 1025, "shift": 0},
)
far(
    "errors_past_1024",
    "ternary_linear_backward",
    "a reduction of the first 1,024 errors",
    sees={"dy": first(1024)},
    at=LINEAR | {"N": 1025, "leading": (1,)},
)
far(
    "rows_past_1024",
    "ternary_linear_backward_weight",
    "a split of rows in two parts of 1,024 at most",
    when=lambda c: c.rows > 2048,
    gives={"dw": lambda dw, c: spread_rows(c)},
    at={"leading": (2049,), "N": 2, "K": 2, "bits": 8},
)
far(
    "magnitude_past_65536",
    "largest_magnitude",
    "one program for the first 65,536 elements",
    sees={"x": lambda x, c: x.reshape(-1)[:65536]},
    at={"leading": (65537,), "op": "largest_magnitude"},
    values={"x": lambda at: (np.arange(65537) == 65536).astype(np.int64)},
)
far(
    "weights_past_4096",
    "softmax_pow2",
    "the sum of the first 4,096 weights",
    when=lambda c: c.V > 4096,
    gives={"p": lambda p, c: softmax_of(c, 4096)},
    at={"leading": (1,), "V": 4097, "f": 0, "q": 30},
    values={"logits": lambda at: np.zeros((1, at.V), np.int16)},
)
far(
    "maximum_past_1024",
    "cross_entropy_pow2",
    "the maximum of the first 1,024 logits",
    sees={
        "logits": lambda logits, c: np.minimum(logits, logits[..., :1024].max(axis=-1, keepdims=True, initial=-32767))
    },
    at={"leading": (1,), "V": 1025, "f": 0},
    values={
        "logits": lambda at: (np.arange(at.V) == 1024).astype(np.int16)[None] * 9,
        "target": lambda at: np.zeros(1, np.int32),
    },
)
far(
    "tokens_past_2048",
    "sample",
    "a token past 2,047 never drawn",
    sees={"logits": lambda logits, c: np.where(np.arange(c.V) < 2048, logits, -32767).astype(np.int16)},
    at={"B": 2, "V": 2049, "seed": 0, "f": 0, "num": 1, "shift": 0, "top_k": 1, "top_p": 65536},
    values={"logits": lambda at: np.tile((np.arange(at.V) == 2048).astype(np.int16), (2, 1))},
)
far(
    "short_token",
    "argmax",
    "a token kept in int16",
    gives={"token": lambda t, c: t.astype(np.int16)},
    at={"leading": (1,), "V": 32770},
    values={"logits": lambda at: (np.arange(at.V) == 32769).astype(np.int16)[None]},
)
far(
    "gradient_row_8192",
    "bitshift_norm_backward",
    "dgamma past 8,192 not written",
    when=lambda c: c.D > 8192,
    gives={"dgamma": unwritten(lambda c: np.s_[8192:])},
    at=NORM | {"leading": (1,), "D": 8193, "e": 0},
)
far(
    "mean_of_65536",
    "ternary_project",
    "the mean size of the first 65,536 weights",
    when=lambda c: c.w.size > 65536,
    gives={"packed": lambda p, c: project_by(c.w, 65536)},
    at={"N": 2, "K": 32769},
    values={"w": lambda at: np.repeat([1, 1 << 27], [65536, 2]).reshape(2, -1).astype(np.int32)},
)
far(
    "project_in_int32",
    "ternary_project",
    "the sum of sizes in int32",
    when=lambda c: int(np.abs(c.w.astype(np.int64)).sum()) > 2**31,
    gives={"packed": lambda p, c: np.zeros_like(p)},
    at={"N": 3, "K": 400},
)
far(
    "digits_past_4096",
    "pack_trits",
    "rows of 4,096 digits at most",
    when=lambda c: c.K > 4096,
    sees={"w": first(4096)},
    at={"leading": (1,), "K": 4100},
)
far(
    "stages_past_eight",
    "dyadic_transform",
    "eight stages in one kernel, the rest left out",
    when=lambda c: c.m > 8,
    gives={"y": lambda y, c: c.x.astype(y.dtype)},
    at={"leading": (1,), "m": 9, "s": 8},
)
far(
    "stages_past_ten",
    "dyadic_transform_inverse",
    "a table of 1,024 twiddles",
    when=lambda c: c.m > 10,
    gives={"y": unwritten(lambda c: np.s_[..., 1024:, :])},
    at={"leading": (1,), "m": 11, "s": 8},
)

# --- counters and counts ---

far(
    "short_row_counter",
    "quantize_rows",
    "a row counter of 16 bits",
    when=lambda c: c.rows > 65536,
    gives={"e": unwritten(lambda c: np.s_[65536:])},
    at={"leading": (65537,), "K": 1},
)
far(
    "grid_of_65535",
    "bit_length",
    "a grid of 65,535 blocks of one element",
    gives={"y": lambda y, c: np.where(np.arange(y.size).reshape(y.shape) < 65535, y, 0)},
    at={"leading": (65537,)},
)
far(
    "rows_past_65535",
    "embedding",
    "a row counter of 16 bits",
    when=lambda c: c.rows > 65536,
    gives={"y": unwritten(lambda c: np.s_[65536:])},
    at={"leading": (65537,), "V": 2, "D": 1, "shift": 0},
)
far(
    "short_ids",
    "embedding",
    "ids read as 16 bits",
    sees={"ids": below(1 << 16)},
    at={"leading": (1,), "V": 65538, "D": 1, "shift": 0},
    values={"ids": lambda at: np.array([65537], np.int32)},
)
far(
    "places_of_a_token",
    "embedding_backward",
    "64 places of one token at most",
    sees={"dy": places_kept(64)},
    at={"leading": (65,), "V": 1, "D": 2},
)
far(
    "short_clipped",
    "lion_update",
    "a count of clipped weights of 16 bits",
    gives={"clipped": lambda n, c: n % 65536},
    at=LION | {"leading": (65537,)},
)
far(
    "batch_of_tokens",
    "philox4x32",
    "a counter of 65,536 blocks",
    gives={"word": unwritten(lambda c: np.s_[65536:])},
    at={"leading": (65537,), "key0": 1, "key1": 2},
)

# --- states, heads, channels, the batch ---

far(
    "states_past_32",
    "selective_scan",
    "32 states in registers, the rest left out of y",
    sees={"c": first(32)},
    at=SELECTIVE | {"N": 33, "s_h": 0, "s_y": 8},
    values={"skip": lambda at: np.zeros(at.D, np.int16)},
)
far(
    "step_states_past_64",
    "selective_scan_step",
    "64 states in registers, the rest not stored",
    gives={"h": unwritten(lambda c: np.s_[..., 64:])},
    at=SELECTIVE | {"N": 65},
)
far(
    "heads_past_8",
    "ssd_scan",
    "skip of the head modulo eight",
    sees={"skip": lambda s, c: s[np.arange(c.H) % 8]},
    at=SSD | {"H": 9},
)
far(
    "width_past_64",
    "ssd_scan_step",
    "64 channels of a head",
    gives={"y": unwritten(lambda c: np.s_[..., 64:])},
    at=SSD | {"P": 65},
)
far(
    "channels_past_256",
    "causal_conv1d",
    "a block of 256 channels, one launched",
    gives={"y": unwritten(lambda c: np.s_[..., 256:])},
    at={"B": 1, "L": 2, "D": 257, "s": 8},
)
far(
    "batch_past_16",
    "conv1d_step",
    "a batch of 16 at most",
    gives={"y": unwritten(lambda c: np.s_[16:])},
    at={"B": 17, "D": 2, "s": 8},
)
far(
    "pairs_past_64",
    "dyadic_rotate",
    "64 pairs of a row",
    gives={"y": lambda y, c: np.where((np.arange(c.P) < 64)[:, None], y, c.x).astype(y.dtype)},
    at={"leading": (2,), "P": 65, "s": 8},
)
far(
    "columns_past_512",
    "ternary_linear_requant",
    "the peak of the first 512 columns",
    when=lambda c: c.N > 512,
    gives={"s": lambda s, c: np.zeros_like(s)},
    at=LINEAR | {"N": 513, "K": 5, "shift": 0, "num": 99},
)

# --- leading dimensions ---

far(
    "two_leading_norm",
    "bitshift_norm",
    "the first and the last of three taken for all",
    gives={"y": rows_of_two},
    at=NORM | {"leading": (2, 2, 3)},
)
far(
    "two_leading_linear",
    "ternary_linear",
    "the first and the last of three taken for all",
    gives={"y": rows_of_two},
    at=LINEAR | {"leading": (2, 2, 3)},
)
far(
    "two_leading_softmax",
    "softmax_pow2",
    "the first and the last of three taken for all",
    gives={"p": rows_of_two},
    at={"leading": (2, 2, 3), "V": 5, "f": 8, "q": 15},
)
far(
    "two_leading_pack",
    "pack_ternary",
    "the first and the last of three taken for all",
    gives={"packed": rows_of_two},
    at={"leading": (2, 2, 3), "K": 9},
)
far(
    "one_exponent_axis",
    "stochastic_round_rows",
    "exponents of the last leading dimension repeated",
    sees={"e": lambda e, c: np.broadcast_to(e[(0,) * (e.ndim - 1)], e.shape) if e.ndim > 1 else e},
    at={"leading": (2, 3), "K": 5, "shift": 8, "bits": 8, "seed": 5, "step": 1, "stream": 1, "first": 0},
)
far(
    "targets_of_first",
    "cross_entropy_pow2_backward",
    "targets of the first of two leading dimensions",
    sees={"target": lambda t, c: np.broadcast_to(t[0], t.shape) if t.ndim > 1 else t},
    at={"leading": (2, 3), "V": 5, "f": 4, "seed": 0, "step": 0, "stream": 0, "first": 0},
)
far(
    "empty_middle",
    "embedding",
    "the last leading dimension divided by",
    gives={"y": crashes_if_empty},
    at={"leading": (2, 0, 3), "V": 4, "D": 2, "shift": 0},
)
far(
    "no_rows_linear",
    "ternary_linear",
    "the last leading dimension divided by",
    gives={"y": crashes_if_empty},
    at=LINEAR | {"leading": (2, 0, 3)},
)


def spread_rows(call: Any) -> Array:
    """Return the gradient of the first 2,048 rows."""
    dy, q = (a.reshape(-1, a.shape[-1])[:2048].astype(np.int64) for a in (call.dy, call.q))
    return dy.T @ q


def softmax_of(call: Any, count: int) -> Array:
    """Return shares of the first logits' weight: with all equal, each has one of so many."""
    return np.full(call.logits.shape, (1 << call.q) // count)


def project_by(w: Array, count: int) -> Array:
    """Keep the weights above half the mean size of the first ones."""
    kept = 2 * count * np.abs(w.astype(np.int64)) > np.abs(w.ravel()[:count].astype(np.int64)).sum()
    return OPS["pack_ternary"].golden(np.where(kept, np.sign(w), 0).astype(np.int8))
