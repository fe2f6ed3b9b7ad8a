"""Slips of the chunked scan: the rows' fills, the contents of an open chunk, tiles, strides, memory."""

from typing import Any

import numpy as np

from mamba_integer.spec.contract import OPS

from .slip import Array, Change, slip
from .slips_layout import columns, flat, packed_rows, planes_packed, reads, turned
from .slips_memory import keeps, not_cleared, one_buffer, returned
from .slips_size import first, unwritten, whole

SCAN, STEP, BACKWARD = "ssd_chunk_scan", "ssd_chunk_scan_step", "ssd_chunk_scan_backward"
STEPPED = {"B": 3, "H": 2, "P": 3, "S": 5, "q": 2, "s_h": 16, "s_y": 12}
SEQUENCE = STEPPED | {"L": 6}
FILLS = {"fill": lambda at: np.array([0, 3, 2], np.int32)}
GRADIENTS = {"B": 2, "L": 6, "H": 2, "P": 3, "S": 5, "q": 2, "s_h": 16, "s_g": 8}
GRADIENTS |= {"s_x": 12, "s_d": 8, "s_b": 12, "s_c": 12}


def heads(array: Array) -> Array:
    """Return the array as a slice of the axis after the first."""
    return np.pad(array, [(0, 0), (1, 2), *[(0, 0)] * (array.ndim - 2)], constant_values=1)[:, 1:-2]


def of_first_row(array: Array, call: Any) -> Array:
    return np.broadcast_to(array[:1], array.shape)


def of_row_before(array: Array, call: Any) -> Array:
    return np.roll(array, 1, axis=0)


def as_it_was(name: str, where: Any) -> Change:
    """Leave a part of the new state at its value before the call."""
    return lambda result, call: unwritten(lambda c: where, lambda c: getattr(c, name))(result, call)


def beyond_fill(name: str) -> Change:
    """Leave the open chunk uncleared at and beyond its new fill."""

    def change(result: Array, call: Any) -> Array:
        open_chunk, result = getattr(call, name), result.copy()
        for row, fill in enumerate((call.fill + call.L) % open_chunk.shape[1]):
            result[row, fill:] = open_chunk[row, fill:]
        return result

    return change


def boundary_of_first_row(op: str, arrays: tuple[Array, ...], parameters: dict[str, int]) -> Any:
    """Pass the boundary in every row where the first row passes it, and in no row where it doesn't."""
    y, _, *rest = OPS[op].golden(*arrays, **parameters)
    last = arrays[6].shape[1] - 1
    full = np.full_like(arrays[9], last)
    everywhere = OPS[op].golden(*arrays[:9], full, **parameters)[1]
    passed = arrays[9].size > 0 and arrays[9][0] == last
    return (y, everywhere if passed else arrays[5].copy(), *rest)


def late(axis: int, start: int) -> Any:
    return (*(slice(None),) * axis, slice(start, None))


