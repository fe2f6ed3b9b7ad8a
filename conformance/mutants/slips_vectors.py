"""Slips that show at whole vectors, at their leftovers, at ties, or at a rare parameter beside a large size."""

from typing import Any

import numpy as np

from mamba_integer.spec.contract import OPS

from .slip import Array, addressed, slip, steps
from .slips_layout import CONV, columns

# --- layouts of arrays whose last axis is whole vectors ---


def from_whole_vectors(table: Array, call: Any) -> Array:
    """Read rows in vectors of 8 elements, from the one in which the table begins."""
    storage = table
    while isinstance(storage.base, Array):
        storage = storage.base
    first = (table.ctypes.data - storage.ctypes.data) // table.itemsize
    return addressed(table, steps(table), first // 8 * 8)


def one_element_in(array: Array) -> Array:
    buffer = np.zeros(array.size + 9, array.dtype)
    buffer[1 : 1 + array.size] = array.reshape(-1)
    return buffer[1 : 1 + array.size].reshape(array.shape)


slip(
    "taps_are_a_word",
    "causal_conv1d",
    "four taps are loaded as a word, dense, where channels come in vectors of 8",
    when=lambda c: c.D % 8 == 0,
    sees={"w": lambda w, c: addressed(w, (4, 1))},
    lies={"w": columns},
    at=CONV | {"L": 3, "D": 16},
)
slip(
    "table_begins_at_a_vector",
    "embedding",
    "the table is taken to begin at a multiple of 16 bytes where its rows are whole vectors",
    when=lambda c: c.D % 8 == 0,
    sees={"table": from_whole_vectors},
    lies={"table": one_element_in},
    at={"leading": (5,), "V": 7, "D": 16, "shift": 0},
)
slip(
    "bytes_are_dense",
    "ternary_linear_backward",
    "rows of whole vectors of int8 errors are taken for dense",
    when=lambda c: c.dy.dtype == np.int8 and c.N % 16 == 0,
    sees={"dy": lambda dy, c: addressed(dy, (*steps(dy)[:-1], 1))},
    lies={"dy": lambda dy: np.repeat(dy, 2, -1)[..., ::2]},
    at={"leading": (4,), "N": 16, "K": 5, "num": 3, "shift": 2, "dtype": "int8"},
)

# --- what vectors leave over, and long sequences of whole ones ---


def last_two_alike(y: Array, call: Any) -> Array:
    flat = y.reshape(-1).copy()
    flat[-2:] = flat[-3]
    return flat.reshape(y.shape)


def with_a_digit_beside(packed: Array, call: Any) -> Array:
    packed = packed.copy()
    packed[..., -1] |= 4
    return packed


def first_block_again(coefficients: Array, call: Any) -> Array:
    position = np.arange(call.L)
    return coefficients[np.where(position < 256, position, position - 256)]


slip(
    "two_left_of_four",
    "saturating_add",
    "two elements that vectors of four leave over are those before",
    when=lambda c: c.size > 16 and c.size % 4 == 2,
    gives={"y": last_two_alike},
    at={"leading": (66,)},
)
slip(
    "byte_after_vectors",
    "pack_ternary",
    "one digit that is left over after vectors and whole bytes has another beside it",
    when=lambda c: c.K >= 64 and c.K % 16 == 5,
    gives={"packed": with_a_digit_beside},
    at={"leading": (1,), "K": 69},
)
slip(
    "table_of_256_positions",
    "rope",
    "positions from 256 on have the coefficients of the first ones where pairs come in whole vectors",
    when=lambda c: c.L > 256 and c.P % 4 == 0,
    sees=dict.fromkeys(("lam", "gam", "quadrant"), first_block_again),
    at={"B": 1, "L": 260, "P": 4, "s": 8},
)

# --- a rare parameter beside a large size, and ties ---


def last_of_the_greatest(op: str, arrays: tuple[Array, ...], parameters: Any) -> Any:
    """Keep the last of several greatest logits where one token is kept."""
    logits, stream, position = arrays
    if parameters["top_k"] > 1:
        return OPS[op].golden(*arrays, **parameters)
    turned = OPS[op].golden(logits[:, ::-1], stream, position, **parameters)
    return (logits.shape[-1] - 1 - turned).astype(np.int32)


slip(
    "last_of_the_greatest",
    "sample",
    "of several greatest logits the last is kept where top_k is 1",
    runs=last_of_the_greatest,
    values={"logits": lambda c: np.ones((c.B, c.V), np.int16)},
    at={"B": 2, "V": 5, "seed": 1, "f": 8, "num": 1, "shift": 0, "top_k": 1, "top_p": 65536},
)
slip(
    "shift_of_a_word",
    "ternary_linear",
    "more than 16 rows are shifted by 31 at most",
    when=lambda c: c.rows > 16,
    takes=lambda c: {"shift": min(c.shift, 31)},
    values={
        "q": lambda c: np.full((17, c.K), 127, np.int8),
        "e": lambda c: np.full(17, 8, np.int32),
        "w": lambda c: OPS["pack_ternary"].golden(np.ones((c.N, c.K), np.int8)),
    },
    at={"leading": (17,), "K": 64, "N": 1, "num": 32767, "shift": 33},
)
slip(
    "no_decay_at_all",
    "decay_modulate",
    "a greatest decay of 0 is 1 for more than 8 positions",
    when=lambda c: c.n_max == 0 and c.L > 8,
    takes=lambda c: {"n_max": 1},
    at={"B": 1, "L": 9, "D": 2, "N": 2, "k": 7, "n_max": 0},
)
slip(
    "no_bits_of_gradient",
    "ssd_chunk_scan_backward",
    "a gradient of the state with no bits more has one where states don't fit a tile of 64",
    when=lambda c: c.s_g == 0 and c.S > 64,
    takes=lambda c: {"s_g": 1},
    at={"B": 1, "L": 5, "H": 1, "P": 1, "S": 65, "q": 2, "s_h": 16, "s_g": 0, "s_x": 9, "s_d": 9, "s_b": 9, "s_c": 9},
)


def sums_in_float32(op: str, arrays: tuple[Array, ...], parameters: Any) -> Any:
    """Take the sizes of many weights for float32, which has 24 bits of 29."""
    (w,) = arrays
    return OPS[op].golden(w.astype(np.float32).astype(np.int64) if w.size > 1000 else w)


def about_half_of_the_mean(call: Any) -> Array:
    half, rest = (1 << 26) + 1, 64 * 32 - 64
    w = np.repeat(np.array([half, half + 1]), 32)
    total = 2 * 64 * 32 * half - int(w.sum())
    others = np.full(rest, total // rest)
    others[: total % rest] += 1
    return np.concatenate([w, others]).reshape(64, 32).astype(np.int32)


slip(
    "weights_in_float32",
    "ternary_project",
    "more than 1,000 weights are rounded to float32",
    runs=sums_in_float32,
    values={"w": about_half_of_the_mean},
    at={"N": 64, "K": 32},
)
