"""Backends that are wrong on purpose; the suite must catch each, so that passing it means something.

``NULL`` holds backends that compute nothing, ``BUGS`` planted bugs with the ops that each must fail. All are reachable
by name, those of the training ops too:
``mamba-integer conform --backend mamba_integer.conformance.mutants.forward:zeros``.
"""

import itertools
from collections.abc import Callable

import numpy as np

from mamba_integer import spec
from mamba_integer.spec.integers import bit_length, isqrt, rescale, saturate, shift_round
from mamba_integer.spec.ops import sampling, scan
from mamba_integer.spec.ops.norm import row_scale

from .harness import BUGS as BUGS
from .harness import Golden, after, plant, plant_integers, under
from .training import *


class Null:
    """Every op returns arrays of the right shape and dtype, filled by a function of the inputs and the right result."""

    def __init__(self, fill: Callable):
        self.fill = fill

    def __getattr__(self, name: str) -> Callable:
        if name in spec.OPS:
            return after(name, lambda results, arrays, parameters: filled(self.fill, arrays, results))
        raise AttributeError(name)


def filled(fill, arrays, results):
    if isinstance(results, tuple):
        return tuple(fill(arrays, result) for result in results)
    return fill(arrays, results)


zeros = Null(lambda arrays, result: np.zeros_like(result))
constant = Null(lambda arrays, result: np.full_like(result, 3))
echo = Null(lambda arrays, result: np.resize(arrays[0], result.shape).astype(result.dtype))
NULL = {"zeros": zeros, "constant": constant, "echo": echo}

# --- the number system ---


