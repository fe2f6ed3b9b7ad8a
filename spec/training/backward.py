"""The backward pass of the network, written once: from the gradient of the logits to that of every parameter.

Nothing here computes: ops are composed, arrays sliced, reshaped and joined. The gradient of an activation is
``dL/dy * 2**G`` for the real value y that its Q format gives it. `Exponents` settles the integer exponent G before the
pass, so that every op is only told a shift, and no cut of the batch changes an integer. Rounding has derivative one.
The pages of `saturate_backward` and of the backward ops say how saturation and clamped decays pass gradients on.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from ..model.blocks import HEAD, Block, Mamba1Block, Network, Observe, in_rows
from ..model.config import MAMBA1, ModelConfig
from ..ops.optimizer import GRADIENT_EXPONENT
from ..ops.ssd_chunk_backward import gradient_bits

RESIDUAL, RESIDUAL_EXPONENT = "residual", 24
LOGITS_EXPONENT = 15
FIRST_EXPONENT = 14
NARROWING_SHIFT = 31  # the largest of the ops that narrow gradients to int16
STATE_SHIFT = 2  # of what enters the reversed recurrence: with it, its state fits int32
CHUNK_SHIFT = 12  # likewise for the chunked scan, whose gradient of a state has 15 fraction bits of c dy
ROTATION_BITS = 8  # that a gradient of B or C gains while it is rotated back
LARGEST_SHIFT = 47
HIGHEST = GRADIENT_EXPONENT.high
LARGEST_ROUNDING = 24
# Allowed differences between the exponents of a norm's gradient and of the residual stream's.
NORM_EXPONENTS = (-16, 31)

# The activations of a block in the order in which their gradients arise, and its ternary layers.
ACTIVATIONS = ("out", "gated", "scan", "projected", "x", "xz", "u")
LAYERS = ("out_proj", "x_proj", "in_proj")
CONV = "conv"  # the convolution's result, which a backend's own `conv_gradients` computes again

Tape = Mapping[tuple[str, str], Any]
STATES = ("conv_state", "scan_state")  # of what the forward pass shows: a pass back has no use for how a batch ends


class ExponentError(ArithmeticError):
    """Exponents of gradients lie too far apart for any shift: the gradients grew or shrank beyond measure."""


def operands(layer: str) -> tuple[str, str]:
    """Return the names of a ternary layer's two narrowed gradients: for its weights and for its input."""
    return f"{layer}.weight", f"{layer}.input"


def through_norm(name: str) -> str:
    """Return the name of the shift of a gradient on its way through a norm to the residual stream."""
    return f"{name}.norm"


def is_operand(name: str) -> bool:
    return name.endswith((".weight", ".input"))


def layer_of(name: str) -> str:
    """Return the layer of an activation or a parameter: ``layers.3``, or the first part of another name."""
    first, _, rest = name.partition(".")
    return f"{first}.{rest.partition('.')[0]}" if first == "layers" else first


def first_exponent(name: str, bits: int) -> int:
    """Return the exponent of a gradient in the first step: near that of fresh models, for the gradient's width."""
    return FIRST_EXPONENT - (16 - bits if is_operand(name) else 0)


def gradient_names(config: ModelConfig) -> list[str]:
    """Return the names of the gradients that have an exponent; a name's place is its stream of rounding words."""
    names = ["head.u", *operands(HEAD)]
    for i, kind in enumerate(config.kinds):
        activations, layers = list(ACTIVATIONS), list(LAYERS)
        if kind == MAMBA1:
            activations, layers = [*activations, "modulation"], [*layers, "dt_proj"]
        names += [f"layers.{i}.{name}" for name in activations]
        names += [name for layer in layers for name in operands(f"layers.{i}.{layer}")]
    return names


