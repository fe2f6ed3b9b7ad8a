"""Slips of numbers: rare parameters, narrow products, sums that never grow."""

from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np

from mamba_integer.spec import integers
from mamba_integer.spec.contract import OPS
from mamba_integer.spec.integers import saturate, shift_round
from mamba_integer.spec.ops import norm, rotation

from .harness import under
from .slip import Array, Change, slip
from .slips_layout import CONV, GRADIENTS, LINEAR, LION, NORM, SELECTIVE, SSD


def wrapped(dtype: str) -> Change:
    """Keep a sum, or a product, in a narrower type."""
    return lambda array, call: array.astype(dtype)


def narrow(name: str, dtype: str, module: ModuleType = integers) -> Callable[..., Any]:
    """Return the op with the argument of a function of the number system kept in a narrower type."""
    right = getattr(module, name)

    def wrong(x: Array, *rest: Any) -> Array:
        return right(x.astype(dtype).astype(np.int64), *rest)

    return with_function(name, wrong, module)


def with_function(name: str, wrong: Callable[..., Any], module: ModuleType) -> Callable[..., Any]:
    return lambda op, arrays, parameters: under(name, wrong, op, module)(*arrays, **parameters)


def shears_in_int32(x: Array, y: Array, lam: Array, gam: Array, s: int, direction: int) -> tuple[Array, Array]:
    def product(value: Array, factor: Array) -> Array:
        return (value * factor).astype(np.int32).astype(np.int64) >> s

    x = x + direction * product(y, lam)
    y = y + direction * product(x, gam)
    return x + direction * product(y, lam), y


def sum_in_int16(op: str, arrays: tuple[Array, ...], parameters: dict[str, int]) -> Array:
    q, e, w = arrays
    digits = OPS["unpack_ternary"].golden(w, K=q.shape[-1]).astype(np.int16)
    wide = (q.astype(np.int16) @ digits.T).astype(np.int64)
    aligned = wide * parameters["num"] << e[..., None].astype(np.int64)
    return saturate(shift_round(aligned, parameters["shift"]), 16).astype(np.int16)


def when(**wanted: int) -> Callable[[Any], bool]:
    return lambda call: all(getattr(call, name) == value for name, value in wanted.items())


def zero(array: Array, call: Any) -> Array:
    return np.zeros_like(array)


rare = slip
ROUND = {"leading": (2,), "K": 5, "shift": 8, "bits": 8, "seed": 5, "step": 1, "stream": 1, "first": 0}
ENTROPY = {"leading": (2,), "V": 9, "f": 4, "seed": 5, "step": 1, "stream": 1, "first": 0}
EVEN = {"logits": lambda at: np.zeros((2, 9), np.int16)}
RATE = {"leading": (3,), "peak": 1 << 20, "last": 1 << 10, "warmup": 10, "total": 100}

# --- rare parameters ---

