"""The step of the scans, shared by the forward and the backward ops; the state is the last axis."""

from . import integers


def modulate(base, mod, n_max):
    """Return the decays of every channel and state: their base, moved by the channel's modulation."""
    return (mod[..., None].int() + base).clamp(0, n_max)


def input_of(x, b, s_v):
    """Return the input that the step adds to the state, as int64."""
    return integers.rescale(x[..., None].int() * b, s_v).long()


def advance(h, n, v, k, convex):
    """Return the new state of one step."""
    weight = (1 << k) - n.long() if convex else 1 << k
    return ((h.long() * n + v * weight) >> k).int()
