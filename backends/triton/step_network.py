"""The network of one step as few kernels: four per layer, the state and the residual stream in place."""

import torch
import triton
import triton.language as tl

from mamba_integer.backends.torch.decoding import Buffers
from mamba_integer.spec.integers import RESIDUAL_BITS
from mamba_integer.spec.model.blocks import Mamba1Block, Network
from mamba_integer.spec.model.config import ModelConfig

from . import batch_products
from .launch import launch
from .overlap import early
from .ssd_chunk import LEAST_TILE
from .step_products import (
    WARPS,
    enter_kernel,
    head_kernel,
    leave_kernel,
    product_launch,
    project_kernel,
    weight_words,
)
from .step_scans import chunk_bits, chunk_kernel, selective_kernel

FEW_ROWS, MOST_ROWS = 8, 256
MOST_STATES = 256  # of a program
CHANNELS = 16  # of a program of the chunked scan


class FusedStep:
    """The kernels of one step of a network on the Triton backend, on buffers that stay where they are."""

    def __init__(self, network: Network, buffers: Buffers):
        self.network, self.buffers, self.state = network, buffers, buffers.state
        self.rows = buffers.token.shape[0]
        packed = {name: w for name, w in network.weights.items() if w.dtype == torch.uint8}
        self.weights = {**network.weights, **{name: weight_words(w) for name, w in packed.items()}}

    def logits(self):
        network = self.network
        r = network.ops.embedding(self.buffers.token, self.weights["embedding"], shift=0)
        for block in network.blocks:
            self.run(block, r)
        return self.head(r)

    def advance(self, chosen):
        buffers = self.buffers
        results = buffers.token, buffers.tokens, buffers.position, buffers.count
        block = triton.next_power_of_2(self.rows)
        launch(advance_kernel, 1, results, (chosen,), self.rows, BLOCK=block)

    def empty(self, columns):
        return torch.empty((self.rows, columns), dtype=torch.int16, device=self.buffers.token.device)

    def launch(self, kernel, results, inputs, w, depth, *integers, **constants):
        """Run a kernel that multiplies rows of a depth by weights w."""
        programs, sizes, tile = product_launch(self.rows, w.shape[0], depth)
        launch(kernel, programs, results, inputs, *sizes, *integers, **constants, **tile)

    def run(self, block, r):
        """Run a block: its residual stream and its state move on in place."""
        xz = self.enter(block, r)
        y = self.empty(block.config.d_inner)
        (self.selective if isinstance(block, Mamba1Block) else self.chunked)(block, y, xz, self.project(block, xz))
        self.leave(block, r, y)

    def enter(self, block, r):
        """Return x, as the mixing reads it, and z, side by side."""
        f, inner = block.formats, block.config.d_inner
        names = ("norm", "in_proj", "conv_weight", "conv_bias")
        norm, w, taps, bias = (self.weights[f"{block.label}.{name}"] for name in names)
        xz, conv = self.empty(2 * inner), self.state[f"{block.label}.conv"]
        constants = {**f.norm, **block.scales["in_proj"], "s_conv": f.conv["s"], **f.squareplus}
        self.launch(enter_kernel, (xz, conv), (r, norm, w, taps, bias), w, r.shape[1], **constants)
        return xz

    def project(self, block, xz):
        """Return the projection of x by which it is mixed."""
        inner, w = block.config.d_inner, self.weights[f"{block.label}.x_proj"]
        projected = self.empty(w.shape[0])
        self.launch(project_kernel, (projected,), (xz, w), w, inner, 2 * inner, **block.scales["x_proj"])
        return projected

    def leave(self, block, r, y):
        """Add the block's output to the residual stream."""
        w = self.weights[f"{block.label}.out_proj"]
        gate = {f"gate_{name}": value for name, value in block.gate.items()}
        constants = {"bits": RESIDUAL_BITS, **block.scales["out_proj"], **gate}
        self.launch(leave_kernel, (r,), (y, w), w, block.config.d_inner, **constants)

    def head(self, r):
        """Return the logits of each row."""
        w, network = self.weights["head"], self.network
        logits = self.empty(w.shape[0])
        inputs = r, self.weights["norm"], w
        self.launch(head_kernel, (logits,), inputs, w, r.shape[1], **network.formats.norm, **network.head_scale)
        return logits

    def selective(self, block, y, xz, projected):
        f, config, states = block.formats, block.config, block.config.mamba1_d_state
        w, decay, skip = (self.weights[f"{block.label}.{name}"] for name in ("dt_proj", "decay", "skip"))
        constants = {**block.scales["dt_proj"], **f.scan, "mixture_shift": f.requantize["shift"], "f": f.activation}
        results, inputs = (y, self.state[f"{block.label}.scan"]), (xz, projected, w, decay, skip)
        constants["STATES"] = triton.next_power_of_2(states)
        self.launch(selective_kernel, results, inputs, w, config.dt_rank, states, **constants)

    def chunked(self, block, y, xz, projected):
        f, config, states = block.formats, block.config, block.config.mamba2_d_state
        decay, skip = (self.weights[f"{block.label}.{name}"] for name in ("decay", "skip"))
        rotation = self.buffers.rotation
        results = y, *(self.state[f"{block.label}.{name}"] for name in block.scan_arrays)
        launch(
            chunk_kernel,
            self.rows * config.nheads * triton.cdiv(config.headdim, CHANNELS),
            results,
            (xz, projected, *(rotation or (None, None, None)), decay, skip, self.buffers.position, self.buffers.count),
            *(self.rows, config.nheads, config.headdim, states),
            n_max=f.chunk_decay["n_max"],
            mixture_shift=f.requantize["shift"],
            input_shift=f.chunk_input["shift"],
            rotation_bits=f.rotation,
            **f.chunk_scan,
            f=f.activation,
            **chunk_bits(states, f.chunk_scan["s_h"]),
            ROTATES=rotation is not None,
            Q=config.chunk_size,
            TILE=max(config.chunk_size, LEAST_TILE),
            STATES=max(triton.next_power_of_2(states), LEAST_TILE),
            CHANNELS=CHANNELS,
            num_warps=WARPS,
            **early(),
        )