slip("fill_of_first_row", SCAN, "every row with the fill of the first", sees={"fill": of_first_row}, at=SEQUENCE)
slip("fill_of_row_before", STEP, "a row with the fill of the row before", sees={"fill": of_row_before}, at=STEPPED)
slip(
    "boundary_of_first_row", STEP, "the first row decides for all", runs=boundary_of_first_row, at=STEPPED, values=FILLS
)
slip(
    "open_chunk_cut",
    SCAN,
    "an open chunk's positions past 64 aren't carried over",
    gives={"open_b": unwritten(lambda c: late(1, 64))},
    at=SEQUENCE | {"B": 1, "q": 7, "L": 100},
    values={"fill": lambda at: np.zeros(1, np.int32)},
)
slip(
    "open_decays_cut",
    STEP,
    "the decays of an open chunk's positions past 128 aren't carried over",
    when=lambda c: 1 << c.q > 128,
    gives={"open_d": unwritten(lambda c: late(1, 128))},
    at=STEPPED | {"B": 1, "q": 8},
    values={"fill": lambda at: np.full(1, 200, np.int32)},
)
slip(
    "open_chunk_uncleared",
    SCAN,
    "the open chunk isn't cleared beyond its new fill",
    gives={"open_x": beyond_fill("open_x")},
    at=SEQUENCE,
)
slip(
    "last_states_of_chunk",
    SCAN,
    "the last 32 states not written where they are whole tiles",
    when=whole("S", 32),
    gives={"h": as_it_was("h", np.s_[..., -32:])},
    at=SEQUENCE | {"S": 32},
)
slip(
    "states_of_step",
    STEP,
    "the vector path of c h ends one load early",
    when=whole("S", 16),
    sees={"c": lambda c, call: first(call.S - 4)(c, call)},
    at=STEPPED | {"S": 16, "q": 2, "s_h": 12, "s_y": 20},
)
slip(
    "channels_of_tile",
    SCAN,
    "the last 16 channels of whole tiles of 64 not written",
    when=whole("P", 64),
    gives={"y": unwritten(lambda c: np.s_[..., -16:])},
    at=SEQUENCE | {"P": 64},
)
slip(
    "whole_chunks_alone",
    SCAN,
    "the state stored at the sequence's end, and not at all where that is a boundary",
    when=lambda c: c.L and not ((c.fill + c.L) % (1 << c.q)).any(),
    gives={"h": as_it_was("h", ...)},
    at=SEQUENCE | {"B": 1, "L": 4},
    values={"fill": lambda at: np.zeros(1, np.int32)},
)
slip(
    "heads_past_eight",
    SCAN,
    "the states of heads past eight as they were",
    when=lambda c: c.H > 8,
    gives={"h": as_it_was("h", late(1, 8))},
    at=SEQUENCE | {"H": 9},
)
reads("open_columns", SCAN, "open_b", "rows of an open chunk's column slice S apart", packed_rows, columns, SEQUENCE)
reads("inputs_turned", SCAN, "x", "x seen through a transpose read flat", flat, turned, SEQUENCE)
reads("state_slice", STEP, "h", "the state's slice with the pitch of whole planes", planes_packed, heads, STEPPED)
reads("gradients_turned", BACKWARD, "dy", "gradients through a transpose read flat", flat, turned, GRADIENTS)
reads("queries_sliced", BACKWARD, "c", "c as columns of a projection S apart", packed_rows, columns, GRADIENTS)
slip("open_in_place", STEP, "the open chunk advances where it lies", runs=returned(6, 2), at=STEPPED, calls=2)
slip("boundary_in_place", SCAN, "the new h is written to h", runs=returned(5, 1), at=SEQUENCE, calls=2)
keeps("chunk_buffer", SCAN, "one result buffer for all calls", one_buffer, SEQUENCE)
keeps("skip_sums_kept", BACKWARD, "dskip is cleared once", lambda: not_cleared(4), GRADIENTS)
slip(
    "boundaries_past_eight",
    BACKWARD,
    "room for the states of eight boundaries",
    when=lambda c: (c.L - 1) >> c.q >= 8,
    gives={"dc": unwritten(lambda c: late(1, 8 << c.q))},
    at=GRADIENTS | {"L": 36},
)
slip(
    "adjoint_of_whole_chunks",
    BACKWARD,
    "dh stored by the partial chunk alone",
    when=lambda c: c.L and c.L % (1 << c.q) == 0,
    gives={"dh": as_it_was("dh", ...)},
    at=GRADIENTS | {"L": 8},
)
slip(
    "gradient_states_of_tile",
    BACKWARD,
    "the last 16 states of whole tiles not written in db",
    when=whole("S", 64),
    gives={"db": unwritten(lambda c: np.s_[..., -16:])},
    at=GRADIENTS | {"S": 64},
)
slip(
    "decays_of_long_chunks",
    BACKWARD,
    "decays of a chunk's positions past 128 without gradient",
    when=lambda c: c.q == 8,
    gives={"dd": unwritten(lambda c: np.s_[:, np.arange(c.L) % 256 >= 128])},
    at=GRADIENTS | {"B": 1, "L": 140, "q": 8},
)