@dataclass
class Exponents:
    """The exponent of each gradient in a step, and the shifts that lead there."""

    wanted: Mapping[str, int]
    bits: int
    used: dict[str, int] = field(default_factory=dict)
    shifts: dict[str, int] = field(default_factory=dict)

    def settle(self, name: str, raw: Mapping[str, int], most: int = LARGEST_SHIFT, highest: int = HIGHEST) -> int:
        """Return the exponent of a gradient: the wanted one, or the nearest to which shifts of 0 to ``most`` lead.

        ``raw`` holds the exponents before the shifts, by the names of the shifts.
        """
        used = max(min(self.wanted[name], highest, *raw.values()), max(raw.values()) - most)
        for shift, before in raw.items():
            if before < used:
                raise ExponentError(f"{name}: found exponents {dict(raw)}, allowed {used} or more")
            self.shifts[shift] = before - used
        self.used[name] = used
        return used

    def normalised(self, name: str, raw: int) -> None:
        """Settle the gradient of a norm's result, no farther from the residual stream's than the norm's shifts lead."""
        low, high = (RESIDUAL_EXPONENT + exponent for exponent in NORM_EXPONENTS)
        used = self.settle(name, {name: raw}, min(LARGEST_SHIFT, raw - low), high)
        self.shifts[through_norm(name)] = used - RESIDUAL_EXPONENT

    def linear(self, layer: str, exponent: int, scale: Mapping[str, int]) -> int:
        """Settle the operands of a ternary layer backwards; return the exponent of its product before the shift."""
        weight, layer_input = operands(layer)
        self.settle(weight, {weight: exponent}, LARGEST_ROUNDING)
        if self.bits < 16:
            exponent = self.settle(layer_input, {layer_input: exponent}, LARGEST_ROUNDING)
        return exponent + scale["shift"]


def largest_magnitudes(ops: Any, magnitudes: Callable | None, arrays: list[Any]) -> list[Any]:
    """Return the largest magnitudes of arrays in some pieces to be joined: one, where the backend has a way."""
    return [magnitudes(arrays)] if magnitudes else [ops.largest_magnitude(array) for array in arrays]


def gate_gradients(
    ops: Any, at_once: Callable | None, dy: Any, x: Any, z: Any, f: int, x_shift: int, z_shift: int
) -> tuple[Any, Any]:
    """Return a gate's gradients in 16 bits, that of x past its saturation; the backend may have a way for all of it."""
    if at_once:
        return at_once(dy, x, z, f=f, x_shift=x_shift, z_shift=z_shift)
    dx, dz = ops.silu_gate_backward(dy, x, z, f=f)
    return ops.saturate_backward(dx, x, shift=x_shift), ops.round_to_int16(dz, shift=z_shift)


def chunk_gradients(ops: Any, at_once: Callable | None, dy: Any, x: Any, *arrays: Any, **parameters: int):
    """Return the chunked scan's gradients, that of x in 16 bits past its saturation, as `gate_gradients` does."""
    if at_once:
        return at_once(dy, x, *arrays, **parameters)
    dx, *others = ops.ssd_chunk_scan_backward(dy, x, *arrays, **parameters)
    return ops.saturate_backward(dx, x, shift=0), *others


def conv_gradients(
    ops: Any, at_once: Callable | None, join: Callable, dy: Any, conv: Any, before: tuple, dz: Any, **rule: Any
) -> tuple[Any, Any, Any]:
    """Return the gradients of x and z, joined and in 16 bits, of the convolution's taps and of its bias.

    ``before`` is what the convolution took, ``rule`` its parameters, those of squareplus and the shift to 16 bits.
    """
    squareplus, s, shift = rule["squareplus"], rule["s"], rule["shift"]
    if at_once:
        return at_once(dy, *before, dz, **squareplus, s=s, shift=shift)
    dx, *others = ops.causal_conv1d_backward(ops.squareplus_backward(dy, conv, **squareplus), *before, s=s)
    return join([ops.round_to_int16(dx, shift=shift), dz], -1), *others


