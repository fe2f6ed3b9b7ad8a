"""The int8 product of cuBLASLt, through ctypes: the fastest of the algorithms that its heuristic offers."""

import ctypes
import math
from collections.abc import Callable
from ctypes import Structure, byref, c_float, c_int, c_int32, c_int64, c_size_t, c_uint64, c_void_p, sizeof
from typing import Any

SONAMES = ("libcublasLt.so.12", "libcublasLt.so.13")
COMPUTE_32I, REAL_8I, REAL_32I = 72, 3, 10
TRANSPOSE_A, MAX_WORKSPACE = 3, 1  # attributes of a product, of a preference
WORKSPACE = 64 << 20
OFFERS = 16


class Heuristic(Structure):
    _fields_ = (
        ("algorithm", c_uint64 * 8),
        ("workspace", c_size_t),
        ("state", c_int),
        ("waves", c_float),
        ("reserved", c_int * 4),
    )


def library() -> ctypes.CDLL:
    """Return the library that Torch has loaded."""
    for soname in SONAMES:
        try:
            return ctypes.CDLL(soname)
        except OSError:
            continue
    raise OSError(f"none of {', '.join(SONAMES)} is loaded")


def int8_product(rows: int, k: int, n: int, device: str) -> Callable[[], object]:
    """Return a call that multiplies int8 [rows, k] by int8 [n, k] turned, into int32 [rows, n].

    Raises
    ------
    RuntimeError
        The heuristic offers no algorithm for these sizes, or a call fails.
    """
    import torch

    from .clocks import median_seconds

    lt = library()

    def check(name: str, *arguments: Any) -> None:
        if status := getattr(lt, name)(*arguments):
            raise RuntimeError(f"{name}: status {status}")

    def made(name: str, *arguments: Any) -> c_void_p:
        handle = c_void_p()
        check(name, byref(handle), *arguments)
        return handle

    handle = made("cublasLtCreate")
    product = made("cublasLtMatmulDescCreate", COMPUTE_32I, REAL_32I)
    turned, limit = c_int32(1), c_uint64(WORKSPACE)
    check("cublasLtMatmulDescSetAttribute", product, TRANSPOSE_A, byref(turned), c_size_t(sizeof(turned)))
    # Its matrices are stored by columns, so ours are seen turned: the weights come first.
    layouts = [
        made("cublasLtMatrixLayoutCreate", kind, c_uint64(height), c_uint64(width), c_int64(height))
        for kind, height, width in ((REAL_8I, k, n), (REAL_8I, k, rows), (REAL_32I, n, rows))
    ]
    preference = made("cublasLtMatmulPreferenceCreate")
    check("cublasLtMatmulPreferenceSetAttribute", preference, MAX_WORKSPACE, byref(limit), c_size_t(sizeof(limit)))
    offers, count = (Heuristic * OFFERS)(), c_int()
    check(
        "cublasLtMatmulAlgoGetHeuristic",
        *(handle, product, layouts[0], layouts[1], layouts[2], layouts[2], preference),
        *(OFFERS, offers, byref(count)),
    )
    w, x = (torch.ones((height, k), dtype=torch.int8, device=device) for height in (n, rows))
    y = torch.empty((rows, n), dtype=torch.int32, device=device)
    workspace = torch.empty(WORKSPACE, dtype=torch.uint8, device=device)
    one, zero = c_int32(1), c_int32(0)

    def pointer(array: Any) -> c_void_p:
        return c_void_p(array.data_ptr())

    def call_of(offer: Heuristic) -> Callable[[], object]:
        algorithm = type(offer.algorithm)(*offer.algorithm)  # a pointer into the offers would not keep their memory
        arguments = (
            *(handle, product, byref(one), pointer(w), layouts[0], pointer(x), layouts[1], byref(zero)),
            *(pointer(y), layouts[2], pointer(y), layouts[2], algorithm),
            *(pointer(workspace), c_size_t(WORKSPACE)),
        )

        def call(held: tuple[Any, ...] = (w, x, y, workspace)) -> None:  # the pointers keep no memory
            check("cublasLtMatmul", *arguments, c_void_p(torch.cuda.current_stream(device).cuda_stream))

        return call

    def seconds(call: Callable[[], object]) -> float:
        try:
            return median_seconds(call, device)
        except RuntimeError:  # what the heuristic offers may be refused all the same, by a capturing stream alone too
            return math.inf

    times = {call: seconds(call) for call in map(call_of, offers[: count.value])}
    best = min(times, key=times.__getitem__, default=None)
    if best is None or times[best] == math.inf:
        raise RuntimeError(f"no algorithm of {count.value} offered for {rows} x {k} x {n} runs")
    return best
