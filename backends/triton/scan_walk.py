"""The walk back over the scans' steps: a channel is a lane with a few of its states in registers, as in the scan.

One kernel runs the states and keeps those at the start of each block of steps. The other goes through the blocks
backwards, computes a block's states again in registers, and walks back through them. Programs that share a channel's
states, or channels that share b and c, add into one sum; integer addition has no order.
"""
# ruff: noqa: RUF005 -- Triton compiles no unpacking inside a tuple

import triton
import triton.language as tl

from . import integers
from .instructions import byte, times_byte
from .recurrence import (
    input_of_byte,
    lanes_if,
    load_lane,
    load_lanes,
    load_mixtures,
    modulate,
    pitches_of,
    place_of,
    run_states,
    store_lane,
)

CHANNELS = 64  # per program; a thread has CHANNELS / 32 of them, which it adds up before the warp does
STATES = 4  # per program, at most
STEPS = 4  # per block
LIMB = tl.constexpr(24)  # bits: the sum of CHANNELS such limbs fits int32
LOW = tl.constexpr((1 << 24) - 1)


@triton.jit
def scaled(x, factor, k):
    """Return x * factor over 2**k, rounded: the wide product is narrowed at once."""
    return ((x.to(tl.int64) * factor + ((1 << k) >> 1)) >> k).to(tl.int32)


@triton.jit
def put_lanes(sums, product, place, PLACES: tl.constexpr):
    """Put the sum of an int64 product, below 2**46, over all lanes at one of the places of ``sums``.

    The sums are kept, and taken, in two limbs, since the warp has an instruction that adds its lanes in 32 bits.
    """
    here = tl.arange(0, PLACES) == place
    low = tl.sum((product & LOW).to(tl.int32), axis=0)
    high = tl.sum((product >> LIMB).to(tl.int32), axis=0)
    return tl.where(here, low, sums[0]), tl.where(here, high, sums[1])


@triton.jit
def put_sum(target, total, mask, SHARED: tl.constexpr):
    if SHARED:
        tl.atomic_add(target, total, mask=mask, sem="relaxed")
    else:
        tl.store(target, total, mask=mask)


@triton.jit
def load_inputs(pointers, places, pitches, t, mask, COUNT: tl.constexpr, STATES: tl.constexpr):
    """Load the inputs of the states from step t on: x and mod of each lane, and b."""
    x_pointer, mod_pointer, b_pointer = pointers
    channel, head, word = places
    channels, heads, words = pitches
    return (
        load_lanes(x_pointer, channel + t * channels, channels, mask, COUNT),
        load_lanes(mod_pointer, head + t * heads, heads, mask, COUNT),
        load_mixtures(b_pointer, word + t * words, words, COUNT, STATES),
    )


@triton.jit
def load_gradients(pointers, places, pitches, t, mask, COUNT: tl.constexpr, STATES: tl.constexpr):
    """Load the further inputs of the way back from step t on: dy of each lane, and c."""
    dy_pointer, c_pointer = pointers
    channel, _, word = places
    channels, _, words = pitches
    return (
        load_lanes(dy_pointer, channel + t * channels, channels, mask, COUNT),
        load_mixtures(c_pointer, word + t * words, words, COUNT, STATES),
    )


@triton.jit
def load_states(pointer, stride, mask, STATES: tl.constexpr):
    h = ()
    for i in tl.static_range(STATES):
        h = h + (tl.load(pointer + i * stride, mask=mask, other=0),)
    return h


@triton.jit
def store_states(pointer, stride, h, mask, STATES: tl.constexpr):
    for i in tl.static_range(STATES):
        tl.store(pointer + i * stride, h[i], mask=mask)


