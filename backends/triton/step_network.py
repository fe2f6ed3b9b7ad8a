"""The network of one step as few kernels, four or more per layer; the state and the residual stream are in place.

Kernels read the state before they wait for those in front. That is right because the choice of the token, a kernel that
doesn't start early, lies between the steps: it starts when all that a step writes is written. They read the position so
too: the first product lets its successor start after its own wait, when the kernel that advances the position is done.

One kernel for all layers, whose programs hand rows to one another through memory, was no faster: 282 us per step of
``base`` at one row, beside 252 us of the kernels per layer of that time (H200). Its barriers are the likely reason.
"""

import torch
import triton
import triton.language as tl

from mamba_integer.backends.torch.decoding import OPEN_CHUNK, Buffers
from mamba_integer.spec.integers import RESIDUAL_BITS
from mamba_integer.spec.model.blocks import Mamba1Block, Network
from mamba_integer.spec.model.config import ModelConfig

from .launch import elementwise, launch, table, words
from .overlap import early, wait_and_start_next
from .planes import dealt
from .room import at_most
from .ssd_chunk import LEAST_TILE
from .step_chunk import head_of_chunk_kernel, mix_kernel, mixture_kernel
from .step_products import (
    WARPS,
    enter_kernel,
    head_kernel,
    leave_kernel,
    product_launch,
    project_kernel,
    weight_words,
)
from .step_scans import selective_kernel
from .step_sliced import sliced_kernel, sliced_launch
from .step_states import chunk_bits, close_kernel, factors_kernel, seen_kernel
from .step_wide import (
    norm_kernel,
    quantised_pitch,
    row_block,
    wide_kernel,
    wide_launch,
)

FEW_ROWS = 8  # for which a product's program takes one row
DEEPEST = 1 << 14  # of a row that a program for many rows multiplies: 64 times its sums are below 2**31
MOST_STATES = 256  # of a program
HALVES = 2  # int16 of a word
# Channels of a program of the chunked scan, and with how many programs. At 64 rows, 32 took 5 % longer per step (H200).
CHANNELS = (64, 1024), (32, 256), (16, 0)
HEAD_WARPS, MIX_WARPS, FACTOR_WARPS = 2, 2, 4
HEAD_REGISTERS = 80  # of a thread: then all programs of 64 rows of ``base`` run at once
MOST_ELEMENTS = 1 << 12  # of the state in its registers
FACTORS = 1 << 11  # of open chunks that a program makes
CLOSED_CHANNELS = 32  # of what a program moves on at once
CLOSING = 256  # programs that move the states on: that they mostly have nothing to do takes little time
# Channels of a program of the selective scan, its warps, and with how many programs. Those of many rows run at once.
COLUMNS = (128, 2, 512), (64, 4, 256), (32, 4, 256), (16, 4, 256), (8, 4, 256), (4, 4, 0)


