"""Backward of the scans: the gradient of a state runs the recurrence from the last step to the first.

Sums are exact and every shift rounds to nearest: a floor's half ulp, always of one sign, would add up over the steps.
The shift of a few bits that enters at each step has its ties go to even, for the same reason.
Both scans are one step, `retreat`, on arrays of different shapes.
"""

from __future__ import annotations

import numpy as np

from .. import integers
from ..arrays import Int8Array, Int16Array, Int32Array, Int64Array
from ..bounds import Interval, Width
from ..contract import Parameter, Tensor, op
from ..formula import Formula
from . import scan
from .scan import ACTIVATION, BASE, DECAY, FORMATS, MIXTURE, MODULATION

WORD = Interval.signed(32)
LARGEST_SHIFT = 47


def with_half(total: Interval, s: int) -> Interval:
    """Return the range of ``total`` and the half that its rounding by s bits adds."""
    return total + ((1 << s) >> 1)


# The greatest u, the rounded product of dy and c that an output adds to the gradient of its state. The least is -u.
GREATEST_U = Formula("shift_even(32767 * 127, s_g)")

# The least interval around 0 that lam, the gradient of a state, leaves in no sequence, whatever its length.
#
# From lam <= H a step back ends at shift_round(H n_max, k) + u at most, which is at most H just if
# H (2**k - n_max) > (u - 1) 2**k + 2**(k-1). From lam >= -L it ends at shift_round(-L n_max, k) - u at least, which is
# at least -L just if L (2**k - n_max) >= u 2**k - 2**(k-1). The least such H and L are fixed points.
LEAST_LAM = Formula("-ceil_div(u * 2**k - 2**(k - 1), 2**k - n_max)", u=GREATEST_U.text)
GREATEST_LAM = Formula("((u - 1) * 2**k + 2**(k - 1)) // (2**k - n_max) + 1", u=GREATEST_U.text)

# The ends of dh: of lam without what its own step's output adds.
LEAST_DH = Formula("lam_min + u", **LEAST_LAM.where, lam_min=LEAST_LAM.text)
GREATEST_DH = Formula("lam_max - u", **GREATEST_LAM.where, lam_max=GREATEST_LAM.text)


def output_range(at) -> Interval:
    """Return the range of u."""
    return Interval.symmetric(GREATEST_U(at))


def adjoint_range(at) -> Interval:
    """Return the range of lam."""
    return Interval(LEAST_LAM(at), GREATEST_LAM(at))


def carried_range(at) -> Interval:
    """Return the domain of dh."""
    return Interval(LEAST_DH(at), GREATEST_DH(at))


def finer(at) -> int:
    """Return by how many bits the unit of lam b is finer than that of dy skip; below 0 it is coarser."""
    return at.s_v + at.s_h - at.s_g


def backward_widths(at, decay: str, states: int, channels: int, width: int):
    """Return the widths of a scan's backward.

    A row has ``channels``, which share b and c, and each of them ``states``; ``width`` channels share a skip and the
    decay or modulation whose gradient is called ``decay``.
    """
    v, h, u, lam = (range_of(at) for range_of in (scan.input_range, scan.state_range, output_range, adjoint_range))
    unit, steps = 1 << at.k, at.B * at.L
    moved = lam * (h - v if at.convex else h)
    w = moved.shift_round(at.s_w)
    through = (lam * MIXTURE).sum(states) << max(0, -finer(at))
    past = (ACTIVATION * ACTIVATION) << max(0, finer(at))
    rounded = {
        "dx": (through + past, at.s_x),
        decay: (w.sum(states * width), at.s_n),
        "db": ((lam * ACTIVATION).sum(channels), at.s_b),
        "dc": (((h >> at.s_h) * ACTIVATION).sum(channels), at.s_c),
    }
    widths = scan.state_widths(at) | {
        "output product": Width(with_half(ACTIVATION * MIXTURE, at.s_g), "int32"),
        "u": Width(u, "int32"),
        "lam": Width(lam, "int32"),
        "kept": Width(with_half(lam * unit, at.k), "int64"),
        "dv": Width(lam, "int32"),
        "decayed": Width(with_half(lam * at.n_max, at.k), "int64"),
        "dh": Width(carried_range(at), "int32"),
        "moved": Width(with_half(moved, at.s_w), "int64"),
        "w": Width(w, "int64"),
        "dskip": Width((ACTIVATION * ACTIVATION).sum(steps * width), "int64"),
    }
    for name, (total, shift) in rounded.items():
        widths[f"{name} sum"] = Width(with_half(total, shift), "int64")
        widths[name] = Width(total.shift_round(shift).saturate(32), "int32")
    return widths


