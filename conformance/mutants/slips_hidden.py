"""Slips that ordinary integers hide: of one sign, sums that grow, equals, zeros, and a chunk's last place."""

from typing import Any

import numpy as np

from mamba_integer.spec import integers
from mamba_integer.spec.contract import OPS
from mamba_integer.spec.ops import ssd_chunk_backward
from mamba_integer.spec.ops.loss import pow2_weights
from mamba_integer.spec.ops.optimizer import decay_share

from .harness import replaced
from .slip import Array, slip
from .slips_layout import SELECTIVE

# --- an empty place, equals, and what is left over ---


def greatest_with_zero(op: str, arrays: tuple[Array, ...], parameters: Any) -> Array:
    """Take the maximum over the last tile with zeros in its empty places."""
    (logits,), f, q = arrays, parameters["f"], parameters["q"]
    if logits.shape[-1] <= 256 or logits.shape[-1] % 256 == 0:
        return OPS[op].golden(*arrays, **parameters)
    wide = logits.astype(np.int64)
    weight = pow2_weights(np.maximum(wide.max(axis=-1, keepdims=True), 0) - wide, f)
    total = np.maximum(weight.sum(axis=-1, keepdims=True), 1)
    return (((weight << q) + (total >> 1)) // total).astype(np.int32)


slip(
    "empty_places_are_zero",
    "softmax_pow2",
    "the empty places of the last tile of 256 count as zeros in the maximum",
    runs=greatest_with_zero,
    values={"logits": lambda c: np.arange(600).reshape(2, 300).astype(np.int16) % 37 - 1000},
    at={"leading": (2,), "V": 300, "f": 4, "q": 16},
)


def first_in_memory(op: str, arrays: tuple[Array, ...], parameters: Any) -> Array:
    (logits,) = arrays
    if not logits.size or logits.strides[-1] >= 0:
        return OPS[op].golden(logits)
    return (logits.shape[-1] - 1 - OPS[op].golden(logits[..., ::-1])).astype(np.int32)


slip(
    "first_in_memory",
    "argmax",
    "of equal logits that are seen backwards the first in memory is meant",
    runs=first_in_memory,
    values={"logits": lambda c: np.tile(np.array([5, 1, 5, 5], np.int16), (3, 1))},
    lies={"logits": lambda logits: logits[:, ::-1]},
    at={"leading": (3,), "V": 4},
)


def no_padding(packed: Array, call: Any) -> Array:
    packed = packed.copy()
    packed[..., -1] -= 81
    return packed


slip(
    "four_digits_after_vectors",
    "pack_trits",
    "four digits that vectors of 16 bytes leave over have no padding",
    when=lambda c: c.K > 80 and c.K % 80 == 4,
    gives={"packed": no_padding},
    at={"leading": (1,), "K": 84},
)

# --- sums that grow, rows past 2**16, products that a float64 doesn't hold ---


def scaled_in_int32(op: str, arrays: tuple[Array, ...], parameters: Any) -> Array:
    """Scale sums of up to 1,024 terms in int32, for which 516 would be right."""
    q, e, w = arrays
    if q.shape[-1] > 1024:
        return OPS[op].golden(*arrays, **parameters)
    digits = OPS["unpack_ternary"].golden(w, K=q.shape[-1]).astype(np.int64)
    scaled = (q.astype(np.int64) @ digits.T * parameters["num"]).astype(np.int32).astype(np.int64)
    aligned, shift = scaled << e.astype(np.int64)[..., None], parameters["shift"]
    return ((aligned + ((1 << shift) >> 1)) >> shift).clip(-32767, 32767).astype(np.int16)


slip(
    "scaled_in_int32",
    "ternary_linear",
    "sums of up to 1,024 terms are scaled in int32",
    runs=scaled_in_int32,
    values={
        "q": lambda c: np.full((1, c.K), 127, np.int8),
        "w": lambda c: OPS["pack_ternary"].golden(np.ones((c.N, c.K), np.int8)),
    },
    at={"leading": (1,), "K": 1024, "N": 1, "num": 32767, "shift": 34},
)
slip(
    "errors_summed_in_int32",
    "causal_conv1d_backward",
    "gradients of 16 bits are summed in int32 over all rows and steps",
    when=lambda c: c.dy.dtype == np.int16,
    gives={"dbias": lambda dbias, c: dbias.astype(np.int32)},
    values={
        "dy": lambda c: np.full((c.B, c.L, c.D), 32767, np.int16),
        "bias": lambda c: np.zeros(c.D, np.int32),
        "w": lambda c: np.zeros((c.D, 4), np.int8),
    },
    at={"B": 1, "L": 66000, "D": 1, "s": 4},
)


def rows_begin_again(op: str, arrays: tuple[Array, ...], parameters: Any) -> Array:
    x, e = arrays
    y = np.array(OPS[op].golden(x, e, **parameters))
    if e.size > 65536:
        rows = x.reshape(e.size, -1)[65536:], e.reshape(-1)[65536:]
        y.reshape(e.size, -1)[65536:] = OPS[op].golden(*rows, **parameters)
    return y


slip(
    "rows_begin_again",
    "stochastic_round_rows",
    "rows are numbered in 16 bits",
    runs=rows_begin_again,
    at={"leading": (65600,), "K": 1, "shift": 8, "bits": 8, "seed": 5, "step": 3, "stream": 2, "first": 7},
)


def rates_in_float64(op: str, arrays: tuple[Array, ...], parameters: Any) -> Array:
    peak, last, warmup, total = (parameters[name] for name in ("peak", "last", "warmup", "total"))
    step = arrays[0].astype(np.float64)
    risen = np.floor(peak * (step + 1) / max(warmup, 1) + 0.5)
    fallen = last + np.floor((peak - last) * np.maximum(total - step, 0) / (total - warmup) + 0.5)
    return np.where(step < warmup, risen, fallen).astype(np.int32)


slip(
    "rates_in_float64",
    "learning_rate",
    "rates are computed in float64",
    runs=rates_in_float64,
    values={"step": lambda c: np.array([1645840483], np.int32)},
    at={"leading": (1,), "peak": 2**24 - 3, "last": 0, "warmup": 2**31 - 3, "total": 2**31 - 2},
)


def loss_in_float64(w: Array, call: Any) -> Array:
    """Subtract the loss as a float64 has it: it is right but for products beside a tie."""
    share = decay_share(call.lr, call.decay)
    right = (call.w.astype(np.int64) * share + 2**31) >> 32
    rounded = np.floor(call.w * float(share) / 2.0**32 + 0.5).astype(np.int64)
    return (w + right - rounded).clip(call.low, call.high)


slip(
    "loss_in_float64",
    "lion_update",
    "what a weight loses is computed in float64",
    gives={"w": loss_in_float64},
    values={
        "w": lambda c: np.array([204444435, -204444435], np.int32),
        "m": lambda c: np.zeros(2, np.int32),
        "g": lambda c: np.zeros(2, np.int64),
    },
    at={"leading": (2,), "lr": 2**24 - 129, "decay": 2**16 - 1, "m_shift": 0, "g_up": 0, "g_down": 0}
    | {"low": -(2**28), "high": 2**28},
)

# --- ties of long shifts, parts of a sum, what an earlier call left ---


def ties_up(op: str, arrays: tuple[Array, ...], parameters: Any) -> Any:
    with replaced(integers, "shift_even", integers.shift_round):
        return OPS[op].golden(*arrays, **parameters)


ONE_STEP = {"B": 1, "L": 1, "H": 1, "P": 1, "S": 1}
FINE = {"k": 12, "n_max": 4000, "s_v": 6, "s_h": 6, "convex": 0} | dict.fromkeys(("s_w", "s_n", "s_x", "s_b", "s_c"), 0)
slip(
    "ties_up_of_long_shifts",
    "ssd_scan_backward",
    "ties are rounded up where dy c loses 16 bits or more",
    when=lambda c: c.s_g > 15,
    runs=ties_up,
    values={
        "dy": lambda c: np.full((1, 1, 1, 1), 512, np.int16),
        "c": lambda c: np.full((1, 1, 1), 64, np.int8),
        "n": lambda c: np.full((1, 1, 1), 4000, np.int16),
        "dh": lambda c: np.zeros((1, 1, 1, 1), np.int32),
    },
    at=ONE_STEP | FINE | {"s_g": 16},
)


def parts_saturate(op: str, arrays: tuple[Array, ...], parameters: Any) -> tuple[Array, Array]:
    """Saturate the sum of each 256 states, which the sum of all may come back from."""
    dn, base, mod = arrays
    dbase, dmod = OPS[op].golden(*arrays, **parameters)
    total = mod[..., None].astype(np.int64) + base
    passed = np.where((total >= 0) & (total <= parameters["n_max"]), dn.astype(np.int64), 0)
    if dn.shape[-1] > 256:
        parts = [passed[..., i : i + 256].sum(axis=-1) for i in range(0, dn.shape[-1], 256)]
        whole = sum(integers.saturate(part, 32) for part in parts)
        dmod = integers.saturate(integers.shift_round(whole, parameters["s_n"]), 32).astype(np.int32)
    return dbase, dmod


slip(
    "parts_of_a_sum_saturate",
    "decay_modulate_backward",
    "sums of 256 states saturate before they are added",
    runs=parts_saturate,
    values={
        "dn": lambda c: np.repeat([2**24, 5 - 2**24], 256).reshape(1, 1, 1, 512).astype(np.int32),
        "base": lambda c: np.zeros((1, 512), np.int16),
        "mod": lambda c: np.zeros((1, 1, 1), np.int16),
    },
    at={"B": 1, "L": 1, "D": 1, "N": 512, "k": 8, "n_max": 255, "s_n": 0},
)


slip(
    "fourth_leading_dimension",
    "norm_quantize",
    "of four leading dimensions the third is taken before the fourth",
    gives={"e": lambda e, c: e.swapaxes(-1, -2).reshape(e.shape) if e.ndim == 4 else e},
    values={
        "x": lambda c: np.array([[0, 0], [9, -9]] * 8, np.int32).reshape(2, 2, 2, 2, 2),
        "gamma": lambda c: np.array([1000, 9], np.int16),
    },
    at={"leading": (2, 2, 2, 2), "D": 2, "b": 0, "s": 0},
)

# --- two inputs that are zero at once ---

slip(
    "no_input_no_decay",
    "selective_scan_step",
    "with neither x nor b the states stay, and don't decay",
    when=lambda c: not (c.x.any() or c.b.any()),
    gives={"h": lambda h, c: c.h},
    values={"x": lambda c: np.zeros((c.B, c.D), np.int16), "b": lambda c: np.zeros((c.B, c.N), np.int8)},
    at=SELECTIVE,
)

# --- the ends of a chunk and of a share ---


def stays_at_the_last(h: Array, call: Any) -> Array:
    return np.where((call.fill == 255)[:, None, None, None], call.h, h)


slip(
    "positions_are_a_byte",
    "ssd_chunk_scan_step",
    "the chunk of 256 positions never ends, for its fill is a byte",
    when=lambda c: c.q == 8,
    gives={"h": stays_at_the_last},
    values={"fill": lambda c: np.full(1, 255, np.int32)},
    at={"B": 1, "H": 1, "P": 2, "S": 3, "q": 8, "s_h": 14, "s_y": 6},
)


def unit_of_the_first_tile(op: str, arrays: tuple[Array, ...], parameters: Any) -> Any:
    right = ssd_chunk_backward.largest_of

    def largest_of(values: Array) -> Array:
        return right(values[:, :64] if values.ndim == 3 else values)

    with replaced(ssd_chunk_backward, "largest_of", largest_of):
        return OPS[op].golden(*arrays, **parameters)


slip(
    "unit_of_the_first_tile",
    "ssd_chunk_scan_backward",
    "the unit of a chunk's errors is that of its first 64 positions",
    when=lambda c: max(min(c.L, 1 << c.q), c.P) > 64,
    runs=unit_of_the_first_tile,
    values={
        "dy": lambda c: np.repeat([3, 32767], 64).reshape(1, 128, 1, 1).astype(np.int16),
        "d": lambda c: np.full((1, 128, 1), 300, np.int32),
    },
    at={"B": 1, "L": 128, "H": 1, "P": 1, "S": 2, "q": 7, "s_h": 14, "s_g": 0}
    | {"s_x": 10, "s_d": 20, "s_b": 10, "s_c": 10},
)
slip(
    "a_share_of_two",
    "sample",
    "the least share is two of 65,536",
    takes=lambda c: {"top_p": max(2, c.top_p)},
    values={"logits": lambda c: np.zeros((c.B, c.V), np.int16)},
    at={"B": 9, "V": 65536, "seed": 1, "f": 8, "num": 1, "shift": 0, "top_k": 65536, "top_p": 1},
)


def sums_in_float32(op: str, arrays: tuple[Array, ...], parameters: Any) -> Any:
    right = ssd_chunk_backward.exponent_sums
    with replaced(ssd_chunk_backward, "exponent_sums", lambda d: right(d).astype(np.float32).astype(np.int64)):
        return OPS[op].golden(*arrays, **parameters)


slip(
    "exponents_summed_in_float32",
    "ssd_chunk_scan_backward",
    "decay exponents are summed in float32, which has 24 bits of 25",
    when=lambda c: c.d.size > 0 and np.abs(c.d, dtype=np.int64).sum(1).max() >= 1 << 24,
    runs=sums_in_float32,
    values={"d": lambda c: 100001 + np.arange(256, dtype=np.int32).reshape(1, 256, 1)},
    at={"B": 1, "L": 256, "H": 1, "P": 9, "S": 3, "q": 8, "s_h": 14, "s_g": 0, "s_x": 8, "s_d": 9, "s_b": 8, "s_c": 8},
)
