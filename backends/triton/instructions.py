"""Instructions of NVIDIA GPUs that Triton has no name for, each beside the plain arithmetic that it equals.

Four int8 lie in a word, the first in its lowest byte. The interpreter and other targets take the plain path.
"""

import triton
import triton.language as tl
from triton.runtime.driver import driver


def takes_ptx() -> bool:
    return not triton.knobs.runtime.interpret and driver.active.get_current_target().backend == "cuda"


takes_ptx.__triton_builtin__ = True  # type: ignore[attr-defined] # kernels may name it: Triton doesn't look inside


@triton.constexpr_function
def has_ptx():
    """Return whether the target takes PTX."""
    return takes_ptx()


@triton.constexpr_function
def sign_extension(i):
    """Return the instruction that puts byte ``i`` lowest and its sign into the bytes above."""
    return f"prmt.b32 $0, $1, 0, 0x{(i + 8) * 0x1110 + i:x};"


@triton.constexpr_function
def halves_dot(selector, i, sign):
    """Return the instructions that take two halves of a and b times bytes ``i`` and ``i + 1`` of a word."""
    side = "hi" if i else "lo"
    return f"{{ .reg .b32 t; prmt.b32 t, $1, $2, {selector}; dp2a.{side}.{sign}32.s32 $0, t, $3, $4; }}"


@triton.jit
def byte(word, i: tl.constexpr):
    """Return int8 ``i`` of a word, in int32."""
    if has_ptx():
        return tl.inline_asm_elementwise(sign_extension(i), "=r,r", [word], dtype=tl.int32, is_pure=True, pack=1)
    else:
        return (word << (24 - 8 * i)) >> 24


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
