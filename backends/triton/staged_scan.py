"""The selective scan of NVIDIA's GPUs since Ampere, in Gluon: sums over the states run on tensor cores.

A program holds CHANNELS channels, a warp STATES_OF_WARP of their states. A lane's states lie as the tensor cores take
the first operand of a product of bytes: two channels by two states, four bytes each. So the sum over the states of
h c is a product of h's bytes with a matrix of which column j holds c where byte j meets it and zero elsewhere: exact,
and without moving a state between lanes. Two steps share a product's eight columns. The outputs of a block of steps
are rounded after the block, each by one lane. The next block's inputs are loaded before this block's arithmetic.
"""

import torch
import triton

from mamba_integer.spec.ops.scan import sum_dtypes

from .gluon_names import AMPERE, HAS_GLUON, architecture, barrier, gl, gluon, processors, reinterpret
from .instructions import has_little_room
from .launch import aligned, ceil_div, launch, with_columns
from .staged_outputs import WHOLE_BYTES, is_near
from .staged_steps import known_k

CHANNELS = 16  # of a program; their number must be a multiple
STATES_OF_WARP = 8  # two per lane
MOST_STATES = 128  # whose sums of half-words fit int32, and x skip beside them
LEAST_STATES = 16  # bytes, a wide load
FEW_STATES = 32  # of which a program has twice as many channels
MOST_OF_LITTLE_ROOM = 64  # states of as many channels, where a program has little shared memory
LONG = 4096  # steps of a sequence whose programs have fewer channels if processors are left
STEPS, PART = 32, 8  # of a block without outputs; of these steps so many are unrolled
# The room for states and the channels whose blocks with outputs have half the steps; all of these are unrolled (H200).
HALVED = (32, 16), (32, 32), (64, 16)
REGISTERS = 168  # of a lane, so that a scheduler has three warps; by itself ptxas stops at 128
MOST_WARPS = 12  # of so many registers


def suits(x, states: int) -> bool:
    """Return whether the current target has the products, and x of so many states per channel can be loaded so."""
    _, length, channels = x.shape
    near = length * max(channels, MOST_STATES) < 1 << 31
    return architecture() >= AMPERE and channels % CHANNELS == 0 and states <= MOST_STATES and near


def scan(x, mod, base, b, c, skip, h, *, k, n_max, s_v, s_h, s_y, convex):
    """Scan a sequence whose decays have a base."""
    b, c = (padded(mixture) for mixture in (b, c))
    y = torch.empty(x.shape, dtype=torch.int16, device=x.device)
    end = torch.empty(h.shape, dtype=torch.int32, device=x.device)
    formats = {"n_max": n_max, "k": k, "s_v": s_v, "s_h": s_h, "s_y": s_y}
    _, rounded = sum_dtypes(h.shape[-1], **formats, convex=convex)
    formats |= {"CONVEX": convex, "FAR": rounded != "int32"}
    run(y, end, x, mod, base, b, c, skip, h, formats)
    return y, end


def starts_of(x, mod, base, b, h, formats, kept):
    """Return the states before each ``kept`` steps, [batch, blocks, channels, room for states]."""
    batch, length, channels = x.shape
    starts = torch.empty(
        (batch, triton.cdiv(length, kept), channels, room_of(h.shape[-1])), dtype=torch.int32, device=x.device
    )
    run(None, starts, x, mod, base, b, None, None, h, formats | {"s_h": 0, "s_y": 0, "FAR": False}, kept)
    return starts


def room_of(states: int) -> int:
    """Return how many states a kernel has room for."""
    return max(LEAST_STATES, triton.next_power_of_2(states))


def padded(mixture):
    """Return b or c with zeros up to a whole number of words."""
    return aligned(with_columns(mixture, 4))


def words_of(*arrays):
    """Return the int32 words of arrays of int16 and int8."""
    return [aligned(array).view(torch.int32) for array in arrays]


