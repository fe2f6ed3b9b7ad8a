"""The selective scan of NVIDIA's GPUs since Ampere, in Gluon: sums over the states run on tensor cores.

A program holds CHANNELS channels, a warp STATES_OF_WARP of their states. A lane's states lie as the tensor cores take
the first operand of a product of bytes: two channels by two states, four bytes each. So the sum over the states of
h c is a product of h's bytes with a matrix of which column j holds c where byte j meets it and zero elsewhere: exact,
and without moving a state between lanes. Two steps share a product's eight columns. What a block of steps leaves is
rounded after the block, each output by one lane. The next block's inputs are loaded before this block's arithmetic.
"""

import torch
import triton

from mamba_integer.spec.ops.scan import sum_dtypes

from .gluon_names import AMPERE, HAS_GLUON, architecture, barrier, gl, gluon, processors, reinterpret
from .launch import aligned, launch, with_columns
from .staged_steps import known_k

CHANNELS = 16  # of a program; their number must be a multiple
STATES_OF_WARP = 8  # two per lane
MOST_STATES = 128  # whose sums of half-words fit int32
LEAST_STATES = 16  # bytes, a wide load
FEW_STATES = 32  # of which a program has twice as many channels
LONG = 4096  # steps of a sequence whose programs have fewer channels if processors are left
STEPS = 32  # of a block, half as many where the sums of many states would fill registers and shared memory
PART = 8  # steps of a block that are unrolled
SEVERAL_STATES = 64  # whose sums leave room for blocks of all steps, in parts
# Bits by which x times a scaled b is shifted down to v: known to the kernel, while b's scale is not.
SHIFTS = (10, 20, 22)
WHOLE_BYTES = (0, 8, 16)  # that a state loses before c meets it: the products leave them out


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
    """Return the states before each ``kept`` steps: of a padded mixture b, [batch, blocks, channels, states]."""
    batch, length, channels = x.shape
    starts = torch.empty((batch, triton.cdiv(length, kept), channels, b.shape[-1]), dtype=torch.int32, device=x.device)
    run(None, starts, x, mod, base, b, None, None, h, formats | {"s_h": 0, "s_y": 0, "FAR": False}, kept)
    return starts


def padded(mixture):
    """Return b or c with zeros up to a power of two of states."""
    return aligned(with_columns(mixture, max(LEAST_STATES, triton.next_power_of_2(mixture.shape[-1]))))


def words_of(*arrays):
    """Return the int32 words of arrays of int16 and int8."""
    return [aligned(array).view(torch.int32) for array in arrays]


def shift_of(s_v: int) -> int:
    """Return the shift that makes v of x times b scaled by the rest; 0 where b is scaled up or not at all."""
    return next(shift for shift in SHIFTS if shift >= s_v) if s_v > 0 else 0


def channels_of(channels: int, states: int, few: int) -> int:
    """Return how many channels a program has: as many as shared memory has banks where their states are ``few``."""
    return 2 * CHANNELS if states <= few and channels % (2 * CHANNELS) == 0 else CHANNELS


