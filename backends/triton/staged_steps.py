"""One step of the staged scans, and how its inputs come through shared memory: in Gluon, for a scan and its walk back.

Inputs are unpacked to 32 bits once per block of steps, as they go to shared memory, where a lane finds side by side
all that it needs of a step.
"""

from .gluon_names import HAS_GLUON, gl, gluon

KNOWN_K = 15  # the fraction bits of decays for which there are kernels of their own


def known_k(k: int) -> int:
    """Return k where there are kernels for it alone, and 0 for any other."""
    return k if k == KNOWN_K else 0


if HAS_GLUON:
    HIGHEST_BYTE = gl.constexpr(-1 << 24)
    # A known shift and an addition are one instruction.
    DECAYED = gl.constexpr(
        "{ .reg .s64 wide; .reg .b32 low, high; mul.wide.s32 wide, $1, $2; mov.b64 {low, high}, wide;"
        f" shf.r.wrap.b32 low, low, high, {KNOWN_K}; add.s32 $0, low, $3; }}"
    )
    # The same, of a product to which two halves of an addend come first: one instruction.
    MORE_DECAYED = gl.constexpr(
        "{ .reg .b32 low, high; mov.b64 {low, high}, $4;"
        " mad.lo.cc.s32 low, $1, $2, low; madc.hi.s32 high, $1, $2, high;"
        f" shf.r.wrap.b32 low, low, high, {KNOWN_K}; add.s32 $0, low, $3; }}"
    )
    # 1.5 * 2**23: added to a number of at most 2**22, it leaves the nearest integer, ties to even, in the lowest bits.
    INTEGERS = gl.constexpr(12582912.0)
    INTEGERS_BITS = gl.constexpr(0x4B400000)
    BIAS = gl.constexpr(1 << 30)  # more than any state of a convex scan
    CLAMPED = gl.constexpr("{ .reg .s32 t; add.s32 t, $1, $2; min.s32 t, t, $3; max.s32 $0, t, 0; }")

    @gluon.jit
    def clamped_sum(a, b, highest):
        """Return a + b, clamped to [0, highest]."""
        return gl.inline_asm_elementwise(CLAMPED, "=r,r,r,r", [a, b, highest], dtype=gl.int32, is_pure=True, pack=1)

    @gluon.jit
    def power_of_two(exponent):
        """Return 2**exponent, in float32."""
        return ((127 + exponent) << 23).to(gl.float32, bitcast=True)

    @gluon.jit
    def step_formats(n_max, k, s_v, BIASED: gl.constexpr):
        """Return what `state_of` knows of formats: half of the last bit of x b, and what v misses, times 2**k, too."""
        missing = gl.full([], (BIAS if BIASED else 0) - INTEGERS_BITS, gl.int64) << k.to(gl.int64)
        return n_max, k, power_of_two(-1 - s_v), missing

    @gluon.jit
    def input_of(x, b, tie, FLOAT: gl.constexpr):
        """Return v, a tile, of x and a scaled b; of floats, the bits of v + `INTEGERS`.

        Where v is rounded, x times b is a float, which holds its fraction, and ``tie`` rounds half of v's last bit up.
        """
        product = x[:, None] * b[None, :]
        if FLOAT:
            return (product + tie + INTEGERS).to(gl.int32, bitcast=True)
        else:
            return product

    @gluon.jit
    def state_of(
        h, base, x, mod, b, formats, CONVEX: gl.constexpr, FLOAT: gl.constexpr, BIASED: gl.constexpr, K: gl.constexpr
    ):
        """Return the states of a tile after a step, of x, mod and a scaled b, and what decayed in it.

        The states of a convex scan may be `BIAS` more than they are, which costs nothing: v has it too.
        """
        n_max, k, tie, missing_wide = formats
        n = clamped_sum(base, mod[:, None], n_max)
        v = input_of(x, b, tie, FLOAT)
        missing: gl.constexpr = ((BIAS if BIASED else 0) - INTEGERS_BITS) if FLOAT else 0
        if BIASED and not FLOAT:
            v += BIAS
        decaying = h - (v + missing) if CONVEX else h
        if K == 0:
            return ((decaying.to(gl.int64) * n) >> k.to(gl.int64)).to(gl.int32) + (v + missing), decaying
        elif FLOAT:
            arguments = [decaying, n, v, missing_wide]
            code: gl.constexpr = MORE_DECAYED
            h = gl.inline_asm_elementwise(code, "=r,r,r,r,l", arguments, gl.int32, is_pure=True, pack=1)
            return h, decaying
        else:
            h = gl.inline_asm_elementwise(DECAYED, "=r,r,r,r", [decaying, n, v], gl.int32, is_pure=True, pack=1)
            return h, decaying

    @gluon.jit
    def put_activations(rows, x, mod, FLOAT: gl.constexpr):
        """Store x, as a float or an integer, beside its modulation, of words of two channels, into shared memory."""
        x, mod = gl.join(x << 16 >> 16, x >> 16), gl.join(mod << 16 >> 16, mod >> 16)
        if FLOAT:
            x = x.to(gl.float32).to(gl.int32, bitcast=True)
        rows.store(gl.reshape(gl.join(x, mod), [x.shape[0], 4 * x.shape[1]]))

    @gluon.jit
    def scaled_inputs(words, s_v, FLOAT: gl.constexpr):
        """Return the int8 of words of b over 2**s_v: as floats, or as integers where s_v isn't positive."""
        if FLOAT:
            return scaled_bytes(words, 24).to(gl.float32) * power_of_two(-s_v)
        else:
            return scaled_bytes(words, 24 + s_v)

    @gluon.jit
    def scaled_bytes(words, spare):
        """Return the int8 of words, as the highest byte of 32 bits over 2**spare: [..., words, 2, 2]."""
        even = gl.join(words << 24 >> spare, (words << 8 & HIGHEST_BYTE) >> spare)
        odd = gl.join((words << 16 & HIGHEST_BYTE) >> spare, (words & HIGHEST_BYTE) >> spare)
        return gl.join(even, odd)

    @gluon.jit
    def unsigned_bytes(words):
        """Return the bytes of words, without sign: [..., words, 2, 2]."""
        even, odd = gl.join(words & 255, (words >> 16) & 255), gl.join((words >> 8) & 255, (words >> 24) & 255)
        return gl.join(even, odd)

    @gluon.jit
    def pairs_of(words, at, loaded: gl.constexpr, layout: gl.constexpr):
        """Return what lies side by side in a row of shared memory, as two arrays."""
        first, second = gl.split(gl.reshape(words.index(at).load(loaded), [words.shape[1] // 2, 2]))
        return gl.convert_layout(first, layout), gl.convert_layout(second, layout)

    @gluon.jit
    def joined(arrays):
        """Return a power of two of arrays side by side, as the last axes of one."""
        if len(arrays) == 1:
            return arrays[0]
        else:
            return gl.join(joined(arrays[0::2]), joined(arrays[1::2]))

    @gluon.jit
    def load_steps(pointer, t, length, first, width, layout: gl.constexpr, STEPS: gl.constexpr, COLUMNS: gl.constexpr):
        """Load some columns of the steps from t on, and zeros past the last step and the last column."""
        step = t + gl.arange(0, STEPS, gl.SliceLayout(1, layout))
        column = first + gl.arange(0, COLUMNS, gl.SliceLayout(0, layout))
        inside = (step < length)[:, None] & (column < width)[None, :]
        return gl.load(pointer + step[:, None] * width + column[None, :], mask=inside, other=0)