class FusedStep:
    """The kernels of one step of a network on the Triton backend, on buffers that stay where they are."""

    def __init__(self, network: Network, buffers: Buffers):
        self.network, self.buffers, self.state = network, buffers, buffers.state
        self.rows = buffers.token.shape[0]
        packed = {name: w for name, w in network.weights.items() if w.dtype == torch.uint8}
        self.weights = {**network.weights, **{name: weight_words(w) for name, w in packed.items()}}
        self.chunked_blocks = [block for block in network.blocks if not isinstance(block, Mamba1Block)]
        self.seen, self.factors = self.kept(network.blocks[0].config) if self.chunked_blocks else ((), ())
        width = self.weights["embedding"].shape[1]
        self.embedding = {"width": width, "BLOCK": triton.next_power_of_2(width)}
        self.r = torch.zeros((self.rows, width), dtype=torch.int32, device=buffers.token.device)
        self.arrived = torch.zeros(self.rows, dtype=torch.int32, device=buffers.token.device)
        arrays = [[*self.chunk_state(block), seen] for block, seen in zip(self.chunked_blocks, self.seen, strict=True)]
        addresses = [[array.data_ptr() for array in layer] for layer in arrays]
        self.addresses = table(addresses, buffers.token.device)

    def kept(self, config):
        """Return room for what is kept beside the states: their view, and columns, weights, sums, what they forget."""
        layers, device, tile = len(self.chunked_blocks), self.buffers.token.device, chunk_tile(config)
        lanes, heads = (layers, self.rows, config.d_inner), (layers, self.rows, config.nheads)
        seen = torch.zeros((*lanes, tile["STATES"]), dtype=torch.int16, device=device)
        return seen, [torch.zeros((*heads, tile["TILE"]), dtype=torch.int32, device=device) for _ in range(4)]

    def prepare(self):
        """Make the outputs' view of the states, the factors of open chunks and the residual stream's start."""
        for block, seen in zip(self.chunked_blocks, self.seen, strict=True):
            states, tile = block.config.mamba2_d_state, chunk_tile(block.config)["STATES"]
            s_h = block.formats.chunk_scan["s_h"]
            elementwise(seen_kernel, seen, self.chunk_state(block)[-1], integers=(states,), s_h=s_h, STATES=tile)
        if self.chunked_blocks:
            self.factor(self.chunked_blocks[0])

        results, inputs, table = (self.r,), (self.buffers.token, self.weights["embedding"]), self.embedding
        launch(embed_kernel, self.rows, results, inputs, **table)

    def logits(self):
        for block in self.network.blocks:
            self.run(block, self.r)
        if self.chunked_blocks:
            self.close(self.chunked_blocks[0])
        return self.head(self.r)

    def advance(self, chosen):
        buffers, rows = self.buffers, triton.next_power_of_2(self.rows)
        results = self.r, buffers.token, buffers.tokens, buffers.position, buffers.count
        inputs, constants = (chosen, self.weights["embedding"]), {**self.embedding, "ROWS": rows, **early()}
        launch(advance_kernel, 1 + self.rows, results, inputs, self.rows, **constants)

    def empty(self, columns):
        return torch.empty((self.rows, columns), dtype=torch.int16, device=self.buffers.token.device)

    def launch(self, kernel, results, inputs, w, depth, *integers, **constants):
        """Run a kernel that multiplies rows of a depth by weights w."""
        programs, tile = product_launch(self.rows, w.shape[0], depth)
        launch(kernel, programs, results, inputs, *integers, **tile, **constants)

    def weight(self, block, name):
        return self.weights[f"{block.label}.{name}"]

    def run(self, block, r):
        """Run a block: its residual stream and its state move on in place, but for the state of a chunked scan."""
        xz = self.enter(block, r)
        step = self.selective if isinstance(block, Mamba1Block) else self.chunked
        self.leave(block, r, step(block, xz))

    def enter(self, block, r):
        """Return x after the convolution and squareplus, and z."""
        norm, w, taps, bias = (self.weight(block, name) for name in ("norm", "in_proj", "conv_weight", "conv_bias"))
        xz, conv = self.empty(w.shape[0]), self.state[f"{block.label}.conv"]
        constants = {**block.formats.norm, **block.scales["in_proj"], **convolution(block)}
        self.launch(enter_kernel, (xz, conv), (r, norm, w, taps, bias), w, r.shape[1], **constants)
        return xz

    def projected(self, block, xz):
        """Return the projection of x."""
        w, inner = self.weight(block, "x_proj"), block.config.d_inner
        projected = self.empty(w.shape[0])
        self.launch(project_kernel, (projected,), (xz, w), w, inner, 2 * inner, **block.scales["x_proj"])
        return projected

    def leave(self, block, r, y):
        """Add the projection of y to the residual stream."""
        w = self.weight(block, "out_proj")
        self.launch(leave_kernel, (r,), (y, w), w, y.shape[1], **block.scales["out_proj"], **addition(block))

    def head(self, r):
        w = self.weights["head"]
        logits, arrays = self.empty(w.shape[0]), (r, self.weights["norm"], w)
        constants = {**self.network.formats.norm, **self.network.head_scale}
        self.launch(head_kernel, (logits,), arrays, w, r.shape[1], **constants)
        return logits

    def selective(self, block, xz):
        """Return the output of a step of a selective scan."""
        f, config, states = block.formats, block.config, block.config.mamba1_d_state
        w, decay, skip = (self.weights[f"{block.label}.{name}"] for name in ("dt_proj", "decay", "skip"))
        constants = {**block.scales["dt_proj"], **f.scan, "mixture_shift": f.requantize["shift"], "f": f.activation}
        constants |= {"STATES": triton.next_power_of_2(states), "states": states}
        y = self.empty(config.d_inner)
        results = y, self.state[f"{block.label}.scan"], self.largest_of_y()
        inputs = xz, self.projected(block, xz), w, decay, skip
        _, tile = product_launch(self.rows, w.shape[0], config.dt_rank)
        columns, warps = most_that_fill(COLUMNS, self.rows, w.shape[0])
        tile |= {"channels": tile.pop("columns"), "COLUMNS": columns, "num_warps": warps}
        programs = self.rows * triton.cdiv(w.shape[0], columns)
        launch(selective_kernel, programs, results, inputs, **tile, **constants)
        return y

    def largest_of_y(self):
        """Return where a scan keeps the largest magnitude of each row of its output, or None."""
        return None

    def chunk_state(self, block):
        """Return the open x, exponents and b of a chunked scan, and its state."""
        return [self.state[f"{block.label}.{name}"] for name in (*OPEN_CHUNK, "scan")]

    def turning(self, block):
        """Return the coefficients of the positions, and the constants of turning b and c."""
        f, rotation = block.formats, self.buffers.rotation
        constants = {"mixture_shift": f.requantize["shift"], "rotation_bits": f.rotation}
        return rotation or (None, None, None), constants | {"ROTATES": rotation is not None}

    def output(self, block):
        """Return the constants of the output of a chunked scan."""
        f = block.formats
        constants = {"n_max": f.chunk_decay["n_max"], "input_shift": f.chunk_input["shift"], "f": f.activation}
        return constants | {"s_y": f.chunk_scan["s_y"]} | chunk_bits(block.config.mamba2_d_state, f.chunk_scan["s_h"])

    def factor(self, block):
        """Make the factors of all layers' open chunks."""
        tile, heads = chunk_tile(block.config), block.config.nheads
        together = min(triton.next_power_of_2(heads), FACTORS // tile["TILE"])
        launch(
            factors_kernel,
            len(self.chunked_blocks) * self.rows * triton.cdiv(heads, together),
            self.factors,
            (self.addresses, self.buffers.position),
            self.rows,
            heads=heads,
            WEIGHT_BITS=self.output(block)["WEIGHT_BITS"],
            Q=tile["Q"],
            TILE=tile["TILE"],
            HEADS=together,
            num_warps=FACTOR_WARPS,
        )

    def mixed(self, block, xz):
        """Return the projection of x, and of each row c and the scores of its open chunk."""
        w, (c, scores, open_b, positions, constants) = self.weight(block, "x_proj"), self.mixture(block)
        projected = self.empty(w.shape[0])
        results, inputs = (projected, c, scores, open_b, self.arrived), (xz, w, *positions)
        constants |= block.scales["x_proj"]
        self.launch(mixture_kernel, results, inputs, w, block.config.d_inner, self.rows, **constants)
        return projected, c, scores

    def mixture(self, block):
        """Return room for each row's c and scores, the open b, what positions decide, and constants."""
        config, (rotation, turning), tile = block.config, self.turning(block), chunk_tile(block.config)
        buffers, device = self.buffers, self.r.device
        c = torch.empty((self.rows, tile["STATES"]), dtype=torch.int8, device=device)
        scores = torch.empty((self.rows, tile["TILE"]), dtype=torch.int32, device=device)
        constants = {"heads": config.nheads, "states": config.mamba2_d_state, **turning, **tile}
        return c, scores, self.chunk_state(block)[2], (*rotation, buffers.position, buffers.count), constants

    def chunked(self, block, xz):
        """Return the output of a step of a chunked scan: what a row's heads share comes first, and then each head."""
        config, tile, layer = block.config, chunk_tile(block.config), self.chunked_blocks.index(block)
        heads, width, states = config.nheads, config.headdim, config.mamba2_d_state
        open_x, open_d = self.chunk_state(block)[:2]
        factors, seen = [array[layer] for array in self.factors], words(self.seen[layer])
        projected, c, scores = self.mixed(block, xz)
        channels = next(
            size
            for size, least in CHANNELS
            if (size * tile["STATES"] <= MOST_ELEMENTS and self.rows * heads * triton.cdiv(width, size) >= least)
            or size == CHANNELS[-1][0]
        )
        y = self.empty(config.d_inner)
        decay, skip = self.weight(block, "decay"), self.weight(block, "skip")
        launch(
            head_of_chunk_kernel,
            self.rows * heads * triton.cdiv(width, channels),
            (y, self.largest_of_y(), open_x, open_d, *factors),
            (seen, xz, words(c), scores, projected, decay, skip, self.buffers.position),
            heads=heads,
            width=width,
            states=states,
            **self.output(block),
            **tile,
            CHANNELS=channels,
            num_warps=HEAD_WARPS,
            **at_most(HEAD_REGISTERS),
            **early(),
        )
        return y

    def close(self, block):
        """Move the states of all chunked scans on where a chunk ends."""
        config = block.config
        items = self.rows * config.nheads * triton.cdiv(config.headdim, CLOSED_CHANNELS)
        launch(
            close_kernel,
            min(items, CLOSING),
            (self.addresses,),
            (self.buffers.position,),
            len(self.chunked_blocks),
            rows=self.rows,
            heads=config.nheads,
            width=config.headdim,
            states=config.mamba2_d_state,
            s_h=block.formats.chunk_scan["s_h"],
            **chunk_tile(config),
            CHANNELS=CLOSED_CHANNELS,
            ROWS=triton.next_power_of_2(self.rows),
            num_warps=WARPS,
            **early(),
        )


class WideStep(FusedStep):
    """The kernels of one step for many rows."""

    def __init__(self, network: Network, buffers: Buffers):
        super().__init__(network, buffers)
        names = [f"{block.label}.{name}" for block in network.blocks for name in ("x_proj", "out_proj")]
        self.planes = {name: dealt(network.weights[name]) for name in names}
        # Of each row, of what the projections of x and y will quantise; each projection clears the other's.
        self.largest = torch.zeros((2, self.rows), dtype=torch.int32, device=self.r.device)

    def largest_of_y(self):
        return self.largest[1]

    def multiply(self, name, results, q, e, convolves, taps=(None, None), **constants):
        """Multiply rows of int8 with exponents e by weights."""
        w = self.network.weights[name]
        programs, constants = wide_launch(self.rows, w, convolves, **constants)
        launch(wide_kernel, programs, results, (q, e, w, *taps), q.shape[1], **constants)

    def normalised(self, r, gamma, w):
        """Norm and quantise r."""
        width, pitch = r.shape[1], quantised_pitch(w)
        q = torch.empty((self.rows, pitch), dtype=torch.int8, device=w.device)
        e = torch.empty(self.rows, dtype=torch.int32, device=w.device)
        constants = self.network.formats.norm | row_block(width, w)
        launch(norm_kernel, self.rows, (q, e), (r, gamma), pitch, D=width, **constants)
        return q, e

    def enter(self, block, r):
        name = f"{block.label}.in_proj"
        w, norm = self.network.weights[name], self.weight(block, "norm")
        q, e = self.normalised(r, norm, w)
        xz = self.empty(w.shape[0])
        taps = self.weight(block, "conv_weight"), self.weight(block, "conv_bias")
        results = xz, self.state[f"{block.label}.conv"], self.largest[0]
        constants = block.scales["in_proj"] | convolution(block)
        self.multiply(name, results, q, e, True, taps, **constants)
        return xz

    def projected(self, block, xz):
        projected = self.empty(self.weight(block, "x_proj").shape[0])
        self.project(block, "x_proj", projected, xz, 0, ADDS=False)
        return projected

    def project(self, block, name, y, x, which, **constants):
        """Quantise and project the first of the elements of rows, as many as the scan has channels.

        Of the largest magnitudes, ``which`` are those of x; the others become 0.
        """
        w, depth = self.planes[f"{block.label}.{name}"], block.config.d_inner
        programs, constants = sliced_launch(self.rows, w, depth // HALVES, **constants, **block.scales[name])
        results, inputs = (y, self.largest[1 - which]), (words(x), self.largest[which], w)
        launch(sliced_kernel, programs, results, inputs, x.shape[1] // HALVES, **constants)

    def mixed(self, block, xz):
        projected, (c, scores, open_b, positions, constants) = self.projected(block, xz), self.mixture(block)
        inputs, results = (projected, *positions), (c, scores, open_b)
        launch(mix_kernel, self.rows, results, inputs, self.rows, **constants, num_warps=MIX_WARPS, **early())
        return projected, c, scores

    def leave(self, block, r, y):
        self.project(block, "out_proj", r, y, 1, ADDS=True, **addition(block))

    def head(self, r):
        w, norm = self.network.weights["head"], self.weights["norm"]
        q, e = self.normalised(r, norm, w)
        logits = self.empty(w.shape[0])
        self.multiply("head", (logits, None, None), q, e, False, **self.network.head_scale)
        return logits


def most_that_fill(sizes, rows, columns):
    """Return the first of some sizes of a program's columns with which there are enough programs, and its warps."""
    return next((size, warps) for size, warps, least in sizes if rows * triton.cdiv(columns, size) >= least)


def chunk_tile(config):
    """Return the tile of a chunk's positions and states."""
    states = max(triton.next_power_of_2(config.mamba2_d_state), LEAST_TILE)
    return {"Q": config.chunk_size, "TILE": max(config.chunk_size, LEAST_TILE), "STATES": states}


def convolution(block):
    """Return the constants of a block's convolution and squareplus."""
    return {"s_conv": block.formats.conv["s"], **block.formats.squareplus}


def addition(block):
    """Return the constants of a block's addition to the residual stream."""
    return {f"gate_{name}": value for name, value in block.gate.items()} | {"bits": RESIDUAL_BITS}


@triton.jit
def embed(r_pointer, row, token, table_pointer, width: tl.constexpr, BLOCK: tl.constexpr):
    """Start a row's residual stream with its token's row of the table."""
    column = tl.arange(0, BLOCK)
    entry = tl.load(table_pointer + token.to(tl.int64) * width + column, mask=column < width, other=0)
    tl.store(r_pointer + row.to(tl.int64) * width + column, entry.to(tl.int32), mask=column < width)


@triton.jit
def embed_kernel(r_pointer, token_pointer, table_pointer, width: tl.constexpr, BLOCK: tl.constexpr):
    row = tl.program_id(0)
    embed(r_pointer, row, tl.load(token_pointer + row), table_pointer, width, BLOCK)


@triton.jit
def advance_kernel(
    r_pointer,
    token_pointer,
    tokens_pointer,
    position_pointer,
    count_pointer,
    chosen_pointer,
    table_pointer,
    rows,
    width: tl.constexpr,
    BLOCK: tl.constexpr,
    ROWS: tl.constexpr,
):
    """Keep the chosen tokens of a step, and count it, in the first program; start a row's next step in each other."""
    wait_and_start_next()
    program = tl.program_id(0)
    if program:
        embed(r_pointer, program - 1, tl.load(chosen_pointer + program - 1), table_pointer, width, BLOCK)
    else:
        row = tl.arange(0, ROWS)
        inside = row < rows
        chosen, count = tl.load(chosen_pointer + row, mask=inside, other=0), tl.load(count_pointer)
        position = tl.load(position_pointer + row, mask=inside, other=0)
        tl.debug_barrier()  # what is written in place, every thread has read
        tl.store(token_pointer + row, chosen, mask=inside)
        tl.store(tokens_pointer + count * rows + row, chosen, mask=inside)
        tl.store(position_pointer + row, position + 1, mask=inside)
        tl.store(count_pointer, count + 1)


def fused_step(network: Network, config: ModelConfig, buffers: Buffers) -> FusedStep | None:
    """Return the kernels of one step, or None where a program can't hold so many states."""
    if max(config.mamba1_d_state, config.mamba2_d_state) > MOST_STATES:
        return None
    few = len(buffers.token) <= FEW_ROWS or max(config.d_model, config.d_inner) > DEEPEST or config.d_inner % HALVES
    return (FusedStep if few else WideStep)(network, buffers)
