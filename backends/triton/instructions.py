"""Instructions of NVIDIA GPUs that Triton has no name for, each beside the plain arithmetic that it equals.

Four int8 lie in a word, the first in its lowest byte. The interpreter and other targets take the plain path.
"""

# ruff: noqa: RUF005 -- Triton compiles no unpacking inside a tuple

import triton
import triton.language as tl
from triton.runtime.driver import driver

LITTLE_ROOM = (86, 89, 120, 121)  # ten times the compute capability


def target_name() -> str:
    """Return what kernels are made for: interpreter, cuda or hip."""
    return "interpreter" if triton.knobs.runtime.interpret else driver.active.get_current_target().backend


def has_little_room() -> bool:
    """Return whether a program of the target has no more than 100 KiB of shared memory."""
    name = target_name()
    return name == "hip" or (name == "cuda" and driver.active.get_current_target().arch in LITTLE_ROOM)


def generation() -> int:
    """Return ten times the compute capability of an NVIDIA target, 0 of any other."""
    return driver.active.get_current_target().arch if target_name() == "cuda" else 0


generation.__triton_builtin__ = True  # type: ignore[attr-defined]
target_name.__triton_builtin__ = True  # type: ignore[attr-defined] # kernels may name it: Triton doesn't look inside


@triton.constexpr_function
def has_ptx():
    """Return whether the target takes PTX."""
    return target_name() == "cuda"


@triton.constexpr_function
def compares_halves():
    """Return whether the target takes PTX that compares two halves of a word at once."""
    return generation() >= 90


@triton.constexpr_function
def is_interpreted():
    """Return whether a kernel runs in Triton's interpreter."""
    return target_name() == "interpreter"


@triton.constexpr_function
def sign_extension(i):
    """Return the instruction that puts byte ``i`` lowest and its sign into the bytes above."""
    return f"prmt.b32 $0, $1, 0, 0x{(i + 8) * 0x1110 + i:x};"


@triton.constexpr_function
def halves_dot(selector, i, sign):
    """Return the instructions that take two halves of a and b times bytes ``i`` and ``i + 1`` of a word."""
    side = "hi" if i else "lo"
    return f"{{ .reg .b32 t; prmt.b32 t, $1, $2, {selector}; dp2a.{side}.{sign}32.s32 $0, t, $3, $4; }}"


@triton.constexpr_function
def selection(selector):
    """Return the instruction that picks four of the eight bytes of two words."""
    return f"prmt.b32 $0, $1, $2, {selector};"


@triton.constexpr_function
def plane_digits(i):
    """Return the instructions that make int8 of digit ``i`` of four bytes: a code, and six copies of its upper bit."""
    return (
        f"{{ .reg .b32 t, code, upper; shr.b32 t, $1, {2 * i}; and.b32 code, t, 0x03030303;"
        " and.b32 upper, t, 0x02020202; mad.lo.u32 $0, upper, 126, code; }"
    )


@triton.constexpr_function
def upper_digits(i):
    """Return the instructions that leave digit ``i`` of four bytes alone, and highest."""
    return f"{{ .reg .b32 t; shl.b32 t, $1, {6 - 2 * i}; and.b32 $0, t, 0xc0c0c0c0; }}"


@triton.constexpr_function
def byte_digits():
    """Return the instructions that make int8 of the digits of each of a word's bytes, one result per byte.

    The codes of even digits lie in eight hexadecimal digits, those of the odd ones in eight others: each four select
    bytes of a table of the digits, then bytes of the results are put in order.
    """
    return (
        "{ .reg .b32 table, even, odd, upper, a, b, c, d; mov.b32 table, 0xfffe0100;"
        " and.b32 even, $4, 0x33333333; shr.b32 odd, $4, 2; and.b32 odd, odd, 0x33333333;"
        " prmt.b32 a, table, table, even; prmt.b32 b, table, table, odd;"
        " shr.b32 upper, even, 16; prmt.b32 c, table, table, upper;"
        " shr.b32 upper, odd, 16; prmt.b32 d, table, table, upper;"
        " prmt.b32 $0, a, b, 0x5140; prmt.b32 $1, a, b, 0x7362;"
        " prmt.b32 $2, c, d, 0x5140; prmt.b32 $3, c, d, 0x7362; }"
    )


