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
    CLAMPED = gl.constexpr("{ .reg .s32 t; add.s32 t, $1, $2; min.s32 t, t, $3; max.s32 $0, t, 0; }")

    @gluon.jit
    def clamped_sum(a, b, highest):
        """Return a + b, clamped to [0, highest]."""
        return gl.inline_asm_elementwise(CLAMPED, "=r,r,r,r", [a, b, highest], dtype=gl.int32, is_pure=True, pack=1)

    @gluon.jit
    def input_of(x, b, DOWN: gl.constexpr):
        """Return v, a tile, of x and a scaled b."""
        product = x[:, None] * b[None, :]
        if DOWN:
            return (product + (1 << (DOWN - 1))) >> DOWN
        else:
            return product

    @gluon.jit
    def state_of(h, base, x, mod, b, formats, CONVEX: gl.constexpr, DOWN: gl.constexpr, K: gl.constexpr):
        """Return the states of a tile after a step, of x, mod and a scaled b in int32, and what decayed in it."""
        n_max, k = formats
        n = clamped_sum(base, mod[:, None], n_max)
        v = input_of(x, b, DOWN)
        decaying = h - v if CONVEX else h
        if K:
            arguments = [decaying, n, v]
            return gl.inline_asm_elementwise(DECAYED, "=r,r,r,r", arguments, gl.int32, is_pure=True, pack=1), decaying
        return ((decaying.to(gl.int64) * n) >> k.to(gl.int64)).to(gl.int32) + v, decaying

    @gluon.jit
    def put_activations(rows, x, mod):
        """Store x beside its modulation, of words of two channels, as int32 into shared memory."""
        x, mod = gl.join(x << 16 >> 16, x >> 16), gl.join(mod << 16 >> 16, mod >> 16)
        rows.store(gl.reshape(gl.join(x, mod), [x.shape[0], 4 * x.shape[1]]))

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
        """Load some columns of the steps from t on, and zeros after the last."""
        step = t + gl.arange(0, STEPS, gl.SliceLayout(1, layout))
        column = first + gl.arange(0, COLUMNS, gl.SliceLayout(0, layout))
        return gl.load(pointer + step[:, None] * width + column[None, :], mask=(step < length)[:, None], other=0)
