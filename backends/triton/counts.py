"""Counts in memory by which programs wait for what others store: of a kernel that runs beside theirs, or of their own.

A program waits for those alone that have begun before it: so they end, whatever waits for them.
"""

import triton
import triton.language as tl

from .instructions import has_ptx, is_interpreted


@triton.jit
def signal(pointer, now):
    """Add 1 to a count, after all that the program's threads have stored; no branch, which Triton would move."""
    if has_ptx():
        code: tl.constexpr = (
            "{ .reg .pred p; .reg .b32 t; bar.sync 0; mov.u32 t, %tid.x; setp.eq.u32 p, t, 0;"
            " setp.ne.and.s32 p, $2, 0, p; @p red.release.gpu.global.add.u32 [$1], 1; mov.u32 $0, 0; }"
        )
        arguments = [pointer.to(tl.int64), now.to(tl.int32)]
        tl.inline_asm_elementwise(code, "=r,l,r", arguments, dtype=tl.int32, is_pure=False, pack=1)
    else:
        if now:
            tl.debug_barrier()
            tl.atomic_add(pointer, 1, sem="release")


@triton.jit
def await_count(pointer, least):
    """Wait until a count that others add to is large enough, and return it."""
    count = tl.atomic_add(pointer, 0, sem="acquire")
    if not is_interpreted():  # there, programs run one by one: nothing more would come
        while count < least:
            count = tl.atomic_add(pointer, 0, sem="acquire")
        tl.debug_barrier()  # no thread reads what is stored before the one that waited
    return count
