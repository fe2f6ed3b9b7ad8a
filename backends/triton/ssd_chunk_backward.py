"""Triton version of ``spec.ops.ssd_chunk_backward``.

Beside the walks of `ssd_chunk_boundaries` a kernel computes the gradients of scores, a program for each chunk and head.
Then two kernels run side by side: a program for each chunk adds up what the heads give to db and dc, and one for each
chunk and head computes dx. Each pair shares its processors, for neither of the two needs the other. A last one computes
dd, for which one warp per chunk and head has enough to do.
"""

import torch
import triton
import triton.language as tl
from torch.nn.functional import pad

from mamba_integer.backends.torch import ssd_chunk_backward as torch_version
from mamba_integer.spec import ops
from mamba_integer.spec.contract import implements
from mamba_integer.spec.ops import ssd_chunk as definition
from mamba_integer.spec.ops import ssd_chunk_backward as backward

from . import integers
from .gradient import saturate_backward
from .launch import ALIGNMENT_BYTES, ceil_div, launch, zeros
from .launch import aligned as aligned_array
from .overlap import early, end_after_kernel_in_front
from .room import at_most, torch_where_too_large
from .ssd_chunk import LEAST_TILE
from .ssd_chunk_boundaries import (
    CHUNK_PLANES,
    COLUMN,
    DOWN,
    ENERGY_SHIFT,
    FREE,
    GAIN,
    LARGEST,
    PLANES,
    QUERY_CUT,
    QUERY_SHIFT,
    QUERY_WEIGHT,
    SLOPE_EXPONENT,
    SLOPE_SHIFT,
    WEIGHT,
    WHOLE,
    bytes_of_states,
    layout_kernel,
    powers_kernel,
    walks_kernel,
)
from .ssd_chunk_decays import ARRIVING, CARRIED_SUM, LEAVING, STORED, SUMS, SUMS_OF_CHUNK, decays_kernel
from .ssd_chunk_factors import DECAY_BITS, bit_length_of, lags, plus_product, row_exponent
from .ssd_chunk_grid import mixed_words
from .ssd_chunk_halves import byte_halves, limb_halves, limb_product, product_of_halves, word_halves
from .ssd_chunk_heads import heads_kernel
from .ssd_chunk_limbs import (
    aligned,
    alignment,
    bytes_of,
    factor,
    inner_product,
    joined,
    limb_exponent,
    limb_tiles,
    plus_rescaled,
    product_of_limbs,
    put,
    rescale_product,
)

WALKED_CHANNELS, FEW_WALKED = 64, 32  # of a program that walks forwards; few where its state would fill registers
LITTLE_WALKED, MOST_WALKED = 1 << 12, 1 << 13  # numbers of a state, for capped registers and for the many channels
WALK_STAGES = 2  # of a walk between these two
FACTORS_WARPS = 2
WALKED_BY_WARP, FEWEST_WARPS, MOST_WARPS = 1 << 11, 4, 16  # numbers of a state that registers hold beside the rest
CHUNK_CHANNELS = 32  # at once, of a program for a chunk and head
STAGED, FEW_STAGED, MOST_STATES_STAGED = 3, 2, 64  # blocks of channels loaded at once; few where states are more
REGISTERS, MOST_REGISTERS = 168, 255  # of a thread: three of these programs then share a processor, or all there are
STATES_SIDE_BY_SIDE = 16  # of which rows are multiples: a thread loads neighbours at once
SHARED_STATES = 64  # of a program that adds up heads
# Where a chunk is small and its states are many, programs of fewer states and registers fill a processor better.
FEW_SHARED, SHARED_REGISTERS, MOST_SHARED_CHANNELS = 32, 128, 64
MOST_TILE_OF_FOUR_WARPS, MOST_STATES_OF_FOUR_WARPS = 64, 128
MOST_TILE, MOST_STATES, MOST_CHANNELS = 128, 256, 128  # for which a processor has room

SHIFTS = "limb_plane", "s_g", "s_x", "gradient_bits"