def channels_of(channels: int, states: int, few: int) -> int:
    """Return how many channels a program has: as many as shared memory has banks where their states are ``few``."""
    return 2 * CHANNELS if states <= few and channels % (2 * CHANNELS) == 0 else CHANNELS


def width_of(x, states: int, outputs: bool) -> int:
    """Return how many channels a program of x has: a long wait for its warps is shorter where they are fewer.

    With many states a processor runs one or two programs. So their channels are doubled where that halves the rounds.
    """
    batch, length, channels = x.shape
    few = channels_of(channels, states, FEW_STATES)
    if states <= FEW_STATES:
        spread = length >= LONG and 2 * (channels // few) * batch <= processors(x.device)
        return CHANNELS if spread else few
    many = channels_of(channels, states, MOST_OF_LITTLE_ROOM if has_little_room() else MOST_STATES)
    rounds, wide_rounds = (ceil_div(channels // width * batch, processors(x.device)) for width in (CHANNELS, many))
    return many if outputs and rounds >= 2 * wide_rounds else CHANNELS


def states_of_warp(states: int) -> int:
    """Return how many states a warp has: a lane with more spends less on its inputs, but of few there are few warps."""
    return STATES_OF_WARP if states <= LEAST_STATES else 2 * STATES_OF_WARP


def run(y, end, x, mod, base, b, c, skip, h, formats, kept=1):
    batch, length, channels = x.shape
    states = room_of(h.shape[-1])
    kind = {"FLOAT": formats["s_v"] > 0, "COARSER": formats["s_h"] not in WHOLE_BYTES, "OUTPUTS": y is not None}
    width = width_of(x, states, y is not None)
    programs = channels // width * batch
    steps = STEPS // 2 if y is not None and (states, width) in HALVED else STEPS
    part = PART if y is None else steps
    tile = {"CHANNELS": width, "STATES": states, "STEPS": steps, "PART": part, "STATES_OF_WARP": states_of_warp(states)}
    tile |= {"KEPT": kept, "K": known_k(formats["k"])}
    kind["NEAR"] = y is not None and is_near(formats["s_h"], formats["s_y"])
    warps = states // states_of_warp(states) * (width // CHANNELS)
    results = (end if y is None else y, end)
    words = words_of(x, mod, b, b if c is None else c)
    inputs = (*words[:2], base, *words[2:], base if skip is None else skip, h)
    sizes = (length, channels, h.shape[-1], b.shape[-1] // 4)
    options = {"num_warps": warps}
    if y is not None and warps <= MOST_WARPS:
        options["maxnreg"] = REGISTERS
    launch(staged_scan_kernel, programs, results, inputs, *sizes, **formats, **kind, **tile, **options)


if HAS_GLUON:
    from .staged_outputs import column_selectors, excess_of, put_excess, put_outputs, read_of
    from .staged_products import paired_products, products
    from .staged_steps import (
        BIAS,
        joined,
        load_steps,
        pairs_of,
        put_activations,
        scaled_inputs,
        state_of,
        step_formats,
        unsigned_bytes,
    )

    @gluon.jit
    def put_mixtures(rows, b, c, s_v, OUTPUTS: gl.constexpr, FLOAT: gl.constexpr):
        """Store a scaled b beside its c, as a byte without sign, of words of four states into shared memory."""
        scaled = scaled_inputs(b, s_v, FLOAT).to(gl.int32, bitcast=True)
        if OUTPUTS:
            rows.store(gl.reshape(gl.join(scaled, unsigned_bytes(c)), [b.shape[0], 8 * b.shape[1]]))
        else:
            rows.store(gl.reshape(scaled, [b.shape[0], 4 * b.shape[1]]))

    @gluon.jit
    def mixtures_of(rows, u, loaded: gl.constexpr, layout: gl.constexpr, OUTPUTS: gl.constexpr):
        """Return a step's b and c; without outputs, b alone, twice."""
        if OUTPUTS:
            return pairs_of(rows, u, loaded, layout)
        else:
            b = rows.index(u).load(layout)
            return b, b

    @gluon.jit
    def inputs_of(
        activations,
        mixtures,
        u,
        paired_lanes: gl.constexpr,
        lanes: gl.constexpr,
        paired_slices: gl.constexpr,
        slices: gl.constexpr,
        OUTPUTS: gl.constexpr,
        FLOAT: gl.constexpr,
    ):
        """Return a step's x, modulation, b and c."""
        x, mod = pairs_of(activations, u, paired_lanes, lanes)
        b, c = mixtures_of(mixtures, u, paired_slices, slices, OUTPUTS)
        if FLOAT:
            return x.to(gl.float32, bitcast=True), mod, b.to(gl.float32, bitcast=True), c
        else:
            return x, mod, b, c

    @gluon.jit
    def load_inputs(
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
        OUTPUTS: gl.constexpr,
    ):
        x = load_steps(pointers[0], t, length, first, channels, wide, STEPS, CHANNELS // 2)
        mod = load_steps(pointers[1], t, length, first, channels, wide, STEPS, CHANNELS // 2)
        b = load_steps(pointers[2], t, length, 0, words, narrow, STEPS, STATES // 4)
        c = load_steps(pointers[3], t, length, 0, words, narrow, STEPS, STATES // 4) if OUTPUTS else b
        return x, mod, b, c

    @gluon.jit(do_not_specialize=["length", "states", "words", "n_max", "k", "s_v", "s_h", "s_y"])
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
        words,
        n_max,
        k,
        s_v,
        s_h,
        s_y,
        CONVEX: gl.constexpr,
        COARSER: gl.constexpr,
        OUTPUTS: gl.constexpr,
        FAR: gl.constexpr,
        CHANNELS: gl.constexpr,
        STATES: gl.constexpr,
        STEPS: gl.constexpr,
        STATES_OF_WARP: gl.constexpr,
        KEPT: gl.constexpr,
        K: gl.constexpr,
        PART: gl.constexpr,
        NEAR: gl.constexpr,
        FLOAT: gl.constexpr,
    ):
        """Scan; with outputs keep y and the last states, without them the states before each KEPT steps."""
        ACROSS: gl.constexpr = STATES // STATES_OF_WARP
        HELD: gl.constexpr = STATES_OF_WARP // 4  # states of a lane
        DOWN_WARPS: gl.constexpr = CHANNELS // 16
        WARPS: gl.constexpr = ACROSS * DOWN_WARPS
        warps: gl.constexpr = [DOWN_WARPS, ACROSS]
        tile: gl.constexpr = gl.BlockedLayout([2, HELD], [8, 4], warps, [1, 0])
        product_tile: gl.constexpr = gl.BlockedLayout([2, 2], [8, 4], warps, [1, 0])
        lanes: gl.constexpr = gl.SliceLayout(1, tile)
        slices: gl.constexpr = gl.SliceLayout(0, tile)
        paired_lanes: gl.constexpr = gl.SliceLayout(1, gl.BlockedLayout([4, HELD], [8, 4], warps, [1, 0]))
        paired_slices: gl.constexpr = gl.SliceLayout(0, gl.BlockedLayout([2, 2 * HELD], [8, 4], warps, [1, 0]))
        PIECE: gl.constexpr = max(min(STEPS * CHANNELS // (64 * WARPS), 2), 1)
        wide: gl.constexpr = gl.BlockedLayout(
            [1, PIECE], [64 * PIECE // CHANNELS, CHANNELS // 2 // PIECE], [WARPS, 1], [1, 0]
        )
        narrow: gl.constexpr = gl.BlockedLayout([1, 1], [128 // STATES, STATES // 4], [WARPS, 1], [1, 0])
        rows: gl.constexpr = gl.SwizzledSharedLayout(1, 1, 1, [1, 0])
        # Sums of half a warp's lanes lie in different banks.
        columns: gl.constexpr = gl.SwizzledSharedLayout(8, 32 // CHANNELS, CHANNELS // 8, [0, 1])
        sums_rows: gl.constexpr = gl.SwizzledSharedLayout(8, 32 // CHANNELS, CHANNELS // 8, [1, 0])
        row: gl.constexpr = gl.SwizzledSharedLayout(1, 1, 1, [0])
        MIXED: gl.constexpr = 2 if OUTPUTS else 1  # b and its c, or b
        activation_rows = gl.allocate_shared_memory(gl.int32, [STEPS, 2 * CHANNELS], rows)
        mixture_rows = gl.allocate_shared_memory(gl.int32, [STEPS, MIXED * STATES], rows)
        x_words = gl.allocate_shared_memory(gl.int32, [STEPS, CHANNELS // 2], rows)
        x_rows = reinterpret(x_words, gl.int16, [STEPS, CHANNELS], rows)
        activations = reinterpret(activation_rows, gl.int32, [STEPS, 2 * CHANNELS], row)
        mixtures = reinterpret(mixture_rows, gl.int32, [STEPS, MIXED * STATES], row)
        excess_rows = gl.allocate_shared_memory(gl.int32, [2 if COARSER else 1, STEPS], row)
        PAIRS: gl.constexpr = STEPS // 2
        SUMS: gl.constexpr = STATES // HELD
        PARTS: gl.constexpr = STEPS // PART
        # Sums of pairs of steps, which are stored at once; channels lie side by side.
        turned: gl.constexpr = gl.SwizzledSharedLayout(8, 32 // CHANNELS, CHANNELS // 8, [0, 1, 2])
        every_sum = gl.allocate_shared_memory(gl.int32, [PARTS, CHANNELS, SUMS, PART // 2], turned)
        pair_sums = reinterpret(every_sum, gl.int32, [PAIRS, CHANNELS, SUMS], columns)
        sum_rows = reinterpret(every_sum, gl.int32, [PAIRS * SUMS, CHANNELS], sums_rows)
        WIDTH: gl.constexpr = max(min(PAIRS * CHANNELS // (32 * WARPS), 4), 1)
        whole_sums: gl.constexpr = gl.BlockedLayout(
            [SUMS, WIDTH], [32 * WIDTH // CHANNELS, CHANNELS // WIDTH], [WARPS, 1], [1, 0]
        )
        outputs: gl.constexpr = gl.BlockedLayout(
            [2, WIDTH], [32 * WIDTH // CHANNELS, CHANNELS // WIDTH], [WARPS, 1], [1, 0]
        )

        blocks = gl.cdiv(channels, CHANNELS)
        first = gl.program_id(0) % blocks * CHANNELS
        batch = (gl.program_id(0) // blocks).to(gl.int64)
        pointers = (
            x_pointer + batch * length * (channels // 2),
            mod_pointer + batch * length * (channels // 2),
            b_pointer + batch * length * words,
            c_pointer + batch * length * words,
        )
        lane = gl.arange(0, CHANNELS, lanes)
        channel = first + lane
        state = gl.arange(0, STATES, slices)
        inside = (channel < channels)[:, None] & (state < states)[None, :]
        place = (batch * channels + channel)[:, None] * states + state[None, :]
        entry = channel.to(gl.int64)[:, None] * states + state[None, :]
        h = gl.load(h_pointer + place, mask=inside, other=0)
        base = gl.load(base_pointer + entry, mask=inside, other=0).to(gl.int32)
        BIASED: gl.constexpr = CONVEX and OUTPUTS
        if BIASED:
            h += BIAS
        formats = step_formats(n_max, k, s_v, BIASED)
        dropped = s_h * 0 if COARSER else s_h
        excess = excess_of(s_h, s_y, COARSER, BIASED, NEAR)
        even, odd = column_selectors(dropped, CHANNELS, product_tile)
        WIDE: gl.constexpr = HELD == 4

        kept_place = (batch * gl.cdiv(length, KEPT) * channels + channel)[:, None] * STATES + state[None, :]
        kept_pointer = end_pointer + (place if OUTPUTS else kept_place)
        y_pointer += batch * length * channels
        x_ahead, mod_ahead, b_ahead, c_ahead = load_inputs(
            pointers,
            0,
            length,
            first // 2,
            channels // 2,
            words,
            wide,
            narrow,
            STEPS,
            CHANNELS,
            STATES,
            OUTPUTS,
        )
        skip = gl.load(skip_pointer + first + gl.arange(0, CHANNELS, gl.SliceLayout(0, outputs))).to(gl.int32)
        for t in range(0, length, STEPS):
            barrier()  # every lane has read the block before
            if OUTPUTS:
                x_words.store(x_ahead)
            put_activations(activation_rows, x_ahead, mod_ahead, FLOAT)
            put_mixtures(mixture_rows, b_ahead, c_ahead, s_v, OUTPUTS, FLOAT)
            if OUTPUTS:
                put_excess(excess_rows, c_ahead, excess, COARSER)
            x_ahead, mod_ahead, b_ahead, c_ahead = load_inputs(
                pointers,
                t + STEPS,
                length,
                first // 2,
                channels // 2,
                words,
                wide,
                narrow,
                STEPS,
                CHANNELS,
                STATES,
                OUTPUTS,
            )
            barrier()
            count = gl.minimum(STEPS, length - t)
            zeros = gl.zeros([CHANNELS, 2 * SUMS], gl.int32, product_tile)
            if count == STEPS:
                for part in range(PARTS):
                    sums = ()
                    for v in gl.static_range(PART):
                        u = part * PART + v
                        if not OUTPUTS and v % KEPT == 0:
                            gl.store(kept_pointer, h)
                            kept_pointer += channels * STATES
                        x, mod, b, c = inputs_of(
                            activations, mixtures, u, paired_lanes, lanes, paired_slices, slices, OUTPUTS, FLOAT
                        )
                        h, _ = state_of(h, base, x, mod, b, formats, CONVEX, FLOAT, BIASED, K)
                        if OUTPUTS:
                            read = read_of(h, s_h, COARSER, BIASED)
                            if v % 2 == 0:
                                first_sums = products(read, c, even, zeros, product_tile, WIDE)
                            else:
                                sums = sums + (paired_products(read, c, odd, first_sums, product_tile, WIDE),)  # noqa: RUF005
                    if OUTPUTS:
                        every_sum.index(part).store(gl.reshape(joined(sums), [CHANNELS, SUMS, PART // 2]))
            else:
                first_sums = zeros
                for u in range(count):
                    if not OUTPUTS:
                        gl.store(kept_pointer + u // KEPT * channels * STATES, h, mask=u % KEPT == 0)
                    x, mod, b, c = inputs_of(
                        activations, mixtures, u, paired_lanes, lanes, paired_slices, slices, OUTPUTS, FLOAT
                    )
                    h, _ = state_of(h, base, x, mod, b, formats, CONVEX, FLOAT, BIASED, K)
                    if OUTPUTS:
                        read = read_of(h, s_h, COARSER, BIASED)
                        second = u % 2
                        selector = gl.where(second == 1, odd, even)
                        sums = paired_products(read, c, selector, first_sums * second, product_tile, WIDE)
                        pair_sums.index(u // 2).store(sums)
                        first_sums = products(read, c, even, zeros, product_tile, WIDE)
            if OUTPUTS:
                barrier()
                sums = gl.reshape(sum_rows.load(whole_sums), [PAIRS, SUMS // 4, 2, 2, CHANNELS])
                put_outputs(
                    y_pointer,
                    skip,
                    sums,
                    x_rows,
                    t,
                    length,
                    first,
                    channels,
                    s_y,
                    dropped,
                    excess_rows,
                    FAR,
                    NEAR,
                    COARSER,
                    STEPS,
                    outputs,
                )
        if OUTPUTS:
            gl.store(kept_pointer, h - BIAS if BIASED else h, mask=inside)


__all__ = ["scan", "suits"]
