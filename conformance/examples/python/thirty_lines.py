"""A backend of thirty lines: any module whose functions bear the ops' names is one."""

import numpy as np


def shift_round(x, *, s):
    return ((x.astype(np.int64) + ((1 << s) >> 1)) >> s).astype(np.int32)


def saturate(x, *, bits):
    limit = (1 << (bits - 1)) - 1
    return np.clip(x, -limit, limit).astype(np.int32)


def residual_add(r, x, *, num, shift):
    scaled = (x.astype(np.int64) * num + ((1 << shift) >> 1)) >> shift
    return saturate(r + scaled, bits=24)


def algebraic_sigmoid(z, *, f):
    wide = z.astype(np.int64)
    return ((1 << 14) + (wide << 14) // ((1 << f) + np.abs(wide))).astype(np.int16)


def sigmoid_gate(x, z, *, f):
    return shift_round(x * algebraic_sigmoid(z, f=f).astype(np.int64), s=15).astype(np.int16)


def argmax(logits):
    return np.argmax(logits, axis=-1).astype(np.int32)
