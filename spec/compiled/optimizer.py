"""Numba twins of ``spec.ops.optimizer``."""

from functools import partial

import numpy as np
from numba import njit, prange

from .. import ops
from ..contract import implements
from ..ops import optimizer as golden
from ..ops.optimizer import (
    FEWEST_BITS,
    GRADIENT_EXPONENT,
    LAG_SHIFT,
    MOMENTUM_BITS,
    MOMENTUM_EXPONENT,
    MOST_BITS,
    SHARE_BITS,
    VOTES,
)
from . import integers
from .threads import spread

LEAST_GRADIENT_EXPONENT, GREATEST_GRADIENT_EXPONENT = GRADIENT_EXPONENT.low, GRADIENT_EXPONENT.high
LEAST_MOMENTUM_EXPONENT, GREATEST_MOMENTUM_EXPONENT = MOMENTUM_EXPONENT.low, MOMENTUM_EXPONENT.high


def flat(*arrays):
    return tuple(np.ascontiguousarray(array).reshape(-1) for array in arrays)


@implements(ops.ternary_project)
def ternary_project(w):
    matrix = np.ascontiguousarray(w)
    return _ternary_project(matrix, _magnitude_sum(matrix.reshape(-1)) // (2 * w.size))


@partial(spread, lightness=16)
def _magnitude_sum(w):
    total = np.int64(0)
    for i in prange(w.size):
        total += abs(np.int64(w[i]))
    return total


@partial(spread, lightness=4)
def _ternary_project(w, threshold):
    """Pack the signs of the weights above a threshold: an integer passes the rational one where it passes its floor."""
    N, K = w.shape
    packed = np.empty((N, (K + 3) // 4), np.uint8)
    above = np.int32(threshold)
    for n in prange(N):
        for j in range(K // 4):
            byte = 0
            for i in range(4):
                byte |= code(w[n, 4 * j + i], above) << (2 * i)
            packed[n, j] = byte
        if K & 3:
            byte = 0
            for k in range(K & ~3, K):
                byte |= code(w[n, k], above) << (2 * (k & 3))
            packed[n, K >> 2] = byte
    return packed


@njit(inline="always")
def code(weight, threshold):
    return np.int32(weight > threshold) + 3 * np.int32(weight < -threshold)


@implements(ops.lion_update)
def lion_update(w, m, g, *, lr, m_shift, g_up, g_down, low, high, decay):
    share = golden.decay_share(lr, decay)
    arrays = flat(w, m, g)
    new_w, new_m, clipped = _lion_update(*arrays, lr, *golden.shifts(m_shift), g_up, g_down, low, high, share)
    return new_w.reshape(w.shape), new_m.reshape(m.shape), np.array([clipped], np.int64)


@partial(spread, lightness=2)
def _lion_update(w, m, g, lr, m_down, m_up, g_up, g_down, low, high, share):
    new_w, new_m = np.empty_like(w), np.empty_like(m)
    clipped = np.int64(0)
    for i in prange(w.size):
        weight = np.int64(w[i])
        momentum = integers.saturate(integers.shift_round(np.int64(m[i]), m_down) << m_up, MOMENTUM_BITS)
        gradient = integers.saturate(integers.shift_round(g[i], g_down), MOMENTUM_BITS) << g_up
        gradient = integers.saturate(gradient, MOMENTUM_BITS)
        vote = VOTES * momentum + gradient
        new_m[i] = momentum + integers.shift_round(gradient - momentum, LAG_SHIFT)
        step = lr * (np.int64(vote > 0) - np.int64(vote < 0))
        total = weight - step - integers.shift_round(weight * share, SHARE_BITS)
        kept = min(max(total, low), high)
        clipped += kept != total
        new_w[i] = kept
    return new_w, new_m, clipped


@implements(ops.learning_rate)
def learning_rate(step, *, peak, last, warmup, total):
    return _learning_rate(*flat(step), peak, last, warmup, total).reshape(step.shape)


@spread
def _learning_rate(step, peak, last, warmup, total):
    lr = np.empty_like(step)
    for i in prange(step.size):
        done = np.int64(step[i])
        if done < warmup:
            lr[i] = integers.round_div(peak * (done + 1), warmup)
        else:
            lr[i] = last + integers.round_div((peak - last) * max(total - done, 0), total - warmup)
    return lr


@implements(ops.gradient_exponent)
def gradient_exponent(exponent, largest, *, bits):
    return _gradient_exponent(*flat(exponent, largest), bits).reshape(exponent.shape)


@spread
def _gradient_exponent(exponent, largest, bits):
    y = np.empty_like(exponent)
    for i in prange(exponent.size):
        moved = np.int64(exponent[i])
        if largest[i] >= (1 << (bits - 1)) - 1:
            moved -= 1
        elif largest[i] > 0:
            moved += max(bits - 1 - integers.bit_length(largest[i]), 0) >> 1
        else:
            moved += 1
        y[i] = min(max(moved, LEAST_GRADIENT_EXPONENT), GREATEST_GRADIENT_EXPONENT)
    return y


@implements(ops.momentum_exponent)
def momentum_exponent(exponent, g_exponent, largest_g, largest_m):
    return _momentum_exponent(*flat(exponent, g_exponent, largest_g, largest_m)).reshape(exponent.shape)


@spread
def _momentum_exponent(exponent, g_exponent, largest_g, largest_m):
    y = np.empty_like(exponent)
    for i in prange(exponent.size):
        moved = np.int64(exponent[i])
        m_top = integers.bit_length(largest_m[i]) - moved
        g_top = integers.bit_length(largest_g[i]) - np.int64(g_exponent[i])
        if largest_m[i] > 0 or largest_g[i] > 0:
            top = max(m_top, g_top)
            if largest_m[i] == 0:
                top = g_top
            elif largest_g[i] == 0:
                top = m_top
            moved = min(max(moved, FEWEST_BITS - top), MOST_BITS - top)
        y[i] = min(max(moved, LEAST_MOMENTUM_EXPONENT), GREATEST_MOMENTUM_EXPONENT)
    return y


__all__ = ["gradient_exponent", "learning_rate", "lion_update", "momentum_exponent", "ternary_project"]
