"""The chunked scan on a GPU: every integer checked against Torch, then the time of forward, backward and step.

``python -m benchmarks.chunk_scan --json FILE``. Times are medians of CUDA graphs, without launches, from a cold cache.
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import rich
import torch
import typer
from rich.table import Table

from mamba_integer.backends import load
from mamba_integer.backends.app.environment import environment
from mamba_integer.backends.app.outputs import output_file
from mamba_integer.backends.files.atomic import write_json
from mamba_integer.backends.torch import ssd_chunk as reference
from mamba_integer.backends.torch import ssd_chunk_backward as reference_backward
from mamba_integer.backends.triton import ssd_chunk, ssd_chunk_backward, ssd_chunk_step
from mamba_integer.conformance.speed.clocks import cold_seconds
from mamba_integer.spec import trusted_values

FORMAT = {"s_h": 16, "s_y": 10}
SHIFTS = {"s_h": 16, "s_g": 12, "s_x": 20, "s_d": 20, "s_b": 20, "s_c": 20}
SHAPE = dict(batch=8, length=2048, heads=24, width=64, states=128, chunk=64)
SMALL = SHAPE | {"batch": 2, "length": 700, "heads": 5}


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


def gradients(arrays) -> list[torch.Tensor]:
    """Return arrays of `ssd_chunk_scan_backward`: errors of 16 bits, no gradient of the last state."""
    x, d, b, c, skip, h = arrays[:6]
    dy = torch.randint(-9999, 10000, x.shape, dtype=torch.int16, device=x.device)
    return [dy, x, d, b, c, skip, h, torch.zeros_like(h)]


def one_step(arrays, fill: int) -> list[torch.Tensor]:
    step = [array[:, 0].contiguous() if i < 4 else array for i, array in enumerate(arrays)]
    return [*step[:-1], torch.full_like(step[-1], fill)]


def equal(got, want) -> bool:
    return all(torch.equal(g, w) for g, w in zip(got, want, strict=True))


def verify() -> None:
    for change in ({}, {"fill": True}, {"chunk": 128}, {"states": 64}):
        arrays = inputs("cuda", **SMALL | change)
        assert equal(ssd_chunk.ssd_chunk_scan(*arrays, **FORMAT), reference.ssd_chunk_scan(*arrays, **FORMAT))
        step = one_step(arrays, arrays[6].shape[1] - 1)
        assert equal(
            ssd_chunk_step.ssd_chunk_scan_step(*step, **FORMAT), reference.ssd_chunk_scan_step(*step, **FORMAT)
        )
        back, q = gradients(arrays), arrays[6].shape[1].bit_length() - 1
        got, want = (
            module.ssd_chunk_scan_backward(*back, q=q, **SHIFTS) for module in (ssd_chunk_backward, reference_backward)
        )
        assert equal(got, want)


def line(work: str, sizes: dict[str, int], call: partial) -> dict[str, Any]:
    return {"work": work, "sizes": sizes, "microseconds": round(cold_seconds(call, "cuda") * 1e6, 2)}


def lines() -> Iterator[dict[str, Any]]:
    """Yield the time of each work; a step in place leaves its state in the arrays that it was given."""
    for change in ({}, {"states": 64}, {"batch": 32}, {"batch": 1, "length": 65536}):
        sizes = SHAPE | change
        arrays = inputs("cuda", **sizes)
        yield line("forward", sizes, partial(ssd_chunk.ssd_chunk_scan, *arrays, **FORMAT))
        if sizes["batch"] == SHAPE["batch"]:
            back = gradients(arrays)
            yield line("backward", sizes, partial(ssd_chunk_backward.ssd_chunk_scan_backward, *back, q=6, **SHIFTS))
    for batch in (1, 64):
        sizes = SHAPE | {"batch": batch, "length": 1}
        arrays = inputs("cuda", **sizes)
        for fill in (31, 63):
            step, filled = one_step(arrays, fill), sizes | {"fill": fill}
            yield line("step", filled, partial(ssd_chunk_step.ssd_chunk_scan_step, *step, **FORMAT))
            yield line("step in place", filled, partial(ssd_chunk_step.step_in_place, *step, **FORMAT))


def main(
    output: Annotated[
        Path | None, typer.Option("--json", help="Write the results to this file.", callback=output_file)
    ] = None,
) -> None:
    """Verify, then time every work."""
    verify()
    table, rows = Table("work", "sizes", "us", title="chunked scan"), []
    with trusted_values():
        for row in lines():
            rows.append(row)
            sizes = ", ".join(f"{name} {size}" for name, size in row["sizes"].items())
            table.add_row(row["work"], sizes, f"{row['microseconds']:,.1f}")
    rich.print(table)
    if output:
        write_json(output, environment([load("triton", "cuda")]) | {"rows": rows})


if __name__ == "__main__":
    typer.run(main)
