"""The walk back over the selective scan's steps, of NVIDIA's GPUs since Ampere, in Gluon.

`staged_scan` leaves the states before each block of steps. The walk goes through the blocks backwards: it computes a
block's states again into shared memory, then walks back through them. A lane holds a channel and STATES of its states,
so what is summed over states stays in it. What is summed over channels is turned in shared memory, so that a lane has a
state of many channels: sums over a warp's lanes would take longer than all the rest. Integer addition has no order.
"""

import torch
import triton

from . import staged_scan
from .gluon_names import HAS_GLUON, async_copy, barrier, copy_pieces, gl, gluon, reinterpret
from .launch import aligned, launch
from .staged_scan import starts_of, suits

LANES = 32
STATES = 16  # of a lane
STEPS = 16  # per block


def walk_back(dy, x, mod, base, b, c, skip, h, dh, formats, backward):
    """Return dx and dmod, their sums where several lanes share a channel, dbase, the sums of db and dc, dskip and dh.

    The last axis but one of the sums of db and dc tells them apart.
    """
    batch, length, channels = x.shape
    states = h.shape[-1]
    b, c = staged_scan.padded(b), staged_scan.padded(c)
    starts = starts_of(x, mod, base, b, h, formats, STEPS)
    width = b.shape[-1]
    parts = triton.cdiv(states, STATES)

    def sums(*shape):
        return torch.zeros(shape, dtype=torch.int64, device=x.device)

    if parts > 1:
        dx, dmod = sums(*x.shape), sums(*mod.shape)
    else:
        dx, dmod = (torch.empty(x.shape, dtype=torch.int32, device=x.device) for _ in range(2))
    dbase, mixed, dskip = sums(*base.shape), sums(batch, length, parts, 2, STATES), sums(*skip.shape)
    end = torch.empty(dh.shape, dtype=torch.int32, device=x.device)
    results = (dx, dmod, dbase, mixed, dskip, end)
    inputs = (starts, aligned(dy), aligned(x), aligned(mod), base, b, c, skip, dh)
    sizes = (length, channels, states, width)
    tile = {"CHANNELS": LANES, "STATES": STATES, "STEPS": STEPS, "SHARED": parts > 1, "FINER": formats["s_v"] < 0}
    programs = triton.cdiv(channels, LANES) * parts * batch
    launch(staged_walk_kernel, programs, results, inputs, *sizes, **formats, **backward, **tile, num_warps=1)
    return results