@triton.jit
def advance_kernel(
    token_pointer, tokens_pointer, position_pointer, count_pointer, chosen_pointer, rows, BLOCK: tl.constexpr
):
    """Keep the chosen tokens of a step, and count it."""
    row = tl.arange(0, BLOCK)
    inside = row < rows
    chosen, count = tl.load(chosen_pointer + row, mask=inside, other=0), tl.load(count_pointer)
    position = tl.load(position_pointer + row, mask=inside, other=0)
    tl.debug_barrier()  # what is written in place, every thread has read
    tl.store(token_pointer + row, chosen, mask=inside)
    tl.store(tokens_pointer + count * rows + row, chosen, mask=inside)
    tl.store(position_pointer + row, position + 1, mask=inside)
    tl.store(count_pointer, count + 1)


class BatchStep(FusedStep):
    """The same for many rows: seven kernels per layer, as rows are quantised once and meet tensor cores."""

    def packed(self, block, *names):
        return (self.network.weights[f"{block.label}.{name}"] for name in names)

    def enter(self, block, r):
        f, xz = block.formats, self.empty(2 * block.config.d_inner)
        norm, *weights = self.packed(block, "norm", "in_proj", "conv_weight", "conv_bias")
        quantised = self.network.ops.norm_quantize(r, norm, **f.norm)
        constants = {"scale": block.scales["in_proj"], "s": f.conv["s"], "squareplus": f.squareplus}
        batch_products.enter(xz, self.state[f"{block.label}.conv"], quantised, *weights, **constants)
        return xz

    def project(self, block, xz):
        quantised = batch_products.quantise(xz, block.config.d_inner)
        return batch_products.project(quantised, *self.packed(block, "x_proj"), scale=block.scales["x_proj"])

    def leave(self, block, r, y):
        quantised, constants = batch_products.quantise(y, y.shape[1]), {"gate": block.gate}
        batch_products.leave(r, quantised, *self.packed(block, "out_proj"), scale=block.scales["out_proj"], **constants)

    def head(self, r):
        network = self.network
        quantised = network.ops.norm_quantize(r, network.weights["norm"], **network.formats.norm)
        return batch_products.project(quantised, network.weights["head"], scale=network.head_scale)


def fused_step(network: Network, config: ModelConfig, buffers: Buffers) -> FusedStep | None:
    """Return the kernels of one step, or None where they aren't made for so many rows or such sizes."""
    rows = len(buffers.token)
    if rows > MOST_ROWS or max(config.mamba1_d_state, config.mamba2_d_state) > MOST_STATES:
        return None
    if rows <= FEW_ROWS:
        return FusedStep(network, buffers)
    return BatchStep(network, buffers) if config.d_model % 4 == config.d_inner % 4 == 0 else None
