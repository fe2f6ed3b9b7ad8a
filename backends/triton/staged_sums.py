"""Sums of a block of steps of the walk back, over states and over channels, through shared memory, in Gluon."""

from .gluon_names import HAS_GLUON, gl, gluon

if HAS_GLUON:
    from .staged_steps import joined

    # A product with an addend in two halves is one instruction; ptxas makes three of a mad.wide.
    ADDED_PRODUCT = gl.constexpr(
        "{ .reg .b32 low, high; mov.b64 {low, high}, $3;"
        " mad.lo.cc.s32 low, $1, $2, low; madc.hi.s32 high, $1, $2, high; mov.b64 $0, {low, high}; }"
    )
    # Over 2**s, rounded and saturated to 32 bits.
    ROUNDED_WORD = gl.constexpr(
        "{ .reg .s64 sum; .reg .b32 word, above, sign; .reg .pred fits;"
        " add.s64 sum, $1, $2; shr.s64 sum, sum, $3; mov.b64 {word, above}, sum;"
        " shr.s32 sign, word, 31; setp.eq.s32 fits, sign, above;"
        " shr.s32 sign, above, 31; xor.b32 sign, sign, 0x7fffffff; selp.b32 word, word, sign, fits;"
        " max.s32 $0, word, -0x7fffffff; }"
    )

    @gluon.jit
    def store_steps(rows, sums):
        """Store the steps' sums into shared memory, [CHANNELS, STATES / 2, steps]."""
        rows.store(gl.reshape(joined(sums), [sums[0].shape[0], sums[0].shape[1], len(sums)]))

    @gluon.jit
    def store_tiles(rows, steps):
        """Store the steps' tiles into shared memory, [steps, CHANNELS, STATES]."""
        tiles = gl.reshape(joined(steps), [steps[0].shape[0], steps[0].shape[1], len(steps)])
        rows.store(gl.permute(tiles, (2, 0, 1)))

    @gluon.jit
    def four_sums(rows, layout: gl.constexpr, STEPS: gl.constexpr, HALF: gl.constexpr):
        """Return what the four lanes of a warp have, summed over the warps: four tiles [STEPS, CHANNELS]."""
        loaded = rows.load(layout)
        CHANNELS: gl.constexpr = loaded.shape[1]
        sums = gl.sum(gl.reshape(loaded, [STEPS, HALF // 4, 4, CHANNELS]), axis=1)
        sums = gl.reshape(gl.permute(sums, (0, 2, 1)), [STEPS, CHANNELS, 2, 2])
        even, odd = gl.split(sums)
        first, third = gl.split(even)
        second, fourth = gl.split(odd)
        return first, second, third, fourth

    @gluon.jit
    def rounded_word(total, s):
        """Return an int64 over 2**s, rounded and saturated to 32 bits; s is an integer or a pointer to one."""
        if s.dtype.is_ptr():
            s = gl.load(s)
        half = (gl.full([], 1, gl.int64) << s.to(gl.int64)) >> 1
        return gl.inline_asm_elementwise(ROUNDED_WORD, "=r,l,l,r", [total, half, s], gl.int32, is_pure=True, pack=1)

    @gluon.jit
    def add_products(total, a, x, layout: gl.constexpr):
        """Return a total plus the sums over the middle axis of a times x, in one chain."""
        STEPS: gl.constexpr = a.shape[0]
        CHANNELS: gl.constexpr = a.shape[1]
        STATES: gl.constexpr = a.shape[2]
        if CHANNELS == 1:
            a = gl.convert_layout(gl.reshape(a, [STEPS, STATES]), layout)
            x = gl.convert_layout(gl.reshape(x, [STEPS, STATES]), layout)
            return gl.inline_asm_elementwise(ADDED_PRODUCT, "=l,r,r,l", [a, x, total], gl.int64, is_pure=True, pack=1)
        else:
            halves: gl.constexpr = [STEPS, 2, CHANNELS // 2, STATES]
            a, next_a = gl.split(gl.permute(gl.reshape(a, halves), (0, 2, 3, 1)))
            x, next_x = gl.split(gl.permute(gl.reshape(x, halves), (0, 2, 3, 1)))
            return add_products(add_products(total, a, x, layout), next_a, next_x, layout)

    @gluon.jit
    def channel_sums(a, x, layout: gl.constexpr):
        """Return the sums over the channels of [STEPS, CHANNELS, STATES] times [STEPS, CHANNELS], in int64."""
        x, _ = gl.broadcast(gl.expand_dims(x, 2), a)
        halves: gl.constexpr = [a.shape[0], 2, a.shape[1] // 2, a.shape[2]]
        a, next_a = gl.split(gl.permute(gl.reshape(a, halves), (0, 2, 3, 1)))
        x, next_x = gl.split(gl.permute(gl.reshape(x, halves), (0, 2, 3, 1)))
        zero = gl.zeros([halves[0], halves[3]], gl.int64, layout)
        return add_products(zero, a, x, layout) + add_products(zero, next_a, next_x, layout)