@dataclass
class Pass:
    """One backward pass over some rows of a batch: its ops and constants, the largest magnitudes and the results."""

    ops: Any
    join: Callable
    zeros_like: Callable
    exponents: Exponents
    rounding: Mapping[str, int]  # seed, step, and first, the number of the first row in the whole batch
    streams: Mapping[str, int]
    rotation: tuple[Any, ...] | None
    observe: Observe | None = None
    magnitudes: Callable | None = None  # what a backend has to find those of several arrays at once
    take: Callable[[str, Any], None] | None = None  # is handed the gradient of each parameter
    gate: Callable | None = None  # the backend's own `gate_gradients`
    chunk: Callable | None = None  # the backend's own `chunk_gradients`
    conv: Callable | None = None  # the backend's own `conv_gradients`
    weight: Callable | None = None  # the backend's own rounding and `ternary_linear_backward_weight`
    layer_rows: dict[str, tuple[Any, Any]] = field(default_factory=dict)  # of the forward pass, as `Call` keeps them
    seen: list[str] = field(default_factory=list)
    largest: list[Any] = field(default_factory=list)  # magnitudes of the gradients seen, to be joined
    unmeasured: dict[str, Any] = field(default_factory=dict)  # gradients that `measure` hasn't seen yet
    gradients: dict[str, Any] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)  # the gradient whose exponent a parameter's gradient has

    @property
    def scales(self) -> dict[str, int]:
        """The exponents of the parameters' gradients, but for a constant of each."""
        return {name: self.exponents.used[source] for name, source in self.sources.items()}

    def see(self, name: str, array: Any) -> Any:
        self.unmeasured[name] = array
        if self.observe:
            self.observe(layer_of(name), f"gradient of {name}", array)
        return array

    def measure(self) -> None:
        """Find the largest magnitudes of the gradients seen, and let go of these: once per layer, to save memory."""
        self.seen += self.unmeasured
        self.largest += largest_magnitudes(self.ops, self.magnitudes, list(self.unmeasured.values()))
        self.unmeasured.clear()

    def note(self, name: str, gradient: Any, source: str) -> None:
        self.gradients[name], self.sources[name] = gradient, source
        if self.take:
            self.take(name, gradient)
        if self.observe:
            self.observe(layer_of(name), f"gradient of {name}", gradient)

    def rounded(self, name: str, array: Any, e: Any) -> Any:
        """Return rows cut to the width of an operand."""
        return self.see(name, self.ops.stochastic_round_rows(array, e, **self.rounding_of(name)))

    def rounding_of(self, name: str) -> dict[str, Any]:
        shift, bits = self.exponents.shifts[name], self.exponents.bits
        return dict(self.rounding, shift=shift, bits=bits, stream=self.streams[name])

    def weight_gradient(self, name: str, dy: Any, q: Any, e: Any) -> Any:
        """Return the gradient of a ternary layer's weights; dy is cut to the width of the operand of that name."""
        if self.weight:
            gradient, largest = self.weight(dy, q, e, **self.rounding_of(name))
            self.seen.append(name)
            self.largest.append(largest)
            return gradient
        return self.ops.ternary_linear_backward_weight(self.rounded(name, dy, e), q, bits=self.exponents.bits)

    def linear(
        self, layer: str, shift: str, weight: Any, scale: Mapping[str, int], dy: Any, rows: Callable[[], tuple]
    ) -> Any:
        """Note the gradient of a ternary layer's weights; return the gradient of its input, shifted.

        ``rows`` computes what the layer multiplied, where it isn't kept.
        """
        q, e = self.layer_rows.pop(layer, None) or rows()
        weight_operand, input_operand = operands(layer)
        self.note(layer, self.weight_gradient(weight_operand, dy, q, e), weight_operand)
        if self.exponents.bits < 16:
            dy = self.rounded(input_operand, dy, self.zeros_like(e))
        parameters = {"K": q.shape[-1], "num": scale["num"], "shift": self.exponents.shifts[shift]}
        return self.ops.ternary_linear_backward(dy, weight, **parameters)


