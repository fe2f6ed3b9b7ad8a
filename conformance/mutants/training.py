"""Training ops that are wrong on purpose: mistakes that the author of a backward kernel makes."""

from collections.abc import Callable
from functools import partial

import numpy as np

from mamba_integer import spec
from mamba_integer.spec.integers import floor_div, round_div, saturate, shift_even, shift_floor, shift_round
from mamba_integer.spec.ops import activation_backward, loss_backward, optimizer, scan_backward
from mamba_integer.spec.ops.norm import row_scale
from mamba_integer.spec.ops.norm_backward import CUT_BITS, UNIT_BITS, final_shifts
from mamba_integer.spec.ops.optimizer import LAG_SHIFT, MOMENTUM_BITS, SHARE_BITS, VOTES

from .harness import BUGS, Golden, after, plant, plant_integers, under

TILE = 32

# --- gradients of layers ---


def unsigned_high_limb(dy, q, *, bits):
    """Put errors together from limbs of eight bits, the high one without its sign."""
    errors = dy.astype(np.int64)
    if bits > 8:
        errors = (((errors >> 8) & 255) << 8) + (errors & 255)
    return spec.ternary_linear_backward_weight.golden(errors, q, bits=bits)


def weight_summed_in_int32(dy, q, *, bits, most=16):
    """Sum products of errors of up to ``most`` bits in int32."""
    dw = spec.ternary_linear_backward_weight.golden(dy, q, bits=bits)
    return dw.astype(np.int32).astype(np.int64) if bits <= most else dw


def norm_backward_with(divide: Callable) -> Callable:
    """Return a backward of the norm that finds the error's part along the row by another rule than `round_div`."""

    def bitshift_norm_backward(x, gamma, dy, dr, *, b, e):
        D, error = x.shape[-1], dy.astype(np.int64)
        centred, k, m = row_scale(x, b)
        unit = shift_round((centred * m) << UNIT_BITS, k + b)
        g = shift_round(error * gamma, CUT_BITS)
        mean = round_div(g.sum(axis=-1, keepdims=True), D)
        divisor = np.maximum(shift_round((unit * unit).sum(axis=-1, keepdims=True), UNIT_BITS), 1)
        slope = divide((g * unit).sum(axis=-1, keepdims=True), divisor)
        across = g - mean - shift_round(unit * slope, UNIT_BITS)
        up, down = final_shifts(e)
        update = shift_round((across * m) << up, k + b + down)
        return saturate(dr + update, 32).astype(np.int32), (error * unit).reshape(-1, D).sum(axis=0)

    return bitshift_norm_backward


def errors_in_float32(dy, w, *, K, num, shift):
    a = (dy.astype(np.float32) @ spec.unpack_ternary(w, K=K).astype(np.float32)).astype(np.int64)
    return saturate(shift_round(a * num, shift), 16).astype(np.int16)


def gamma_summed_in_int32(results, arrays, parameters):
    dx, dgamma = results
    return dx, dgamma.astype(np.int32).astype(np.int64)


def saturated_at_end(dy, x, w, bias, state, *, s):
    """Take a result of just 32767 or -32767 for one that saturates."""
    y, _ = spec.causal_conv1d.golden(x, w, bias, state, s=s)
    return spec.causal_conv1d_backward.golden(np.where(abs(y) == 32767, 0, dy), x, w, bias, state, s=s)


def first_steps_apart(results, arrays, parameters):
    """Lose the gradients that the second tile of steps sends to the first."""
    dx, *rest = results
    dx[:, : max(0, dx.shape[1] - TILE)] = 0
    return dx, *rest


def scatter_once(ids, dy, *, V):
    """Add the errors in one indexed sum, in which NumPy keeps the last of the places that name a row."""
    dtable = np.zeros((V, dy.shape[-1]), np.int64)
    dtable[ids.reshape(-1)] += dy.reshape(ids.size, dy.shape[-1])
    return dtable


def later_error(results, arrays, parameters):
    """Return the convolution's dx with the time index off by one."""
    dx, *sums = results
    return np.concatenate([dx[:, 1:], np.zeros_like(dx[:, :1])], axis=1), *sums


def conv_in_blocks(dy, x, w, bias, state, *, s):
    """Run the convolution's backward in blocks of 16 steps, to which the three steps after them pass nothing back."""
    known, blocks = np.concatenate([state, x], axis=1), []
    for t in range(0, max(x.shape[1], 1), 16):
        block = slice(t, t + 16)
        before = known[:, t : t + 3]
        blocks.append(spec.causal_conv1d_backward.golden(dy[:, block], x[:, block], w, bias, before, s=s))
    dx, dw, dbias = zip(*blocks, strict=True)
    return np.concatenate(dx, axis=1), sum(dw), sum(dbias)


