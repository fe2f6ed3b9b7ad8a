"""Real text through the chain of one block, op by op; one digest per stage, so two parties find where they part."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache

import numpy as np

from mamba_integer import spec
from mamba_integer.backends import Backend
from mamba_integer.backends.files.source import Source
from mamba_integer.spec.philox import random_words
from mamba_integer.spec.tables import hippo_decays

from ..report import Text
from .stages import Stage, follow

MODEL, INNER, STATES, RANK = 32, 64, 8, 4
SEED = 20250101
FRACTION = 8  # activations are in Q.8
INTERPRETED_BYTES = 160
DECAY_BITS, DECAY_MAX = 15, (1 << 15) - 64

Arrays = tuple[np.ndarray, ...]


@dataclass(frozen=True)
class Block:
    """The constants of one block."""

    table: np.ndarray
    gamma: np.ndarray
    in_x: np.ndarray
    in_z: np.ndarray
    conv: np.ndarray
    conv_bias: np.ndarray
    x_proj: np.ndarray
    dt_proj: np.ndarray
    out_proj: np.ndarray
    base: np.ndarray
    skip: np.ndarray


@cache
def block() -> Block:
    """Return weights drawn by Philox, one stream each, and decays of the HiPPO table."""
    streams = iter(range(16))

    def uniform(shape: tuple[int, ...], limit: int, dtype: str) -> np.ndarray:
        words = random_words(SEED, next(streams), int(np.prod(shape))).astype(np.int64)
        return (words % (2 * limit + 1) - limit).reshape(shape).astype(dtype)

    def ternary(outputs: int, inputs: int) -> np.ndarray:
        return spec.pack_ternary(uniform((outputs, inputs), 1, "int8"))

    decays = [hippo_decays(STATES, Fraction(channel + 1, 16 * INNER), DECAY_BITS) for channel in range(INNER)]
    return Block(
        table=uniform((256, MODEL), 512, "int16"),
        gamma=np.full(MODEL, 1 << FRACTION, np.int16),
        in_x=ternary(INNER, MODEL),
        in_z=ternary(INNER, MODEL),
        conv=uniform((INNER, 4), 127, "int8"),
        conv_bias=uniform((INNER,), 1 << 13, "int32"),
        x_proj=ternary(RANK + 2 * STATES, INNER),
        dt_proj=ternary(INNER, RANK),
        out_proj=ternary(MODEL, INNER),
        base=np.minimum(decays, DECAY_MAX).astype(np.int16),
        skip=uniform((INNER,), 16, "int16"),
    )


def stages(call: Callable[..., Arrays], data: bytes) -> Iterator[tuple[str, str, Arrays]]:
    """Yield (stage, op, results) of the block; each stage takes the results that ``call`` gave before."""
    w = block()
    zero_state = np.zeros((1, 3, INNER), np.int16), np.zeros((1, INNER, STATES), np.int32)

    def stage(name: str, op: str, *arrays: np.ndarray, **parameters: int) -> tuple[str, str, Arrays]:
        return name, op, call(op, tuple(np.ascontiguousarray(a) for a in arrays), parameters)

    ids = np.frombuffer(data, np.uint8).astype(np.int32)
    yield (now := stage("embedding", "embedding", ids, w.table, shift=4))
    (residual,) = now[2]
    yield (now := stage("norm_quantize", "norm_quantize", residual, w.gamma, b=3, s=0))
    rows = now[2]
    yield (now := stage("in_proj x", "ternary_linear", *rows, w.in_x, num=7, shift=5))
    (x,) = now[2]
    yield (now := stage("in_proj z", "ternary_linear", *rows, w.in_z, num=7, shift=5))
    (z,) = now[2]
    yield (now := stage("conv", "causal_conv1d", x[None], w.conv, w.conv_bias, zero_state[0], s=7))
    x, _ = now[2]
    yield (now := stage("squareplus", "squareplus", x, f=FRACTION, offset=1 << FRACTION))
    (x,) = now[2]
    yield (now := stage("quantize x", "quantize_rows", x))
    yield (now := stage("x_proj", "ternary_linear", *now[2], w.x_proj, num=5, shift=5))
    dt, b, c = np.split(now[2][0], [RANK, RANK + STATES], axis=-1)
    yield (now := stage("requantize b", "requantize", b, shift=4))
    (b,) = now[2]
    yield (now := stage("requantize c", "requantize", c, shift=4))
    (c,) = now[2]
    yield (now := stage("quantize dt", "quantize_rows", dt))
    yield (now := stage("dt_proj", "ternary_linear", *now[2], w.dt_proj, num=1, shift=1))
    (mod,) = now[2]
    decay = dict(k=DECAY_BITS, n_max=DECAY_MAX, convex=0)
    arrays = (x, mod, w.base, b, c, w.skip, zero_state[1])
    yield (now := stage("scan", "selective_scan", *arrays, s_v=7, s_h=5, s_y=4, **decay))
    y, _ = now[2]
    yield (now := stage("gate", "silu_gate", y, z[None], f=FRACTION))
    (y,) = now[2]
    yield (now := stage("quantize y", "quantize_rows", y[0]))
    yield (now := stage("out_proj", "ternary_linear", *now[2], w.out_proj, num=5, shift=5))
    yield stage("residual", "residual_add", residual, now[2][0], num=31, shift=1)


def run(backends: Sequence[Backend], source: Source, full: bool = True) -> list[Text]:
    """Run the block on each backend, every stage fed from that backend's own stage before.

    Only a full run lets a backend that is interpreted read all of the text.
    """
    texts = []
    for backend in backends:
        interpreted = getattr(backend.ops, "interpreted", 0) and not full
        read = source.start(INTERPRETED_BYTES) if interpreted else source
        want = list(named(Backend("golden", spec), read))
        text = Text(backend.name, read.name)
        lacking = [stage.by for stage in want if not backend.has(stage.by)]
        texts.append(text.lacks([*dict.fromkeys(lacking)]) if lacking else follow(text, want, named(backend, read)))
    return texts


def named(backend: Backend, source: Source) -> Iterator[Stage]:
    """Yield the stages of the block on a backend, their results by the names of the contracts."""
    for name, op, arrays in stages(backend.run, source.data):
        names = [tensor.name for tensor in spec.OPS[op].outputs]
        numbers = [f"result {i}" for i in range(len(names), len(arrays))]
        yield Stage(name, op, dict(zip([*names, *numbers], arrays, strict=False)))