class BlockBackward:
    """The backward pass of a `Block`."""

    def __init__(self, block: Block, exponents: Exponents):
        self.block, self.formats, self.exponents = block, block.formats, exponents
        self.settle()

    def name(self, name: str) -> str:
        return f"{self.block.label}.{name}"

    def shift(self, name: str) -> int:
        return self.exponents.shifts[self.name(name)]

    def settle_gradient(self, name: str, most: int = LARGEST_SHIFT, /, **raw: int) -> int:
        """Settle a gradient of this block; the keywords name the shifts."""
        return self.exponents.settle(self.name(name), {self.name(shift): before for shift, before in raw.items()}, most)

    def product(self, layer: str, exponent: int) -> int:
        return self.exponents.linear(self.name(layer), exponent, self.block.scales[layer])

    def settle(self) -> None:
        """Settle the exponents of all gradients, in the order in which they arise."""
        f, gate = self.formats, self.block.gate
        out = self.settle_gradient("out", out=RESIDUAL_EXPONENT + gate["shift"] + f.residual - f.activation)
        gated = self.settle_gradient("gated", gated=self.product("out_proj", out))
        y = self.settle_gradient("scan", NARROWING_SHIFT, scan=gated)
        raw = self.scan_exponents(y)
        decay, read = self.settle_modulation(raw.pop("decay")), raw.pop("x")
        projected = self.settle_gradient("projected", **decay, **raw)
        x = self.settle_gradient("x", x=read, x_proj=self.product("x_proj", projected))
        xz = self.settle_gradient("xz", NARROWING_SHIFT, conv=x, z=gated)
        product = self.product("in_proj", xz)
        self.exponents.normalised(self.name("u"), product)

    def scan_exponents(self, y: int) -> dict[str, int]:
        """Return the exponents, before their shifts, of the scan's gradients of x, b, c and decay; y is that of dy."""
        raise NotImplementedError

    def settle_modulation(self, raw: int) -> dict[str, int]:
        """Return the exponent, before its shift, of the decays' part of what was projected, by the shift's name."""
        raise NotImplementedError

    def __call__(self, run: Pass, tape: Tape, r: Any, state: Mapping[str, Any], dr: Any) -> Any:
        """Note the gradients of the block's parameters; return the gradient of the residual stream before it.

        ``r`` is the residual stream before the block, ``dr`` the gradient of the stream after it, ``state`` where the
        block began.
        """
        ops, weights, f = run.ops, self.block.weights, self.formats
        inner = self.block.config.d_inner
        xz, y, gated, out = (tape[self.block.label, name] for name in ("xz", "scan", "gated", "out"))
        conv = None if run.conv else tape[self.block.label, CONV]

        d_out = ops.residual_add_backward(dr, num=self.block.gate["num"], shift=self.shift("out"))
        d_out = run.see(self.name("out"), ops.saturate_backward(d_out, out, shift=0))
        d_gated = self.linear(run, "out_proj", "gated", d_out, lambda: ops.quantize_rows(gated))
        d_gated = run.see(self.name("gated"), ops.saturate_backward(d_gated, gated, shift=0))
        shifts = {"x_shift": self.shift("scan"), "z_shift": self.shift("z")}
        dy, dz = gate_gradients(ops, run.gate, d_gated, y, xz[..., inner:], f=f.activation, **shifts)
        dy = run.see(self.name("scan"), dy)
        dx = self.mix(run, tape, state, dy)
        dx = run.see(self.name("x"), dx)
        before = (xz[..., :inner], weights["conv_weight"], weights["conv_bias"], state[self.name("conv")])
        rule = {"squareplus": f.squareplus, **f.conv, "shift": self.shift("conv")}
        d_xz, d_kernel, d_bias = conv_gradients(ops, run.conv, run.join, dx, conv, before, dz, **rule)
        run.note(self.name("conv_weight"), d_kernel, self.name("x"))
        run.note(self.name("conv_bias"), d_bias, self.name("x"))
        d_xz = run.see(self.name("xz"), d_xz)
        d_u = self.linear(run, "in_proj", "u", d_xz, lambda: ops.norm_quantize(r, weights["norm"], **f.norm))
        d_u = run.see(self.name("u"), d_u)
        e = self.shift(through_norm("u"))
        dr, d_gain = ops.bitshift_norm_backward(r, weights["norm"], d_u, dr, b=f.mantissa, e=e)
        run.note(self.name("norm"), d_gain, self.name("u"))
        return dr

    def linear(self, run: Pass, layer: str, shift: str, dy: Any, rows: Callable[[], tuple]) -> Any:
        constants = (self.block.weights[layer], self.block.scales[layer])
        return run.linear(self.name(layer), self.name(shift), *constants, dy, rows)

    def narrow(self, run: Pass, gradient: Any) -> Any:
        """Return a gradient of 32 bits, shifted by its op, in 16."""
        return run.ops.round_to_int16(gradient, shift=0)

    def scan(self, run: Pass, op: Callable, dy: Any, arrays: tuple[Any, ...], parameters: Mapping[str, int]):
        """Run the scan backwards and note the gradient of the skip; return the other gradients."""
        parameters = {**parameters, "s_x": self.shift("x"), "s_b": self.shift("b"), "s_c": self.shift("c")}
        *gradients, d_skip, _ = op(dy, *arrays, run.zeros_like(arrays[-1]), **parameters)
        run.note(self.name("skip"), d_skip, self.name("scan"))
        return gradients

    def mix(self, run: Pass, tape: Tape, state: Mapping[str, Any], dy: Any) -> Any:
        """Return the gradient of the input of the scan and of the projection before it."""
        raise NotImplementedError

    def read(self, run: Pass, x: Any, dx: Any, d_projected: Any) -> Any:
        """Return the gradient of x, from the scan, in 16 bits, and from the projection."""
        d_projected = run.see(self.name("projected"), d_projected)
        read = self.linear(run, "x_proj", "x_proj", d_projected, lambda: run.ops.quantize_rows(x))
        return run.ops.saturating_add(dx, read)


