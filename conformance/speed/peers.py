"""The peers of an op: functions that a user would call instead, on the same device and at the same sizes.

A peer computes no integers of ours, so its result isn't compared. One whose package isn't installed, or that refuses a
size, is named with the reason.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mamba_integer.backends.protocol import BackendError

if TYPE_CHECKING:
    from .workloads import Workload

Call = Callable[[], object]


@dataclass(frozen=True)
class Peer:
    """``make`` takes a workload and a device, and returns the call to time."""

    name: str
    package: str
    make: Callable[[Workload, str], Call]


def half(*shape: int, device: str) -> Any:
    import torch

    return torch.randn(shape, dtype=torch.bfloat16, device=device)


def bf16_product(workload: Workload, device: str) -> Call:
    (rows,), k, n = workload.leading, workload.sizes["K"], workload.sizes["N"]
    x, w = half(rows, k, device=device), half(n, k, device=device)
    return lambda: x @ w.t()


def int_mm(workload: Workload, device: str) -> Call:
    import torch

    (rows,), k, n = workload.leading, workload.sizes["K"], workload.sizes["N"]
    x = torch.ones((rows, k), dtype=torch.int8, device=device)
    w = torch.ones((n, k), dtype=torch.int8, device=device)
    return lambda: torch._int_mm(x, w.t())


def cublaslt(workload: Workload, device: str) -> Call:
    from .cublaslt import int8_product

    return int8_product(workload.leading[0], workload.sizes["K"], workload.sizes["N"], device)


def selective_scan(workload: Workload, device: str) -> Call:
    import torch

    scan = importlib.import_module("mamba_ssm.ops.selective_scan_interface").selective_scan_fn
    batch, length, channels, states = (workload.sizes[name] for name in "BLDN")
    x, delta = (half(batch, channels, length, device=device) for _ in range(2))
    a, skip = -torch.rand(channels, states, device=device), torch.ones(channels, device=device)
    b, c = (half(batch, states, length, device=device) for _ in range(2))
    return lambda: scan(x, delta, a, b, c, skip, delta_softplus=True)


def chunk_scan(workload: Workload, device: str) -> Call:
    import torch

    scan = importlib.import_module("mamba_ssm.ops.triton.ssd_combined").mamba_chunk_scan_combined
    batch, length, heads, width, states = (workload.sizes[name] for name in "BLHPS")
    x, delta = half(batch, length, heads, width, device=device), half(batch, length, heads, device=device).float()
    b, c = (half(batch, length, 1, states, device=device) for _ in range(2))
    a = -torch.rand(heads, device=device)
    return lambda: scan(x, delta.exp(), a, b, c, chunk_size=256)


def simple_gla(workload: Workload, device: str) -> Call:
    import torch

    scan = importlib.import_module("fla.ops.simple_gla").chunk_simple_gla
    batch, length, heads, width, states = (workload.sizes[name] for name in "BLHPS")
    q, k = (half(batch, length, heads, states, device=device) for _ in range(2))
    v, g = half(batch, length, heads, width, device=device), -torch.rand(batch, length, heads, device=device)
    return lambda: scan(q, k, v, g)


def causal_conv(workload: Workload, device: str) -> Call:
    conv = importlib.import_module("causal_conv1d").causal_conv1d_fn
    batch, length, channels = (workload.sizes[name] for name in "BLD")
    x, w, bias = (
        half(batch, channels, length, device=device),
        half(channels, 4, device=device),
        half(channels, device=device),
    )
    return lambda: conv(x, w, bias, activation="silu")


def rms_norm(workload: Workload, device: str) -> Call:
    import torch

    x = half(*workload.leading, workload.sizes["D"], device=device)
    weight = half(workload.sizes["D"], device=device)
    return lambda: torch.nn.functional.rms_norm(x, (x.shape[-1],), weight)


def silu_gate(workload: Workload, device: str) -> Call:
    import torch

    x, z = (half(*workload.leading, device=device) for _ in range(2))
    return lambda: x * torch.nn.functional.silu(z)


def residual(workload: Workload, device: str) -> Call:
    x, y = (half(*workload.leading, device=device) for _ in range(2))
    return lambda: x + y


PRODUCTS = (
    Peer("cuBLASLt int8", "torch", cublaslt),
    Peer("torch._int_mm", "torch", int_mm),
    Peer("bf16 matmul", "torch", bf16_product),
)
PEERS: dict[str, tuple[Peer, ...]] = {
    "ternary_linear": PRODUCTS,
    "ternary_linear_requant": PRODUCTS,
    "selective_scan": (Peer("mamba_ssm bf16", "mamba_ssm", selective_scan),),
    "ssd_scan": (Peer("mamba_ssm bf16", "mamba_ssm", chunk_scan), Peer("fla simple_gla bf16", "fla", simple_gla)),
    "ssd_chunk_scan": (Peer("mamba_ssm bf16", "mamba_ssm", chunk_scan), Peer("fla simple_gla bf16", "fla", simple_gla)),
    "causal_conv1d": (Peer("causal-conv1d bf16", "causal_conv1d", causal_conv),),
    "norm_quantize": (Peer("torch RMSNorm bf16", "torch", rms_norm),),
    "silu_gate": (Peer("torch SiLU gate bf16", "torch", silu_gate),),
    "residual_add": (Peer("torch add bf16", "torch", residual),),
}


def peer_rows(workload: Workload, device: str, seconds_of: Callable[[Call], float]) -> list[dict[str, Any]]:
    """Time each peer of a workload on a GPU; one that can't run is a row with the reason in ``absent``."""
    return [timed(peer, workload, device, seconds_of) for peer in PEERS.get(workload.op, ())]


def timed(peer: Peer, workload: Workload, device: str, seconds_of: Callable[[Call], float]) -> dict[str, Any]:
    try:
        importlib.import_module(peer.package)
    except ImportError:
        return {"peer": peer.name, "absent": f"{peer.package} isn't installed"}
    try:
        call = peer.make(workload, device)
        call()
        return {"peer": peer.name, "seconds": seconds_of(call)}
    except ModuleNotFoundError as error:
        return {"peer": peer.name, "absent": f"{peer.package} is installed without {error.name}"}
    except (BackendError, RuntimeError, ImportError, OSError, AssertionError, TypeError, ValueError) as error:
        return {"peer": peer.name, "absent": f"{type(error).__name__}: {' '.join(str(error).split())[:120]}"}
