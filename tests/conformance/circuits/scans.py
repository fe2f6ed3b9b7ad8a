"""A scan of one state element, small enough to prove."""

import numpy as np


def scan(steps):
    """Return a scan of one state element over many steps, in formats that leave neither roundings nor saturations."""
    random = np.random.default_rng(0)
    x, n = random.integers(-127, 128, (1, steps, 1, 1)), random.integers(0, 32001, (1, steps, 1))
    b, c = random.integers(-127, 128, (2, 1, steps, 1))
    arrays = [x.astype(np.int16), n.astype(np.int16), b.astype(np.int8), c.astype(np.int8)]
    arrays += [np.array([3], np.int16), np.array([[[[-77]]]], np.int32)]
    return arrays, dict(k=15, n_max=32000, s_v=0, s_h=0, s_y=24, convex=0)
