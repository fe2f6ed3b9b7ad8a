"""The gradient of the decay exponents, of what `chunk_kernel` sums up for each position of a chunk of a head."""

import triton
import triton.language as tl

from mamba_integer.spec.ops import ssd_chunk as definition
from mamba_integer.spec.ops import ssd_chunk_backward as backward

from . import integers
from .overlap import wait_for_inputs
from .ssd_chunk_boundaries import CARRIED, ENERGY_SHIFT, FREE, KEPT, RATIO, SLOPE_SHIFT, WEIGHT
from .ssd_chunk_factors import DECAY_BITS, DECAY_HALF
from .ssd_chunk_limbs import put, rescale

# Of each position, what crosses scores and what crosses states: C9's leaving, arriving, stored and carried.
SUMS_OF_CHUNK = 4
SUMS = tl.constexpr(SUMS_OF_CHUNK)
LEAVING, ARRIVING, STORED, CARRIED_SUM = (tl.constexpr(i) for i in range(SUMS_OF_CHUNK))
ENERGY_BITS = tl.constexpr(backward.ENERGY_BITS)
STATE_BITS = tl.constexpr(definition.STATE_BITS)
GATED_LIMIT = tl.constexpr((1 << (backward.GATED_BITS - 1)) - 1)
LN2 = tl.constexpr(backward.LN2)


@triton.jit
def both_added(a, b, c, d):
    return a + c, b + d


@triton.jit(do_not_specialize=[*FREE, "s_g", "s_d", "s_h", "weight_bits", "carried_shift"])
def decays_kernel(
    dd_pointer,
    sums_pointer,
    past_pointer,
    planes_pointer,
    chunks_pointer,
    length,
    heads,
    chunks,
    plane,
    chunk_plane,
    Q,
    s_g,
    s_d,
    s_h,
    weight_bits,
    carried_shift,
    TILE: tl.constexpr,
):
    """Compute dd of a chunk of a head."""
    wait_for_inputs()
    program, plane = tl.program_id(0).to(tl.int64), tl.cast(plane, tl.int64)
    head, n, row = program % heads, program // heads % chunks, program // heads // chunks
    q = tl.arange(0, TILE)
    at = (row * heads + head) * chunks + n
    time = n * Q + q
    sums_pointer += at * SUMS * TILE + q
    leaving, arriving = tl.load(sums_pointer + LEAVING * TILE), tl.load(sums_pointer + ARRIVING * TILE)
    stored, carried = tl.load(sums_pointer + STORED * TILE), tl.load(sums_pointer + CARRIED_SUM * TILE)
    past = tl.load(past_pointer + at)
    planes_pointer += at * TILE + q
    chunks_pointer += at
    k = tl.load(chunks_pointer + SLOPE_SHIFT * chunk_plane) + s_g

    carried = ((carried + DECAY_HALF) >> DECAY_BITS) * tl.load(planes_pointer + CARRIED * plane)
    carried = integers.shift_round(carried, carried_shift.to(tl.int64))
    stored = rescale(stored * tl.load(planes_pointer + WEIGHT * plane), -k + (2 * DECAY_BITS + ENERGY_BITS))
    kept = tl.where(n * Q + Q <= length, tl.load(chunks_pointer + KEPT * chunk_plane), 0)
    past = ((past + DECAY_HALF) >> DECAY_BITS) * kept
    past = rescale(past, -k + (-s_h + (STATE_BITS + DECAY_BITS + ENERGY_BITS)))
    inner = -tl.load(chunks_pointer + ENERGY_SHIFT * chunk_plane) + weight_bits + (14 + ENERGY_BITS)
    flow, stream = leaving - arriving, stored - carried
    flowed, streamed = tl.associative_scan((flow, stream), 0, both_added)
    crossing = rescale(flowed - flow, inner) + streamed - stream
    crossing += past + tl.sum(carried, 0)
    gated = tl.minimum(tl.maximum(rescale(leaving, inner) + stored, -GATED_LIMIT), GATED_LIMIT)
    dd = ((gated * tl.load(planes_pointer + RATIO * plane) + DECAY_HALF) >> DECAY_BITS) - crossing
    dd = ((put(dd, integers.scalar(s_d)).to(tl.int64) * LN2 + DECAY_HALF) >> DECAY_BITS).to(tl.int32)
    tl.store(dd_pointer + (row * length + time) * heads + head, dd, mask=(q < Q) & (time < length))


__all__ = ["decays_kernel"]
