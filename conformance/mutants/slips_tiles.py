"""Slips on the path for whole tiles, or for the leftovers of vectors after many tiles; each was once unseen."""

from typing import Any

import numpy as np

from mamba_integer.spec.contract import OPS
from mamba_integer.spec.ops.loss import pow2_weights

from .slip import Array, as_tuple, slip
from .slips_layout import CONV, GRADIENTS, SSD

# --- two sizes that are whole tiles at once ---


def without_halo(op: str, arrays: tuple[Array, ...], parameters: Any) -> Any:
    """Take zeros for the inputs before the second tile of 128 positions, where channels come in whole vectors."""
    x, w, bias, state = arrays
    y, last = OPS[op].golden(*arrays, **parameters)
    if x.shape[2] % 32 == 0 and x.shape[1] > 128:
        rest = OPS[op].golden(x[:, 128:], w, bias, np.zeros_like(state), **parameters)[0]
        y = np.concatenate([y[:, :128], rest], 1)
    return y, last


slip(
    "halo_of_a_tile",
    "causal_conv1d",
    "before a second tile of 128 positions are zeros where channels come in whole vectors",
    runs=without_halo,
    at=CONV | {"L": 130, "D": 32},
)
slip(
    "channels_turned_in_a_tile",
    "selective_scan_backward",
    "the first 64 positions of dx are those of the channel before where states fill a tile and a second one comes",
    when=lambda c: c.L > 64 and c.N % 16 == 0,
    gives={"dx": lambda dx, c: np.concatenate([np.roll(dx[:, :64], 1, 2), dx[:, 64:]], 1)},
    at=GRADIENTS | {"B": 1, "L": 65, "D": 2, "N": 16},
)
slip(
    "queries_of_the_batch_before",
    "ssd_scan",
    "after 128 positions c is that of the sequence before where states fill a tile",
    when=lambda c: c.L > 128 and c.S % 32 == 0,
    sees={"c": lambda queries, c: np.roll(queries, 1, 0)},
    at=SSD | {"L": 129, "H": 1, "P": 1, "S": 32},
)
slip(
    "last_tile_late",
    "ssd_chunk_scan",
    "the last 64 outputs are those of a position before where states fill a tile",
    when=lambda c: c.S % 32 == 0 and c.L > 128,
    gives={"y": lambda y, c: np.concatenate([y[:, :-64], y[:, -65:-1]], 1)},
    values={"fill": lambda c: np.zeros(c.B, np.int32)},
    at={"B": 1, "L": 130, "H": 1, "P": 1, "S": 32, "q": 2, "s_h": 16, "s_y": 9},
)

# --- what is left after many whole tiles ---


def peak_without_lane_7(op: str, arrays: tuple[Array, ...], parameters: Any) -> Any:
    """Look for the peak of a row in vectors of 8, and lose the last of 7 that are left."""
    (x,) = arrays
    if x.shape[-1] % 8 != 7 or x.shape[-1] < 15:
        return OPS[op].golden(x)
    e = OPS[op].golden(x[..., :-1])[1]
    unit = e[..., None].astype(np.int64)
    return ((x + ((1 << unit) >> 1)) >> unit).clip(-127, 127).astype(np.int8), e


slip(
    "peak_without_lane_7",
    "quantize_rows",
    "of 7 elements that are left after vectors of 8, the last is no peak",
    runs=peak_without_lane_7,
    values={"x": lambda c: (999 * (np.arange(c.K) == c.K - 1)).astype(np.int16)[None]},
    at={"leading": (1,), "K": 15},
)


def without_last_four(y: Array, call: Any) -> Array:
    flat = y.reshape(-1).copy()
    flat[-4:] = 0
    return flat.reshape(y.shape)


slip(
    "four_after_vectors_of_8",
    "residual_add",
    "four elements that are left after many vectors of 8 aren't written",
    when=lambda c: c.size % 8 == 4 and c.size >= 1000,
    gives={"y": without_last_four},
    at={"leading": (1004,), "num": 3, "shift": 2},
)

# --- a reduction in parts, and memory of large results ---


def rescaled_sums(op: str, arrays: tuple[Array, ...], parameters: Any) -> Any:
    """Sum weights in parts of 128 and rescale the sum whenever a part has a greater maximum."""
    (logits,) = arrays
    f, q = parameters["f"], parameters["q"]
    if logits.shape[-1] <= 128:
        return OPS[op].golden(logits, **parameters)
    wide = logits.astype(np.int64)
    most = wide[..., :128].max(-1, keepdims=True)
    total = np.zeros_like(most)
    for start in range(0, wide.shape[-1], 128):
        part = wide[..., start : start + 128]
        greater = np.maximum(most, part.max(-1, keepdims=True))
        total = (total * pow2_weights(greater - most, f) >> 16) + pow2_weights(greater - part, f).sum(-1, keepdims=True)
        most = greater
    return (((pow2_weights(most - wide, f) << q) + (total >> 1)) // total).astype(np.int32)


slip(
    "sums_rescaled",
    "softmax_pow2",
    "a running sum is rescaled when the maximum grows, as with floats",
    runs=rescaled_sums,
    values={"logits": lambda c: np.arange(c.V, dtype=np.int16)[None]},
    at={"leading": (1,), "V": 300, "f": 8, "q": 30},
)


def sharing_large_results() -> Any:
    buffers: dict[tuple[int, ...], Array] = {}

    def run(op: str, arrays: tuple[Array, ...], parameters: Any) -> Any:
        (y,) = as_tuple(OPS[op].golden(*arrays, **parameters))
        if y.size < 4096:
            return y
        buffer = buffers.setdefault(y.shape, np.zeros_like(y))
        buffer[...] = y
        return buffer

    return run


slip(
    "large_results_share_memory",
    "rope",
    "results of 4,096 integers and more of one shape are the same memory",
    makes=sharing_large_results,
    calls=2,
    at={"B": 2, "L": 64, "P": 16, "s": 8},
)
