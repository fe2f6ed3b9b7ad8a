"""Known-wrong arithmetic: other roundings, saturations, divisions, roots, widths of sums and products."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from mamba_integer.spec import integers
from mamba_integer.spec.integers import bit_length, isqrt, shift_floor, shift_round

from .arithmetic import Rule


def half(s):
    return (1 << s) >> 1


def toward_zero(x, s):
    return np.sign(x) * (np.abs(x) >> s)


def half_to_even(x, s):
    floor = x >> s
    rest = x - (floor << s)
    up = (rest > half(s)) | ((rest == half(s)) & (floor & 1 == 1))
    return np.where(s == 0, x, floor + up)


def half_away(x, s):
    return np.sign(x) * ((np.abs(x) + half(s)) >> s)


def half_down(x, s):
    return np.where(np.asarray(s) == 0, x, -shift_round(-x, s))


def twice_rounded(x, s):
    first = np.asarray(s) >> 1
    return shift_round(shift_round(x, first), s - first)


def rounded_once_more(x, s):
    """Round away all but one of the bits, then the last one."""
    last = np.minimum(s, 1)
    return shift_round(shift_round(x, s - last), last)


def rounded_once_before(x, s):
    """Round the first bit away, then the others."""
    first = np.minimum(s, 1)
    return shift_round(shift_round(x, first), s - first)


def upward(x, s):
    return -((-x) >> s)


def in_int32(x):
    return x.astype(np.int32).astype(np.int64) if isinstance(x, np.ndarray) else x


def in_float32(x):
    return np.asarray(x).astype(np.float32).astype(np.float64)


def rounded_in_float32(x, s):
    return np.floor(in_float32(x) / np.float64(2) ** s + 0.5).astype(np.int64)


def half_added_in_int32(x, s):
    return in_int32(x + half(s)) >> s


def saturate_to_least(x, bits):
    limit = 1 << (bits - 1)
    return np.minimum(np.maximum(x, -limit), limit - 1)


def saturate_short(x, bits):
    limit = (1 << (bits - 1)) - 2
    return np.minimum(np.maximum(x, -limit), limit)


def wrap(x, bits):
    limit = 1 << (bits - 1)
    return ((x + limit) & (2 * limit - 1)) - limit


def saturate_high_alone(x, bits):
    return wrap(np.minimum(x, (1 << (bits - 1)) - 1), bits)


def saturate_low_alone(x, bits):
    return wrap(np.maximum(x, 1 - (1 << (bits - 1))), bits)


def divide_toward_zero(a, b):
    return np.sign(a) * (np.abs(a) // b)


def divide_to_nearest(a, b):
    return (2 * a + b) // (2 * b)


def divide_in_float32(a, b):
    return np.floor(np.asarray(a).astype(np.float32) / np.asarray(b).astype(np.float32)).astype(np.int64)


def divide_upward(a, b):
    return -((-a) // b)


def root_short(v):
    """Newton's root without the last correction."""
    root = isqrt(v)
    return root - ((root * root == v) & (root > 1))


def root_to_nearest(v):
    root = isqrt(v)
    return root + (v - root * root > root)


def root_in_float32(v):
    return np.sqrt(np.asarray(v).astype(np.float32)).astype(np.int64)


def root_of_15_bits(v):
    return np.minimum(isqrt(v), (1 << 15) - 1)


def root_above(v):
    root = isqrt(v)
    return root + (root * root < v)


REPLACED: dict[str, dict[str, Callable]] = {
    "the rounding shift truncates toward zero": {"shift_round": toward_zero},
    "the rounding shift adds no half: it is a floor": {"shift_round": shift_floor},
    "the rounding shift rounds half to even": {"shift_round": half_to_even},
    "the rounding shift rounds half away from zero": {"shift_round": half_away},
    "the rounding shift rounds half down": {"shift_round": half_down},
    "the rounding shift rounds twice, half of the bits each time": {"shift_round": twice_rounded},
    "the rounding shift rounds twice, the last bit by itself": {"shift_round": rounded_once_more},
    "the rounding shift rounds twice, the first bit by itself": {"shift_round": rounded_once_before},
    "the rounding shift rounds up": {"shift_round": upward},
    "the rounding shift works in float32": {"shift_round": rounded_in_float32},
    "the half of the rounding shift overflows int32": {"shift_round": half_added_in_int32},
    "the shift that rounds half to even rounds half up": {"shift_even": shift_round},
    "the shift that rounds half to even is a floor": {"shift_even": shift_floor},
    "the shift that rounds half to even truncates toward zero": {"shift_even": toward_zero},
    "saturation reaches the type's least value (-128 for int8)": {"saturate": saturate_to_least},
    "saturation ends one short (126 for int8)": {"saturate": saturate_short},
    "saturation is missing: the result wraps around": {"saturate": wrap},
    "saturation is missing at the low end": {"saturate": saturate_high_alone},
    "saturation is missing at the high end": {"saturate": saturate_low_alone},
    "the floor division truncates toward zero": {"floor_div": divide_toward_zero},
    "the floor division rounds to nearest": {"floor_div": divide_to_nearest},
    "the floor division rounds up": {"floor_div": divide_upward},
    "the floor division is done in float32": {"floor_div": divide_in_float32},
    "the rounding division is a floor": {"round_div": integers.floor_div},
    "the rounding division truncates toward zero": {"round_div": divide_toward_zero},
    "the root isn't corrected: one too small at squares": {"isqrt": root_short},
    "the root is rounded to nearest": {"isqrt": root_to_nearest},
    "the root is rounded up": {"isqrt": root_above},
    "the root has 15 bits: it ends at 32767": {"isqrt": root_of_15_bits},
    "the root is taken in float32": {"isqrt": root_in_float32},
    "the bit length is that of positive integers alone": {"bit_length": lambda x: bit_length(np.maximum(x, 0))},
    "the bit length is one too large": {"bit_length": lambda x: bit_length(x) + 1},
    "the bit length takes 2**b to need b bits": {"bit_length": lambda x: bit_length(np.maximum(np.abs(x) - 1, 0))},
}