@triton.constexpr_function
def limb_bytes():
    """Return the instructions that make limbs of four int16: their high bytes, and their low bytes less 128."""
    return "{ .reg .b32 low; prmt.b32 low, $2, $3, 0x6420; prmt.b32 $0, $2, $3, 0x7531; xor.b32 $1, low, 0x80808080; }"


@triton.jit
def byte(word, i: tl.constexpr):
    """Return int8 ``i`` of a word, in int32."""
    if has_ptx():
        return tl.inline_asm_elementwise(sign_extension(i), "=r,r", [word], dtype=tl.int32, is_pure=True, pack=1)
    else:
        return (word << (24 - 8 * i)) >> 24


@triton.jit
def reciprocal(x):
    """Return 1 / x of float32 x in [1, 2**17], within a part in 2**22."""
    if has_ptx():
        code: tl.constexpr = "rcp.approx.ftz.f32 $0, $1;"
        return tl.inline_asm_elementwise(code, "=f,f", [x], dtype=tl.float32, is_pure=True, pack=1)
    else:
        return 1.0 / x


@triton.jit
def clamped_sum(a, b, highest):
    """Return a + b, clamped to [0, highest]: one instruction of which LLVM doesn't learn that it isn't negative.

    It would else multiply by an unsigned number, which the device makes of three products.
    """
    if has_ptx():
        code: tl.constexpr = "{ .reg .s32 t; add.s32 t, $1, $2; min.s32 t, t, $3; max.s32 $0, t, 0; }"
        return tl.inline_asm_elementwise(code, "=r,r,r,r", [a, b, highest], dtype=tl.int32, is_pure=True, pack=1)
    else:
        return tl.minimum(tl.maximum(a + b, 0), highest)


@triton.jit
def times_byte(x, word, i: tl.constexpr, added):
    """Return x times int8 ``i`` of a word, plus ``added``; x, an int16 in int32, is one of two in the instruction."""
    if has_ptx():
        pair = x << 16 if i % 2 else x & 0xFFFF
        code: tl.constexpr = "dp2a.hi.s32.s32 $0, $1, $2, $3;" if i // 2 else "dp2a.lo.s32.s32 $0, $1, $2, $3;"
        return tl.inline_asm_elementwise(code, "=r,r,r,r", [pair, word, added], dtype=tl.int32, is_pure=True, pack=1)
    else:
        return x * byte(word, i) + added


@triton.jit
def dot_low_halves(a, b, word, i: tl.constexpr, added):
    """Return the low halves of a and b, unsigned, times int8 ``i`` and ``i + 1`` of a word (i even), plus ``added``."""
    if has_ptx():
        code: tl.constexpr = halves_dot("0x5410", i, "u")
        return tl.inline_asm_elementwise(code, "=r,r,r,r,r", [a, b, word, added], dtype=tl.int32, is_pure=True, pack=1)
    else:
        return (a & 0xFFFF) * byte(word, i) + (b & 0xFFFF) * byte(word, i + 1) + added


@triton.jit
def dot_high_halves(a, b, word, i: tl.constexpr, added):
    """Return the high halves of a and b, signed, times int8 ``i`` and ``i + 1`` of a word (i even), plus ``added``."""
    if has_ptx():
        code: tl.constexpr = halves_dot("0x7632", i, "s")
        return tl.inline_asm_elementwise(code, "=r,r,r,r,r", [a, b, word, added], dtype=tl.int32, is_pure=True, pack=1)
    else:
        return (a >> 16) * byte(word, i) + (b >> 16) * byte(word, i + 1) + added