if HAS_GLUON:
    from .staged_scan import clamped_sum

    ROUNDED_PRODUCT = gl.constexpr(
        "{ .reg .s64 wide, half; cvt.s64.s32 half, $4; mad.wide.s32 wide, $1, $2, half; shr.s64 wide, wide, $3;"
        " cvt.u32.u64 $0, wide; }"
    )
    WIDE_ROUNDED_PRODUCT = gl.constexpr("{ .reg .s64 wide; mad.wide.s32 wide, $1, $2, $4; shr.s64 $0, wide, $3; }")

    @gluon.jit
    def copy_steps(
        into, pointer, t, length, first, width, layout: gl.constexpr, STEPS: gl.constexpr, COLUMNS: gl.constexpr
    ):
        """Start to copy some columns of the steps from t on."""
        step = t + gl.arange(0, STEPS, gl.SliceLayout(1, layout))
        column = first + gl.arange(0, COLUMNS, gl.SliceLayout(0, layout))
        inside = (step < length)[:, None] & (column < width)[None, :]
        copy_pieces(into, pointer + step[:, None] * width + column[None, :], mask=inside)

    @gluon.jit
    def input_of(x, b, s_v, FINER: gl.constexpr):
        """Return v, a tile; FINER says that s_v is negative."""
        product = x[:, None] * b[None, :]
        if FINER:
            return product << -s_v
        else:
            return (product + ((1 << s_v) >> 1)) >> s_v

    @gluon.jit
    def state_sums(a, b, lanes: gl.constexpr):
        """Return the sums over the states of a tile times b, in int64."""
        return gl.convert_layout(gl.sum(a.to(gl.int64) * b.to(gl.int64)[None, :], axis=1), lanes)

    @gluon.jit
    def state_of(h, base, x, mod, b, formats, CONVEX: gl.constexpr, FINER: gl.constexpr):
        """Return the states of a tile after a step, of x, mod and b in int32."""
        n_max, k, s_v = formats
        n = clamped_sum(base, mod[:, None], n_max)
        v = input_of(x, b, s_v, FINER)
        decaying = h - v if CONVEX else h
        return ((decaying.to(gl.int64) * n) >> k.to(gl.int64)).to(gl.int32) + v

    @gluon.jit
    def scaled(x, factor, k):
        """Return x * factor over 2**k, rounded, of a result that fits int32."""
        arguments = [x, factor, k, (1 << k) >> 1]
        return gl.inline_asm_elementwise(ROUNDED_PRODUCT, "=r,r,r,r,r", arguments, gl.int32, is_pure=True, pack=1)

    @gluon.jit
    def wide_scaled(x, factor, s):
        """Return x * factor over 2**s, rounded, in int64."""
        half = (gl.full([], 1, gl.int64) << s.to(gl.int64)) >> 1
        arguments = [x, factor, s, half]
        return gl.inline_asm_elementwise(WIDE_ROUNDED_PRODUCT, "=l,r,r,r,l", arguments, gl.int64, is_pure=True, pack=1)

    @gluon.jit
    def channel_sums(a, lane):
        """Return the sums over a turned tile's channels of a times an int16 of each, in int64."""
        return gl.sum(a.to(gl.int64) * lane.to(gl.int64)[:, None], axis=0)

    @gluon.jit
    def shift_even(x, s):
        """Round x / 2**s to nearest, ties to even."""
        return (x + (((1 << s) - 1) >> 1) + ((x >> s) & gl.minimum(s, 1))) >> s

    @gluon.jit
    def put(pointer, total, s, inside, SHARED: gl.constexpr):
        """Add a lane's sum to what other lanes have, or round it."""
        if SHARED:
            gl.atomic_add(pointer, total, mask=inside, sem="relaxed")
        else:
            rounded = (total + ((gl.full([], 1, gl.int64) << s.to(gl.int64)) >> 1)) >> s.to(gl.int64)
            gl.store(pointer, gl.minimum(gl.maximum(rounded, -0x7FFFFFFF), 0x7FFFFFFF).to(gl.int32), mask=inside)

    @gluon.jit
    def retreat(
        lam,
        decay_sums,
        before,
        base,
        loaded,
        formats,
        CONVEX: gl.constexpr,
        FINER: gl.constexpr,
        lanes: gl.constexpr,
    ):
        """Walk back over one step: return lam before it, the sums of w over time, dv, and the sums over the states."""
        x, mod, dy, b, c = loaded
        n_max, k, s_v, s_g, s_w = formats
        n = clamped_sum(base, mod[:, None], n_max)
        now = lam + shift_even(dy[:, None] * c[None, :], s_g)
        state = before - input_of(x, b, s_v, FINER) if CONVEX else before
        state = gl.where(base + mod[:, None] == n, state, 0)
        w = wide_scaled(now, state, s_w)
        dv = scaled(now, (1 << k) - n, k) if CONVEX else now
        moved = gl.convert_layout(gl.sum(w, axis=1), lanes)
        return scaled(now, n, k), decay_sums + w, dv, state_sums(dv, b, lanes), moved

    @gluon.jit
    def copy_block(
        stages,
        stage,
        pointers,
        t,
        length,
        places,
        wide: gl.constexpr,
        narrow: gl.constexpr,
        STEPS: gl.constexpr,
        CHANNELS: gl.constexpr,
        STATES: gl.constexpr,
    ):
        first, channels, first_state, width = places
        for i in gl.static_range(3):
            copy_steps(stages[i].index(stage), pointers[i], t, length, first, channels, wide, STEPS, CHANNELS)
        for i in gl.static_range(3, 5):
            copy_steps(stages[i].index(stage), pointers[i], t, length, first_state, width, narrow, STEPS, STATES)
        async_copy.commit_group()

    FORMATS = ["n_max", "k", "s_v", "s_h", "s_g", "s_w", "s_n", "s_x", "fine", "coarse"]

    @gluon.jit(do_not_specialize=["length", "states", *FORMATS])
    def staged_walk_kernel(
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
        width,
        n_max,
        k,
        s_v,
        s_h,
        s_g,
        s_w,
        s_n,
        s_x,
        fine,
        coarse,
        CONVEX: gl.constexpr,
        FINER: gl.constexpr,
        SHARED: gl.constexpr,
        CHANNELS: gl.constexpr,
        STATES: gl.constexpr,
        STEPS: gl.constexpr,
    ):
        tile: gl.constexpr = gl.BlockedLayout([1, STATES], [32, 1], [1, 1], [1, 0])
        lanes: gl.constexpr = gl.SliceLayout(1, tile)
        slices: gl.constexpr = gl.SliceLayout(0, tile)
        wide: gl.constexpr = gl.BlockedLayout([1, 8], [8, 4], [1, 1], [1, 0])
        narrow: gl.constexpr = gl.BlockedLayout([1, 16], [32, 1], [1, 1], [1, 0])
        turned: gl.constexpr = gl.BlockedLayout([CHANNELS // 2, 1], [2, 16], [1, 1], [1, 0])
        down: gl.constexpr = gl.SliceLayout(1, turned)
        rows: gl.constexpr = gl.SwizzledSharedLayout(1, 1, 1, [1, 0])
        row: gl.constexpr = gl.SwizzledSharedLayout(1, 1, 1, [0])
        stages = (
            gl.allocate_shared_memory(gl.int16, [2, STEPS, CHANNELS], rows),
            gl.allocate_shared_memory(gl.int16, [2, STEPS, CHANNELS], rows),
            gl.allocate_shared_memory(gl.int16, [2, STEPS, CHANNELS], rows),
            gl.allocate_shared_memory(gl.int8, [2, STEPS, STATES], rows),
            gl.allocate_shared_memory(gl.int8, [2, STEPS, STATES], rows),
        )
        x_steps = reinterpret(stages[0], gl.int16, [2 * STEPS, CHANNELS], row)
        mod_steps = reinterpret(stages[1], gl.int16, [2 * STEPS, CHANNELS], row)
        dy_steps = reinterpret(stages[2], gl.int16, [2 * STEPS, CHANNELS], row)
        b_rows = gl.allocate_shared_memory(gl.int32, [STEPS, STATES], rows)
        c_rows = gl.allocate_shared_memory(gl.int32, [STEPS, STATES], rows)
        b_steps = reinterpret(b_rows, gl.int32, [STEPS, STATES], row)
        c_steps = reinterpret(c_rows, gl.int32, [STEPS, STATES], row)
        tiles: gl.constexpr = gl.SwizzledSharedLayout(4, 2, 4, [1, 0])
        h_steps = gl.allocate_shared_memory(gl.int32, [STEPS + 1, CHANNELS, STATES], tiles)
        dv_tile = gl.allocate_shared_memory(gl.int32, [CHANNELS, STATES], tiles)

        # Channels that don't exist, into which nothing is copied, add nothing to sums.
        nothing = gl.zeros([STEPS, CHANNELS], gl.int16, wide)
        for side in gl.static_range(2):
            stages[0].index(side).store(nothing)
            stages[2].index(side).store(nothing)
        barrier()

        channel_blocks, parts = gl.cdiv(channels, CHANNELS), gl.cdiv(states, STATES)
        first = gl.program_id(0) % channel_blocks * CHANNELS
        part = gl.program_id(0) // channel_blocks % parts
        batch = (gl.program_id(0) // channel_blocks // parts).to(gl.int64)
        channel = first + gl.arange(0, CHANNELS, lanes)
        state = part * STATES + gl.arange(0, STATES, slices)
        inside = channel < channels
        known = inside[:, None] & (state < states)[None, :]
        place = (batch * channels + channel)[:, None] * states + state[None, :]
        entry = channel.to(gl.int64)[:, None] * states + state[None, :]
        lam = gl.load(dh_pointer + place, mask=known, other=0)
        base = gl.load(base_pointer + entry, mask=known, other=0).to(gl.int32)
        skip = gl.load(skip_pointer + channel, mask=channel < gl.where(part == 0, channels, 0), other=0).to(gl.int64)
        decay_sums = gl.zeros([CHANNELS, STATES], gl.int64, tile)
        skip_sum = gl.zeros([CHANNELS], gl.int64, lanes)
        row_place = batch * length * channels
        pointers = (
            x_pointer + row_place,
            mod_pointer + row_place,
            dy_pointer + row_place,
            b_pointer + batch * length * width,
            c_pointer + batch * length * width,
        )
        dx_pointer += row_place + channel
        dmod_pointer += row_place + channel
        blocks = gl.cdiv(length, STEPS)
        kept = ((batch * blocks * channels) + channel)[:, None] * width + state[None, :]
        kept_size = channels.to(gl.int64) * width
        mixed_pointer += batch * length * parts * 2 * STATES + part * 2 * STATES
        mixed_pointer += gl.arange(0, STATES, gl.SliceLayout(0, turned))
        formats = (n_max, k, s_v)
        walk_formats = (n_max, k, s_v, s_g, s_w)
        fine, coarse = fine.to(gl.int64), coarse.to(gl.int64)

        t = (blocks - 1) * STEPS
        places = (first, channels, part * STATES, width)
        copy_block(stages, (blocks - 1) % 2, pointers, t, length, places, wide, narrow, STEPS, CHANNELS, STATES)
        h = gl.load(starts_pointer + kept + (blocks - 1) * kept_size, mask=inside[:, None], other=0)
        for j in range(blocks):
            block = blocks - 1 - j
            stage = block % 2
            t = block * STEPS
            count = gl.minimum(STEPS, length - t)
            barrier()
            earlier = gl.maximum(block - 1, 0)
            copy_block(
                stages,
                (block + 1) % 2,
                pointers,
                earlier * STEPS,
                length,
                places,
                wide,
                narrow,
                STEPS,
                CHANNELS,
                STATES,
            )
            start = gl.load(starts_pointer + kept + earlier * kept_size, mask=inside[:, None], other=0)
            async_copy.wait_group(1)
            barrier()
            b_rows.store(stages[3].index(stage).load(narrow).to(gl.int32))
            c_rows.store(stages[4].index(stage).load(narrow).to(gl.int32))
            barrier()
            for u in range(count):
                h_steps.index(u).store(h)
                at = stage * STEPS + u
                x, mod = x_steps.index(at).load(lanes).to(gl.int32), mod_steps.index(at).load(lanes).to(gl.int32)
                h = state_of(h, base, x, mod, b_steps.index(u).load(slices), formats, CONVEX, FINER)
            h_steps.index(count).store(h)
            for i in range(count):
                u = count - 1 - i
                at = stage * STEPS + u
                x, mod = x_steps.index(at).load(lanes).to(gl.int32), mod_steps.index(at).load(lanes).to(gl.int32)
                dy = dy_steps.index(at).load(lanes).to(gl.int32)
                loaded = (x, mod, dy, b_steps.index(u).load(slices), c_steps.index(u).load(slices))
                before = h_steps.index(u).load(tile)
                lam, decay_sums, dv, through, moved = retreat(
                    lam, decay_sums, before, base, loaded, walk_formats, CONVEX, FINER, lanes
                )
                dv_tile.store(dv)
                dc = channel_sums(h_steps.index(u + 1).load(turned) >> s_h, dy_steps.index(at).load(down))
                db = channel_sums(dv_tile.load(turned), x_steps.index(at).load(down))
                target = mixed_pointer + (t + u).to(gl.int64) * (parts * 2 * STATES)
                gl.atomic_add(target, db, sem="relaxed")
                gl.atomic_add(target + STATES, dc, sem="relaxed")
                offset = (t + u) * channels
                dx = (through << coarse) + ((dy.to(gl.int64) * skip) << fine)
                put(dx_pointer + offset, dx, s_x, inside, SHARED)
                put(dmod_pointer + offset, moved, s_n, inside, SHARED)
                skip_sum += dy.to(gl.int64) * x
            h = start

        gl.store(end_pointer + place, lam, mask=known)
        gl.atomic_add(dbase_pointer + entry, decay_sums, mask=known, sem="relaxed")
        gl.atomic_add(dskip_pointer + channel, skip_sum, mask=channel < gl.where(part == 0, channels, 0), sem="relaxed")


__all__ = ["suits", "walk_back"]
