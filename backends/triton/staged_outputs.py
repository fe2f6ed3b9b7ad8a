"""Outputs of the staged scan, in Gluon: what states of a block of steps sum up to is rounded, each by one lane.

The sums come in two halves of 16 bits of the states, whose words have no sign: what has been added for that is taken
off, which is so much per step.
"""

from .gluon_names import HAS_GLUON, gl, gluon

WHOLE_BYTES = (0, 8, 16)  # that a state loses before c meets it: the products leave them out


def is_near(s_h: int, s_y: int) -> bool:
    """Return whether rounding drops more than the low half: of `MOST_STATES`, that half and x skip fit 32 bits."""
    return s_y > 16 - (s_h if s_h in WHOLE_BYTES else 0)


if HAS_GLUON:
    # x skip + half + unit high + low, over 2**shift, saturated.
    ROUNDED = gl.constexpr(
        "{ .reg .s64 sum; .reg .b32 word, above;"
        " mov.b64 {word, above}, $3; mad.lo.cc.s32 word, $1, $2, word; madc.hi.s32 above, $1, $2, above;"
        " mad.lo.cc.s32 word, $4, $7, word; madc.hi.s32 above, $4, $7, above;"
        " mad.lo.cc.s32 word, $5, 1, word; madc.hi.s32 above, $5, 1, above; mov.b64 sum, {word, above};"
        " shr.s64 sum, sum, $6; cvt.u32.u64 word, sum; min.s32 word, word, 32767; max.s32 $0, word, -32767; }"
    )
    # The same of a result beyond 32 bits: it is saturated to them first, whose comparisons are cheaper.
    FAR_ROUNDED = gl.constexpr(
        "{ .reg .s64 sum; .reg .b32 word, above, sign; .reg .pred fits;"
        " mov.b64 {word, above}, $3; mad.lo.cc.s32 word, $1, $2, word; madc.hi.s32 above, $1, $2, above;"
        " mad.lo.cc.s32 word, $4, $7, word; madc.hi.s32 above, $4, $7, above;"
        " mad.lo.cc.s32 word, $5, 1, word; madc.hi.s32 above, $5, 1, above; mov.b64 sum, {word, above};"
        " shr.s64 sum, sum, $6; mov.b64 {word, above}, sum;"
        " shr.s32 sign, word, 31; setp.eq.s32 fits, sign, above;"
        " shr.s32 sign, above, 31; xor.b32 sign, sign, 0x7fffffff; selp.b32 word, word, sign, fits;"
        " min.s32 word, word, 32767; max.s32 $0, word, -32767; }"
    )
    # The same of two outputs whose rounding drops more than the low half; the high one has what rounds up.
    NEAR_ROUNDED = gl.constexpr(
        "{ .reg .b32 first, second;"
        " mad.lo.s32 first, $1, $3, $5; mad.lo.s32 second, $2, $4, $6;"
        " shr.s32 first, first, $9; shr.s32 second, second, $10;"
        " add.s32 first, first, $7; add.s32 second, second, $8;"
        " shr.s32 first, first, $11; shr.s32 second, second, $12;"
        " max.s32 first, first, -32767; max.s32 second, second, -32767;"
        " cvt.pack.sat.s16.s32 $0, second, first; }"
    )
    # An addition, which ptxas gives to the less busy of two units; LLVM would make a plain one an xor.
    UNSIGNED = gl.constexpr("{ add.s32 $0, $1, 0x80000000; }")
    SUM_OF_BYTES = gl.constexpr("{ dp4a.s32.s32 $0, $1, 0x01010101, 0; }")

    @gluon.jit
    def column_selectors(dropped, CHANNELS: gl.constexpr, tile: gl.constexpr):
        """Return what selects a lane's column of the products, of the first step of two and of the second.

        A column has c where it meets one byte of a state, among three zeros, or zeros alone. Low bytes that a state
        loses have no column: those of the low half are one less, or none.
        """
        NOTHING: gl.constexpr = 0x4444
        row = gl.arange(0, CHANNELS, gl.SliceLayout(1, tile)) // 2
        column = row % 4
        byte = gl.where(column == 0, dropped // 8, column)
        selector = gl.where((column >= 2) | (8 * column + dropped < 16), NOTHING - (4 << (4 * byte)), NOTHING)
        return gl.where(row % 8 < 4, selector, NOTHING), gl.where(row % 8 < 4, NOTHING, selector)

    @gluon.jit
    def excess_of(s_h, s_y, COARSER: gl.constexpr, BIASED: gl.constexpr, NEAR: gl.constexpr):
        """Return what the high half and the low one have too much per c, and half of what the first is rounded to.

        The states have 2**31 too much, or `BIAS`.
        """
        ADDED: gl.constexpr = 30 if BIASED else 31
        half = (1 << (s_y + (s_h * 0 if COARSER else s_h) - 17)) if NEAR else 0
        if COARSER:
            low = gl.where(s_h > ADDED - 16, 1 << (ADDED - s_h), 0)
            return (1 << (ADDED - 16)) >> s_h, low, half
        else:
            return 1 << (ADDED - 16), 0, half

    @gluon.jit
    def read_of(h, s_h, COARSER: gl.constexpr, BIASED: gl.constexpr):
        """Return what the outputs read of states, as words without sign."""
        if not BIASED:
            h = gl.inline_asm_elementwise(UNSIGNED, "=r,r", [h], dtype=gl.int32, is_pure=True, pack=1)
        if COARSER:
            return (h.to(gl.uint32, bitcast=True) >> s_h.to(gl.uint32)).to(gl.int32, bitcast=True)
        else:
            return h

    @gluon.jit
    def put_excess(rows, c, excess, COARSER: gl.constexpr):
        """Store what each step's sums have too much into shared memory."""
        sums = gl.inline_asm_elementwise(SUM_OF_BYTES, "=r,r", [c], dtype=gl.int32, is_pure=True, pack=1)
        sums = gl.sum(sums, axis=1)
        rows.index(0).store(sums * excess[0] - excess[2])
        if COARSER:
            rows.index(1).store(sums * excess[1])

    @gluon.jit
    def put_outputs(
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
        FAR: gl.constexpr,
        NEAR: gl.constexpr,
        COARSER: gl.constexpr,
        STEPS: gl.constexpr,
        layout: gl.constexpr,
    ):
        """Round a block's outputs, of sums over some states [STEPS / 2, states, 2 steps, 2 halves, CHANNELS]."""
        low, high = gl.split(gl.permute(gl.sum(sums, axis=1), (0, 1, 3, 2)))
        CHANNELS: gl.constexpr = low.shape[2]
        low, high = gl.reshape(low, [STEPS, CHANNELS]), gl.reshape(high, [STEPS, CHANNELS])
        low, high = gl.convert_layout(low, layout), gl.convert_layout(high, layout)
        x = x_rows.load(layout).to(gl.int32)
        step = t + gl.arange(0, STEPS, gl.SliceLayout(1, layout))
        channel = first + gl.arange(0, CHANNELS, gl.SliceLayout(0, layout))
        high -= excess_rows.index(0).load(gl.SliceLayout(1, layout))[:, None]
        if COARSER:
            low -= excess_rows.index(1).load(gl.SliceLayout(1, layout))[:, None]
        target = y_pointer + step[:, None] * channels + channel[None, :]
        upper = 16 - dropped
        if NEAR:
            arguments = [x, skip[None, :], low, high, upper, s_y - upper]
            constraints: gl.constexpr = "=r" + ",r" * 12
            y = gl.inline_asm_elementwise(NEAR_ROUNDED, constraints, arguments, dtype=gl.int16, is_pure=True, pack=2)
        else:
            half = (gl.full([], 1, gl.int64) << s_y.to(gl.int64)) >> 1
            arguments = [x, skip[None, :], half, high, low, s_y, 1 << upper]
            rule: gl.constexpr = FAR_ROUNDED if FAR else ROUNDED
            y = gl.inline_asm_elementwise(rule, "=r,r,r,l,r,r,r,r", arguments, dtype=gl.int32, is_pure=True, pack=1)
            y = y.to(gl.int16)
        gl.store(target, y, mask=(step < length)[:, None])
