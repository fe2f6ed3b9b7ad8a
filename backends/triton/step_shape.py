"""What the kernel of a step is compiled for, and where it finds the arrays of a layer."""

from dataclasses import dataclass

import torch
import triton
import triton.language as tl

from mamba_integer.spec.integers import RESIDUAL_BITS
from mamba_integer.spec.model.blocks import Network
from mamba_integer.spec.model.config import KINDS, ModelConfig
from mamba_integer.spec.ops import ssd_chunk as definition

from .ssd_chunk import LEAST_TILE

ALIGNMENT = 32  # words

# A layer's row of the table: the addresses of these arrays, then the number of its kind.
FIELDS = (
    *("norm", "in_proj", "conv_weight", "conv_bias", "conv", "x_proj", "decay", "skip", "out_proj", "dt_proj"),
    *("scan", "open_x", "open_d", "open_b"),
)
NORM, IN_PROJ, TAPS, BIAS, CONV, X_PROJ, DECAY, SKIP, OUT_PROJ, DT_PROJ, STATE, OPEN_X, OPEN_D, OPEN_B, KIND = (
    tl.constexpr(i) for i in range(len(FIELDS) + 1)
)
PITCH = tl.constexpr(16)
MAMBA1_KIND = tl.constexpr(0)


@dataclass(frozen=True)
class Shape:
    """The integers of a model, and the tiles of its step. A scale is ``num / 2**shift``; ``s_*`` are shifts."""

    layers: int
    vocab: int
    depth: int  # d_model
    inner: int
    heads: int
    headdim: int
    rank: int
    states1: int
    states2: int
    chunk: int
    rotates: bool
    chunk_tile: int
    states2_tile: int
    norm_b: int
    norm_s: int
    in_num: int
    in_shift: int
    x_num: int
    x_shift: int
    dt_num: int
    dt_shift: int
    out_num: int
    out_shift: int
    head_num: int
    head_shift: int
    gate_num: int
    gate_shift: int
    residual_bits: int
    conv_s: int
    f: int
    offset: int
    mixture_shift: int
    input_shift: int
    k: int
    n_max: int
    s_v: int
    s_h: int
    s_y: int
    convex: int
    chunk_n_max: int
    chunk_s_h: int
    chunk_s_y: int
    rotation_bits: int
    weight_bits: int
    carried_bits: int
    sum_bits: int
    # A row's words of a layer: x, z, y, the residual stream after it, and the projection of x.
    projected1: int
    projected2: int
    most_projected: int
    x_at: int
    z_at: int
    y_at: int
    residual_at: int
    projected_at: int
    pitch: int
    # A group of ``members`` programs has ``rows`` rows; a program has ``blocks`` blocks of ``channels`` of a head.
    rows: int
    members: int
    channels: int
    blocks: int
    split: int  # tiles of a block in the projection to x and z
    out_columns: int
    head_columns: int
    warps: int


def aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


def scale(name: str, values: dict[str, int]) -> dict[str, int]:
    return {f"{name}_{part}": value for part, value in values.items()}


def shape_of(network: Network, config: ModelConfig, rows: int, members: int, channels: int, **tiles: int) -> Shape:
    """Return the shape of a model's step."""
    f, block, states = network.formats, network.blocks[0], config.mamba2_d_state
    projected1, projected2 = config.dt_rank + 2 * config.mamba1_d_state, config.nheads + 2 * states
    sizes = [aligned(config.d_inner)] * 3 + [aligned(config.d_model)]
    starts = [sum(sizes[:i]) for i in range(5)]
    scales: dict[str, int] = {}
    for name in ("in", "x", "dt", "out"):
        scales |= scale(name, block.scales[f"{name}_proj"])
    scales |= scale("head", network.head_scale) | scale("gate", block.gate) | scale("norm", f.norm)
    return Shape(
        layers=config.n_layer,
        vocab=config.vocab_size,
        depth=config.d_model,
        inner=config.d_inner,
        heads=config.nheads,
        headdim=config.headdim,
        rank=config.dt_rank,
        states1=config.mamba1_d_state,
        states2=states,
        chunk=config.chunk_size,
        rotates=config.rotates,
        chunk_tile=max(config.chunk_size, LEAST_TILE),
        states2_tile=max(triton.next_power_of_2(states), LEAST_TILE),
        **scales,
        residual_bits=RESIDUAL_BITS,
        conv_s=f.conv["s"],
        **f.squareplus,
        mixture_shift=f.requantize["shift"],
        input_shift=f.chunk_input["shift"],
        **f.scan,
        chunk_n_max=f.chunk_decay["n_max"],
        **scale("chunk", f.chunk_scan),
        rotation_bits=f.rotation,
        weight_bits=definition.weight_bits(states),
        carried_bits=definition.carried_bits(states, f.chunk_scan["s_h"]),
        sum_bits=definition.sum_bits(states),
        projected1=projected1,
        projected2=projected2,
        most_projected=max(projected1, projected2),
        **dict(zip(("x_at", "z_at", "y_at", "residual_at", "projected_at"), starts, strict=True)),
        pitch=starts[-1] + aligned(max(projected1, projected2)),
        rows=rows,
        members=members,
        channels=channels,
        blocks=triton.cdiv(config.nheads * triton.cdiv(config.headdim, channels), members),
        **tiles,
    )


def table_of(config: ModelConfig, arrays: dict[str, torch.Tensor]) -> torch.Tensor:
    """Return the addresses of each layer's arrays and its kind, int64 (n_layer, PITCH); a kind lacks some arrays."""
    rows = []
    for i, kind in enumerate(config.kinds):
        row = [arrays[name].data_ptr() if (name := f"layers.{i}.{field}") in arrays else 0 for field in FIELDS]
        row += [KINDS.index(kind)]
        rows.append(row + [0] * (PITCH.value - len(row)))
    return torch.tensor(rows, dtype=torch.int64)


@triton.jit
def array(table_pointer, layer, FIELD: tl.constexpr, TYPE: tl.constexpr):
    """Return the pointer to one of a layer's arrays."""
    return tl.multiple_of(tl.load(table_pointer + layer * PITCH + FIELD), 16).to(tl.pointer_type(TYPE))


@triton.jit
def block_of(member, j, part, CHANNELS: tl.constexpr, SHAPE: tl.constexpr):
    """Return the head, some channels of it, and which of them there are, of a part of a program's block ``j``."""
    per_head: tl.constexpr = (SHAPE.headdim + SHAPE.channels - 1) // SHAPE.channels
    block = member + j * SHAPE.members
    p = block % per_head * SHAPE.channels + part * CHANNELS + tl.arange(0, CHANNELS)
    known = p < tl.where(block < SHAPE.heads * per_head, SHAPE.headdim, 0)
    return tl.minimum(block // per_head, SHAPE.heads - 1), p, known


@triton.jit
def if_there(mask, condition):
    """Return a mask where a condition holds, else nothing; the interpreter can't join a mask and a scalar."""
    return mask.to(tl.int32) > tl.where(condition, 0, 1)
