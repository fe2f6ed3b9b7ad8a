"""Sums over the states of the staged scan, on tensor cores, in Gluon: products of states' bytes with a matrix of c."""

from .gluon_names import HAS_GLUON, gl, gluon

if HAS_GLUON:
    # Of a lane's states h and their c: the products of h's bytes, as unsigned and as signed ones, with the matrix of c.
    PRODUCTS = gl.constexpr(
        "{ .reg .b32 zero, first, second; mov.b32 zero, 0; mul.lo.s32 first, $12, $16; mul.lo.s32 second, $13, $16;"
        " mma.sync.aligned.m16n8k32.row.col.s32.u8.s8.s32"
        " {$0, $1, $2, $3}, {$8, $10, $9, $11}, {first, second}, {zero, zero, zero, zero};"
        " mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32"
        " {$4, $5, $6, $7}, {$8, $10, $9, $11}, {first, second}, {zero, zero, zero, zero}; }"
    )
    # The same, added to such products.
    ADDED_PRODUCTS = gl.constexpr(
        "{ .reg .b32 first, second; mul.lo.s32 first, $12, $16; mul.lo.s32 second, $13, $16;"
        " mma.sync.aligned.m16n8k32.row.col.s32.u8.s8.s32"
        " {$0, $1, $2, $3}, {$8, $10, $9, $11}, {first, second}, {$20, $21, $22, $23};"
        " mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32"
        " {$4, $5, $6, $7}, {$8, $10, $9, $11}, {first, second}, {$24, $25, $26, $27}; }"
    )
    # The same, added to such products of the step before; then a lane's two columns as one sum, 2**8 times the second.
    PAIRED_PRODUCTS = gl.constexpr(
        "{ .reg .b32 zero, first, second, top, u0, u1, u2, u3, s0, s1, s2, s3; mov.b32 zero, 0;"
        " mul.lo.s32 first, $8, $12; mul.lo.s32 second, $9, $12;"
        " mma.sync.aligned.m16n8k32.row.col.s32.u8.s8.s32"
        " {u0, u1, u2, u3}, {$4, $6, $5, $7}, {first, second}, {$16, $17, $18, $19};"
        " mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32"
        " {s0, s1, s2, s3}, {$4, $6, $5, $7}, {first, second}, {$20, $21, $22, $23};"
        " prmt.b32 top, u1, s1, $24; shl.b32 top, top, 8; add.s32 $0, u0, top;"
        " prmt.b32 top, u3, s3, $24; shl.b32 top, top, 8; add.s32 $2, u2, top;"
        " mov.b32 $1, zero; mov.b32 $3, zero; }"
    )

    @gluon.jit
    def product_tiles(h, c, tile: gl.constexpr):
        """Return states and their c as tiles of two states per lane."""
        ROWS: gl.constexpr = h.shape[0]
        QUARTER: gl.constexpr = h.shape[1] // 4
        h, next_h = gl.split(gl.permute(gl.reshape(h, [ROWS, QUARTER, 2, 2]), (0, 1, 3, 2)))
        c, next_c = gl.split(gl.permute(gl.reshape(c, [QUARTER, 2, 2]), (0, 2, 1)))
        h, next_h = gl.reshape(h, [ROWS, 2 * QUARTER]), gl.reshape(next_h, [ROWS, 2 * QUARTER])
        c, next_c = gl.reshape(c, [2 * QUARTER]), gl.reshape(next_c, [2 * QUARTER])
        slices: gl.constexpr = gl.SliceLayout(0, tile)
        h, next_h = gl.convert_layout(h, tile), gl.convert_layout(next_h, tile)
        return h, next_h, gl.convert_layout(c, slices), gl.convert_layout(next_c, slices)

    @gluon.jit
    def added_products(h, c, selector, unsigned, signed):
        """Return the products of two states per lane, as unsigned bytes and as signed ones, added to others."""
        c, _ = gl.broadcast(c[None, :], h)
        selector, _ = gl.broadcast(selector[:, None], h)
        constraints: gl.constexpr = "=&r,=&r,=&r,=&r,=&r,=&r,=&r,=&r" + ",r" * 20
        arguments = [h, c, selector, unsigned, signed]
        return gl.inline_asm_elementwise(
            ADDED_PRODUCTS, constraints, arguments, (gl.int32, gl.int32), is_pure=True, pack=4
        )

    @gluon.jit
    def products(h, c, selector, tile: gl.constexpr, WIDE: gl.constexpr):
        """Return the products of a first step of two, as unsigned bytes and as signed ones."""
        if WIDE:
            h, next_h, c, next_c = product_tiles(h, c, tile)
            unsigned, signed = products(h, c, selector, tile, False)
            return added_products(next_h, next_c, selector, unsigned, signed)
        else:
            c, _ = gl.broadcast(c[None, :], h)
            selector, _ = gl.broadcast(selector[:, None], h)
            constraints: gl.constexpr = "=&r,=&r,=&r,=&r,=&r,=&r,=&r,=&r" + ",r" * 12
            return gl.inline_asm_elementwise(
                PRODUCTS, constraints, [h, c, selector], (gl.int32, gl.int32), is_pure=True, pack=4
            )

    @gluon.jit
    def paired_products(h, c, selector, unsigned, signed, top, tile: gl.constexpr, WIDE: gl.constexpr):
        """Return what two steps sum up to, [CHANNELS, lanes]: of four lanes' states the sums of low halves and of high
        halves of the first step, and those of the second."""
        if WIDE:
            h, next_h, c, next_c = product_tiles(h, c, tile)
            unsigned, signed = added_products(h, c, selector, unsigned, signed)
            return paired_products(next_h, next_c, selector, unsigned, signed, top, tile, False)
        else:
            c, _ = gl.broadcast(c[None, :], h)
            selector, _ = gl.broadcast(selector[:, None], h)
            top, _ = gl.broadcast(top[None, :], h)
            constraints: gl.constexpr = "=&r,=&r,=&r,=&r" + ",r" * 24
            arguments = [h, c, selector, unsigned, signed, top]
            sums = gl.inline_asm_elementwise(PAIRED_PRODUCTS, constraints, arguments, gl.int32, is_pure=True, pack=4)
            sums, _ = gl.split(gl.reshape(sums, [h.shape[0], h.shape[1] // 2, 2]))
            return sums