def saturated_without_offset(dy, x, *, f, offset):
    """Return squareplus' backward, the slope zero where the result would saturate with no offset taken from it."""
    return spec.squareplus_backward.golden(dy, x, f=f, offset=0)


def unsquared(inverse, gating):
    return np.where(gating < 0, inverse, (1 << 16) - inverse)


def one_sided(inverse, gating):
    return shift_round(inverse * inverse, 15)


def plant_silu_slope(bug: str, slope: Callable) -> Golden:
    """Plant another slope of z * sigmoid(z): of u / 2 for u*u / 2, or that of negative z for every z."""
    return plant(bug, silu_gate_backward=under("silu_slope", slope, "silu_gate_backward", activation_backward))


high_limb_unsigned = plant("high_limb_unsigned", ternary_linear_backward_weight=unsigned_high_limb)
weight_wraps = plant("weight_wraps", ternary_linear_backward_weight=weight_summed_in_int32)
int8_weight_wraps = plant("int8_weight_wraps", ternary_linear_backward_weight=partial(weight_summed_in_int32, most=8))
norm_without_jacobian = plant("norm_without_jacobian", bitshift_norm_backward=norm_backward_with(lambda a, b: a * 0))
gamma_wraps = plant("gamma_wraps", bitshift_norm_backward=after("bitshift_norm_backward", gamma_summed_in_int32))
errors_rounded = plant("errors_rounded", ternary_linear_backward=errors_in_float32)
end_saturated = plant("end_saturated", causal_conv1d_backward=saturated_at_end)
norm_floors = plant("norm_floors", bitshift_norm_backward=norm_backward_with(floor_div))
embedding_overwrites = plant("embedding_overwrites", embedding_backward=scatter_once)
conv_off_by_one = plant("conv_off_by_one", causal_conv1d_backward=after("causal_conv1d_backward", later_error))
conv_blocks_apart = plant("conv_blocks_apart", causal_conv1d_backward=conv_in_blocks)
saturated_slope = plant(
    "saturated_slope", squareplus_backward=under("LARGEST", 2**31, "squareplus_backward", activation_backward)
)
offset_forgotten = plant("offset_forgotten", squareplus_backward=saturated_without_offset)
slope_unsquared = plant_silu_slope("slope_unsquared", unsquared)
slope_one_sided = plant_silu_slope("slope_one_sided", one_sided)

# --- gradients of scans ---


def retreat_floored(lam, dy, x, n, b, c, *rest, k, s_g, **shifts):
    _, *results = RETREAT(lam, dy, x, n, b, c, *rest, k=k, s_g=s_g, **shifts)
    return shift_floor((lam + shift_even(dy[..., None].astype(np.int64) * c, s_g)) * n, k), *results


def pass_all(base, mod, n_max):
    return np.ones((*mod.shape, base.shape[-1]), bool)


def skip_of_first_sequence(results, arrays, parameters):
    dy, x = (a[:1].astype(np.int64) for a in arrays[:2])
    return *results[:-2], (dy * x).sum(axis=(0, 1, *range(3, x.ndim))), results[-1]


RETREAT = scan_backward.retreat
SCANS = ("selective_scan_backward", "ssd_scan_backward")
CLAMPED = ("decay_modulate_backward", "selective_scan_backward")
tiles_apart = plant("tiles_apart", **{op: after(op, first_steps_apart) for op in SCANS})
adjoint_floored = plant("adjoint_floored", **{op: under("retreat", retreat_floored, op, scan_backward) for op in SCANS})
clamped_decay_passes = plant(
    "clamped_decay_passes", **{op: under("passing", pass_all, op, scan_backward) for op in CLAMPED}
)
first_skip_alone = plant("first_skip_alone", **{op: after(op, skip_of_first_sequence) for op in SCANS})

# --- errors and their rounding ---


def ignoring_first(op: str) -> Callable:
    """Return the op with the rounding words of the batch's first rows, wherever its rows stand."""
    return lambda *arrays, **parameters: spec.OPS[op].golden(*arrays, **parameters | {"first": 0})


def round_to_nearest(x, e, *, shift, bits, **key):
    rounded = shift_round(x.astype(np.int64) << e[..., None].astype(np.int64), shift)
    return saturate(rounded, bits).astype(np.int8 if bits <= 8 else np.int16)


def no_words(rows, columns, **key):
    return np.zeros((rows, columns), np.uint64)


def pass_at_ends(dy, y, *, shift):
    return saturate(shift_even(dy.astype(np.int64), shift), 16).astype(np.int16)