class Mamba1Backward(BlockBackward):
    def scan_exponents(self, y):
        f, scan = self.formats, self.formats.scan
        # dL/dh of the integer h is lam * 2**-state; b and c have the mixture's format, decays are plain integers.
        state = y + f.activation + scan["s_y"] + scan["s_h"] - STATE_SHIFT
        return {
            "x": state + max(scan["s_v"], STATE_SHIFT - scan["s_h"]) - f.activation,
            "decay": state - f.activation,
            "b": state + scan["s_v"] - f.mixture,
            "c": y + f.activation + scan["s_y"] - f.mixture,
        }

    def settle_modulation(self, raw):
        return {"dt": self.product("dt_proj", self.settle_gradient("modulation", modulation=raw))}

    def mix(self, run, tape, state, dy):
        x, projected, b, c, modulation = (
            tape[self.block.label, name] for name in ("x", "projected", "b", "c", "modulation")
        )
        weights, rank = self.block.weights, self.block.config.dt_rank
        before = (x, modulation, weights["decay"], b, c, weights["skip"], state[self.name("scan")])
        scan = self.formats.scan
        parameters = {name: scan[name] for name in ("k", "n_max", "s_v", "s_h", "convex")}
        parameters |= {"s_g": STATE_SHIFT, "s_w": scan["k"], "s_n": self.shift("modulation")}
        dx, d_modulation, d_decay, db, dc = self.scan(run, run.ops.selective_scan_backward, dy, before, parameters)
        run.note(self.name("decay"), d_decay, self.name("scan"))
        d_modulation = run.see(self.name("modulation"), self.narrow(run, d_modulation))
        low = projected[..., :rank]
        d_low = self.linear(run, "dt_proj", "dt", d_modulation, lambda: run.ops.quantize_rows(low))
        db, dc = (run.ops.saturate_backward(gradient, q, shift=0) for gradient, q in ((db, b), (dc, c)))
        return self.read(run, x, self.narrow(run, dx), run.join([d_low, db, dc], -1))