@dataclass(frozen=True)
class WrongOperation:
    """A rule that changes some of NumPy's operations."""

    operations: tuple[str, ...]
    rule: Rule


def instead(name: str, other: Callable) -> WrongOperation:
    """Return the rule that computes another function of the arrays in the place of an operation."""

    def rule(ufunc, method, inputs, options):
        return other(*inputs) if ufunc.__name__ == name and method == "__call__" else NotImplemented

    return WrongOperation((name,), rule)


def logical_shift(x, s):
    x = np.asarray(x)
    unsigned = np.dtype(f"uint{8 * x.dtype.itemsize}")
    return (x.astype(unsigned) >> np.asarray(s).astype(unsigned)).astype(x.dtype)


def sums(convert: Callable[[np.ndarray], np.ndarray]) -> WrongOperation:
    """Return the rule under which sums along an axis, and matrix products, are those of converted integers."""

    def rule(ufunc, method, inputs, options):
        if ufunc is np.add and method == "reduce":
            # One after the other, as a plain loop adds them: NumPy adds float32 in another order.
            axis, kept = options.get("axis", 0), options.get("keepdims", False)
            terms = convert(np.asarray(inputs[0]))
            terms = terms.ravel() if axis is None else np.moveaxis(terms, axis, -1)
            total = convert(np.zeros(terms.shape[:-1]))
            for k in range(terms.shape[-1]):
                total = convert(total + terms[..., k])
            total = np.expand_dims(total, axis) if kept and axis is not None else total
        elif ufunc is np.matmul:
            # Column by column, so that every partial sum is converted: float32 forgets as it goes.
            a, b = map(np.asarray, inputs)
            total = convert(np.zeros((*a.shape[:-1], b.shape[-1])))
            for k in range(a.shape[-1]):
                total = convert(total + convert(a[..., k, None] * b[k]))
        else:
            return NotImplemented
        return np.asarray(total).astype(np.int64)

    return WrongOperation(("add.reduce", "matmul"), rule)


def products(convert: Callable) -> WrongOperation:
    return instead("multiply", lambda a, b: convert(np.multiply(a, b)))


def narrowed(dtype: str) -> Callable[[np.ndarray], np.ndarray]:
    return lambda x: np.asarray(x).astype(dtype).astype(np.int64)


def single(x):
    """Return integers as float32 holds them."""
    return np.asarray(x).astype(np.float32)


RULES: dict[str, WrongOperation] = {
    "shifts to the right truncate toward zero": instead("right_shift", toward_zero),
    "shifts to the right are logical, not arithmetic": instead("right_shift", logical_shift),
    "shifts to the right round to nearest": instead("right_shift", shift_round),
    "divisions truncate toward zero": instead("floor_divide", divide_toward_zero),
    "divisions are done in float32": instead("floor_divide", divide_in_float32),
    "sums are kept in int32, which overflows": sums(narrowed("int32")),
    "sums are kept in int16, which overflows": sums(narrowed("int16")),
    "sums are kept in float32": sums(single),
    "products are kept in int32, which overflows": products(narrowed("int32")),
    "products are kept in int16, which overflows": products(narrowed("int16")),
    "products are kept in float32": products(lambda x: single(x).astype(np.float64).astype(np.int64)),
    "a comparison with > also takes equality": instead("greater", np.greater_equal),
    "a comparison with <= doesn't take equality": instead("less_equal", np.less),
    "a comparison with >= doesn't take equality": instead("greater_equal", np.greater),
    "a comparison with < also takes equality": instead("less", np.less_equal),
    "a value below the low end isn't clamped": instead("clip", lambda x, low, high: np.minimum(x, high)),
    "a value above the high end isn't clamped": instead("clip", lambda x, low, high: np.maximum(x, low)),
    "a maximum with a constant is left out": instead("maximum", lambda x, low: x),
    "a minimum with a constant is left out": instead("minimum", lambda x, high: x),
    "the low bits are kept where a minimum is meant, as of a shift's count": instead("minimum", np.bitwise_and),
    "a term that is shifted to the right is left out": instead("right_shift", lambda x, s: np.zeros_like(x)),
    "a shift to the right is left out": instead("right_shift", lambda x, s: x),
    "magnitudes are taken as they are, with their sign": instead("absolute", lambda x: x),
}