rare(
    "whole_share",
    "selective_scan",
    "k = 1 and convex: a share of one half of two taken for none",
    when=when(k=1, n_max=1, convex=1),
    sees={"mod": lambda m, c: np.full_like(m, -32767)},
    at=SELECTIVE | {"k": 1, "n_max": 1, "convex": 1},
)
rare(
    "whole_share_heads",
    "ssd_scan",
    "k = 1 and convex: a share of one half of two taken for none",
    when=when(k=1, n_max=1, convex=1),
    sees={"n": zero},
    at=SSD | {"k": 1, "n_max": 1, "convex": 1},
)
rare(
    "even_below_16",
    "round_to_int16",
    "ties to even only for shifts below 16",
    when=lambda c: c.shift > 15,
    gives={"y": lambda y, c: np.clip(shift_round(c.x.astype(np.int64), c.shift), -32767, 32767)},
    at={"leading": (2,), "shift": 17},
    values={"x": lambda at: np.array([1 << 16, 5 << 16], np.int32)},
)
rare(
    "even_below_16_mask",
    "saturate_backward",
    "ties to even only for shifts below 16",
    when=lambda c: c.shift > 15,
    gives={"dx": lambda d, c: np.where(d == 0, 0, np.clip(shift_round(c.dy.astype(np.int64), c.shift), -32767, 32767))},
    at={"leading": (2,), "shift": 17},
    values={"dy": lambda at: np.array([5 << 16, 9 << 16], np.int32), "y": lambda at: np.ones(2, np.int16)},
)
rare(
    "signed_counter",
    "stochastic_round_rows",
    "first * blocks in int32",
    when=lambda c: c.first * -(-c.K // 4) >= 1 << 31,
    takes=lambda c: {"first": c.first ^ 1},
    at=ROUND | {"first": 1 << 30},
)
rare(
    "signed_counter_loss",
    "cross_entropy_pow2_backward",
    "first * blocks in int32",
    when=lambda c: c.first * -(-c.V // 4) >= 1 << 31,
    takes=lambda c: {"first": c.first ^ 1},
    at=ENTROPY | {"first": 1 << 30},
    values=EVEN,
)
rare(
    "signed_step",
    "stochastic_round_rows",
    "a step of 2**31 or more, taken without its high bit",
    takes=lambda c: {"step": c.step % (1 << 31)},
    at=ROUND | {"step": 1 << 31},
)
rare(
    "signed_stream",
    "cross_entropy_pow2_backward",
    "a stream of 2**31 or more, taken without its high bit",
    takes=lambda c: {"stream": c.stream % (1 << 31)},
    at=ENTROPY | {"stream": 1 << 31},
    values=EVEN,
)
rare(
    "signed_seed",
    "sample",
    "a seed of 63 bits",
    takes=lambda c: {"seed": c.seed % (1 << 63)},
    at={"B": 9, "V": 99, "seed": 1 << 63, "f": 8, "num": 1, "shift": 8, "top_k": 99, "top_p": 65536},
)
rare(
    "signed_key",
    "philox4x32",
    "the high key word of 31 bits",
    takes=lambda c: {"key1": c.key1 % (1 << 31)},
    at={"leading": (1,), "key0": 0, "key1": 1 << 31},
)
rare(
    "schedule_tail",
    "learning_rate",
    "the rate falls on after the last step",
    when=lambda c: int(c.step.max(initial=0)) > c.total,
    gives={"lr": lambda lr, c: np.where(c.step > c.total, np.maximum(lr - 1, 0), lr)},
    at=RATE,
    values={"step": lambda at: np.array([1, 50, 101], np.int32)},
)
rare(
    "no_warmup",
    "learning_rate",
    "without a warmup the first step has a rate of zero",
    when=when(warmup=0),
    gives={"lr": lambda lr, c: np.where(c.step == 0, 0, lr)},
    at=RATE | {"warmup": 0},
    values={"step": lambda at: np.array([0, 1, 2], np.int32)},
)
rare(
    "decay_in_int32",
    "lion_update",
    "weight times decay in int32",
    when=lambda c: c.decay and c.lr >= 1 << 20,
    takes=lambda c: {"decay": c.decay // 2},
    at=LION | {"lr": 1 << 22, "decay": 1 << 15, "low": -(1 << 28), "high": 1 << 28},
)
rare(
    "momentum_gains",
    "lion_update",
    "a negative shift of the momentum taken for none",
    when=lambda c: c.m_shift < 0,
    takes=lambda c: {"m_shift": 0},
    at=LION | {"m_shift": -3},
)
rare(
    "negative_gate",
    "residual_add",
    "a negative gate rounded by its size",
    when=lambda c: c.num < 0 and c.shift > 0,
    gives={
        "y": lambda y, c: np.clip(c.r - shift_round(c.x.astype(np.int64) * -c.num, c.shift), -(2**23) + 1, 2**23 - 1)
    },
    at={"leading": (2,), "num": -1, "shift": 1},
    values={"r": lambda at: np.zeros(2, np.int32), "x": lambda at: np.array([1, 3], np.int16)},
)
rare(
    "fine_state",
    "selective_scan",
    "a negative s_v taken for none",
    when=lambda c: c.s_v < 0,
    sees={"b": lambda b, c: b >> 1},
    at=SELECTIVE | {"s_v": -2, "s_h": 8},
)
rare(
    "whole_offset",
    "squareplus",
    "an offset of 2**14 or more",
    takes=lambda c: {"offset": c.offset % (1 << 14)},
    at={"leading": (4,), "f": 14, "offset": 1 << 14},
)
rare(
    "all_kept",
    "sample",
    "top_p = 65536 cuts the last token",
    when=lambda c: c.top_p == 65536 and c.top_k == c.V,
    takes=lambda c: {"top_k": c.V - 1},
    at={"B": 40, "V": 3, "seed": 1, "f": 8, "num": 1, "shift": 8, "top_k": 3, "top_p": 65536},
    values={"logits": lambda at: np.zeros((40, 3), np.int16)},
)
rare(
    "widest_share",
    "softmax_pow2",
    "a share of one at q = 30 taken for the largest int30",
    when=when(q=30),
    gives={"p": lambda p, c: np.minimum(p, (1 << 30) - 1)},
    at={"leading": (1,), "V": 1, "f": 0, "q": 30},
)
rare(
    "widest_error",
    "gradient_exponent",
    "a mask of bits - 1 places shifted by 31",
    when=when(bits=32),
    gives={"y": lambda y, c: c.exponent},
    at={"leading": (2,), "bits": 32},
    values={"exponent": lambda at: np.zeros(2, np.int32), "largest": lambda at: np.array([0, 1 << 40])},
)
rare(
    "both_silent",
    "momentum_exponent",
    "no momentum and no gradient raise the exponent",
    gives={"y": lambda y, c: np.where((c.largest_g == 0) & (c.largest_m == 0), np.maximum(y - 1, -1), y)},
    at={"leading": (1,)},
    values={
        "exponent": lambda at: np.array([5], np.int32),
        "largest_g": lambda at: np.zeros(1, np.int64),
        "largest_m": lambda at: np.zeros(1, np.int64),
        "g_exponent": lambda at: np.zeros(1, np.int32),
    },
)
rare(
    "wide_shift",
    "residual_add_backward",
    "a shift of 32 or more by its last five bits",
    when=lambda c: c.shift > 31,
    takes=lambda c: {"shift": c.shift & 31},
    at={"leading": (2,), "num": 32767, "shift": 40},
)
rare(
    "negative_loss",
    "bitshift_norm_backward",
    "a negative e taken for none",
    when=lambda c: c.e < 0,
    takes=lambda c: {"e": 0},
    at=NORM | {"e": -4},
)
rare(
    "full_decay_error",
    "decay_modulate_backward",
    "n_max = 0 lets errors through",
    when=when(n_max=0),
    gives={"dbase": lambda d, c: d + 1},
    at={"B": 1, "L": 2, "D": 2, "N": 2, "k": 8, "n_max": 0, "s_n": 0},
)
rare(
    "least_bits",
    "ternary_linear_backward_weight",
    "errors of two bits without their sign",
    when=when(bits=2),
    sees={"dy": lambda dy, c: np.abs(dy)},
    at={"leading": (4,), "N": 2, "K": 3, "bits": 2},
)

# --- narrow products, and sums that never grow ---

rare("input_in_int16", "selective_scan", "x * b in int16", runs=narrow("rescale", "int16"), at=SELECTIVE)
rare("input_head_in_int16", "ssd_scan_step", "x * b in int16", runs=narrow("rescale", "int16"), at=SSD)
rare(
    "taps_in_int16",
    "causal_conv1d",
    "the four products and the bias added in int16",
    runs=narrow("shift_round", "int16"),
    at=CONV,
)
rare(
    "table_in_int16",
    "embedding",
    "the row shifted in int16",
    gives={"y": wrapped("int16")},
    at={"leading": (4,), "V": 5, "D": 3, "shift": 7},
)
rare(
    "accumulator_in_int16",
    "ternary_linear",
    "a sum of int16, which 259 terms leave",
    runs=sum_in_int16,
    at=LINEAR | {"leading": (1,), "K": 300, "N": 1, "shift": 0},
    values={"q": lambda at: np.full((1, 300), 127, np.int8), "w": lambda at: np.full((1, 75), 0b01010101, np.uint8)},
)
rare(
    "errors_in_int32",
    "embedding_backward",
    "dtable added in int32",
    gives={"dtable": wrapped("int32")},
    at={"leading": (9,), "V": 1, "D": 2},
    values={"dy": lambda at: np.full((9, 2), 2**31 - 1, np.int32)},
)
rare(
    "taps_sum_in_int32",
    "causal_conv1d_backward",
    "dw added in int32",
    gives={"dw": wrapped("int32")},
    at=CONV | {"L": 20, "s": 22},
    values={
        "dy": lambda at: np.full((2, 20, 3), 2**31 - 1, np.int32),
        "x": lambda at: np.full((2, 20, 3), 99, np.int16),
        "bias": lambda at: np.zeros(3, np.int32),
    },
)
rare(
    "skip_sum_in_int32",
    "selective_scan_backward",
    "dskip added in int32",
    gives={"dskip": wrapped("int32")},
    at=SELECTIVE | GRADIENTS | {"L": 9},
    values={"dy": lambda at: np.full((2, 9, 3), 32767, np.int16), "x": lambda at: np.full((2, 9, 3), 32767, np.int16)},
)
rare(
    "gradient_in_int32",
    "gradient_add",
    "two gradients added in int32",
    gives={"y": wrapped("int32")},
    at={"leading": (3,)},
)
rare(
    "skip_head_in_int32",
    "ssd_scan_backward",
    "dskip added in int32",
    gives={"dskip": wrapped("int32")},
    at=SSD | GRADIENTS,
    values={
        "dy": lambda at: np.full((2, 5, 3, 2), 32767, np.int16),
        "x": lambda at: np.full((2, 5, 3, 2), 32767, np.int16),
    },
)
rare(
    "gate_in_int16",
    "silu_gate_backward",
    "dz kept in int16 before it is widened",
    gives={"dz": wrapped("int16")},
    at={"leading": (9,), "f": 8},
)
rare(
    "weight_in_uint16",
    "cross_entropy_pow2",
    "the distance kept in int16",
    when=lambda c: int(c.logits.max(initial=0)) - int(c.logits.min(initial=0)) > 32767,
    sees={"logits": lambda logits, c: np.maximum(logits, 0)},
    at={"leading": (4,), "V": 9, "f": 0},
)
rare(
    "shear_in_int32",
    "dyadic_rotate",
    "y * lam in int32",
    runs=with_function("shears", shears_in_int32, rotation),
    at={"leading": (2,), "P": 3, "s": 20},
)
rare(
    "squares_in_int32",
    "bitshift_norm",
    "the sum of squares in int32",
    runs=narrow("scale_exponent", "int32", norm),
    at=NORM,
)
rare(
    "mean_in_int32",
    "norm_quantize",
    "the sum of a row in int32",
    runs=narrow("floor_div", "int32"),
    at=NORM | {"leading": (1,), "D": 300},
    values={"x": lambda at: np.arange(300, dtype=np.int32)[None] + 2**23 - 400},
)
rare(
    "energy_in_int32",
    "bitshift_norm_backward",
    "the sum of a row's products in int32",
    runs=narrow("round_div", "int32"),
    at=NORM | {"e": 0},
)