@triton.jit
def dot_halves(pair, word, i: tl.constexpr, added):
    """Return two int16 of a word times int8 ``2 i`` and ``2 i + 1`` of another, plus ``added``."""
    if has_ptx():
        code: tl.constexpr = "dp2a.hi.s32.s32 $0, $1, $2, $3;" if i else "dp2a.lo.s32.s32 $0, $1, $2, $3;"
        return tl.inline_asm_elementwise(code, "=r,r,r,r", [pair, word, added], dtype=tl.int32, is_pure=True, pack=1)
    else:
        return ((pair << 16) >> 16) * byte(word, 2 * i) + (pair >> 16) * byte(word, 2 * i + 1) + added


@triton.jit
def dot_bytes(a, b, added):
    """Return the sum of four unsigned bytes of a times four int8 of b, plus ``added``."""
    if has_ptx():
        code: tl.constexpr = "dp4a.u32.s32 $0, $1, $2, $3;"
        return tl.inline_asm_elementwise(code, "=r,r,r,r", [a, b, added], dtype=tl.int32, is_pure=True, pack=1)
    else:
        for i in tl.static_range(4):
            added += ((a >> (8 * i)) & 255) * byte(b, i)
        return added


@triton.jit
def dot_signed(a, b, added):
    """Return the sum of four int8 of a times four int8 of b, plus ``added``."""
    if has_ptx():
        code: tl.constexpr = "dp4a.s32.s32 $0, $1, $2, $3;"
        return tl.inline_asm_elementwise(code, "=r,r,r,r", [a, b, added], dtype=tl.int32, is_pure=True, pack=1)
    else:
        for i in tl.static_range(4):
            added += byte(a, i) * byte(b, i)
        return added


@triton.jit
def select_bytes(a, b, selector: tl.constexpr):
    """Return a word of four of the eight bytes of a and b (PTX alone)."""
    code: tl.constexpr = selection(selector)
    return tl.inline_asm_elementwise(code, "=r,r,r", [a, b], dtype=tl.int32, is_pure=True, pack=1)


@triton.jit
def four_planes(q):
    """Return, for each i, the word of byte i of four words."""
    if has_ptx():
        low, high = select_bytes(q[0], q[1], "0x5140"), select_bytes(q[0], q[1], "0x7362")
        low_next, high_next = select_bytes(q[2], q[3], "0x5140"), select_bytes(q[2], q[3], "0x7362")
        return (
            select_bytes(low, low_next, "0x5410"),
            select_bytes(low, low_next, "0x7632"),
            select_bytes(high, high_next, "0x5410"),
            select_bytes(high, high_next, "0x7632"),
        )
    else:
        planes = ()
        for i in tl.static_range(4):
            plane = (q[3] >> (8 * i)) << 24
            for j in tl.static_range(3):
                plane |= ((q[j] >> (8 * i)) & 255) << (8 * j)
            planes = planes + (plane,)
        return planes


@triton.jit
def ternary_digits(packed, i: tl.constexpr):
    """Return digit ``i`` of each byte, in int8."""
    if has_ptx():
        code: tl.constexpr = plane_digits(i)
        return tl.inline_asm_elementwise(code, "=r,r", [packed], dtype=tl.int8, is_pure=True, pack=4)
    else:
        return ((((packed.to(tl.int32) >> (2 * i)) & 3) ^ 2) - 2).to(tl.int8)


@triton.jit
def raised_digits(packed, i: tl.constexpr):
    """Return 64 times digit ``i`` of each byte, in int8: a digit is its own two's complement of two bits."""
    if has_ptx():
        code: tl.constexpr = upper_digits(i)
        return tl.inline_asm_elementwise(code, "=r,r", [packed], dtype=tl.int8, is_pure=True, pack=4)
    else:
        return ((packed.to(tl.int32) << (6 - 2 * i)) & 0xC0).to(tl.int8)