def decay_modulate_backward_widths(at):
    total = WORD.sum(at.N)
    return {
        "sum": scan.modulate_widths(at)["sum"],
        "passed": Width(WORD, "int32"),
        "dmod sum": Width(with_half(total, at.s_n), "int64"),
        "dmod": Width(total.shift_round(at.s_n).saturate(32), "int32"),
        "dbase": Width(WORD.sum(at.B * at.L), "int64"),
    }


def selective_scan_backward_widths(at):
    widths = backward_widths(at, "dmod", states=at.N, channels=at.D, width=1)
    dbase = Width(widths["w"].range.sum(at.B * at.L), "int64")
    return {"n": scan.modulate_widths(at)["n"]} | widths | {"dbase": dbase}


def ssd_scan_backward_widths(at):
    return backward_widths(at, "dn", states=at.S, channels=at.H * at.P, width=at.P)


def shift(name: str, meaning: str, high: int = LARGEST_SHIFT) -> Parameter:
    return Parameter(name, 0, high, meaning)


MODULATION_SHIFT = shift("s_n", "fraction bits that the sum loses in the gradient of the modulation or decay")
FORWARD = DECAY + tuple(parameter for parameter in FORMATS if parameter.name != "s_y")
SHIFTS = (
    shift("s_g", "fraction bits that dy * c loses in the gradient of the state", 22),
    shift("s_w", "fraction bits that the product of a state and its gradient loses in w"),
    MODULATION_SHIFT,
    shift("s_x", "fraction bits that the sum loses in dx"),
    shift("s_b", "fraction bits that the sum loses in db"),
    shift("s_c", "fraction bits that the sum loses in dc"),
)


def carried(shape: str, meaning: str) -> Tensor:
    return Tensor("dh", "int32", shape, LEAST_DH, GREATEST_DH, meaning)


BEFORE = "gradient of the state before the sequence"