# n_max stays a variable for the forward scan's reason; the shifts, so that another format is no other kernel.
@triton.jit(do_not_specialize=["n_max", "k", "s_v"])
def starts_kernel(
    starts_pointer,
    x_pointer,
    mod_pointer,
    base_pointer,
    b_pointer,
    h_pointer,
    length,
    channels,
    states,
    words,
    n_max,
    k,
    s_v,
    convex: tl.constexpr,
    FINER: tl.constexpr,
    WIDTH: tl.constexpr,
    MODULATED: tl.constexpr,
    FAR: tl.constexpr,
    STATES: tl.constexpr,
    STEPS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    """Run the states; keep those before each block of steps, and before each of the steps after the last block."""
    channel, part, _, batch = place_of(tl.program_id(0), channels, words, STATES, CHANNELS, 1)
    mask = channel < channels
    heads, padded = channels // WIDTH, words * 4
    pitches = pitches_of(channels, heads, words, FAR)
    pitch = pitches[0]
    pointers = (
        x_pointer + batch * length * channels,
        mod_pointer + batch * length * heads,
        b_pointer + batch * length * words,
    )
    places = (channel, channel // WIDTH, part * (STATES // 4))
    h = load_lane(h_pointer, batch * channels + channel, channel, channels, part, states, STATES)
    base = load_lane(base_pointer, channel.to(tl.int64), channel, channels, part, states, STATES) if MODULATED else ()
    blocks = length // STEPS
    starts_pointer += ((batch * (blocks + length % STEPS)) * padded + part * STATES) * channels + channel
    block_size = tl.full([], padded, tl.int64) * channels

    loaded = load_inputs(pointers, places, pitches, 0, mask, STEPS, STATES)
    for block in range(blocks):
        t = tl.minimum(block + 1, blocks - 1) * STEPS
        ahead = load_inputs(pointers, places, pitches, t, mask, STEPS, STATES)
        store_states(starts_pointer + block * block_size, pitch, h, mask, STATES)
        for u in tl.static_range(STEPS):
            h = run_states(h, base, loaded, u, n_max, k, s_v, convex, FINER, MODULATED, STATES)
        loaded = ahead
    for t in range(blocks * STEPS, length):
        last = load_inputs(pointers, places, pitches, t, mask, 1, STATES)
        store_states(starts_pointer + (t - blocks * (STEPS - 1)) * block_size, pitch, h, mask, STATES)
        h = run_states(h, base, last, 0, n_max, k, s_v, convex, FINER, MODULATED, STATES)


@triton.jit
def retreat(
    lam,
    sums,
    mixed,
    base,
    before,
    after,
    inputs,
    gradients,
    place,
    formats,
    convex: tl.constexpr,
    FINER: tl.constexpr,
    MODULATED: tl.constexpr,
    STATES: tl.constexpr,
    PLACES: tl.constexpr,
):
    """Walk back over one step; return lam before it, the sums of w, of db and dc, and what it adds to dx and dmod."""
    n_max, k, s_v, s_h, s_g, s_w, _, _ = formats
    x, mod, b = inputs
    dy, c = gradients
    x, mod, dy = x.to(tl.int32), mod.to(tl.int32), dy.to(tl.int32)
    through, moved = tl.zeros_like(x).to(tl.int64), tl.zeros_like(x).to(tl.int64)
    earlier, added = (), ()
    for i in tl.static_range(STATES):
        n = modulate(base[i], mod, n_max) if MODULATED else mod
        now = lam[i] + integers.shift_even(times_byte(dy, c[i // 4], i % 4, tl.zeros_like(dy)), s_g)
        state = before[i] - input_of_byte(x, b[i // 4], i % 4, s_v, FINER) if convex else before[i]
        if MODULATED:
            state = tl.where(base[i] + mod == n, state, 0)
        w = integers.shift_round(now.to(tl.int64) * state, s_w)
        moved += w
        if MODULATED:
            added = added + (sums[i] + w,)
        dv = scaled(now, (1 << k) - n, k) if convex else now
        through += dv.to(tl.int64) * byte(b[i // 4], i % 4)
        mixed = put_lanes(mixed, dv.to(tl.int64) * x, place + i, PLACES)
        mixed = put_lanes(mixed, (after[i] >> s_h).to(tl.int64) * dy, place + STATES + i, PLACES)
        earlier = earlier + (scaled(now, n, k),)
    return earlier, added, mixed, through, moved


@triton.jit
def walk_block(
    lam,
    sums,
    skip_sum,
    base,
    start,
    inputs,
    gradients,
    t,
    pointers,
    pitches,
    skip,
    mask,
    formats,
    convex: tl.constexpr,
    FINER: tl.constexpr,
    MODULATED: tl.constexpr,
    SHARED: tl.constexpr,
    ONE_HEAD: tl.constexpr,
    STATES: tl.constexpr,
    COUNT: tl.constexpr,
):
    """Compute the states of a block of steps again, and walk back through them."""
    PLACES: tl.constexpr = COUNT * 2 * STATES
    n_max, k, s_v, _, _, _, fine, coarse = formats
    known = (start,)
    for u in tl.static_range(COUNT):
        known = known + (run_states(known[u], base, inputs, u, n_max, k, s_v, convex, FINER, MODULATED, STATES),)
    dx_pointer, dmod_pointer, mixed_pointer = pointers
    channels, heads, words = pitches
    padded = words * 4
    t = tl.full([], t, tl.int64)
    dx_pointer += t * channels
    dmod_pointer += t * heads
    mixed = (tl.zeros([PLACES], tl.int32), tl.zeros([PLACES], tl.int32))
    for u in tl.static_range(COUNT - 1, -1, -1):
        lam, sums, mixed, through, moved = retreat(
            lam,
            sums,
            mixed,
            base,
            known[u],
            known[u + 1],
            (inputs[0][u], inputs[1][u], inputs[2][u]),
            (gradients[0][u], gradients[1][u]),
            u * 2 * STATES,
            formats,
            convex,
            FINER,
            MODULATED,
            STATES,
            PLACES,
        )
        dy, x = gradients[0][u].to(tl.int64), inputs[0][u].to(tl.int64)
        put_sum(dx_pointer + u * channels, (through << coarse) + ((dy * skip) << fine), mask, SHARED)
        if ONE_HEAD:
            tl.atomic_add(dmod_pointer + u * heads, tl.sum(moved, axis=0), sem="relaxed")
        else:
            put_sum(dmod_pointer + u * heads, moved, mask, SHARED or not MODULATED)
        skip_sum += dy * x
    place = tl.arange(0, PLACES)
    target = mixed_pointer + 2 * (t * padded) + place // (2 * STATES) * (2 * padded) + place % (2 * STATES)
    tl.atomic_add(target, (mixed[1].to(tl.int64) << LIMB) + mixed[0], sem="relaxed")
    return lam, sums, skip_sum


@triton.jit(do_not_specialize=["n_max", "k", "s_v", "s_h", "s_g", "s_w", "fine", "coarse"])
def walk_kernel(
    dx_pointer,
    dmod_pointer,
    dbase_pointer,
    mixed_pointer,
    dskip_pointer,
    end_pointer,
    starts_pointer,
    dy_pointer,
    x_pointer,
    mod_pointer,
    base_pointer,
    b_pointer,
    c_pointer,
    skip_pointer,
    dh_pointer,
    length,
    channels,
    states,
    words,
    n_max,
    k,
    s_v,
    s_h,
    s_g,
    s_w,
    fine,
    coarse,
    convex: tl.constexpr,
    FINER: tl.constexpr,
    WIDTH: tl.constexpr,
    MODULATED: tl.constexpr,
    SHARED: tl.constexpr,
    FAR: tl.constexpr,
    STATES: tl.constexpr,
    STEPS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    ONE_HEAD: tl.constexpr = WIDTH % CHANNELS == 0
    channel, part, _, batch = place_of(tl.program_id(0), channels, words, STATES, CHANNELS, 1)
    mask = channel < channels
    heads, padded = channels // WIDTH, words * 4
    head = tl.min(channel, axis=0) // WIDTH if ONE_HEAD else channel // WIDTH
    pitches = pitches_of(channels, heads, words, FAR)
    pitch = pitches[0]
    places = (channel, channel // WIDTH, part * (STATES // 4))
    row, mixture = batch * length * channels, batch * length * words
    forward_pointers = (x_pointer + row, mod_pointer + batch * length * heads, b_pointer + mixture)
    backward_pointers = (dy_pointer + row, c_pointer + mixture)
    mixed_place = 2 * (mixture * 4 + part * STATES)
    targets = (dx_pointer + row + channel, dmod_pointer + batch * length * heads + head, mixed_pointer + mixed_place)
    formats = (n_max, k, s_v, s_h, s_g, s_w.to(tl.int64), fine.to(tl.int64), coarse.to(tl.int64))
    lane = batch * channels + channel
    lam = load_lane(dh_pointer, lane, channel, channels, part, states, STATES)
    base = load_lane(base_pointer, channel.to(tl.int64), channel, channels, part, states, STATES) if MODULATED else ()
    sums = ()
    if MODULATED:
        for _ in tl.static_range(STATES):
            sums = sums + (tl.zeros([CHANNELS], tl.int64),)
    has_skip = lanes_if(part == 0, channel, channels)
    skip = tl.load(skip_pointer + channel // WIDTH, mask=has_skip, other=0).to(tl.int64)
    skip_sum = tl.zeros([CHANNELS], tl.int64)
    blocks = length // STEPS
    starts_pointer += ((batch * (blocks + length % STEPS)) * padded + part * STATES) * channels + channel
    block_size = tl.full([], padded, tl.int64) * channels

    for j in range(length % STEPS):
        t = length - 1 - j
        inputs = load_inputs(forward_pointers, places, pitches, t, mask, 1, STATES)
        gradients = load_gradients(backward_pointers, places, pitches, t, mask, 1, STATES)
        start = load_states(starts_pointer + (t - blocks * (STEPS - 1)) * block_size, pitch, mask, STATES)
        lam, sums, skip_sum = walk_block(
            lam,
            sums,
            skip_sum,
            base,
            start,
            inputs,
            gradients,
            t,
            targets,
            pitches,
            skip,
            mask,
            formats,
            convex,
            FINER,
            MODULATED,
            SHARED,
            ONE_HEAD,
            STATES,
            1,
        )
    t = (blocks - 1) * STEPS
    inputs = load_inputs(forward_pointers, places, pitches, t, mask, STEPS, STATES)
    start = load_states(starts_pointer + (blocks - 1) * block_size, pitch, mask, STATES)
    # The gradients are needed last: the time that their loads take is that of computing the states.
    for j in range(blocks):
        block = blocks - 1 - j
        gradients = load_gradients(backward_pointers, places, pitches, block * STEPS, mask, STEPS, STATES)
        t = tl.maximum(block - 1, 0) * STEPS
        inputs_ahead = load_inputs(forward_pointers, places, pitches, t, mask, STEPS, STATES)
        start_ahead = load_states(starts_pointer + tl.maximum(block - 1, 0) * block_size, pitch, mask, STATES)
        lam, sums, skip_sum = walk_block(
            lam,
            sums,
            skip_sum,
            base,
            start,
            inputs,
            gradients,
            block * STEPS,
            targets,
            pitches,
            skip,
            mask,
            formats,
            convex,
            FINER,
            MODULATED,
            SHARED,
            ONE_HEAD,
            STATES,
            STEPS,
        )
        inputs, start = inputs_ahead, start_ahead

    store_lane(end_pointer, lane, lam, channel, channels, part, states, STATES)
    if MODULATED:
        for i in tl.static_range(STATES):
            inside = lanes_if(part * STATES + i < states, channel, channels)
            target = dbase_pointer + channel.to(tl.int64) * states + part * STATES + i
            tl.atomic_add(target, sums[i], mask=inside, sem="relaxed")
    tl.atomic_add(dskip_pointer + channel // WIDTH, skip_sum, mask=has_skip, sem="relaxed")
