"""Slips of sizes: whole tiles, long sequences, the far ends of the domain, leading dimensions."""

from collections.abc import Callable
from typing import Any

import numpy as np

from mamba_integer.spec.contract import OPS

from .slip import Array, Change, slip
from .slips_layout import CONV, GRADIENTS, LINEAR, LION, NORM, SELECTIVE, SSD

# --- changes ---


def unwritten(where: Callable[[Any], Any], stale: Callable[[Any], Any] = lambda call: 0) -> Change:
    """Leave a part of the result as its memory was: zero, or a value that is given."""

    def change(result: Array, call: Any) -> Array:
        result = result.copy()
        result[where(call)] = np.broadcast_to(stale(call), result.shape)[where(call)]
        return result

    return change


def flat_unwritten(start: Callable[[Any], int]) -> Change:
    def change(result: Array, call: Any) -> Array:
        kept = result.ravel().copy()
        kept[start(call) :] = 0
        return kept.reshape(result.shape)

    return change


def first(count: int, axis: int = -1) -> Change:
    """Read zeros after the first elements of an axis."""

    def see(array: Array, call: Any) -> Array:
        kept = np.zeros_like(array)
        index = [slice(None)] * array.ndim
        index[axis] = slice(count)
        kept[tuple(index)] = array[tuple(index)]
        return kept

    return see


