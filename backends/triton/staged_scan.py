"""The selective scan of NVIDIA's GPUs since Ampere, in Gluon: inputs of the next steps wait in shared memory.

A program's lanes hold CHANNELS channels, each lane HELD of a channel's states. Blocks of STEPS steps are copied into
shared memory while earlier blocks run, so that a lane never waits for memory. Gluon's layouts say which lane holds
what; plain Triton would move states between lanes at every step, or take seconds to compile.
"""

import torch
import triton

from .gluon_names import AMPERE, HAS_GLUON, architecture, async_copy, barrier, copy_pieces, gl, gluon, reinterpret
from .launch import aligned, launch

LANES = 32
MOST_STATES = 128  # whose sums of half-words fit int32
LEAST_STATES = 16  # bytes, the widest copy
CHANNELS_ALIGNED = 16  # of which the number of channels must be a multiple, so that rows can be copied
STEPS, STAGES, UNROLLED = 32, 3, 4
HELD = (16, 8, 4)  # states of a lane
WARPS = 384  # where there are fewer, a lane holds fewer states


def suits(x, states: int) -> bool:
    """Return whether the current target has the copies, and x of so many states per channel can be copied so."""
    _, length, channels = x.shape
    near = length * max(channels, MOST_STATES) < 1 << 31
    return architecture() >= AMPERE and channels % CHANNELS_ALIGNED == 0 and states <= MOST_STATES and near


