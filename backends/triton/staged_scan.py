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
    b, c = (padded(mixture) for mixture in (b, c))
    y, end = torch.empty(x.shape, dtype=torch.int16, device=x.device), torch.empty_like(h)
    formats = {"n_max": n_max, "k": k, "s_v": s_v, "s_h": s_h, "s_y": s_y, "CONVEX": convex}
    run(y, end, x, mod, base, b, c, skip, h, formats, STEPS)
    return y, end


def starts_of(x, mod, base, b, h, formats, steps):
    """Return the states before each block of steps: of a padded mixture b, [batch, blocks, channels, states]."""
    batch, length, channels = x.shape
    starts = torch.empty((batch, triton.cdiv(length, steps), channels, b.shape[-1]), dtype=torch.int32, device=x.device)
    run(None, starts, x, mod, base, b, None, None, h, formats | {"s_h": 0, "s_y": 0}, steps)
    return starts


def padded(mixture):
    """Return b or c with zeros up to a power of two of states."""
    states = mixture.shape[-1]
    return aligned(torch.nn.functional.pad(mixture, (0, max(LEAST_STATES, triton.next_power_of_2(states)) - states)))


def run(y, end, x, mod, base, b, c, skip, h, formats, steps):
    batch, length, channels = x.shape
    states = b.shape[-1]
    held = held_of(states, batch * channels)
    width = LANES * held // states
    signs = {"FINER": formats["s_v"] < 0, "COARSER": formats["s_h"] > 0, "OUTPUTS": y is not None}
    tile = {"CHANNELS": width, "STATES": states, "HELD": held, "STEPS": steps, "STAGES": STAGES, "UNROLLED": UNROLLED}
    results = (end if y is None else y, end)
    inputs = (aligned(x), aligned(mod), base, b, b if c is None else c, base if skip is None else skip, h)
    programs = triton.cdiv(channels, width) * batch
    sizes = (length, channels, h.shape[-1])
    launch(staged_scan_kernel, programs, results, inputs, *sizes, **formats, **signs, **tile, num_warps=1)


if HAS_GLUON:
    CLAMPED = gl.constexpr("{ .reg .s32 t; add.s32 t, $1, $2; min.s32 t, t, $3; max.s32 $0, t, 0; }")

    @gluon.jit
    def clamped_sum(a, b, highest):
        """Return a + b, clamped to [0, highest]."""
        return gl.inline_asm_elementwise(CLAMPED, "=r,r,r,r", [a, b, highest], dtype=gl.int32, is_pure=True, pack=1)

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
    def output_of(h, x, c, skip, s_h, s_y, COARSER: gl.constexpr, lanes: gl.constexpr):
        total = state_sums(h >> s_h if COARSER else h, c, lanes) + x.to(gl.int64) * skip
        rounded = (total + ((gl.full([], 1, gl.int64) << s_y.to(gl.int64)) >> 1)) >> s_y.to(gl.int64)
        return gl.minimum(gl.maximum(rounded, -32767), 32767).to(gl.int16)

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
        OUTPUTS: gl.constexpr,
    ):
        """Scan; with outputs keep y and the last states, without them the states before each block of steps."""
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
        # The mixtures of a block in int32: lanes would else widen them at every step, each for itself.
        b_rows = gl.allocate_shared_memory(gl.int32, [STEPS, STATES], rows)
        c_rows = gl.allocate_shared_memory(gl.int32, [STEPS, STATES], rows)
        b_steps = reinterpret(b_rows, gl.int32, [STEPS, STATES], row)
        c_steps = reinterpret(c_rows, gl.int32, [STEPS, STATES], row)
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
        formats = (n_max, k, s_v)
        y_pointer += batch * length * channels
        stage = 0
        for t in range(0, length, STEPS):
            barrier()  # every lane has read the stage that is copied into
            ahead, into = t + (STAGES - 1) * STEPS, (stage + STAGES - 1) % STAGES
            copy_inputs(stages, into, pointers, ahead, length, first, channels, wide, narrow, STEPS, CHANNELS, STATES)
            async_copy.wait_group(STAGES - 1)
            barrier()
            b_rows.store(stages[2].index(stage).load(narrow).to(gl.int32))
            c_rows.store(stages[3].index(stage).load(narrow).to(gl.int32))
            barrier()
            if not OUTPUTS:
                kept = (batch * gl.cdiv(length, STEPS) + t // STEPS) * channels + channel
                gl.store(end_pointer + kept[:, None] * STATES + state[None, :], h, mask=(channel < channels)[:, None])
            count = gl.minimum(STEPS, length - t)
            whole = count - count % UNROLLED
            for u in range(0, whole, UNROLLED):
                for i in gl.static_range(UNROLLED):
                    at = stage * STEPS + u + i
                    x, mod = x_steps.index(at).load(lanes).to(gl.int32), mod_steps.index(at).load(lanes)
                    b, c = b_steps.index(u + i).load(slices), c_steps.index(u + i).load(slices)
                    h = state_of(h, base, x, mod.to(gl.int32), b, formats, CONVEX, FINER)
                    if OUTPUTS:
                        y = output_of(h, x, c, skip, s_h, s_y, COARSER, lanes)
                        gl.store(y_pointer + (t + u + i) * channels + channel, y, mask=channel < channels)
            for u in range(whole, count):
                at = stage * STEPS + u
                x, mod = x_steps.index(at).load(lanes).to(gl.int32), mod_steps.index(at).load(lanes)
                b, c = b_steps.index(u).load(slices), c_steps.index(u).load(slices)
                h = state_of(h, base, x, mod.to(gl.int32), b, formats, CONVEX, FINER)
                if OUTPUTS:
                    y = output_of(h, x, c, skip, s_h, s_y, COARSER, lanes)
                    gl.store(y_pointer + (t + u) * channels + channel, y, mask=channel < channels)
            stage = (stage + 1) % STAGES
        if OUTPUTS:
            gl.store(end_pointer + place, h, mask=inside)


__all__ = ["scan", "suits"]
