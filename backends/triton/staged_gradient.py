"""Products of the walk back, in Gluon: of gradients with decays and states, and of their bytes on tensor cores."""

from .gluon_names import HAS_GLUON, gl, gluon
from .staged_steps import KNOWN_K

if HAS_GLUON:
    # A product with an addend in two halves is one instruction; ptxas makes three of a mad.wide.
    ROUNDED_PRODUCT = gl.constexpr(
        "{ .reg .s64 wide; .reg .b32 low, high; mov.b64 {low, high}, $4;"
        " mad.lo.cc.s32 low, $1, $2, low; madc.hi.s32 high, $1, $2, high;"
        " mov.b64 wide, {low, high}; shr.s64 wide, wide, $3; cvt.u32.u64 $0, wide; }"
    )
    # The same, and less x, which is minus what x times the rest of 2**k rounds to, but for one more in a tie.
    SHARED_PRODUCT = gl.constexpr(
        "{ .reg .s64 wide; .reg .b32 low, high, rest; mov.b64 {low, high}, $5;"
        " mad.lo.cc.s32 low, $2, $3, low; madc.hi.s32 high, $2, $3, high;"
        " mov.b64 wide, {low, high}; shr.s64 wide, wide, $4; cvt.u32.u64 $0, wide;"
        " mul.lo.s32 rest, low, $6; sub.cc.s32 rest, rest, 1; subc.s32 $1, $0, $2; }"
    )
    # The same of a known k: a shift by it and the subtraction that carries from it are one instruction.
    SHARED_PRODUCT_OF_K = gl.constexpr(
        "{ .reg .b32 low, high, rest, minus; mov.b64 {low, high}, $4;"
        " mad.lo.cc.s32 low, $2, $3, low; madc.hi.s32 high, $2, $3, high;"
        f" shf.r.wrap.b32 $0, low, high, {KNOWN_K}; shl.b32 rest, low, {32 - KNOWN_K};"
        " add.cc.u32 rest, rest, 0xffffffff; not.b32 minus, $2; addc.s32 $1, $0, minus; }"
    )
    WIDE_ROUNDED_PRODUCT = gl.constexpr(
        "{ .reg .s64 wide; .reg .b32 low, high; mov.b64 {low, high}, $4;"
        " mad.lo.cc.s32 low, $1, $2, low; madc.hi.s32 high, $1, $2, high;"
        " mov.b64 wide, {low, high}; shr.s64 $0, wide, $3; }"
    )
    # The bytes of dv with the matrix of b, as in the scan, of which the highest is signed; and those of the words of w,
    # which isn't negative, with a matrix of ones. Then a lane's two columns as one sum, 2**8 times the second.
    PRODUCTS = gl.constexpr(
        "{ .reg .b32 zero, first, second, upper, d0, d1, d2, d3, e0, e1, e2, e3; mov.b32 zero, 0;"
        " mul.lo.s32 first, $12, $16; mul.lo.s32 second, $13, $16;"
        " mma.sync.aligned.m16n8k32.row.col.s32.u8.s8.s32"
        " {d0, d1, d2, d3}, {$8, $10, $9, $11}, {first, second}, {zero, zero, zero, zero};"
        " mul.lo.s32 first, $12, $20; mul.lo.s32 second, $13, $20;"
        " mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32"
        " {d0, d1, d2, d3}, {$8, $10, $9, $11}, {first, second}, {d0, d1, d2, d3};"
        " shl.b32 upper, d1, 8; add.s32 $0, d0, upper; shl.b32 upper, d3, 8; add.s32 $2, d2, upper;"
        " mma.sync.aligned.m16n8k32.row.col.s32.u8.s8.s32"
        " {e0, e1, e2, e3}, {$24, $26, $25, $27}, {$32, $33}, {zero, zero, zero, zero};"
        " mma.sync.aligned.m16n8k32.row.col.s32.u8.s8.s32"
        " {e0, e1, e2, e3}, {$28, $30, $29, $31}, {$36, $37}, {e0, e1, e2, e3};"
        " shl.b32 upper, e1, 8; add.s32 $4, e0, upper; shl.b32 upper, e3, 8; add.s32 $6, e2, upper;"
        " mov.b32 $1, zero; mov.b32 $3, zero; mov.b32 $5, zero; mov.b32 $7, zero; }"
    )

    @gluon.jit
    def scaled(x, factor, k, half):
        """Return x * factor over 2**k, rounded, of a result that fits int32."""
        arguments = [x, factor, k, half]
        return gl.inline_asm_elementwise(ROUNDED_PRODUCT, "=r,r,r,r,l", arguments, gl.int32, is_pure=True, pack=1)

    @gluon.jit
    def shared_out(x, factor, k, half, K: gl.constexpr):
        """Return x * factor, and minus x * (2**k - factor), each over 2**k and rounded."""
        if K:
            return gl.inline_asm_elementwise(
                SHARED_PRODUCT_OF_K, "=&r,=&r,r,r,l", [x, factor, half], (gl.int32, gl.int32), is_pure=True, pack=1
            )
        arguments = [x, factor, k, half, 1 << (32 - k)]
        return gl.inline_asm_elementwise(
            SHARED_PRODUCT, "=&r,=&r,r,r,r,l,r", arguments, (gl.int32, gl.int32), is_pure=True, pack=1
        )

    @gluon.jit
    def wide_scaled(x, factor, s, added):
        """Return (x * factor + added) over 2**s, in int64."""
        arguments = [x, factor, s, added]
        return gl.inline_asm_elementwise(WIDE_ROUNDED_PRODUCT, "=l,r,r,r,l", arguments, gl.int64, is_pure=True, pack=1)

    @gluon.jit
    def products(dv, w, b, matrices):
        """Return the sums over four lanes' states of dv b and of w, [CHANNELS, STATES / 2]: a lane has 16 bits each."""
        b, _ = gl.broadcast(b[None, :], dv)
        unsigned, _ = gl.broadcast(matrices[0][:, None], dv)
        signed, _ = gl.broadcast(matrices[1][:, None], dv)
        words = [w.to(gl.int32), (w >> 32).to(gl.int32)]
        arguments = [dv, b, unsigned, signed, words[0], words[1], matrices[2], matrices[3]]
        constraints: gl.constexpr = "=&r,=&r,=&r,=&r,=&r,=&r,=&r,=&r" + ",r" * 32
        through, moved = gl.inline_asm_elementwise(
            PRODUCTS, constraints, arguments, (gl.int32, gl.int32), is_pure=True, pack=4
        )
        half: gl.constexpr = [dv.shape[0], dv.shape[1] // 2, 2]
        through, _ = gl.split(gl.reshape(through, half))
        moved, _ = gl.split(gl.reshape(moved, half))
        return through, moved
