"""The walk back over the selective scan's steps, of NVIDIA's GPUs since Ampere, in Gluon.

`staged_scan` leaves the states before each block of steps. The walk goes through the blocks backwards: it computes a
block's states again, then walks back through them. A lane holds channels and states as `staged_scan` has them, so that
sums over the states run on tensor cores. States and their gradients of a block wait in shared memory until its end,
where a lane sums them over the channels. Integer addition has no order.
"""

import torch

from . import staged_scan
from .gluon_names import HAS_GLUON, barrier, gl, gluon, reinterpret
from .instructions import has_little_room
from .launch import launch
from .staged_scan import CHANNELS, STATES_OF_WARP, channels_of, starts_of, words_of
from .staged_steps import known_k

STEPS = 8  # per block
PART = 4  # of them, whose results wait in registers
REGISTERS = 168  # of a lane, so that a scheduler has three warps
FEW_STATES = 16  # of which a program has twice as many channels
MOST_STATES, MOST_STATES_OF_LITTLE_ROOM = 64, 32  # whose block fits shared memory


def suits(x, states: int) -> bool:
    """Return whether the scan of x can be staged, and a block of so many states per channel fits shared memory."""
    most = MOST_STATES_OF_LITTLE_ROOM if has_little_room() else MOST_STATES
    return staged_scan.suits(x, states) and states <= most


