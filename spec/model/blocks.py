"""The network, written once: compositions of ops by name, for one step and for a whole sequence.

A block takes the residual stream r, int32 [B L d_model] or [B d_model] for one step, and the state it left, and returns
both anew. Nothing here computes: arrays are sliced, reshaped and handed on, so any ops namespace runs it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

from .config import MAMBA1, MAMBA2, ModelConfig
from .formats import CHUNK_STATE, DOUBLINGS, Formats

Observe = Callable[[str, str, Any], None]

EMBEDDING, HEAD = "embedding", "head"


@dataclass(frozen=True)
class Call:
    """Arguments that all layers of one model call share."""

    sequence: bool  # else one step
    rotation: tuple[Any, Any, Any] | None  # of every row and position, [B*L pairs]; of rows at one position, [L pairs]
    fill: Any  # how far each row is in its chunk, [B]
    observe: Observe | None
    activated_conv: Callable | None = None  # what a backend has for a sequence whose convolution nobody observes
    layer_rows: dict[str, tuple[Any, Any]] | None = (
        None  # keeps the rows that each ternary layer multiplies, by its name
    )


class LayerWeights:
    """The weights of one layer by their names in it, looked up at every use: their holder may replace an array."""

    def __init__(self, label: str, weights: Mapping[str, Any]):
        self.label, self.weights = label, weights

    def __getitem__(self, name: str) -> Any:
        return self.weights[f"{self.label}.{name}"]


class Block:
    """Norm, projection to x and z, convolution, squareplus, the mixing of a subclass, gate, projection, residual."""

    scan_arrays: tuple[str, ...] = ("scan",)  # what its scan carries from call to call, by name

    def __init__(self, label: str, config: ModelConfig, formats: Formats, ops: Any, weights: LayerWeights):
        self.label, self.config, self.formats, self.ops, self.weights = label, config, formats, ops, weights
        self.scales = {
            "in_proj": formats.linear(config.d_model, DOUBLINGS["in_proj"]),
            "x_proj": formats.linear(config.d_inner, DOUBLINGS["x_proj"]),
            "dt_proj": formats.linear(config.dt_rank, DOUBLINGS["dt_proj"]),
            "out_proj": formats.linear(config.d_inner, DOUBLINGS["out_proj"]),
        }
        self.gate = formats.gate(config.n_layer)

    def __call__(self, call: Call, r, state: Mapping[str, Any]):
        """Return the residual stream after this block, and the arrays of its state by name."""
        ops, weights, f = self.ops, self.weights, self.formats
        inner = self.config.d_inner
        u, e = ops.norm_quantize(r, weights["norm"], **f.norm)
        xz = self.see(call, "xz", self.project(call, "in_proj", u, e))
        x, conv = self.activated(call, xz[..., :inner], state[f"{self.label}.conv"])
        y, *scan = self.mix(call, x, *(state[f"{self.label}.{name}"] for name in self.scan_arrays))
        self.see(call, "scan", y)
        y = self.see(call, "gated", ops.silu_gate(y, xz[..., inner:], f=f.activation))
        o = self.see(call, "out", self.project(call, "out_proj", *ops.quantize_rows(y)))
        r = self.see(call, "residual", ops.residual_add(r, o, **self.gate))
        self.see(call, "conv_state", conv)
        self.see(call, "scan_state", scan[0])
        after = zip(("conv", *self.scan_arrays), (conv, *scan), strict=True)
        return r, {f"{self.label}.{name}": array for name, array in after}

    def activated(self, call: Call, x, state):
        """Return the convolution of x after squareplus, and the convolution's new state."""
        ops, weights, f = self.ops, self.weights, self.formats
        arrays = x, weights["conv_weight"], weights["conv_bias"], state
        if call.activated_conv:
            x, state = call.activated_conv(*arrays, **f.conv, **f.squareplus)
        else:
            x, state = (ops.causal_conv1d if call.sequence else ops.conv1d_step)(*arrays, **f.conv)
            self.see(call, "conv", x)
            x = ops.squareplus(x, **f.squareplus)
        return self.see(call, "x", x), state

    def project(self, call: Call, name: str, q, e):
        if call.layer_rows is not None:
            call.layer_rows[f"{self.label}.{name}"] = q, e
        return self.ops.ternary_linear(q, e, self.weights[name], **self.scales[name])

    def see(self, call: Call, name: str, array):
        if call.observe:
            call.observe(self.label, name, array)
        return array

    def mix(self, call: Call, x, *scan):
        """Return the scan's output, of the shape of x, and the arrays of its new state."""
        raise NotImplementedError