def scan_inputs(forward: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    dy = Tensor("dy", "int16", forward[0].shape, meaning="gradient of y, in any unit")
    after = carried(
        forward[-1].shape, "gradient of the state after the sequence, as in C9; zeros where nothing follows"
    )
    return (dy, *forward, after)


def gradient(name: str, dtype: str, shape: str, meaning: str) -> Tensor:
    return Tensor(name, dtype, shape, meaning=f"gradient of {meaning}")


RETREAT = {
    "C1": "v and h are those of the forward op; lam after the last step is dh",
    "C2": "lam grows by u = dy c / 2**s_g to the nearest integer, ties to the even one, at its step, and becomes"
    " floor(lam n / 2**k + 1/2) before it",
    "C3": "convex = 0: dv = lam; convex = 1: dv = floor(lam (2**k - n) / 2**k + 1/2)",
    "C4": "dx = saturate(floor(a / 2**s_x + 1/2), 32), a the sum over the states of dv b 2**max(0, -e), and of"
    " dy skip 2**max(0, e), where e = s_v + s_h - s_g",
    "C5": "w = floor(lam m / 2**s_w + 1/2), m the state before the step, less v if convex",
    "C6": "db = saturate(floor(a / 2**s_b + 1/2), 32), a the sum of dv x over the channels",
    "C7": "dc = saturate(floor(a / 2**s_c + 1/2), 32), a the sum of floor(h / 2**s_h) dy over the channels",
    "C8": "dskip is the exact sum of dy x over rows, steps and the channels of the skip",
    "C9": "the domain of dh holds every lam that a sequence of any length carries to the step before it",
    "C10": "a sequence cut anywhere, its pieces run from the last to the first, dh carried over, gives the same"
    " integers, dskip and dbase as sums",
    "C11": "roundings and the saturation of y have derivative one",
}
PASSED = {"C12": "dmod and dbase are those of `decay_modulate_backward` of w, which needn't fit int32"}


def retreat(lam, dy, x, n, b, c, skip, before, h, *, k, s_v, s_h, convex, s_g, s_w):
    """Return, of one step: lam before it, the sum of dx, w, and what it adds to db and dc.

    The state is the last axis of lam, n, b, c, before and h; dy, x and skip lack it.
    """
    lam, dy, x, n, b, c, skip, before, h = (a.astype(np.int64) for a in (lam, dy, x, n, b, c, skip, before, h))
    fine = s_v + s_h - s_g
    # ROUND
    lam = lam + integers.shift_even(dy[..., None] * c, s_g)
    v = integers.rescale(x[..., None] * b, s_v)
    dv = integers.shift_round(lam * ((1 << k) - n if convex else 1 << k), k)
    w = integers.shift_round(lam * (before - v if convex else before), s_w)
    earlier = integers.shift_round(lam * n, k)
    # ACCUMULATE
    dx = ((dv * b).sum(axis=-1) << max(0, -fine)) + ((dy * skip) << max(0, fine))
    return earlier, dx, w, dv * x[..., None], (h >> s_h) * dy[..., None]


def put(total, s):
    """Return a sum as a gradient of 32 bits."""
    # ROUND
    rounded = integers.shift_round(total, s)
    # SATURATE
    return integers.saturate(rounded, 32).astype(np.int32)


def passing(base, mod, n_max):
    """Return whether the decay follows its base and modulation, where it is not clamped."""
    # ACCUMULATE
    total = mod[..., None].astype(np.int64) + base
    return (total >= 0) & (total <= n_max)


@op(
    inputs=(gradient("dn", "int32", "B L D N", "the decays, in any unit"), BASE, MODULATION),
    outputs=(
        gradient("dbase", "int64", "D N", "base, in the unit of dn"),
        gradient("dmod", "int32", "B L D", "mod, in 2**s_n units of dn"),
    ),
    parameters=(*DECAY, MODULATION_SHIFT),
    clauses={
        "C1": "g = dn where 0 <= base + mod <= n_max, and 0 elsewhere",
        "C2": "dbase is the exact sum of g over rows and steps",
        "C3": "dmod = saturate(floor(a / 2**s_n + 1/2), 32), a the sum of g over the states",
    },
    widths=decay_modulate_backward_widths,
    backward_of="decay_modulate",
)
def decay_modulate_backward(
    dn: Int32Array, base: Int16Array, mod: Int16Array, /, *, k: int, n_max: int, s_n: int
) -> tuple[Int64Array, Int32Array]:
    """Compute the gradients of `decay_modulate` with respect to base and mod.

    A decay that was clamped passes no gradient (C1); the others add up exactly in ``dbase`` (C2), and over the states
    in ``dmod``, rounded once, ``saturate(shift_round(sum, s_n), 32)`` (C3).

    Examples
    --------
    >>> dn, base = np.array([[[[7, -3]], [[5, 2]]]], np.int32), np.array([[100, 200]], np.int16)
    >>> mod = np.array([[[-150], [50]]], np.int16)
    >>> dbase, dmod = decay_modulate_backward(dn, base, mod, k=8, n_max=250, s_n=1)
    >>> dbase.tolist(), dmod.tolist()
    ([[5, -1]], [[[-1], [4]]])
    """
    g = np.where(passing(base, mod, n_max), dn.astype(np.int64), 0)
    # ACCUMULATE
    return g.sum(axis=(0, 1)), put(g.sum(axis=-1), s_n)


@op(
    inputs=scan_inputs(scan.selective_inputs("L")),
    outputs=(
        gradient("dx", "int32", "B L D", "x"),
        gradient("dmod", "int32", "B L D", "mod"),
        gradient("dbase", "int64", "D N", "base"),
        gradient("db", "int32", "B L N", "b"),
        gradient("dc", "int32", "B L N", "c"),
        gradient("dskip", "int64", "D", "skip"),
        carried("B D N", BEFORE),
    ),
    parameters=FORWARD + SHIFTS,
    sizes={"N": (1, 1 << 16)},
    clauses=RETREAT | PASSED,
    widths=selective_scan_backward_widths,
    backward_of="selective_scan",
)
def selective_scan_backward(
    dy: Int16Array,
    x: Int16Array,
    mod: Int16Array,
    base: Int16Array,
    b: Int8Array,
    c: Int8Array,
    skip: Int16Array,
    h: Int32Array,
    dh: Int32Array,
    /,
    *,
    k: int,
    n_max: int,
    s_v: int,
    s_h: int,
    convex: int,
    s_g: int,
    s_w: int,
    s_n: int,
    s_x: int,
    s_b: int,
    s_c: int,
) -> tuple[Int32Array, Int32Array, Int64Array, Int32Array, Int32Array, Int64Array, Int32Array]:
    """Compute the gradients of `selective_scan` with respect to all its arrays, back through time.

    The states h are those of the forward op (C1). The steps run from the last to the first. With lam the gradient of
    the state, ``lam += shift_even(dy * c, s_g)``, and ``lam = shift_round(lam * n, k)`` goes to the step before (C2).
    With ``dv = lam``, or ``shift_round(lam * (2**k - n), k)`` if convex (C3), ``e = s_v + s_h - s_g`` and
    ``put(a, s) = saturate(shift_round(a, s), 32)``,

    ``dx = put((sum of dv * b << max(0, -e)) + (dy * skip << max(0, e)), s_x)`` (C4),
    ``w = shift_round(lam * h_before, s_w)``, of ``h_before - v`` if convex (C5),
    ``db = put(sum of dv * x, s_b)`` (C6), ``dc = put(sum of (h >> s_h) * dy, s_c)`` (C7) and
    ``dskip = sum of dy * x`` (C8); w goes to base and mod where their sum wasn't clamped (C12).

    Notes
    -----
    With s_y as in the forward op, a result r is 2**f times the derivative with respect to an input, taken as an
    integer, that dy implies, where f is ``s_h + s_y - s_g`` for dh, ``s_y + max(0, e) - s_x`` for dx,
    ``s_h + s_y + k - s_g - s_w`` for dbase and s_n less for dmod, ``s_y + e - s_b`` for db, ``s_y - s_c`` for dc, and
    s_y for dskip.

    Straight-through: a saturated y still gets the gradient that takes it back (C11), while a clamped decay, which is as
    its author meant it, passes none. Nothing needs every state at once: from the states at the start of each few steps
    those between are computed again, to the same integers.

    Against automatic differentiation of the same scan in floats, without roundings, each gradient has a cosine above
    0.999 and 98 % of the signs (60 steps, gradients of 9 bits, s_g = 2 and 9, k = 12, both forms).

    Examples
    --------
    >>> x, mod, base = np.array([[[3], [5]]], np.int16), np.zeros((1, 2, 1), np.int16), np.array([[128]], np.int16)
    >>> b, c, skip = np.full((1, 2, 1), 2, np.int8), np.full((1, 2, 1), 4, np.int8), np.array([1], np.int16)
    >>> h, dh, dy = np.array([[[8]]], np.int32), np.array([[[0]]], np.int32), np.array([[[10], [-6]]], np.int16)
    >>> forward, backward = dict(k=8, n_max=255, s_v=0, s_h=0, convex=0), dict(s_g=0, s_w=0, s_n=0, s_x=0, s_b=0, s_c=0)
    >>> gradients = selective_scan_backward(dy, x, mod, base, b, c, skip, h, dh, **forward, **backward)
    >>> dx, dmod, dbase, db, dc, dskip, dh = gradients
    >>> dx.ravel().tolist(), dmod.ravel().tolist(), dbase.tolist(), db.ravel().tolist(), dc.ravel().tolist()
    ([66, -54], [224, -240], [[-16]], [84, -120], [100, -90])
    >>> dskip.tolist(), dh.tolist()
    ([0], [[[14]]])
    """
    steps, lam = range(x.shape[1]), dh
    n = scan.decay_modulate.golden(base, mod, k=k, n_max=n_max)
    passes = passing(base, mod, n_max)
    forward = dict(k=k, s_v=s_v, s_h=s_h, convex=convex)
    states = [h]
    for t in steps:
        forth = (x[:, t], mod[:, t], base, b[:, t], c[:, t], skip, states[t])
        states.append(scan.selective_scan_step.golden(*forth, **forward, n_max=n_max, s_y=0)[1])
    dx, dmod = np.empty(x.shape, np.int32), np.empty(x.shape, np.int32)
    db, dc = np.empty(b.shape, np.int32), np.empty(c.shape, np.int32)
    dbase = np.zeros(base.shape, np.int64)
    for t in reversed(steps):
        back = (dy[:, t], x[:, t], n[:, t], b[:, t, None], c[:, t, None], skip, states[t], states[t + 1])
        lam, into, w, to_b, to_c = retreat(lam, *back, **forward, s_g=s_g, s_w=s_w)
        w = np.where(passes[:, t], w, 0)
        # ACCUMULATE
        dx[:, t], dmod[:, t] = put(into, s_x), put(w.sum(axis=-1), s_n)
        db[:, t], dc[:, t] = put(to_b.sum(axis=1), s_b), put(to_c.sum(axis=1), s_c)
        dbase += w.sum(axis=0)
    dskip = (dy.astype(np.int64) * x).sum(axis=(0, 1))
    return dx, dmod, dbase, db, dc, dskip, lam.astype(np.int32)


@op(
    inputs=scan_inputs(scan.ssd_inputs("L")),
    outputs=(
        gradient("dx", "int32", "B L H P", "x"),
        gradient("dn", "int32", "B L H", "n, in the unit of `selective_scan_backward`'s dmod"),
        gradient("db", "int32", "B L S", "b"),
        gradient("dc", "int32", "B L S", "c"),
        gradient("dskip", "int64", "H", "skip"),
        carried("B H P S", BEFORE),
    ),
    parameters=FORWARD + SHIFTS,
    sizes={"S": (1, 1 << 16)},
    clauses=RETREAT | {"C12": "dn = saturate(floor(a / 2**s_n + 1/2), 32), a the sum of w over the states of a head"},
    widths=ssd_scan_backward_widths,
    backward_of="ssd_scan",
)
def ssd_scan_backward(
    dy: Int16Array,
    x: Int16Array,
    n: Int16Array,
    b: Int8Array,
    c: Int8Array,
    skip: Int16Array,
    h: Int32Array,
    dh: Int32Array,
    /,
    *,
    k: int,
    n_max: int,
    s_v: int,
    s_h: int,
    convex: int,
    s_g: int,
    s_w: int,
    s_n: int,
    s_x: int,
    s_b: int,
    s_c: int,
) -> tuple[Int32Array, Int32Array, Int32Array, Int32Array, Int64Array, Int32Array]:
    """Compute the gradients of `ssd_scan` with respect to all its arrays, back through time.

    The formulas are those of `selective_scan_backward` (C1 to C11) for each channel p of each head, where n is an
    input. The gradient of n is ``dn = put(sum of w, s_n)`` over the states of all channels of a head (C12).

    Examples
    --------
    >>> x, n, skip = np.array([[[[3, 1]], [[5, 0]]]], np.int16), np.full((1, 2, 1), 128, np.int16), np.ones(1, np.int16)
    >>> b, c, h = np.full((1, 2, 1), 2, np.int8), np.full((1, 2, 1), 4, np.int8), np.full((1, 1, 2, 1), 8, np.int32)
    >>> dy, dh = np.array([[[[10, 2]], [[-6, 2]]]], np.int16), np.zeros((1, 1, 2, 1), np.int32)
    >>> forward, backward = dict(k=8, n_max=255, s_v=0, s_h=0, convex=0), dict(s_g=0, s_w=0, s_n=0, s_x=0, s_b=0, s_c=0)
    >>> dx, dn, db, dc, dskip, dh = ssd_scan_backward(dy, x, n, b, c, skip, h, dh, **forward, **backward)
    >>> dx.tolist(), dn.tolist(), dskip.tolist()
    ([[[[66, 26]], [[-54, 18]]]], [[[320], [-192]]], [2])
    >>> db.tolist(), dc.tolist(), dh.tolist()
    ([[[96], [-120]]], [[[112], [-84]]], [[[[14], [6]]]])
    """
    steps, lam = range(x.shape[1]), dh
    forward = dict(k=k, s_v=s_v, s_h=s_h, convex=convex)
    states = [h]
    for t in steps:
        forth = (x[:, t], n[:, t], b[:, t], c[:, t], skip, states[t])
        states.append(scan.ssd_scan_step.golden(*forth, **forward, n_max=n_max, s_y=0)[1])
    dx, dn = np.empty(x.shape, np.int32), np.empty(n.shape, np.int32)
    db, dc = np.empty(b.shape, np.int32), np.empty(c.shape, np.int32)
    for t in reversed(steps):
        mixtures, heads = (b[:, t, None, None], c[:, t, None, None]), n[:, t, :, None, None]
        back = (dy[:, t], x[:, t], heads, *mixtures, skip[:, None], states[t], states[t + 1])
        lam, into, w, to_b, to_c = retreat(lam, *back, **forward, s_g=s_g, s_w=s_w)
        # ACCUMULATE
        dx[:, t], dn[:, t] = put(into, s_x), put(w.sum(axis=(2, 3)), s_n)
        db[:, t], dc[:, t] = put(to_b.sum(axis=(1, 2)), s_b), put(to_c.sum(axis=(1, 2)), s_c)
    dskip = (dy.astype(np.int64) * x).sum(axis=(0, 1, 3))
    return dx, dn, db, dc, dskip, lam.astype(np.int32)


__all__ = ["decay_modulate_backward", "selective_scan_backward", "ssd_scan_backward"]