def held_of(states: int, sequences: int) -> int:
    """Return how many of a channel's ``states`` a lane holds: many, unless the device's schedulers lack warps then."""
    fitting = [held for held in HELD if held >= states // 16]  # two channels per program, the narrowest copy
    return next((held for held in fitting if sequences * states >= WARPS * LANES * held), fitting[-1])


def scan(x, mod, base, b, c, skip, h, *, k, n_max, s_v, s_h, s_y, convex):
    """Scan a sequence whose decays have a base."""
    batch, length, channels = x.shape
    states = h.shape[-1]
    padded = max(LEAST_STATES, triton.next_power_of_2(states))
    b, c = (aligned(torch.nn.functional.pad(a, (0, padded - states))) for a in (b, c))
    held = held_of(padded, batch * channels)
    width = LANES * held // padded
    y, end = torch.empty(x.shape, dtype=torch.int16, device=x.device), torch.empty_like(h)
    inputs = (aligned(x), aligned(mod), base, b, c, skip, h)
    sizes = (length, channels, states)
    formats = {"n_max": n_max, "k": k, "s_v": s_v, "s_h": s_h, "s_y": s_y}
    signs = {"CONVEX": convex, "FINER": s_v < 0, "COARSER": s_h > 0}
    tile = {"CHANNELS": width, "STATES": padded, "HELD": held, "STEPS": STEPS, "STAGES": STAGES, "UNROLLED": UNROLLED}
    programs = triton.cdiv(channels, width) * batch
    launch(staged_scan_kernel, programs, (y, end), inputs, *sizes, **formats, **signs, **tile, num_warps=1)
    return y, end


if HAS_GLUON:
    CLAMPED = gl.constexpr("{ .reg .s32 t; add.s32 t, $1, $2; min.s32 t, t, $3; max.s32 $0, t, 0; }")
    # Four products of int16 x, each of them alone, and int8 of a word, plus four int32.
    PRODUCTS = gl.constexpr(
        "{ .reg .b32 low, high; and.b32 low, $4, 0xffff; shl.b32 high, $4, 16;"
        " dp2a.lo.s32.s32 $0, low, $8, $9; dp2a.lo.s32.s32 $1, high, $8, $10;"
        " dp2a.hi.s32.s32 $2, low, $8, $11; dp2a.hi.s32.s32 $3, high, $8, $12; }"
    )
    # Four states times int8 of a word: the sum over their low halves, that over their high halves, and two zeros.
    HALVES = gl.constexpr(
        "{ .reg .b32 a, b, none; mov.b32 none, 0;"
        " prmt.b32 a, $4, $5, 0x5410; prmt.b32 b, $6, $7, 0x5410;"
        " dp2a.lo.u32.s32 $0, a, $8, none; dp2a.hi.u32.s32 $0, b, $8, $0;"
        " prmt.b32 a, $4, $5, 0x7632; prmt.b32 b, $6, $7, 0x7632;"
        " dp2a.lo.s32.s32 $1, a, $8, none; dp2a.hi.s32.s32 $1, b, $8, $1;"
        " mov.b32 $2, none; mov.b32 $3, none; }"
    )

    @gluon.jit
    def step_of(
        h,
        base,
        x,
        mod,
        b,
        c,
        skip,
        formats,
        CONVEX: gl.constexpr,
        FINER: gl.constexpr,
        COARSER: gl.constexpr,
        lanes: gl.constexpr,
    ):
        """Return the states of a tile after a step, and y."""
        n_max, k, s_v, s_h, s_y = formats
        x, mod = x.to(gl.int32), mod.to(gl.int32)
        decay = [base, mod[:, None], n_max]
        n = gl.inline_asm_elementwise(CLAMPED, "=r,r,r,r", decay, dtype=gl.int32, is_pure=True, pack=1)
        xs, _ = gl.broadcast(x[:, None], h)
        bs, _ = gl.broadcast(b[None, :], h)
        cs, _ = gl.broadcast(c[None, :], h)
        half = 0 if FINER else (1 << s_v) >> 1
        results: gl.constexpr = "=&r,=&r,=&r,=&r,"
        factors = [xs, bs, gl.zeros_like(h) + half]
        v = gl.inline_asm_elementwise(
            PRODUCTS, results + "r,r,r,r,r,r,r,r,r", factors, dtype=gl.int32, is_pure=True, pack=4
        )
        v = v << -s_v if FINER else v >> s_v
        decaying = h - v if CONVEX else h
        h = ((decaying.to(gl.int64) * n) >> k.to(gl.int64)).to(gl.int32) + v
        factors = [h >> s_h if COARSER else h, cs]
        mixed = gl.inline_asm_elementwise(HALVES, results + "r,r,r,r,r", factors, dtype=gl.int32, is_pure=True, pack=4)
        low, high = gl.split(gl.reshape(mixed, [h.shape[0], h.shape[1] // 2, 2]))
        low, high = gl.convert_layout(gl.sum(low, axis=1), lanes), gl.convert_layout(gl.sum(high, axis=1), lanes)
        total = high.to(gl.int64) * 65536 + low + x.to(gl.int64) * skip
        rounded = (total + ((gl.full([], 1, gl.int64) << s_y.to(gl.int64)) >> 1)) >> s_y.to(gl.int64)
        return h, gl.minimum(gl.maximum(rounded, -32767), 32767).to(gl.int16)

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
    def copy_inputs(
        stages,
        stage,
        pointers,
        t,
        length,
        first,
        channels,
        wide: gl.constexpr,
        narrow: gl.constexpr,
        STEPS: gl.constexpr,
        CHANNELS: gl.constexpr,
        STATES: gl.constexpr,
    ):
        for i in gl.static_range(2):
            copy_steps(stages[i].index(stage), pointers[i], t, length, first, channels, wide, STEPS, CHANNELS)
        for i in gl.static_range(2, 4):
            copy_steps(stages[i].index(stage), pointers[i], t, length, 0, STATES, narrow, STEPS, STATES)
        async_copy.commit_group()

    @gluon.jit(do_not_specialize=["length", "states", "n_max", "k", "s_v", "s_h", "s_y"])
    def staged_scan_kernel(
        y_pointer,
        end_pointer,
        x_pointer,
        mod_pointer,
        base_pointer,
        b_pointer,
        c_pointer,
        skip_pointer,
        h_pointer,
        length,
        channels,
        states,
        n_max,
        k,
        s_v,
        s_h,
        s_y,
        CONVEX: gl.constexpr,
        FINER: gl.constexpr,
        COARSER: gl.constexpr,
        CHANNELS: gl.constexpr,
        STATES: gl.constexpr,
        HELD: gl.constexpr,
        STEPS: gl.constexpr,
        STAGES: gl.constexpr,
        UNROLLED: gl.constexpr,
    ):
        SLICES: gl.constexpr = STATES // HELD
        tile: gl.constexpr = gl.BlockedLayout([1, HELD], [32 // SLICES, SLICES], [1, 1], [1, 0])
        lanes: gl.constexpr = gl.SliceLayout(1, tile)
        slices: gl.constexpr = gl.SliceLayout(0, tile)
        # Pieces of 16 bytes.
        ACROSS: gl.constexpr = max(CHANNELS // 8, 1)
        wide: gl.constexpr = gl.BlockedLayout([1, min(CHANNELS, 8)], [32 // ACROSS, ACROSS], [1, 1], [1, 0])
        narrow: gl.constexpr = gl.BlockedLayout([1, 16], [512 // STATES, STATES // 16], [1, 1], [1, 0])
        rows: gl.constexpr = gl.SwizzledSharedLayout(1, 1, 1, [1, 0])
        row: gl.constexpr = gl.SwizzledSharedLayout(1, 1, 1, [0])
        stages = (
            gl.allocate_shared_memory(gl.int16, [STAGES, STEPS, CHANNELS], rows),
            gl.allocate_shared_memory(gl.int16, [STAGES, STEPS, CHANNELS], rows),
            gl.allocate_shared_memory(gl.int8, [STAGES, STEPS, STATES], rows),
            gl.allocate_shared_memory(gl.int8, [STAGES, STEPS, STATES], rows),
        )
        x_steps = reinterpret(stages[0], gl.int16, [STAGES * STEPS, CHANNELS], row)
        mod_steps = reinterpret(stages[1], gl.int16, [STAGES * STEPS, CHANNELS], row)
        b_steps = reinterpret(stages[2], gl.int8, [STAGES * STEPS, STATES], row)
        c_steps = reinterpret(stages[3], gl.int8, [STAGES * STEPS, STATES], row)
        blocks = gl.cdiv(channels, CHANNELS)
        first = gl.program_id(0) % blocks * CHANNELS
        batch = (gl.program_id(0) // blocks).to(gl.int64)
        pointers = (
            x_pointer + batch * length * channels,
            mod_pointer + batch * length * channels,
            b_pointer + batch * length * STATES,
            c_pointer + batch * length * STATES,
        )
        for i in gl.static_range(STAGES - 1):
            copy_inputs(stages, i, pointers, i * STEPS, length, first, channels, wide, narrow, STEPS, CHANNELS, STATES)
        channel = first + gl.arange(0, CHANNELS, lanes)
        state = gl.arange(0, STATES, slices)
        inside = (channel < channels)[:, None] & (state < states)[None, :]
        place = (batch * channels + channel)[:, None] * states + state[None, :]
        entry = channel.to(gl.int64)[:, None] * states + state[None, :]
        h = gl.load(h_pointer + place, mask=inside, other=0)
        base = gl.load(base_pointer + entry, mask=inside, other=0).to(gl.int32)
        skip = gl.load(skip_pointer + channel, mask=channel < channels, other=0).to(gl.int64)
        formats = (n_max, k, s_v, s_h, s_y)
        y_pointer += batch * length * channels
        stage = 0
        for t in range(0, length, STEPS):
            barrier()  # every lane has read the stage that is copied into
            ahead, into = t + (STAGES - 1) * STEPS, (stage + STAGES - 1) % STAGES
            copy_inputs(stages, into, pointers, ahead, length, first, channels, wide, narrow, STEPS, CHANNELS, STATES)
            async_copy.wait_group(STAGES - 1)
            barrier()
            count = gl.minimum(STEPS, length - t)
            whole = count - count % UNROLLED
            for u in range(0, whole, UNROLLED):
                for i in gl.static_range(UNROLLED):
                    at = stage * STEPS + u + i
                    x, mod = x_steps.index(at).load(lanes), mod_steps.index(at).load(lanes)
                    b, c = b_steps.index(at).load(slices), c_steps.index(at).load(slices)
                    h, y = step_of(h, base, x, mod, b, c, skip, formats, CONVEX, FINER, COARSER, lanes)
                    gl.store(y_pointer + (t + u + i) * channels + channel, y, mask=channel < channels)
            for u in range(whole, count):
                at = stage * STEPS + u
                x, mod = x_steps.index(at).load(lanes), mod_steps.index(at).load(lanes)
                b, c = b_steps.index(at).load(slices), c_steps.index(at).load(slices)
                h, y = step_of(h, base, x, mod, b, c, skip, formats, CONVEX, FINER, COARSER, lanes)
                gl.store(y_pointer + (t + u) * channels + channel, y, mask=channel < channels)
            stage = (stage + 1) % STAGES
        gl.store(end_pointer + place, h, mask=inside)


__all__ = ["scan", "suits"]