class Mamba2Backward(BlockBackward):
    def scan_exponents(self, y):
        f, config = self.formats, self.block.config
        # The op's page says what its results are, in integers of y; decay exponents are plain integers.
        sums = y + f.activation + f.chunk_scan["s_y"] + gradient_bits(config.mamba2_d_state)
        decay = y + f.chunk_scan["s_y"]
        return {"x": sums - f.scan_input, "decay": decay, "b": sums - f.mixture, "c": sums - f.mixture}

    def settle_modulation(self, raw):
        return {"decay": raw}

    def mix(self, run, tape, state, dy):
        names = "x", "scan_input", "projected", "b", "c", "decay"
        x, read, projected, b, c, decay = (tape[self.block.label, name] for name in names)
        weights, config, f = self.block.weights, self.block.config, self.formats
        heads = config.nheads
        split = (*x.shape[:-1], heads, config.headdim)
        before = (read.reshape(*split), decay, b, c, weights["skip"], state[self.name("scan")])
        parameters = {"q": config.chunk_size.bit_length() - 1, "s_h": f.chunk_scan["s_h"]}
        parameters |= {"s_g": CHUNK_SHIFT, "s_d": self.shift("decay")}
        chunk_scan = partial(chunk_gradients, run.ops, run.chunk)
        dx, dn, db, dc = self.scan(run, chunk_scan, dy.reshape(*split), before, parameters)
        modulated = (dn.reshape(*dn.shape, 1), weights["decay"], projected[..., :heads])
        d_decay, d_low = run.ops.decay_modulate_backward(*modulated, **f.chunk_decay, s_n=0)
        run.note(self.name("decay"), d_decay, self.name("projected"))
        mixtures = (self.mixture(run, gradient, q) for gradient, q in ((db, b), (dc, c)))
        d_projected = run.join([self.narrow(run, d_low), *mixtures], -1)
        return self.read(run, x, dx.reshape(*x.shape), d_projected)

    def mixture(self, run, gradient, q):
        """Return the gradient of B or C, which are q, rotated back: a rotation's transpose is its inverse."""
        rotation, gradient = run.rotation, run.ops.saturate_backward(gradient, q, shift=0)
        if rotation is None:
            return gradient
        # The rotation floors: in units far below the gradient's, that moves nothing.
        fine = run.ops.residual_add(run.zeros_like(gradient), gradient, num=1 << ROTATION_BITS, shift=0)
        turned = run.ops.rope_inverse(in_rows(fine, rotation), *rotation, s=self.formats.rotation).reshape(
            *gradient.shape
        )
        return run.ops.round_to_int16(turned, shift=ROTATION_BITS)


def block_backward(block: Block, exponents: Exponents) -> BlockBackward:
    kind = Mamba1Backward if isinstance(block, Mamba1Block) else Mamba2Backward
    return kind(block, exponents)


class NetworkBackward:
    """The backward pass of a `Network`."""

    def __init__(self, network: Network, exponents: Exponents):
        self.network, self.exponents = network, exponents
        exponents.used[RESIDUAL] = RESIDUAL_EXPONENT
        raw = exponents.linear(HEAD, LOGITS_EXPONENT, network.head_scale)
        exponents.normalised("head.u", raw)
        self.blocks = [block_backward(block, exponents) for block in network.blocks]

    def __call__(self, run: Pass, tape: Tape, ids: Any, state: Mapping[str, Any], d_logits: Any) -> None:
        """Note the gradient of every parameter."""
        ops, weights, f = run.ops, self.network.weights, self.network.formats
        streams = [tape["embedding", "residual"], *(tape[b.label, "residual"] for b in self.network.blocks)]
        norm, r = weights["norm"], streams.pop()
        head = weights["head"], self.network.head_scale
        d_u = run.linear(HEAD, "head.u", *head, d_logits, lambda: ops.norm_quantize(r, norm, **f.norm))
        e = self.exponents.shifts[through_norm("head.u")]
        none = run.zeros_like(r)
        dr, d_gain = ops.bitshift_norm_backward(r, norm, run.see("head.u", d_u), none, b=f.mantissa, e=e)
        run.note("norm", d_gain, "head.u")
        run.measure()
        for backward, before in zip(reversed(self.blocks), reversed(streams), strict=True):
            dr = backward(run, tape, before, state, dr)
            run.measure()
        table = weights["embedding"]
        run.note("embedding", ops.embedding_backward(ids, dr, V=table.shape[0]), RESIDUAL)
