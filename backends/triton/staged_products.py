"""Sums over the states of the staged scan, on tensor cores, in Gluon: products of states' bytes with a matrix of c.

States are 2**31 more than they are, so that no byte has a sign; what that adds is taken off at the end.
"""

from .gluon_names import HAS_GLUON, gl, gluon

if HAS_GLUON:
    # Of a lane's states and their c: the products of the states' bytes with the matrix of c, added to others.
    PRODUCTS = gl.constexpr(
        "{ .reg .b32 first, second; prmt.b32 first, $8, 0, $12; prmt.b32 second, $9, 0, $12;"
        " mma.sync.aligned.m16n8k32.row.col.s32.u8.s8.s32"
        " {$0, $1, $2, $3}, {$4, $6, $5, $7}, {first, second}, {$16, $17, $18, $19}; }"
    )
    # The same; then a lane's two columns as one sum, 2**8 times the second.
    PAIRED_PRODUCTS = gl.constexpr(
        "{ .reg .b32 first, second, top, d0, d1, d2, d3;"
        " prmt.b32 first, $8, 0, $12; prmt.b32 second, $9, 0, $12;"
        " mma.sync.aligned.m16n8k32.row.col.s32.u8.s8.s32"
        " {d0, d1, d2, d3}, {$4, $6, $5, $7}, {first, second}, {$16, $17, $18, $19};"
        " shl.b32 top, d1, 8; add.s32 $0, d0, top; shl.b32 top, d3, 8; add.s32 $2, d2, top;"
        " mov.b32 $1, 0; mov.b32 $3, 0; }"
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
    def products(h, c, selector, added, tile: gl.constexpr, WIDE: gl.constexpr):
        """Return the products of a first step of two, added to others."""
        if WIDE:
            h, next_h, c, next_c = product_tiles(h, c, tile)
            added = products(h, c, selector, added, tile, False)
            return products(next_h, next_c, selector, added, tile, False)
        else:
            c, _ = gl.broadcast(c[None, :], h)
            selector, _ = gl.broadcast(selector[:, None], h)
            constraints: gl.constexpr = "=&r,=&r,=&r,=&r" + ",r" * 16
            arguments = [h, c, selector, added]
            return gl.inline_asm_elementwise(PRODUCTS, constraints, arguments, gl.int32, is_pure=True, pack=4)

    @gluon.jit
    def paired_products(h, c, selector, added, tile: gl.constexpr, WIDE: gl.constexpr):
        """Return what two steps sum up to, [CHANNELS, lanes]: of four lanes' states the sums of low halves and of high
        halves of the first step, and those of the second."""
        if WIDE:
            h, next_h, c, next_c = product_tiles(h, c, tile)
            added = products(h, c, selector, added, tile, False)
            return paired_products(next_h, next_c, selector, added, tile, False)
        else:
            c, _ = gl.broadcast(c[None, :], h)
            selector, _ = gl.broadcast(selector[:, None], h)
            constraints: gl.constexpr = "=&r,=&r,=&r,=&r" + ",r" * 16
            arguments = [h, c, selector, added]
            sums = gl.inline_asm_elementwise(PAIRED_PRODUCTS, constraints, arguments, gl.int32, is_pure=True, pack=4)
            sums, _ = gl.split(gl.reshape(sums, [h.shape[0], h.shape[1] // 2, 2]))
            return sums