class Mamba1Block(Block):
    """A scan of its own for each channel, its decays modulated through a bottleneck."""

    def mix(self, call, x, *scan):
        ops, weights, f = self.ops, self.weights, self.formats
        rank, state = self.config.dt_rank, self.config.mamba1_d_state
        projected = self.see(call, "projected", self.project(call, "x_proj", *ops.quantize_rows(x)))
        b = self.see(call, "b", ops.requantize(projected[..., rank : rank + state], **f.requantize))
        c = self.see(call, "c", ops.requantize(projected[..., rank + state :], **f.requantize))
        modulation = self.project(call, "dt_proj", *ops.quantize_rows(projected[..., :rank]))
        self.see(call, "modulation", modulation)
        run = ops.selective_scan if call.sequence else ops.selective_scan_step
        return run(x, modulation, weights["decay"], b, c, weights["skip"], *scan, **f.scan)


class Mamba2Block(Block):
    """One decay per head for a state of ``headdim`` by ``mamba2_d_state``, which is rounded once per chunk.

    B and C may be rotated by their position. A head whose decay exponent is clamped to 0 neither reads nor forgets.
    """

    scan_arrays = CHUNK_STATE

    def mix(self, call, x, *scan):
        ops, weights, f, config = self.ops, self.weights, self.formats, self.config
        heads, state = config.nheads, config.mamba2_d_state
        projected = self.see(call, "projected", self.project(call, "x_proj", *ops.quantize_rows(x)))
        b = self.see(call, "b", self.mixture(call, projected[..., heads : heads + state]))
        c = self.see(call, "c", self.mixture(call, projected[..., heads + state :]))
        leading = tuple(x.shape[:-1])
        steps = leading if call.sequence else (*leading, 1)
        modulation = projected[..., :heads].reshape(*steps, heads)
        decay = ops.decay_modulate(weights["decay"], modulation, **f.chunk_decay).reshape(*leading, heads)
        self.see(call, "decay", decay)
        run = ops.ssd_chunk_scan if call.sequence else ops.ssd_chunk_scan_step
        x = self.see(call, "scan_input", ops.requantize(x, **f.chunk_input)).reshape(*leading, heads, config.headdim)
        y, *after, _ = run(x, decay, b, c, weights["skip"], *scan, call.fill, **f.chunk_scan)
        return y.reshape(*leading, config.d_inner), *after

    def mixture(self, call, array):
        if call.rotation:
            rows = in_rows(array, call.rotation)
            array = self.ops.rope(rows, *call.rotation, s=self.formats.rotation).reshape(*array.shape)
        return self.ops.requantize(array, **self.formats.requantize)


def in_rows(array, rotation: tuple[Any, Any, Any]):
    """Return B or C as the rows to be rotated: of rows at different positions, the rows are one after the other."""
    positions = rotation[0].shape[0]
    return array.reshape(prod(array.shape[:-1]) // max(positions, 1), positions, array.shape[-1])


BLOCKS = {MAMBA1: Mamba1Block, MAMBA2: Mamba2Block}


class Network:
    """Embedding, blocks and head, on the arrays of one backend."""

    def __init__(self, config: ModelConfig, formats: Formats, ops: Any, weights: Mapping[str, Any]):
        self.formats, self.ops, self.weights = formats, ops, weights
        self.head_scale = formats.linear(config.d_model, DOUBLINGS["head"])
        self.blocks = []
        for i, kind in enumerate(config.kinds):
            label = f"layers.{i}"
            self.blocks.append(BLOCKS[kind](label, config, formats, ops, LayerWeights(label, weights)))

    def __call__(self, call: Call, ids, state: Mapping[str, Any], last_only: bool = False):
        """Return the logits and the arrays of the state after these tokens: ids is [B L], or [B] for one step."""
        r = self.ops.embedding(ids, self.weights["embedding"], shift=0)
        if call.observe:
            call.observe(EMBEDDING, "residual", r)
        after: dict[str, Any] = {}
        for block in self.blocks:
            r, arrays = block(call, r, state)
            after |= arrays
        u, e = self.ops.norm_quantize(r[:, -1] if last_only else r, self.weights["norm"], **self.formats.norm)
        if call.layer_rows is not None:
            call.layer_rows[HEAD] = u, e
        logits = self.ops.ternary_linear(u, e, self.weights["head"], **self.head_scale)
        if call.observe:
            call.observe(HEAD, "logits", logits)
        return logits, after