def width_of(x, states: int) -> int:
    """Return how many channels a program of x has: a long wait for its warps is shorter where they are fewer."""
    batch, length, channels = x.shape
    width = channels_of(channels, states, FEW_STATES)
    spread = length >= LONG and 2 * (channels // width) * batch <= processors(x.device)
    return CHANNELS if spread else width


def states_of_warp(states: int) -> int:
    """Return how many states a warp has: a lane with more spends less on its inputs, but of few there are few warps."""
    return STATES_OF_WARP if states <= LEAST_STATES else 2 * STATES_OF_WARP


def parts_of(states: int, outputs: bool, crowded: bool, down: int) -> tuple[int, int, bool]:
    """Return the steps of a block, how many of them are unrolled, and whether the kernel may know k.

    A kernel that knows k spends one instruction less per state where v isn't shifted. A block in parts takes fewer
    registers. Both lengthen the wait for a step, so they pay where a processor has several programs to fill it.
    """
    if not outputs:
        return STEPS, PART, True
    if LEAST_STATES < states <= SEVERAL_STATES and crowded:
        return STEPS, 2 * PART, True
    if states <= LEAST_STATES and crowded and not down:
        return STEPS, PART, True
    steps = STEPS if states <= LEAST_STATES else STEPS // 2
    return steps, steps, False


def run(y, end, x, mod, base, b, c, skip, h, formats, kept=1):
    batch, length, channels = x.shape
    states = b.shape[-1]
    down = shift_of(formats["s_v"])
    kind = {"DOWN": down, "COARSER": formats["s_h"] not in WHOLE_BYTES, "OUTPUTS": y is not None}
    width = width_of(x, states)
    programs = channels // width * batch
    steps, part, known = parts_of(states, y is not None, programs > processors(x.device), down)
    tile = {"CHANNELS": width, "STATES": states, "STEPS": steps, "PART": part, "STATES_OF_WARP": states_of_warp(states)}
    tile |= {"KEPT": kept, "K": known_k(formats["k"]) if known else 0}
    warps = states // states_of_warp(states) * (width // CHANNELS)
    results = (end if y is None else y, end)
    words = words_of(x, mod, b, b if c is None else c)
    inputs = (*words[:2], base, *words[2:], base if skip is None else skip, h)
    sizes = (length, channels, h.shape[-1])
    launch(staged_scan_kernel, programs, results, inputs, *sizes, **formats, **kind, **tile, num_warps=warps)


if HAS_GLUON:
    from .staged_products import paired_products, products
    from .staged_steps import (
        joined,
        load_steps,
        pairs_of,
        put_activations,
        scaled_bytes,
        state_of,
        unsigned_bytes,
    )

    # x skip + half + 2**16 high + low, over 2**shift, saturated.
    ROUNDED = gl.constexpr(
        "{ .reg .s64 sum; .reg .b32 word, above;"
        " mov.b64 {word, above}, $3; mad.lo.cc.s32 word, $1, $2, word; madc.hi.s32 above, $1, $2, above;"
        " mad.lo.cc.s32 word, $4, 65536, word; madc.hi.s32 above, $4, 65536, above;"
        " mad.lo.cc.s32 word, $5, 1, word; madc.hi.s32 above, $5, 1, above; mov.b64 sum, {word, above};"
        " shr.s64 sum, sum, $6; cvt.u32.u64 word, sum; min.s32 word, word, 32767; max.s32 $0, word, -32767; }"
    )
    # The same of a result beyond 32 bits: it is saturated to them first, whose comparisons are cheaper.
    FAR_ROUNDED = gl.constexpr(
        "{ .reg .s64 sum; .reg .b32 word, above, sign; .reg .pred fits;"
        " mov.b64 {word, above}, $3; mad.lo.cc.s32 word, $1, $2, word; madc.hi.s32 above, $1, $2, above;"
        " mad.lo.cc.s32 word, $4, 65536, word; madc.hi.s32 above, $4, 65536, above;"
        " mad.lo.cc.s32 word, $5, 1, word; madc.hi.s32 above, $5, 1, above; mov.b64 sum, {word, above};"
        " shr.s64 sum, sum, $6; mov.b64 {word, above}, sum;"
        " shr.s32 sign, word, 31; setp.eq.s32 fits, sign, above;"
        " shr.s32 sign, above, 31; xor.b32 sign, sign, 0x7fffffff; selp.b32 word, word, sign, fits;"
        " min.s32 word, word, 32767; max.s32 $0, word, -32767; }"
    )

    @gluon.jit
    def put_mixtures(rows, b, c, spare, OUTPUTS: gl.constexpr):
        """Store a scaled b beside its c, as a byte without sign, of words of four states into shared memory."""
        if OUTPUTS:
            both = gl.join(scaled_bytes(b, spare), unsigned_bytes(c))
            rows.store(gl.reshape(both, [b.shape[0], 8 * b.shape[1]]))
        else:
            rows.store(gl.reshape(scaled_bytes(b, spare), [b.shape[0], 4 * b.shape[1]]))

    @gluon.jit
    def mixtures_of(rows, u, loaded: gl.constexpr, layout: gl.constexpr, OUTPUTS: gl.constexpr):
        """Return a step's b and c; without outputs, b alone, twice."""
        if OUTPUTS:
            return pairs_of(rows, u, loaded, layout)
        else:
            b = rows.index(u).load(layout)
            return b, b

    @gluon.jit
    def load_inputs(
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
        OUTPUTS: gl.constexpr,
    ):
        x = load_steps(pointers[0], t, length, first, channels, wide, STEPS, CHANNELS // 2)
        mod = load_steps(pointers[1], t, length, first, channels, wide, STEPS, CHANNELS // 2)
        b = load_steps(pointers[2], t, length, 0, STATES // 4, narrow, STEPS, STATES // 4)
        c = load_steps(pointers[3], t, length, 0, STATES // 4, narrow, STEPS, STATES // 4) if OUTPUTS else b
        return x, mod, b, c

    @gluon.jit
    def put_outputs(
        y_pointer,
        skip_pointer,
        sums,
        x_rows,
        t,
        length,
        first,
        channels,
        s_y,
        dropped,
        FAR: gl.constexpr,
        STEPS: gl.constexpr,
    ):
        """Round a block's outputs, of sums over some states [STEPS / 2, states, 2 steps, 2 halves, CHANNELS]."""
        low, high = gl.split(gl.permute(gl.sum(sums, axis=1), (0, 1, 3, 2)))
        CHANNELS: gl.constexpr = low.shape[2]
        low, high = gl.reshape(low, [STEPS, CHANNELS]), gl.reshape(high, [STEPS, CHANNELS])
        layout: gl.constexpr = low.type.layout
        x = x_rows.load(layout).to(gl.int32)
        step = t + gl.arange(0, STEPS, gl.SliceLayout(1, layout))
        channel = first + gl.arange(0, CHANNELS, gl.SliceLayout(0, layout))
        # The sum is 2**dropped times too large, and is far from overflow.
        skip = gl.load(skip_pointer + channel).to(gl.int32) << dropped
        shift = s_y + dropped
        half = (gl.full([], 1, gl.int64) << shift.to(gl.int64)) >> 1
        arguments = [x, skip[None, :], half, high, low, shift]
        rule: gl.constexpr = FAR_ROUNDED if FAR else ROUNDED
        y = gl.inline_asm_elementwise(rule, "=r,r,r,l,r,r,r", arguments, dtype=gl.int32, is_pure=True, pack=1)
        target = y_pointer + step[:, None] * channels + channel[None, :]
        gl.store(target, y.to(gl.int16), mask=(step < length)[:, None])

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
        DOWN: gl.constexpr,
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

        blocks = gl.cdiv(channels, CHANNELS)
        first = gl.program_id(0) % blocks * CHANNELS
        batch = (gl.program_id(0) // blocks).to(gl.int64)
        pointers = (
            x_pointer + batch * length * (channels // 2),
            mod_pointer + batch * length * (channels // 2),
            b_pointer + batch * length * (STATES // 4),
            c_pointer + batch * length * (STATES // 4),
        )
        lane = gl.arange(0, CHANNELS, lanes)
        channel = first + lane
        state = gl.arange(0, STATES, slices)
        inside = (channel < channels)[:, None] & (state < states)[None, :]
        place = (batch * channels + channel)[:, None] * states + state[None, :]
        entry = channel.to(gl.int64)[:, None] * states + state[None, :]
        h = gl.load(h_pointer + place, mask=inside, other=0)
        base = gl.load(base_pointer + entry, mask=inside, other=0).to(gl.int32)
        formats = (n_max, k)
        spare = 24 - (DOWN - s_v)  # which b, as the highest byte of a word, is shifted down

        # A lane's column of the products: where it has c, one byte or the other of a word's half, among four zeros. Low
        # bytes that h loses have none.
        row_of_lane = gl.arange(0, CHANNELS, gl.SliceLayout(1, product_tile)) // 2
        byte = row_of_lane % 4
        dropped = s_h * 0 if COARSER else s_h
        place_of_byte = gl.where(byte * 8 >= dropped, 1 << (8 * byte), 0)
        even, odd = gl.where(row_of_lane % 8 < 4, place_of_byte, 0), gl.where(row_of_lane % 8 < 4, 0, place_of_byte)
        column_of_lane = gl.arange(0, 2 * SUMS, gl.SliceLayout(0, product_tile)) // 2
        top = gl.where(column_of_lane % 2 == 1, 0x7654, 0x3210)  # the highest byte is the signed one
        WIDE: gl.constexpr = HELD == 4

        kept_place = (batch * gl.cdiv(length, KEPT) * channels + channel)[:, None] * STATES + state[None, :]
        kept_pointer = end_pointer + (place if OUTPUTS else kept_place)
        y_pointer += batch * length * channels
        x_ahead, mod_ahead, b_ahead, c_ahead = load_inputs(
            pointers, 0, length, first // 2, channels // 2, wide, narrow, STEPS, CHANNELS, STATES, OUTPUTS
        )
        for t in range(0, length, STEPS):
            barrier()  # every lane has read the block before
            if OUTPUTS:
                x_words.store(x_ahead)
            put_activations(activation_rows, x_ahead, mod_ahead)
            put_mixtures(mixture_rows, b_ahead, c_ahead, spare, OUTPUTS)
            x_ahead, mod_ahead, b_ahead, c_ahead = load_inputs(
                pointers, t + STEPS, length, first // 2, channels // 2, wide, narrow, STEPS, CHANNELS, STATES, OUTPUTS
            )
            barrier()
            count = gl.minimum(STEPS, length - t)
            unsigned, signed = (gl.zeros([CHANNELS, 2 * SUMS], gl.int32, product_tile),) * 2
            if count == STEPS:
                for part in range(PARTS):
                    sums = ()
                    for v in gl.static_range(PART):
                        u = part * PART + v
                        if not OUTPUTS and v % KEPT == 0:
                            gl.store(kept_pointer, h)
                            kept_pointer += channels * STATES
                        x, mod = pairs_of(activations, u, paired_lanes, lanes)
                        b, c = mixtures_of(mixtures, u, paired_slices, slices, OUTPUTS)
                        h, _ = state_of(h, base, x, mod, b, formats, CONVEX, DOWN, K)
                        if OUTPUTS:
                            read = h >> s_h if COARSER else h
                            if v % 2 == 0:
                                unsigned, signed = products(read, c, even, product_tile, WIDE)
                            else:
                                both = paired_products(read, c, odd, unsigned, signed, top, product_tile, WIDE)
                                sums = sums + (both,)  # noqa: RUF005
                    if OUTPUTS:
                        every_sum.index(part).store(gl.reshape(joined(sums), [CHANNELS, SUMS, PART // 2]))
            else:
                for u in range(count):
                    if not OUTPUTS:
                        gl.store(kept_pointer + u // KEPT * channels * STATES, h, mask=u % KEPT == 0)
                    x, mod = pairs_of(activations, u, paired_lanes, lanes)
                    b, c = mixtures_of(mixtures, u, paired_slices, slices, OUTPUTS)
                    h, _ = state_of(h, base, x, mod, b, formats, CONVEX, DOWN, K)
                    if OUTPUTS:
                        read = h >> s_h if COARSER else h
                        second = u % 2
                        selector = gl.where(second == 1, odd, even)
                        sums = paired_products(
                            read, c, selector, unsigned * second, signed * second, top, product_tile, WIDE
                        )
                        pair_sums.index(u // 2).store(sums)
                        unsigned, signed = products(read, c, even, product_tile, WIDE)
            if OUTPUTS:
                barrier()
                sums = gl.reshape(sum_rows.load(whole_sums), [PAIRS, SUMS // 4, 2, 2, CHANNELS])
                put_outputs(
                    y_pointer,
                    skip_pointer,
                    sums,
                    x_rows,
                    t,
                    length,
                    first,
                    channels,
                    s_y,
                    dropped,
                    FAR,
                    STEPS,
                )
        if OUTPUTS:
            gl.store(kept_pointer, h, mask=inside)


__all__ = ["scan", "suits"]