def divide_toward_zero(a, b):
    return np.sign(a) * (np.abs(a) // b)


def round_half_to_even(x, s):
    floor = x >> s
    twice = 2 * (x - (floor << s))
    return floor + ((twice > (1 << s)) | ((twice == (1 << s)) & (floor & 1 == 1)))


def round_half_away(x, s):
    return np.sign(x) * shift_round(np.abs(x), s)


def divide_in_float32(a, b):
    return np.floor(a.astype(np.float32) / b.astype(np.float32)).astype(np.int64)


def shift_toward_zero(x, s):
    return np.sign(x) * (np.abs(x) >> s)


def shift_in_int32(x, s):
    return (x + ((1 << s) >> 1)).astype(np.int32).astype(np.int64) >> s


def even_in_int32(x, s):
    half = ((1 << s) - 1) >> 1
    return (x + half + ((x >> s) & min(s, 1))).astype(np.int32).astype(np.int64) >> s


def saturate_to_minimum(x, bits):
    return np.clip(x, -(1 << (bits - 1)), (1 << (bits - 1)) - 1)


def isqrt_without_correction(v):
    r = isqrt(v)
    return r - ((r * r == v) & (r > 1))


def isqrt_of_one_value(v):
    return isqrt(v) - (v == 30011 * 30011)


def isqrt_in_float32(v):
    return np.sqrt(v.astype(np.float32)).astype(np.int64)


def bit_length_of_positive(x):
    return bit_length(np.maximum(x, 0))


truncating_division = plant_integers("truncating_division", "floor_div", divide_toward_zero, "algebraic_sigmoid")
half_to_even = plant_integers("half_to_even", "shift_round", round_half_to_even, "shift_round", "residual_add")
half_away = plant_integers("half_away", "shift_round", round_half_away, "shift_round", "sigmoid_gate", "silu_gate")
division_in_float32 = plant_integers("division_in_float32", "floor_div", divide_in_float32, "algebraic_sigmoid")
toward_zero = plant_integers("toward_zero", "shift_round", shift_toward_zero, "shift_round", "causal_conv1d")
int32_wrap = plant_integers(
    "int32_wrap",
    "shift_round",
    shift_in_int32,
    "shift_round",
    "bitshift_norm",
    "residual_add_backward",
    "sigmoid_gate_backward",
    "silu_gate",
    "silu_gate_backward",
    "ternary_linear_backward",
)
even_wrap = plant_integers("even_wrap", "shift_even", even_in_int32, "round_to_int16", "saturate_backward")
asymmetric = plant_integers("asymmetric", "saturate", saturate_to_minimum, "saturate", "requantize")
no_saturation = plant_integers(
    "no_saturation",
    "saturate",
    lambda x, bits: x,
    "causal_conv1d",
    "residual_add",
    "causal_conv1d_backward",
    "saturating_add",
    "silu_gate",
    "silu_gate_backward",
)
root_off_by_one = plant_integers("root_off_by_one", "isqrt", isqrt_without_correction, "isqrt", "squareplus")
root_rounded = plant_integers("root_rounded", "isqrt", isqrt_in_float32, "isqrt", "squareplus", "squareplus_backward")
positive_length = plant_integers("positive_length", "bit_length", bit_length_of_positive, "bit_length")

# One wrong input of 2**31, which no drawn case meets: only `--exhaustive` finds it.
needle = Golden(isqrt=under("isqrt", isqrt_of_one_value, "isqrt"))

# --- ops ---


def transposed_digits(w):
    """Pack with the first digit in the high bits."""
    rows = np.concatenate([w, np.zeros((*w.shape[:-1], -w.shape[-1] % 4), np.int8)], axis=-1)
    return spec.pack_ternary(rows.reshape(*rows.shape[:-1], -1, 4)[..., ::-1].reshape(rows.shape))


def swap_nibbles(packed, arrays, parameters):
    return (packed >> 4) | (packed << 4)


def linear_rounded_twice(q, e, w, *, num, shift):
    wide = q.astype(np.int64) @ spec.unpack_ternary(w, K=q.shape[-1]).astype(np.int64).T
    exact = wide * num << e[..., None].astype(np.int64)
    once = shift_round(exact, shift // 2)
    return saturate(shift_round(once, shift - shift // 2), 16).astype(np.int16)


def linear_in_float32(q, e, w, *, num, shift):
    wide = (q.astype(np.float32) @ spec.unpack_ternary(w, K=q.shape[-1]).astype(np.float32).T).astype(np.int64)
    return saturate(shift_round(wide * num << e[..., None].astype(np.int64), shift), 16).astype(np.int16)


def convex_in_two(h, n, x, b, c, skip, k, s_v, s_h, s_y, convex):
    """Advance a state by its share of the old one and its share of v, each rounded down."""
    v, h = rescale(x[..., None].astype(np.int64) * b, s_v), h.astype(np.int64) * n >> k
    h += v * ((1 << k) - n.astype(np.int64)) >> k if convex else v
    y = shift_round(((h >> s_h) * c).sum(axis=-1) + x.astype(np.int64) * skip, s_y)
    return saturate(y, 16).astype(np.int16), h.astype(np.int32)


def nucleus_beyond(logits, f, num, shift, top_k, top_p):
    """Keep one token more where the share of those before it is just top_p."""
    return KEPT_WEIGHTS(logits, f, num, shift, top_k, min(top_p + (top_p < 65536), 65536))


def silu_rounded_twice(x, z, *, f):
    """Round z times its sigmoid to the format of z, before x is multiplied."""
    gate = spec.algebraic_sigmoid.golden(z, f=f).astype(np.int64)
    return saturate(shift_round(x * shift_round(z * gate, 15), f), 16).astype(np.int16)


def norm_quantized_once(x, gamma, *, b, s):
    """Round the norm's exact result straight to 8 bits."""
    _, e = spec.norm_quantize.golden(x, gamma, b=b, s=s)
    centred, k, m = row_scale(x, b)
    q = shift_round(centred * m * gamma, k + b + s + e[..., None])
    return saturate(q, 8).astype(np.int8), e


def exponent_of_signed(x):
    """Take the greatest element of a row for its greatest magnitude."""
    e = np.maximum(bit_length(np.maximum(x.max(axis=-1), 0).astype(np.int64)) - 7, 0)
    return saturate(shift_round(x.astype(np.int64), e[..., None]), 8).astype(np.int8), e.astype(np.int32)


def scan_with(state_shift: Callable) -> Callable:
    """Return a selective scan whose state is shifted by another rule than floor."""

    def selective_scan(x, mod, base, b, c, skip, h, *, k, n_max, s_v, s_h, s_y, convex):
        y, h = np.zeros(x.shape, np.int64), h.astype(np.int64)
        for t in range(x.shape[1]):
            xt, ct = x[:, t].astype(np.int64), c[:, t, None].astype(np.int64)
            n = np.clip(base.astype(np.int64) + mod[:, t, :, None], 0, n_max)
            v = rescale(xt[..., None] * b[:, t, None], s_v)
            h = state_shift(h * n + v * ((1 << k) - n), k) if convex else state_shift(h * n, k) + v
            y[:, t] = saturate(shift_round(((h >> s_h) * ct).sum(axis=-1) + skip * xt, s_y), 16)
        return y.astype(np.int16), h.astype(np.int32)

    return selective_scan


def older_state(results, arrays, parameters):
    """Return the convolution's state one step late."""
    y, state = results
    return y, np.concatenate([arrays[3][:, -1:], state[:, :-1]], axis=1)


def forget_state(op: str, position: int) -> Callable:
    """Return the op starting every sequence from zero."""

    def wrong(*arrays, **parameters):
        start = np.zeros_like(arrays[position])
        return spec.OPS[op].golden(*arrays[:position], start, *arrays[position + 1 :], **parameters)

    return wrong


def last_maximum(l):  # noqa: E741
    return (l.shape[-1] - 1 - np.argmax(l[..., ::-1], axis=-1)).astype(np.int32)


def exponent_of_batch(results, arrays, parameters):
    """Return one exponent for all rows, as if the row were the whole batch."""
    _, e = results
    e = np.full_like(e, e.max(initial=0))
    return saturate(shift_round(arrays[0].astype(np.int64), e[..., None].astype(np.int64)), 8).astype(np.int8), e


def last_unseen(x):
    """Quantise rows by the largest of all elements but the last."""
    _, e = spec.quantize_rows.golden(x[..., : max(1, x.shape[-1] - 1)])
    return saturate(shift_round(x.astype(np.int64), e[..., None].astype(np.int64)), 8).astype(np.int8), e


def half_added_in_own_type(x, *, shift):
    half = np.asarray((1 << shift) >> 1).astype(x.dtype)
    return saturate((x + half).astype(np.int64) >> shift, 8).astype(np.int8)


def weight_in_float32(x, z, *, f):
    weight = z.astype(np.float32) * spec.algebraic_sigmoid.golden(z, f=f).astype(np.float32)
    return saturate(shift_round(x * weight.astype(np.int64), 15 + f), 16).astype(np.int16)


def offset_after_saturation(x, *, f, offset):
    return (spec.squareplus.golden(x, f=f, offset=0).astype(np.int64) - offset).astype(np.int16)


def spoil_input(y, arrays, parameters):
    arrays[0][...] = 0
    return y


def crashing(*arrays, **parameters):
    raise RuntimeError("out of shared memory")


turns = itertools.count()


def racing(y, arrays, parameters):
    """Return a wrong result every second time, as a race does."""
    return y ^ 1 if next(turns) % 2 else y


packing_transposed = plant("packing_transposed", pack_ternary=transposed_digits)
nibbles_swapped = plant("nibbles_swapped", pack_ternary=after("pack_ternary", swap_nibbles))
double_rounding = plant("double_rounding", ternary_linear=linear_rounded_twice)
forward_in_float32 = plant("forward_in_float32", ternary_linear=linear_in_float32)
SCANS = ("selective_scan", "selective_scan_step", "ssd_scan", "ssd_scan_step")
two_floors = plant("two_floors", **{op: under("advance", convex_in_two, op, scan) for op in SCANS})
silu_twice = plant("silu_twice", silu_gate=silu_rounded_twice)
quantized_once = plant("quantized_once", norm_quantize=norm_quantized_once)
signed_peak = plant("signed_peak", quantize_rows=exponent_of_signed)
scan_rounds = plant("scan_rounds", selective_scan=scan_with(shift_round))
scan_toward_zero = plant("scan_toward_zero", selective_scan=scan_with(shift_toward_zero))
state_off_by_one = plant("state_off_by_one", causal_conv1d=after("causal_conv1d", older_state))
conv_forgets = plant("conv_forgets", causal_conv1d=forget_state("causal_conv1d", 3))
scan_forgets = plant("scan_forgets", selective_scan=forget_state("selective_scan", 6))
KEPT_WEIGHTS = sampling.kept_weights
nucleus_too_long = plant("nucleus_too_long", sample=under("kept_weights", nucleus_beyond, "sample", sampling))
wrong_tie = plant("wrong_tie", argmax=last_maximum)
batch_exponent = plant("batch_exponent", quantize_rows=after("quantize_rows", exponent_of_batch))
peak_unseen = plant("peak_unseen", quantize_rows=last_unseen)
own_type_wraps = plant("own_type_wraps", requantize=half_added_in_own_type)
weight_rounded = plant("weight_rounded", silu_gate=weight_in_float32)
offset_late = plant("offset_late", squareplus=offset_after_saturation)
input_spoiled = plant("input_spoiled", squareplus=after("squareplus", spoil_input))
wide_result = plant("wide_result", squareplus=after("squareplus", lambda y, arrays, parameters: y.astype(np.int64)))
wrong_shape = plant("wrong_shape", squareplus=after("squareplus", lambda y, arrays, parameters: y[None]))
a_list = plant("a_list", squareplus=after("squareplus", lambda y, arrays, parameters: y.tolist()))
two_results = plant("two_results", squareplus=after("squareplus", lambda y, arrays, parameters: (y, y)))
crash = plant("crash", isqrt=crashing)
race = plant("race", shift_round=after("shift_round", racing))