def saturate_sum(total, arrays, parameters):
    return saturate(total, 63)


def sum_in_float64(a, b):
    return np.clip(a.astype(np.float64) + b, -(2.0**62), 2.0**62).astype(np.int64)


def greatest(x):
    return x.max(initial=0).astype(np.int64).reshape(1)


ROUNDED = ("cross_entropy_pow2_backward", "stochastic_round_rows")
words_repeat = plant("words_repeat", **{op: ignoring_first(op) for op in ROUNDED})
nearest = plant("nearest", stochastic_round_rows=round_to_nearest)
small_probabilities_lost = plant(
    "small_probabilities_lost",
    cross_entropy_pow2_backward=under("rounding_words", no_words, "cross_entropy_pow2_backward", loss_backward),
)
ties_rise = plant_integers("ties_rise", "shift_even", shift_round, "round_to_int16", "saturate_backward", *SCANS)
ends_pass = plant("ends_pass", saturate_backward=pass_at_ends)
sum_rounded = plant("sum_rounded", gradient_add=sum_in_float64)
sum_saturates = plant("sum_saturates", gradient_add=after("gradient_add", saturate_sum))
magnitude_signed = plant("magnitude_signed", largest_magnitude=greatest)

# --- the optimizer ---


def project_halves(w):
    """Keep the sign of weights that are just half their mean size."""
    wide = w.astype(np.int64)
    magnitude = np.abs(wide)
    return spec.pack_ternary(np.where(magnitude * (2 * w.size) >= magnitude.sum(), np.sign(wide), 0).astype(np.int8))


def lion_with(sign: Callable = np.sign, lag_shift: Callable = shift_round, late: bool = False) -> Callable:
    """Return Lion with another sign of the vote, another rounding of the momentum, or the momentum moved first."""

    def lion_update(w, m, g, *, lr, m_shift, g_up, g_down, low, high, decay):
        down, up = optimizer.shifts(m_shift)
        momentum = saturate(shift_round(m.astype(np.int64), down) << up, MOMENTUM_BITS)
        gradient = saturate(saturate(shift_round(g, g_down), MOMENTUM_BITS) << g_up, MOMENTUM_BITS)
        lost = shift_round(w.astype(np.int64) * optimizer.decay_share(lr, decay), SHARE_BITS)
        new_m = momentum + lag_shift(gradient - momentum, LAG_SHIFT)
        total = w - lr * sign(VOTES * (new_m if late else momentum) + gradient) - lost
        new_w = np.clip(total, low, high)
        return new_w.astype(np.int32), new_m.astype(np.int32), (new_w != total).sum(dtype=np.int64).reshape(1)

    return lion_update


def project_in_float32(w):
    magnitude = np.abs(w).astype(np.float32)
    kept = magnitude * np.float32(2 * w.size) > magnitude.sum(dtype=np.float32)
    return spec.pack_ternary(np.where(kept, np.sign(w), 0).astype(np.int8))


def saturated_unseen(exponent, largest, *, bits):
    """Take errors of the greatest size for errors that just fitted."""
    return spec.gradient_exponent.golden(exponent, largest - (largest == 2 ** (bits - 1) - 1), bits=bits)


def positive_at_zero(x):
    return np.where(x >= 0, 1, -1)


def rest_at_zero(y, arrays, parameters):
    exponent, largest = arrays
    return np.where(largest == 0, exponent, y)


def one_step_late(step, **parameters):
    return spec.learning_rate.golden(step - 1, **parameters)


def fit_gradient_alone(exponent, g_exponent, largest_g, largest_m):
    return spec.momentum_exponent.golden(exponent, g_exponent, largest_g, np.zeros_like(largest_m))


halves_kept = plant("halves_kept", ternary_project=project_halves)
masters_rounded = plant("masters_rounded", ternary_project=project_in_float32)
votes_late = plant("votes_late", lion_update=lion_with(late=True))
saturation_unseen = plant("saturation_unseen", gradient_exponent=saturated_unseen)
sign_of_zero = plant("sign_of_zero", lion_update=lion_with(sign=positive_at_zero))
momentum_floored = plant("momentum_floored", lion_update=lion_with(lag_shift=shift_floor))
zeros_ignored = plant("zeros_ignored", gradient_exponent=after("gradient_exponent", rest_at_zero))
schedule_late = plant("schedule_late", learning_rate=one_step_late)
momentum_unseen = plant("momentum_unseen", momentum_exponent=fit_gradient_alone)

# Nothing but the bugs: `broken` takes them all.
__all__ = list(BUGS)
