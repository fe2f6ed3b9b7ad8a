"""The chunked scan on a GPU: every integer checked against Torch, then the median time of the kernels and of the call.

``python -m benchmarks.chunk_scan [--json FILE]`` prints a line for each configuration, beside the time that its bytes
need at the bandwidth of a copy and, where fla is installed, the time of fla's ``chunk_simple_gla``.
"""

import itertools
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer

from mamba_integer.backends.files.atomic import write_json
from mamba_integer.backends.torch import ssd_chunk as reference
from mamba_integer.backends.triton import ssd_chunk as kernels
from mamba_integer.spec import trusted_values

from .timing import copy_bandwidth, median_seconds

FORMAT = {"s_h": 16, "s_y": 10}
SHAPE = dict(batch=8, length=2048, heads=24, width=64, states=128, chunk=64)


def inputs(device: str, batch: int, length: int, heads: int, width: int, states: int, chunk: int, fill: bool = False):
    """Return arrays of `ssd_chunk_scan`: half-lives from ten positions to thousands, open chunks empty or not."""
    source = np.random.default_rng(1)

    def byte(*shape: int) -> np.ndarray:
        return source.integers(-127, 128, shape).astype(np.int8)

    def exponents(steps: int) -> np.ndarray:
        slowest = np.geomspace(2, 800, heads).astype(np.int64)
        return source.integers(0, slowest, (batch, steps, heads)).astype(np.int32)

    arrays = (
        *(byte(batch, length, heads, width), exponents(length), byte(batch, length, states)),
        *(byte(batch, length, states), source.integers(-999, 1000, heads).astype(np.int16)),
        np.zeros((batch, heads, width, states), np.int32),
        *(byte(batch, chunk, heads, width), exponents(chunk), byte(batch, chunk, states)),
        source.integers(0, chunk if fill else 1, batch).astype(np.int32),
    )
    return [torch.tensor(array, device=device) for array in arrays]


def differences(arrays) -> int:
    got, want = (module.ssd_chunk_scan(*arrays, **FORMAT) for module in (kernels, reference))
    return sum(int((g != w).sum()) for g, w in zip(got, want, strict=True))


def floor_seconds(arrays, bandwidth: float) -> float:
    """Return the time of reading each input and writing each result once, at the bandwidth of a copy."""
    results = reference.ssd_chunk_scan(*arrays, **FORMAT)
    return sum(a.numel() * a.element_size() for a in (*arrays, *results)) / bandwidth


def peer_seconds(batch: int, length: int, heads: int, width: int, states: int, **_: int) -> float | None:
    """Return the time of fla's chunked scan of the same sizes in bfloat16; None where fla is absent."""
    try:
        from fla.ops.simple_gla import chunk_simple_gla
    except ImportError:
        return None
    queries, keys = (torch.randn(batch, length, heads, states, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    values = torch.randn(batch, length, heads, width, device="cuda", dtype=torch.bfloat16)
    decays = -torch.rand(batch, length, heads, device="cuda")
    return median_seconds(lambda: chunk_simple_gla(queries, keys, values, decays), "cuda")


def graph_seconds(call) -> float:
    """Return the median time of the kernels of a call, replayed as a graph."""
    from triton.testing import do_bench_cudagraph

    call()
    with torch.cuda.stream(torch.cuda.Stream()):
        return do_bench_cudagraph(call, return_mode="median") / 1000


def measured(channels: int, stages: int, group: int) -> dict[str, Any]:
    """Return a row for one configuration: checked first, timed only where every integer is equal."""
    kernels.CHANNELS, kernels.STAGES, kernels.GROUP = channels, stages, group
    row: dict[str, Any] = {"channels": channels, "stages": stages, "group": group}
    small = SHAPE | {"batch": 2, "length": 700, "heads": 5}
    try:
        with trusted_values():
            changes = ({}, {"fill": True}, {"chunk": 128}, {"states": 64})
            row["differ"] = [differences(inputs("cuda", **small | change)) for change in changes]
            if not any(row["differ"]):
                arrays = inputs("cuda", **SHAPE)

                def call() -> object:
                    return kernels.ssd_chunk_scan(*arrays, **FORMAT)

                row |= {"graph_seconds": graph_seconds(call), "call_seconds": median_seconds(call, "cuda")}
    except Exception as error:  # a configuration that doesn't fit the device is a result too
        row["error"] = f"{type(error).__name__}: {str(error)[:160]}"
    return row


def main(
    output: Annotated[Path | None, typer.Option("--json", help="Write the measured rows to this file.")] = None,
) -> None:
    """Time the chunked scan on a GPU."""
    floor, peer = floor_seconds(inputs("cuda", **SHAPE), copy_bandwidth("cuda")), peer_seconds(**SHAPE)
    print(f"floor {floor * 1e6:.0f} us; fla {'absent' if peer is None else f'{peer * 1e6:.0f} us'}", flush=True)
    rows = []
    for configuration in itertools.product((32, 64), (1, 2, 3), (4, 8)):
        rows.append(measured(*configuration))
        seconds = rows[-1].get("graph_seconds")
        ratio = "" if seconds is None else f" {seconds * 1e6:.0f} us, {seconds / floor:.1f} of the floor"
        ratio += "" if seconds is None or peer is None else f", {seconds / peer:.2f} of fla"
        print(f"{rows[-1]}{ratio}", flush=True)
    if output:
        write_json(output, {"shape": SHAPE, "floor_seconds": floor, "peer_seconds": peer, "rows": rows})


if __name__ == "__main__":
    typer.run(main)
