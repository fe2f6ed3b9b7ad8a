"""The chunked scan on a GPU: every integer checked against Torch, then the median time of the kernels and of the call.

``python -m benchmarks.chunk_scan`` prints a line for each number of warps and of stages.
"""

import itertools

import numpy as np
import torch

from mamba_integer.backends.torch import ssd_chunk as reference
from mamba_integer.backends.triton import ssd_chunk as kernels
from mamba_integer.conformance.speed.clocks import median_seconds
from mamba_integer.spec import trusted_values

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


def main() -> None:
    for warps, stages in itertools.product((4, 8), (1, 2, 3)):
        kernels.WARPS, kernels.STAGES = warps, stages
        try:
            small = SHAPE | {"batch": 2, "length": 700, "heads": 5}
            wrong = [differences(inputs("cuda", **small | change)) for change in ({}, {"fill": True}, {"chunk": 128})]
            with trusted_values():
                arrays = inputs("cuda", **SHAPE)
                seconds = median_seconds(lambda arrays=arrays: kernels.ssd_chunk_scan(*arrays, **FORMAT), "cuda")
        except Exception as error:  # a configuration that doesn't fit the device is a result too
            print(f"warps {warps} stages {stages}: {type(error).__name__}: {str(error)[:160]}", flush=True)
        else:
            print(f"warps {warps} stages {stages}: {seconds * 1e6:.0f} us, integers that differ: {wrong}", flush=True)


if __name__ == "__main__":
    main()
