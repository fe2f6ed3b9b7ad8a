"""Plans of ``spec.ops.activation``."""

from collections.abc import Iterator
from random import Random
from typing import Any

import numpy as np

from mamba_integer import spec
from mamba_integer.spec import integers
from mamba_integer.spec.ops.activation import least_weighted
from mamba_integer.spec.ops.activation_backward import least_saturated

from .plan import LONG_FLAT, Extreme, Plan, ties

FRACTIONS = (8, *range(15))
FLAT = ((1,), (), (0,), (3,), (2, 3), (1023,), (1025,), (2, 5, 129))
ENDS = np.array([-32767, 0, 32767], np.int16)
EVERY = np.arange(-32767, 32768)


def offsets(f: int) -> list[int]:
    """Return offsets of squareplus: none, one that lets it saturate if f > 8, its value at zero, the largest."""
    return sorted({0, 4**f >> 16, 1 << f, 2**15 - 1})


def draw_offset(random: Random, at: Any) -> int:
    return random.choice(offsets(at.f))


def squareplus_extremes() -> Iterator[Extreme]:
    for f in (0, 8, 14):
        for offset in offsets(f):
            yield Extreme([(ENDS,)], {"f": f, "offset": offset})


def unary_extremes() -> Iterator[Extreme]:
    for f in (0, 8, 14):
        yield Extreme([(ENDS,)], {"f": f})


def gate_extremes() -> Iterator[Extreme]:
    x, z = (np.ascontiguousarray(a) for a in np.meshgrid(ENDS, ENDS))
    for f in (0, 8, 14):
        yield Extreme([(x, z)], {"f": f})


def silu_extremes() -> Iterator[Extreme]:
    for f in range(15):
        inputs = np.array([*ENDS, least_weighted(f)], np.int16)
        x, z = (np.ascontiguousarray(a) for a in np.meshgrid(ENDS, inputs))
        yield Extreme([(x, z)], {"f": f})


def closest(distance: np.ndarray, count: int) -> np.ndarray:
    """Return ``count`` of all activations, those of the least distance."""
    return EVERY[np.argsort(distance, kind="stable")[:count]]


def near_squares(f: int, count: int) -> np.ndarray:
    """Return inputs of squareplus whose radicands are squares, or nearly."""
    radicand = EVERY**2 + (4 << (2 * f))
    root = integers.isqrt(radicand)
    return closest(np.minimum(radicand - root**2, (root + 1) ** 2 - radicand), count)


def near_whole(f: int, count: int) -> np.ndarray:
    """Return inputs of the sigmoid whose quotients are whole, or nearly; also the smallest inputs."""
    denominator = (1 << f) + abs(EVERY)
    rest = (EVERY << 14) % denominator
    below = np.where(rest == 0, denominator, denominator - rest)
    return np.concatenate([closest(rest, count), closest(below, count), np.arange(-3, 4)])


def squareplus_edges() -> Iterator[Extreme]:
    """Radicands around squares, inputs around zero, and those around the first that saturates, where one does."""
    for f, offset in ((0, 1), (8, 256), (11, 0), (14, 0), (14, 9999)):
        last = least_saturated(f, offset) - 1
        x = np.concatenate([near_squares(f, 120), np.arange(-9, 10), np.arange(last - 2, min(last + 3, 32768))])
        purpose = "radicands about squares, inputs about zero and about the first that saturates"
        yield Extreme([(x.astype(np.int16),)], {"f": f, "offset": offset}, purpose)


def sigmoid_edges() -> Iterator[Extreme]:
    for f in (0, 3, 8, 14):
        yield Extreme([(near_whole(f, 100).astype(np.int16),)], {"f": f}, "divisions that leave nearly nothing")


def gating_inputs(f: int) -> np.ndarray:
    """Return a few inputs of a gate, of either sign: with quotients that are whole or nearly, small and large."""
    one = 1 << f
    return np.array([0, *near_whole(f, 4)[:8], -3, -2, -1, 1, 2, 3, -one, one, 1 - 2 * one, 2 * one - 1, -777, 20001])


def gated_ties(factors: np.ndarray, z: np.ndarray, shift: int, end: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return x and z where x times the factor that belongs to z is at a tie, or beside one."""
    pairs = [(x, gating) for gating, a in zip(z, factors, strict=True) if a for x in ties(shift, end, 32767, a)]
    x, z = np.array(pairs, np.int16).T
    return x.copy(), z.copy()


def gate_edges() -> Iterator[Extreme]:
    for f in (0, 8, 14):
        z = gating_inputs(f)
        gate = spec.algebraic_sigmoid.golden(z, f=f).astype(np.int64)
        yield Extreme([gated_ties(gate, z, 15)], {"f": f}, "products with the gate at ties, and beside them")


def silu_edges() -> Iterator[Extreme]:
    """Ties, and products of the greatest weight so near to ties that a float32 may not tell on which side they are."""
    for f in (0, 8, 14):
        z = gating_inputs(f)
        weight = z * spec.algebraic_sigmoid.golden(z, f=f).astype(np.int64)
        nearly = closest(abs(EVERY * weight[-1] % (2 << (14 + f)) - (1 << (14 + f))), 40).astype(np.int16)
        calls = [gated_ties(weight, z, 15 + f, end=32767), (nearly, np.full_like(nearly, z[-1]))]
        yield Extreme(calls, {"f": f}, "products with the gate at ties, and so near to them that a float32 errs")


PLANS = {
    "squareplus": Plan(
        parameters={"f": FRACTIONS, "offset": draw_offset},
        leading=FLAT,
        extremes=squareplus_extremes,
        edges=squareplus_edges,
        large=LONG_FLAT,
    ),
    "algebraic_sigmoid": Plan(
        parameters={"f": FRACTIONS}, leading=FLAT, extremes=unary_extremes, edges=sigmoid_edges, large=LONG_FLAT
    ),
    "sigmoid_gate": Plan(
        parameters={"f": FRACTIONS}, leading=FLAT, extremes=gate_extremes, edges=gate_edges, large=LONG_FLAT
    ),
    "silu_gate": Plan(
        parameters={"f": FRACTIONS}, leading=FLAT, extremes=silu_extremes, edges=silu_edges, large=LONG_FLAT
    ),
}