def walk_back(dy, x, mod, base, b, c, skip, h, dh, formats, backward):
    """Return dx, dmod, dbase, the sums of db and of dc (of a power of two of states), dskip and dh."""
    batch, length, channels = x.shape
    states = h.shape[-1]
    b, c = staged_scan.padded(b), staged_scan.padded(c)
    starts = starts_of(x, mod, base, b, h, formats, STEPS)
    width = staged_scan.room_of(states)

    def sums(*shape):
        return torch.zeros(shape, dtype=torch.int64, device=x.device)

    dx, dmod = (torch.empty(x.shape, dtype=torch.int32, device=x.device) for _ in range(2))
    dbase, (db, dc), dskip = sums(*base.shape), sums(2, batch, length, width), sums(*skip.shape)
    end = torch.empty(dh.shape, dtype=torch.int32, device=x.device)
    results = (dx, dmod, dbase, db, dc, dskip, end)
    words = words_of(dy, x, mod, b, c)
    inputs = (starts, *words[:3], base, *words[3:], skip, dh)
    sizes = (length, channels, states, b.shape[-1] // 4)
    columns = channels_of(channels, width, FEW_STATES)
    tile = {"CHANNELS": columns, "STATES": width, "STEPS": STEPS, "PART": PART, "FLOAT": formats["s_v"] > 0}
    tile |= {"COARSER": backward["s_h"] > 0, "WHOLE": length % STEPS == 0, "K": known_k(formats["k"])}
    programs = channels // columns * batch
    warps = width // STATES_OF_WARP * (columns // CHANNELS)
    options = {"num_warps": warps, "maxnreg": REGISTERS}
    launch(staged_walk_kernel, programs, results, inputs, *sizes, **formats, **backward, **tile, **options)
    return results


if HAS_GLUON:
    from .staged_gradient import products, scaled, shared_out, wide_scaled
    from .staged_steps import (
        INTEGERS,
        INTEGERS_BITS,
        clamped_sum,
        load_steps,
        pairs_of,
        power_of_two,
        put_activations,
        scaled_bytes,
        scaled_inputs,
        state_of,
        step_formats,
        unsigned_bytes,
    )
    from .staged_sums import channel_sums, four_sums, rounded_word, store_steps, store_tiles

    @gluon.jit
    def through_memory(rows, values):
        """Return values as they are, in registers of each lane.

        ptxas would keep what all lanes share where a wide product can't add it, and copy what an operand has twice.
        """
        layout: gl.constexpr = values.type.layout
        rows.store(values)
        barrier()
        return rows.load(layout)

    @gluon.jit
    def put_bytes(rows, numbers):
        """Store numbers of the bytes of words, [STEPS, words, 2, 2], or two of each, into shared memory."""
        rows.store(gl.reshape(numbers, [numbers.shape[0], rows.shape[1]]))

    @gluon.jit
    def put_words(rows, even, odd):
        """Store arrays of the even and of the odd columns into shared memory."""
        rows.store(gl.reshape(gl.join(even, odd), [even.shape[0], rows.shape[1]]))

    @gluon.jit
    def load_block(
        pointers,
        t,
        length,
        first,
        channels,
        words,
        wide: gl.constexpr,
        narrow: gl.constexpr,
        STEPS: gl.constexpr,
        CHANNELS: gl.constexpr,
        STATES: gl.constexpr,
    ):
        """Load the words of x, mod, dy, b and c of the steps from t on."""
        x = load_steps(pointers[0], t, length, first // 2, channels // 2, wide, STEPS, CHANNELS // 2)
        mod = load_steps(pointers[1], t, length, first // 2, channels // 2, wide, STEPS, CHANNELS // 2)
        dy = load_steps(pointers[2], t, length, first // 2, channels // 2, wide, STEPS, CHANNELS // 2)
        b = load_steps(pointers[3], t, length, 0, words, narrow, STEPS, STATES // 4)
        c = load_steps(pointers[4], t, length, 0, words, narrow, STEPS, STATES // 4)
        return x, mod, dy, b, c

    FORMATS = ["n_max", "k", "s_v", "s_h", "s_g", "s_w", "s_n", "s_x", "fine", "coarse"]

    @gluon.jit(do_not_specialize=["length", "states", "words", *FORMATS])
    def staged_walk_kernel(
        dx_pointer,
        dmod_pointer,
        dbase_pointer,
        db_pointer,
        dc_pointer,
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
        s_n,
        s_x,
        fine,
        coarse,
        CONVEX: gl.constexpr,
        COARSER: gl.constexpr,
        WHOLE: gl.constexpr,
        CHANNELS: gl.constexpr,
        STATES: gl.constexpr,
        STEPS: gl.constexpr,
        PART: gl.constexpr,
        K: gl.constexpr,
        FLOAT: gl.constexpr,
    ):
        ACROSS: gl.constexpr = STATES // 8
        DOWN_WARPS: gl.constexpr = CHANNELS // 16
        WARPS: gl.constexpr = ACROSS * DOWN_WARPS
        HALF: gl.constexpr = STATES // 2
        PARTS: gl.constexpr = STEPS // PART
        tile: gl.constexpr = gl.BlockedLayout([2, 2], [8, 4], [DOWN_WARPS, ACROSS], [1, 0])
        lanes: gl.constexpr = gl.SliceLayout(1, tile)
        slices: gl.constexpr = gl.SliceLayout(0, tile)
        paired_lanes: gl.constexpr = gl.SliceLayout(1, gl.BlockedLayout([4, 2], [8, 4], [DOWN_WARPS, ACROSS], [1, 0]))
        paired_slices: gl.constexpr = gl.SliceLayout(0, gl.BlockedLayout([2, 4], [8, 4], [DOWN_WARPS, ACROSS], [1, 0]))
        PIECE: gl.constexpr = max(min(STEPS * CHANNELS // (64 * WARPS), 2), 1)
        wide: gl.constexpr = gl.BlockedLayout(
            [1, PIECE], [64 * PIECE // CHANNELS, CHANNELS // 2 // PIECE], [WARPS, 1], [1, 0]
        )
        narrow: gl.constexpr = gl.BlockedLayout([1, 1], [128 // STATES, STATES // 4], [WARPS, 1], [1, 0])
        rows: gl.constexpr = gl.SwizzledSharedLayout(1, 1, 1, [1, 0])
        row: gl.constexpr = gl.SwizzledSharedLayout(1, 1, 1, [0])
        x_rows = gl.allocate_shared_memory(gl.int32, [STEPS, CHANNELS], rows)
        dy_rows = gl.allocate_shared_memory(gl.int32, [STEPS, CHANNELS], rows)
        input_type: gl.constexpr = gl.float32 if FLOAT else gl.int32
        # Of each channel what a step reads, side by side: x and mod; and dy, a float, and mod on the way back.
        activation_rows = gl.allocate_shared_memory(gl.int32, [STEPS, 2 * CHANNELS], rows)
        error_rows = gl.allocate_shared_memory(gl.int32, [STEPS, 2 * CHANNELS], rows)
        b_rows = gl.allocate_shared_memory(input_type, [STEPS, STATES], rows)
        mixture_rows = gl.allocate_shared_memory(gl.int32, [STEPS, 2 * STATES], rows)  # c, a float, beside bytes of b
        activations = reinterpret(activation_rows, gl.int32, [STEPS, 2 * CHANNELS], row)
        error_steps = reinterpret(error_rows, gl.int32, [STEPS, 2 * CHANNELS], row)
        b_steps = reinterpret(b_rows, input_type, [STEPS, STATES], row)
        mixtures = reinterpret(mixture_rows, gl.int32, [STEPS, 2 * STATES], row)
        # Channels lie side by side, those of states in different banks.
        cubes: gl.constexpr = gl.SwizzledSharedLayout(4, 32 // CHANNELS, CHANNELS // 4, [1, 2, 0])
        h_cube = gl.allocate_shared_memory(gl.int32, [STEPS, CHANNELS, STATES], cubes)
        dv_parts = gl.allocate_shared_memory(gl.int32, [PARTS, PART, CHANNELS, STATES], cubes)
        dv_cube = reinterpret(dv_parts, gl.int32, [STEPS, CHANNELS, STATES], cubes)
        dv_steps = reinterpret(dv_parts, gl.int32, [STEPS, CHANNELS, STATES], rows)
        # Channels lie side by side, those of half a warp's lanes in different banks.
        turned: gl.constexpr = gl.SwizzledSharedLayout(8, 32 // CHANNELS, CHANNELS // 8, [0, 1, 2])
        sums_rows: gl.constexpr = gl.SwizzledSharedLayout(8, 32 // CHANNELS, CHANNELS // 8, [1, 0])
        through_sums = gl.allocate_shared_memory(gl.int32, [PARTS, CHANNELS, HALF, PART], turned)
        moved_sums = gl.allocate_shared_memory(gl.int32, [PARTS, CHANNELS, HALF, PART], turned)
        through_rows = reinterpret(through_sums, gl.int32, [STEPS * HALF, CHANNELS], sums_rows)
        moved_rows = reinterpret(moved_sums, gl.int32, [STEPS * HALF, CHANNELS], sums_rows)
        WIDTH: gl.constexpr = max(min(STEPS * CHANNELS // (32 * WARPS), 4), 1)
        whole_sums: gl.constexpr = gl.BlockedLayout(
            [HALF, WIDTH], [32 * WIDTH // CHANNELS, CHANNELS // WIDTH], [WARPS, 1], [1, 0]
        )
        # A lane sums a state or two over all channels.
        SUMMED: gl.constexpr = 32 // CHANNELS
        SUMMING: gl.constexpr = min(STATES // SUMMED, 32)
        STEP_WARPS: gl.constexpr = min(WARPS, STEPS)
        cube: gl.constexpr = gl.BlockedLayout(
            [1, CHANNELS, SUMMED], [32 // SUMMING, 1, SUMMING], [STEP_WARPS, 1, WARPS // STEP_WARPS], [2, 1, 0]
        )
        summed: gl.constexpr = gl.SliceLayout(1, cube)
        cube_rows: gl.constexpr = gl.SliceLayout(2, cube)

        channel_blocks = gl.cdiv(channels, CHANNELS)
        first = gl.program_id(0) % channel_blocks * CHANNELS
        batch = (gl.program_id(0) // channel_blocks).to(gl.int64)
        lane = gl.arange(0, CHANNELS, lanes)
        channel = first + lane
        state = gl.arange(0, STATES, slices)
        known = (channel < channels)[:, None] & (state < states)[None, :]
        place = (batch * channels + channel)[:, None] * states + state[None, :]
        entry = channel.to(gl.int64)[:, None] * states + state[None, :]
        lam = gl.load(dh_pointer + place, mask=known, other=0)
        base = gl.load(base_pointer + entry, mask=known, other=0).to(gl.int32)
        decay_sums = gl.zeros([CHANNELS, STATES], gl.int64, tile)
        skip_sums, next_skip_sums = (gl.zeros([STEPS, CHANNELS // 2], gl.int64, wide),) * 2
        row_place = batch * length * channels
        mixture_place = batch * length * STATES
        word_place = batch * length * words
        pointers = (
            x_pointer + row_place // 2,
            mod_pointer + row_place // 2,
            dy_pointer + row_place // 2,
            b_pointer + word_place,
            c_pointer + word_place,
        )
        blocks = gl.cdiv(length, STEPS)
        kept = (batch * blocks * channels + channel)[:, None] * STATES + state[None, :]
        kept_size = channels.to(gl.int64) * STATES
        formats = step_formats(n_max, k, s_v, False)
        c_scale = power_of_two(-s_g)
        identity = 1 << k

        # A lane's column of the products: the byte of b that it has, and its ones for the words of w.
        turn = lane // 2 % 8
        place_of_byte = 1 << (8 * (turn % 4))
        matrices = (
            gl.where(turn < 3, place_of_byte, 0),
            gl.where(turn == 3, place_of_byte, 0),
            through_memory(dv_steps.index(0), gl.broadcast(gl.where(turn < 4, place_of_byte, 0)[:, None], lam)[0]),
            through_memory(dv_steps.index(1), gl.broadcast(gl.where(turn >= 4, place_of_byte, 0)[:, None], lam)[0]),
        )
        # Added to a product of 63 bits, so that it is never negative.
        bias = gl.full([], 1, gl.int64) << 62
        rounding = ((gl.full([], 1, gl.int64) << s_w.to(gl.int64)) >> 1) + bias
        half = (gl.full([], 1, gl.int64) << k.to(gl.int64)) >> 1
        w_bias = bias >> s_w.to(gl.int64)

        skip_row = gl.allocate_shared_memory(gl.int32, [CHANNELS], row)
        skip_row.store(gl.load(skip_pointer + channel).to(gl.int32))

        t = (blocks - 1) * STEPS
        x_ahead, mod_ahead, dy_ahead, b_ahead, c_ahead = load_block(
            pointers, t, length, first, channels, words, wide, narrow, STEPS, CHANNELS, STATES
        )
        start = gl.load(starts_pointer + kept + (blocks - 1) * kept_size)
        for j in range(blocks):
            block = blocks - 1 - j
            t = block * STEPS
            h = start
            barrier()  # every lane has read the block before
            x, next_x, dy, next_dy = x_ahead << 16 >> 16, x_ahead >> 16, dy_ahead << 16 >> 16, dy_ahead >> 16
            put_words(x_rows, x, next_x)
            put_activations(activation_rows, x_ahead, mod_ahead, FLOAT)
            put_words(dy_rows, dy, next_dy)
            put_activations(error_rows, dy_ahead, mod_ahead, True)
            skip_sums += (x * dy).to(gl.int64)
            next_skip_sums += (next_x * next_dy).to(gl.int64)
            put_bytes(b_rows, scaled_inputs(b_ahead, s_v, FLOAT))
            c = (scaled_bytes(c_ahead, 24).to(gl.float32) * c_scale).to(gl.int32, bitcast=True)
            put_bytes(mixture_rows, gl.join(unsigned_bytes(b_ahead), c))
            earlier = gl.maximum(block - 1, 0)
            ahead = earlier * STEPS
            x_ahead, mod_ahead, dy_ahead, b_ahead, c_ahead = load_block(
                pointers, ahead, length, first, channels, words, wide, narrow, STEPS, CHANNELS, STATES
            )
            start = gl.load(starts_pointer + kept + earlier * kept_size)
            barrier()
            before, read = (), ()
            for u in gl.static_range(STEPS):
                x, mod = pairs_of(activations, u, paired_lanes, lanes)
                x, b = x.to(input_type, bitcast=True), b_steps.index(u).load(slices)
                h, decaying = state_of(h, base, x, mod, b, formats, CONVEX, FLOAT, False, K)
                before = before + (decaying,)  # noqa: RUF005
                read = read + (h >> s_h if COARSER else h,)  # noqa: RUF005
            store_tiles(h_cube, read)
            for part in gl.static_range(PARTS - 1, -1, -1):
                through, moved, errors = (), (), ()
                for v in gl.static_range(PART - 1, -1, -1):
                    dy, mod = pairs_of(error_steps, part * PART + v, paired_lanes, lanes)
                    b_byte, c = pairs_of(mixtures, part * PART + v, paired_slices, slices)
                    dy, c = dy.to(gl.float32, bitcast=True), c.to(gl.float32, bitcast=True)
                    n = clamped_sum(base, mod[:, None], n_max)
                    if not WHOLE:
                        # A step after the last leaves lam as it is: its decay is one, as of no base without modulation.
                        n = gl.where(t + part * PART + v < length, n, identity)
                    added = (dy[:, None] * c[None, :] + INTEGERS).to(gl.int32, bitcast=True) - INTEGERS_BITS
                    now = lam + added
                    w = wide_scaled(now, gl.where(base + mod[:, None] == n, before[part * PART + v], 0), s_w, rounding)
                    if CONVEX:
                        lam, dv = shared_out(now, n, k, half, K)
                    else:
                        lam, dv = scaled(now, n, k, half), now
                    decay_sums += w
                    errors = (dv,) + errors  # noqa: RUF005
                    sums = products(dv, w, b_byte, matrices)
                    through, moved = (sums[0],) + through, (sums[1],) + moved  # noqa: RUF005
                store_tiles(dv_parts.index(part), errors)
                store_steps(through_sums.index(part), through)
                store_steps(moved_sums.index(part), moved)
            barrier()

            low, high, _, _ = four_sums(through_rows, whole_sums, STEPS, HALF)
            outputs: gl.constexpr = low.type.layout
            step = t + gl.arange(0, STEPS, gl.SliceLayout(1, outputs))
            column = first + gl.arange(0, CHANNELS, gl.SliceLayout(0, outputs))
            skip = skip_row.load(gl.SliceLayout(0, outputs))
            past = (dy_rows.load(outputs) * skip[None, :]).to(gl.int64)
            through_state = high.to(gl.int64) * 65536 + low
            if CONVEX:  # dv has the other sign
                through_state = -through_state
            dx = (through_state << coarse.to(gl.int64)) + (past << fine.to(gl.int64))
            target = row_place + step.to(gl.int64)[:, None] * channels + column[None, :]
            gl.store(dx_pointer + target, rounded_word(dx, s_x), mask=(step < length)[:, None])
            q0, q1, q2, q3 = four_sums(moved_rows, whole_sums, STEPS, HALF)
            low = q1.to(gl.int64) * 65536 + q0
            dmod = ((q3.to(gl.int64) * 65536 + q2) << 32) + low - w_bias * STATES
            gl.store(dmod_pointer + target, rounded_word(dmod, s_n), mask=(step < length)[:, None])

            step = t + gl.arange(0, STEPS, gl.SliceLayout(1, summed))
            target = mixture_place + step.to(gl.int64)[:, None] * STATES
            target += gl.arange(0, STATES, gl.SliceLayout(0, summed))[None, :]
            db = channel_sums(dv_cube.load(cube), x_rows.load(cube_rows), summed)
            if CONVEX:
                db = -db
            dc = channel_sums(h_cube.load(cube), dy_rows.load(cube_rows), summed)
            gl.atomic_add(db_pointer + target, db, mask=(step < length)[:, None], sem="relaxed")
            gl.atomic_add(dc_pointer + target, dc, mask=(step < length)[:, None], sem="relaxed")

        gl.store(end_pointer + place, lam, mask=known)
        gl.atomic_add(dbase_pointer + entry, decay_sums - w_bias * (blocks * STEPS), mask=known, sem="relaxed")
        column = first + 2 * gl.arange(0, CHANNELS // 2, gl.SliceLayout(0, wide))
        gl.atomic_add(dskip_pointer + column, gl.sum(skip_sums, axis=0), sem="relaxed")
        gl.atomic_add(dskip_pointer + column + 1, gl.sum(next_skip_sums, axis=0), sem="relaxed")


__all__ = ["suits", "walk_back"]