@triton.jit
def mix_wide(products, whole, column, gain):
    """Return the row exponents and factors as `mix` does, of products that need 64 bits with a gain."""
    mixed = (products.to(tl.int64) * gain[None, :]) >> lags(whole, column)
    e = row_exponent(tl.max(tl.abs(mixed), 1)).to(tl.int32)
    # Rounded after narrowing: a shift and an addition of 32 bits.
    return e, (((mixed >> (e - 1)[:, None]).to(tl.int32) + 1) >> 1).to(tl.int8)


@triton.jit(do_not_specialize=FREE)
def scores_kernel(
    slopes_pointer,
    turned_slopes_pointer,
    planes_pointer,
    chunks_pointer,
    dskip_pointer,
    dy_pointer,
    x_pointer,
    length,
    heads,
    width,
    chunks,
    plane,
    chunk_plane,
    Q,
    TILE: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    """Compute the gradient of a chunk's scores, cut as the scores are, of one head, and its part of dskip."""
    program, plane = tl.program_id(0).to(tl.int64), tl.cast(plane, tl.int64)
    head, n, row = program % heads, program // heads % chunks, program // heads // chunks
    q, p = tl.arange(0, TILE), tl.arange(0, CHANNELS)
    at = (row * heads + head) * chunks + n
    time = n * Q + q
    inside = ((q < Q) & (time < length))[:, None] & (p < width)[None, :]
    across = ((row * length + time)[:, None] * heads + head) * width + p[None, :]
    dy = tl.load(dy_pointer + across, mask=inside, other=0)
    x = tl.load(x_pointer + across, mask=inside, other=0)
    planes_pointer += at * TILE + q
    whole, column = tl.load(planes_pointer + WHOLE * plane), tl.load(planes_pointer + COLUMN * plane)
    gain, down = tl.load(planes_pointer + GAIN * plane), tl.load(planes_pointer + DOWN * plane)
    high, low = bytes_of(dy)
    turned = tl.trans(x)
    products = joined(tl.dot(high, turned, out_dtype=tl.int32), tl.dot(low, turned, out_dtype=tl.int32))
    products += (tl.sum(x.to(tl.int32), 1) * 128)[None, :]
    passed = tl.sum(tl.where(q[:, None] == q[None, :], products, 0), 1)
    tl.atomic_add(dskip_pointer + head, tl.sum(passed.to(tl.int64), 0), sem="relaxed")
    e, slopes = mix_wide(tl.where(q[:, None] >= q[None, :], products, 0), whole, column, gain)
    tile = at * TILE * TILE + q[:, None] * TILE + q[None, :]
    tl.store(slopes_pointer + tile, slopes)
    tl.store(turned_slopes_pointer + tile, tl.trans(slopes))
    tl.store(planes_pointer + SLOPE_EXPONENT * plane, e)
    largest = tl.max(down.to(tl.int64) << e, 0)
    cut = tl.maximum(bit_length_of(largest) - 8, 0).to(tl.int32)
    tl.store(chunks_pointer + QUERY_CUT * chunk_plane + at, cut)
    weight, shift = alignment(down, -e + cut)
    tl.store(planes_pointer + QUERY_WEIGHT * plane, weight)
    tl.store(planes_pointer + QUERY_SHIFT * plane, shift)
    end_after_kernel_in_front()


@triton.jit(do_not_specialize=[*FREE, *SHIFTS])
def chunk_kernel(
    dx_pointer,
    sums_pointer,
    past_pointer,
    dy_pointer,
    x_pointer,
    skip_pointer,
    planes_pointer,
    chunks_pointer,
    seen_pointer,
    slope_pointer,
    b_pointer,
    c_pointer,
    length,
    heads,
    width,
    states,
    chunks,
    plane,
    chunk_plane,
    Q,
    limb_plane,
    s_g,
    s_x,
    gradient_bits,
    NARROW: tl.constexpr,
    TILE: tl.constexpr,
    CHANNELS: tl.constexpr,
    STATES: tl.constexpr,
):
    """Compute dx of a chunk of a head, and the sums of which `decays_kernel` makes dd."""
    s_x, limb_plane = integers.scalar(s_x), tl.multiple_of(tl.cast(limb_plane, tl.int64), 16)
    program, plane = tl.program_id(0).to(tl.int64), tl.cast(plane, tl.int64)
    head, n, row = program % heads, program // heads % chunks, program // heads // chunks
    q, s = tl.arange(0, TILE), tl.arange(0, STATES)
    at = (row * heads + head) * chunks + n
    time = n * Q + q
    there = (q < Q) & (time < length)
    of_head = (row * length + time) * heads + head
    keys = bytes_of_states(b_pointer, row * length + time, there, s, states)
    queries = bytes_of_states(c_pointer, row * length + time, there, s, states)
    planes_pointer += at * TILE + q
    chunks_pointer += at
    seen_pointer += at * width * states
    slope_pointer += at * width * states
    whole, column = tl.load(planes_pointer + WHOLE * plane), tl.load(planes_pointer + COLUMN * plane)
    gain, down = tl.load(planes_pointer + GAIN * plane), tl.load(planes_pointer + DOWN * plane)
    weight = tl.load(planes_pointer + WEIGHT * plane)
    k = tl.load(chunks_pointer + SLOPE_SHIFT * chunk_plane) + s_g
    skip = tl.load(skip_pointer + head).to(tl.int32) << gradient_bits
    scores = tl.dot(queries, tl.trans(keys), out_dtype=tl.int32)
    e, mixed = mixed_words(tl.where(q[:, None] >= q[None, :], scores, 0), whole, column, gain)
    mixed = word_halves(mixed)
    back = tl.trans(mixed)
    r = limb_exponent(tl.max((tl.load(planes_pointer + LARGEST * plane) * down).to(tl.int64) << e, 0))
    error_weight, shift = alignment(down, -e + r)

    leaving, arriving = tl.zeros([TILE], tl.int64), tl.zeros([TILE], tl.int64)
    stored, carried = tl.zeros([TILE], tl.int64), tl.zeros([TILE], tl.int64)
    past = tl.zeros([CHANNELS], tl.int64)
    for start in range(0, width, CHANNELS):
        p = start + tl.arange(0, CHANNELS)
        channel = p < width
        inside = there[:, None] & channel[None, :]
        across = of_head[:, None] * width + p[None, :]
        dy = factor(tl.load(dy_pointer + across, mask=inside, other=0))
        x = tl.load(x_pointer + across, mask=inside, other=0)
        wide_x = factor(x)

        # Inside the chunk: errors, aligned along time, through the forward factors and back.
        errors = aligned(dy, error_weight[:, None], shift[:, None])
        arrived = product_of_halves(mixed, byte_halves(x))
        arriving += tl.sum(arrived.to(tl.int64) * errors, 1)
        through = limb_product(back, *limb_halves(errors))
        leaving += tl.sum(through.to(tl.int64) * wide_x, 1)

        # From the state before the chunk, and through the one after: the weights of a chunk that isn't whole are 0.
        seen_high, seen_low = limb_tiles(seen_pointer, limb_plane, start, width, states, CHANNELS, STATES)
        slope_high, slope_low = limb_tiles(slope_pointer, limb_plane, start, width, states, CHANNELS, STATES)
        past += inner_product(slope_high, slope_low, seen_high, seen_low)
        before = product_of_limbs(queries, tl.trans(seen_high), tl.trans(seen_low))
        carried += tl.sum(before.to(tl.int64) * dy, 1)
        into = product_of_limbs(keys, tl.trans(slope_high), tl.trans(slope_low))
        stored += tl.sum(into.to(tl.int64) * wide_x, 1)
        dx = rescale_product(into, weight[:, None], -k + 2 * DECAY_BITS - gradient_bits)
        dx = plus_product(dx, dy, tl.zeros_like(dy) + skip)
        dx = plus_rescaled(dx, through, -r + 17)
        dx = put(dx, s_x)
        if NARROW:
            # Of a saturated x, only a gradient that leads back passes.
            least, most = tl.where(wide_x == 127, 0, -32767), tl.where(wide_x == -127, 0, 32767)
            dx = tl.minimum(tl.maximum(dx, least), most).to(tl.int16)
        tl.store(dx_pointer + across, dx, mask=inside)

    sums_pointer += at * SUMS * TILE + q
    tl.store(sums_pointer + LEAVING * TILE, leaving)
    tl.store(sums_pointer + ARRIVING * TILE, arriving)
    tl.store(sums_pointer + STORED * TILE, stored)
    tl.store(sums_pointer + CARRIED_SUM * TILE, carried)
    tl.store(past_pointer + at, tl.sum(past, 0))
    tl.store(chunks_pointer + ENERGY_SHIFT * chunk_plane, r)
    end_after_kernel_in_front()


def fits(dy, x, d, b, c, skip, h, dh, *, q, **parameters):
    return 1 << q <= MOST_TILE and h.shape[-1] <= MOST_STATES and x.shape[-1] <= MOST_CHANNELS


@implements(ops.ssd_chunk_scan_backward)
@torch_where_too_large(torch_version.ssd_chunk_scan_backward.kernel, fits)
def ssd_chunk_scan_backward(*arrays, **parameters):
    return gradients(torch.int32, *arrays, **parameters)


def narrowed(dy, x, *others, **parameters):
    dx, *rest = ssd_chunk_scan_backward.kernel(dy, x, *others, **parameters)
    return saturate_backward.kernel(dx, x, shift=0), *rest


@torch_where_too_large(narrowed, fits)
def narrow_chunk_gradients(*arrays, **parameters):
    """Return `ssd_chunk_scan_backward`, its dx after `saturate_backward` with x, in the same launches."""
    return gradients(torch.int16, *arrays, **parameters)


def gradients(dtype, dy, x, d, b, c, skip, h, dh, *, q, s_h, s_g, s_x, s_d, s_b, s_c):
    batch, length, heads, width = x.shape
    known_states, chunk, device = h.shape[-1], 1 << q, x.device
    dy, x, b, c, h, dh = map(aligned_array, (dy, x, b, c, h, dh))
    dskip = zeros((heads,), torch.int64, device)
    if not x.numel():
        db, dc = (torch.zeros(a.shape, dtype=torch.int32, device=device) for a in (b, c))
        return torch.empty_like(x, dtype=dtype), torch.zeros_like(d, dtype=torch.int32), db, dc, dskip, dh.clone()

    missing = -known_states % STATES_SIDE_BY_SIDE
    if missing:  # A state of zeros changes no sum and no largest magnitude.
        b, c, h, dh = (pad(a, (0, missing)) for a in (b, c, h, dh))
    states = h.shape[-1]

    def empty(*shape, dtype=torch.int32):
        return torch.empty(shape, dtype=dtype, device=device)

    dx = empty(*x.shape, dtype=dtype)
    dd, db, dc = (empty(*a.shape) for a in (d, b, c))
    chunks = ceil_div(length, chunk)
    tile, padded = max(chunk, LEAST_TILE), max(triton.next_power_of_2(states), LEAST_TILE)
    channels = max(triton.next_power_of_2(width), LEAST_TILE)
    count = batch * heads * chunks
    planes, scalars = empty(PLANES, count * tile), empty(CHUNK_PLANES, count)
    turned_keys, turned_queries = empty(2, batch * chunks, tile * padded, dtype=torch.int8)
    limbs_size = ceil_div(count * width * states, ALIGNMENT_BYTES) * ALIGNMENT_BYTES
    seen_high, seen_low, slope_high, slope_low = empty(4, limbs_size, dtype=torch.int8)
    # Products sum over elements that lie side by side: over channels of these limbs, over rows of these slopes.
    turned_limbs = empty(4, count, states * channels, dtype=torch.int8)
    sums, past = empty(count, SUMS_OF_CHUNK * tile, dtype=torch.int64), empty(count, dtype=torch.int64)
    slopes, turned_slopes = empty(2, count, tile * tile, dtype=torch.int8)
    start = empty(*dh.shape)
    sizes, strides = (length, heads, width, states, chunks), (planes.shape[1], scalars.shape[1], chunk)
    bits, grid = backward.gradient_bits(known_states), dict(TILE=tile)
    warps = 4 if tile <= MOST_TILE_OF_FOUR_WARPS else 8
    launch(
        powers_kernel,
        count,
        (planes, scalars),
        (d, dy),
        *(length, heads, width, chunks, *strides),
        *(definition.weight_bits(known_states), definition.carried_bits(known_states, s_h)),
        CHANNELS=LEAST_TILE,
        num_warps=FACTORS_WARPS,
        **grid,
    )
    launch(
        layout_kernel,
        batch * chunks,
        (turned_keys, turned_queries),
        (b, c),
        *(length, chunks, states, chunk),
        STATES=padded,
        **grid,
    )
    walks, size = batch * heads, channels * padded
    walked = WALKED_CHANNELS if width > FEW_WALKED and size <= MOST_WALKED else FEW_WALKED
    staged = {"num_stages": WALK_STAGES} if LITTLE_WALKED < size <= MOST_WALKED else {}
    launch(
        walks_kernel,
        walks + walks * ceil_div(width, walked),
        (seen_high, seen_low, slope_high, slope_low, *turned_limbs, start),
        (x, dy, turned_keys, turned_queries, planes, scalars, h, dh),
        *(*sizes, *strides, s_h, s_g, walks),
        HALVES=s_h == 16,
        FEW=walked,
        CHANNELS=channels,
        STATES=padded,
        num_warps=min(max(size // WALKED_BY_WARP, FEWEST_WARPS), MOST_WARPS),
        **staged,
        **at_most(REGISTERS if size <= LITTLE_WALKED else None),
        **grid,
    )
    launch(
        scores_kernel,
        count,
        (slopes, turned_slopes, planes, scalars, dskip),
        (dy, x),
        *(length, heads, width, chunks, *strides),
        CHANNELS=channels,
        num_warps=warps // 2,
        **early(),
        **grid,
    )
    block, sharing = min(padded, SHARED_STATES), {}
    if tile <= MOST_TILE_OF_FOUR_WARPS and channels <= MOST_SHARED_CHANNELS and padded > SHARED_STATES:
        block, sharing = FEW_SHARED, at_most(SHARED_REGISTERS)
    programs = batch * chunks * ceil_div(states, block)
    launch(
        heads_kernel,
        2 * programs,
        (db, dc),
        (x, dy, slopes, turned_slopes, *turned_limbs, turned_queries, b, planes, scalars),
        *(*sizes, *strides, s_g, s_b, s_c, bits, definition.sum_bits(known_states) - bits, programs),
        PADDED=padded,
        CHANNELS=channels,
        STATES=block,
        num_warps=warps,
        **sharing,
        **grid,
    )
    chunk_warps = warps if padded <= MOST_STATES_OF_FOUR_WARPS else 8
    launch(
        chunk_kernel,
        count,
        (dx, sums, past),
        (dy, x, skip, planes, scalars, seen_high, slope_high, b, c),
        *(*sizes, *strides, limbs_size, s_g, s_x, bits),
        NARROW=dtype == torch.int16,
        CHANNELS=min(channels, CHUNK_CHANNELS),
        STATES=padded,
        num_warps=chunk_warps,
        num_stages=STAGED if padded <= MOST_STATES_STAGED else FEW_STAGED,
        **early(),
        **at_most(REGISTERS if chunk_warps == 4 else MOST_REGISTERS),
        **grid,
    )
    launch(
        decays_kernel,
        count,
        (dd,),
        (sums, past, planes, scalars),
        *(length, heads, chunks, *strides, s_g, s_d, s_h, definition.weight_bits(known_states)),
        definition.sum_bits(known_states) - definition.DECAY_BITS + backward.ENERGY_BITS,
        num_warps=1,
        **early(),
        **grid,
    )
    db, dc, start = (a[..., :known_states].contiguous() for a in (db, dc, start))
    return dx, dd, db, dc, dskip, start


__all__ = ["narrow_chunk_gradients", "ssd_chunk_scan_backward"]