def of_group(size: int) -> Change:
    """Read the first element of each group along the first axis in place of the whole group."""
    return lambda array, call: array[np.arange(len(array)) // size * size]


def in_chunks(length: int, entering: Callable[[list[Array], int], Array]) -> Callable[..., Any]:
    """Run a sequence chunk by chunk; ``entering`` chooses the state of a chunk from those that the others ended in."""

    def run(op: str, arrays: tuple[Array, ...], parameters: dict[str, int]) -> Any:
        tensors = OPS[op].inputs
        timed = ["L" in tensor.shape.split() for tensor in tensors]
        names = [tensor.name for tensor in tensors]
        carried = names.index(OPS[op].outputs[-1].name)
        total, states, ys = arrays[0].shape[1], [arrays[carried]], []
        if total <= length:
            return OPS[op].golden(*arrays, **parameters)
        for number, start in enumerate(range(0, total, length)):
            piece = [a[:, start : start + length] if t else a for a, t in zip(arrays, timed, strict=True)]
            piece[carried] = entering(states, number)
            y, state = OPS[op].golden(*piece, **parameters)
            ys.append(y)
            states.append(state)
        return np.concatenate(ys, axis=1), states[-1]

    return run


def rows_of_two(result: Array, call: Any) -> Array:
    """Take the first and the last of three or more leading dimensions for all."""
    if len(call.leading) < 3:
        return result
    lead = call.leading
    rest = result.shape[len(lead) :]
    kept = result.reshape(-1, *rest).copy()
    kept[lead[0] * lead[-1] :] = 0
    return kept.reshape(result.shape)


def whole(name: str, tile: int) -> Callable[[Any], bool]:
    """Tell whether a size is a multiple of a tile."""
    return lambda call: getattr(call, name) and getattr(call, name) % tile == 0


CUBE = {"leading": (2, 2, 3)}
FLAT = {"leading": (1024,)}

# --- whole tiles ---

tile = slip
tile(
    "one_bias_for_four",
    "causal_conv1d",
    "four channels at a time with the bias of the first",
    when=whole("D", 4),
    sees={"bias": of_group(4)},
    at=CONV | {"D": 8},
)
tile(
    "stale_state",
    "causal_conv1d",
    "the state stored by the partial tile alone",
    when=whole("L", 16),
    gives={"state": unwritten(lambda c: ..., lambda c: c.state)},
    at=CONV | {"L": 16},
)
tile(
    "last_block",
    "residual_add",
    "the last block of 1,024 never launched",
    when=whole("size", 1024),
    gives={"y": flat_unwritten(lambda c: c.size - 1024)},
    at=FLAT | {"num": 3, "shift": 1},
)
tile(
    "last_block_gate",
    "sigmoid_gate",
    "the last block of 256 never launched",
    when=whole("size", 256),
    gives={"y": flat_unwritten(lambda c: c.size - 256)},
    at={"leading": (512,), "f": 8},
)
tile(
    "last_states",
    "ssd_scan",
    "the last 32 states not written",
    when=whole("S", 32),
    gives={"h": unwritten(lambda c: np.s_[..., -32:])},
    at=SSD | {"S": 32},
)
tile(
    "states_by_four",
    "selective_scan",
    "the vector path ends one load early",
    when=whole("N", 8),
    sees={"c": lambda c, call: first(call.N - 4)(c, call)},
    at=SELECTIVE | {"N": 8, "s_h": 0, "s_y": 8},
    values={"skip": lambda at: np.zeros(at.D, np.int16)},
)
tile(
    "mean_of_whole_blocks",
    "bitshift_norm",
    "the last of whole blocks of 128 left out of the row",
    when=whole("D", 128),
    gives={"y": unwritten(lambda c: np.s_[..., -128:])},
    at=NORM | {"D": 128},
)
tile(
    "last_k_tile",
    "ternary_linear",
    "the loop over K ends before a whole last tile of 64",
    when=whole("K", 64),
    sees={"q": lambda q, call: first(call.K - 64)(q, call)},
    at=LINEAR | {"K": 64},
)
tile(
    "last_column",
    "ternary_linear_backward",
    "the mask of columns is < K - 1 for whole tiles",
    when=whole("K", 32),
    gives={"dx": unwritten(lambda c: np.s_[..., -1:])},
    at=LINEAR | {"K": 32},
)
tile(
    "row_exponents",
    "ternary_linear",
    "rows by eight with the exponent of the first",
    when=whole("rows", 8),
    sees={"e": lambda e, call: e.ravel()[np.arange(e.size) // 8 * 8].reshape(e.shape)},
    at=LINEAR | {"leading": (16,), "shift": 12},
)
tile(
    "last_lane",
    "quantize_rows",
    "the last lane left out of the peak of a whole warp",
    when=whole("K", 32),
    runs=None,
    sees={"x": lambda x, call: np.where(np.arange(call.K) == call.K - 1, 0, x).astype(x.dtype)},
    at={"leading": (3,), "K": 32},
)
tile(
    "words_turned",
    "pack_ternary",
    "16 digits per word, its bytes in the other order",
    when=whole("K", 16),
    gives={"packed": lambda p, call: p.reshape(*p.shape[:-1], -1, 4)[..., ::-1].reshape(p.shape)},
    at={"leading": (2,), "K": 16},
)
tile(
    "whole_bytes",
    "unpack_trits",
    "the last digit of rows of whole bytes not written",
    when=whole("K", 20),
    gives={"w": unwritten(lambda c: np.s_[..., -1:])},
    at={"leading": (3,), "K": 20},
)
tile(
    "vector_unshifted",
    "embedding",
    "the vector path copies without the shift",
    when=whole("D", 8),
    takes=lambda call: {"shift": 0},
    at={"leading": (3,), "V": 4, "D": 8, "shift": 3},
)
tile(
    "pair_before",
    "rope",
    "16 pairs at a time with the shear of the pair before",
    when=whole("P", 16),
    sees={"lam": lambda a, call: np.roll(a, 1, axis=-1)},
    at={"B": 1, "L": 3, "P": 16, "s": 8},
)
tile(
    "base_of_tile",
    "decay_modulate",
    "32 channels with the base of the first",
    when=whole("D", 32),
    sees={"base": of_group(32)},
    at={"B": 1, "L": 2, "D": 32, "N": 2, "k": 15, "n_max": 32767},
    values={"mod": lambda at: np.zeros((at.B, at.L, at.D), np.int16)},
)
tile(
    "taps_of_tile",
    "causal_conv1d_backward",
    "dw of the last channel of a whole tile not flushed",
    when=whole("D", 32),
    gives={"dw": unwritten(lambda c: np.s_[-1:])},
    at=CONV | {"D": 32},
)
tile(
    "radix_four",
    "dyadic_transform",
    "a pass too few where the stages pair up",
    when=lambda c: c.m >= 6 and c.m % 2 == 0,
    gives={"y": lambda y, call: np.roll(y, 1, axis=-2)},
    at={"leading": (1,), "m": 6, "s": 14},
)
tile(
    "target_lane",
    "cross_entropy_pow2",
    "the target's logit from the lane before in the last of whole tiles",
    when=whole("V", 128),
    sees={"target": lambda t, call: np.where(t == call.V - 1, t - 1, t).astype(t.dtype)},
    at={"leading": (1,), "V": 128, "f": 4},
    values={"target": lambda at: np.array([127], np.int32)},
)
tile(
    "count_of_tile",
    "lion_update",
    "the last whole block's clipped weights not counted",
    when=whole("size", 128),
    gives={"clipped": lambda n, call: n * (call.size - 128) // call.size},
    at=LION | {"leading": (128,)},
)
tile(
    "adjoint_of_tile",
    "selective_scan_backward",
    "dh stored by the partial tile alone",
    when=whole("L", 8),
    gives={"dh": unwritten(lambda c: ..., lambda c: c.dh)},
    at=SELECTIVE | GRADIENTS | {"L": 8},
)
tile(
    "words_of_tile",
    "stochastic_round_rows",
    "rows of whole blocks rounded with the words of the first",
    when=whole("K", 64),
    takes=lambda call: {"stream": 0},
    at={"leading": (2,), "K": 64, "shift": 8, "bits": 8, "seed": 5, "step": 1, "stream": 1, "first": 0},
)
tile(
    "odd_tail",
    "round_to_int16",
    "two at a time, and an odd last one not at all",
    when=lambda c: c.size % 2 and c.size > 512,
    gives={"y": flat_unwritten(lambda c: c.size - 1)},
    at={"leading": (513,), "shift": 3},
)
tile(
    "error_block",
    "saturating_add",
    "the last of whole blocks of 512 added twice",
    when=whole("size", 512),
    sees={
        "b": lambda b, call: np.where(
            np.arange(b.size).reshape(b.shape) >= b.size - 512, np.clip(2 * b.astype(int), -32767, 32767), b
        ).astype(b.dtype)
    },
    at={"leading": (512,)},
)

# --- long sequences ---

SLOW = {
    "mod": lambda at: np.zeros((at.B, at.L, at.D), np.int16),
    "base": lambda at: np.full((at.D, at.N), at.n_max, np.int16),
}
CHUNKED = SELECTIVE | {"D": 2, "N": 2, "B": 1}
tile(
    "third_chunk",
    "selective_scan",
    "two state buffers in turn from the third chunk of 64 on",
    runs=in_chunks(64, lambda states, i: states[i - 2] if i >= 2 else states[i]),
    at=CHUNKED | {"L": 130, "n_max": 255},
    values=SLOW,
)
tile(
    "chunk_not_carried",
    "ssd_scan",
    "the state not carried over a chunk of 256",
    runs=in_chunks(256, lambda states, i: np.zeros_like(states[0]) if i else states[0]),
    at=SSD | {"B": 1, "L": 257, "n_max": 255},
)
tile(
    "taps_not_carried",
    "causal_conv1d",
    "a chunk of 512 begins with the state of the sequence",
    runs=in_chunks(512, lambda states, i: states[0]),
    at=CONV | {"L": 513},
)
tile(
    "position_wraps",
    "rope",
    "coefficients of position 128 those of 0",
    sees={"lam": lambda a, call: a[np.arange(call.L) % 128], "gam": lambda a, call: a[np.arange(call.L) % 128]},
    at={"B": 1, "L": 129, "P": 2, "s": 8},
)
tile(
    "adjoint_from_zero",
    "ssd_scan_backward",
    "the errors of later chunks of 128 don't reach the first",
    when=lambda c: c.L > 128,
    gives={"dx": unwritten(lambda c: np.s_[:, : c.L - 128])},
    at=SSD | GRADIENTS | {"B": 1, "L": 129},
)
tile(
    "byte_of_time",
    "selective_scan_backward",
    "a step counter of eight bits",
    when=lambda c: c.L > 256,
    gives={"dmod": unwritten(lambda c: np.s_[:, 256:])},
    at=CHUNKED | GRADIENTS | {"L": 257, "k": 15, "n_max": 32767},
    values={"mod": lambda at: np.full((at.B, at.L, at.D), 9000, np.int16)},
)
tile(
    "modulation_of_time",
    "decay_modulate",
    "steps past 300 modulated as step 300",
    sees={"mod": lambda m, call: m[:, np.minimum(np.arange(call.L), 300)]},
    at={"B": 1, "L": 302, "D": 2, "N": 1, "k": 15, "n_max": 32767},
)
tile(
    "conv_gradient_cut",
    "causal_conv1d_backward",
    "blocks of 64 steps of which the fifth isn't added to dbias",
    when=lambda c: c.L > 256,
    sees={"dy": first(256, axis=1)},
    at=CONV | {"L": 257},
)
