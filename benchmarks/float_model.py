"""The same network in float32 Torch, with the weights of an integer model: what its speed is compared with.

The multi-head scan runs in chunks as matrix products, as a float program would; the per-channel scan can't, and steps.
"""

from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint

from mamba_integer.spec import unpack_ternary
from mamba_integer.spec.model.config import MAMBA1, ModelConfig
from mamba_integer.spec.model.formats import DOUBLINGS, FORMATS, parameter_formats
from mamba_integer.spec.model.language_model import rotations

CHUNK = 64


def scale_of(name: str, columns: int) -> float:
    """Return the scale of a ternary matrix."""
    scale = FORMATS.linear(columns, DOUBLINGS[name.rsplit(".", 1)[-1]])
    return scale["num"] / (1 << scale["shift"])


def float_weights(config: ModelConfig, parameters: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
    """Return the weights that the integer parameters stand for."""
    weights = {}
    for name, format in parameter_formats(config).items():
        array = parameters[name]
        if format.digits:
            digits = torch.from_numpy(unpack_ternary.golden(array, K=format.digits)).float()
            weights[name] = digits * scale_of(name, format.digits)
        else:
            weights[name] = torch.from_numpy(array).float() / (1 << int(format.q.removeprefix("Q.")))
    return weights


class FloatModel:
    def __init__(
        self, config: ModelConfig, weights: dict[str, torch.Tensor], chunk: int = CHUNK, recompute: bool = False
    ):
        """``recompute`` keeps only what enters a block, and computes the rest again for its gradient."""
        self.config, self.weights, self.chunk, self.recompute = config, weights, chunk, recompute
        self.device = weights["embedding"].device
        self.gate = 2 * config.n_layer**-0.5
        self.longest = 1 - 2.0 ** (FORMATS.margin - FORMATS.decay)

    def new_state(self, batch: int) -> dict:
        c = self.config
        state = {"position": 0}
        for i, kind in enumerate(c.kinds):
            shape = (c.d_inner, c.mamba1_d_state) if kind == MAMBA1 else (c.nheads, c.headdim, c.mamba2_d_state)
            state[f"layers.{i}.conv"] = torch.zeros(batch, 3, c.d_inner, device=self.device)
            state[f"layers.{i}.scan"] = torch.zeros(batch, *shape, device=self.device)
        return state

    def step(self, ids, state):
        logits, state = self.prefill(ids[:, None], state)
        return logits[:, 0], state

    def prefill(self, ids, state, last_only=False):
        c, w = self.config, self.weights
        length = ids.shape[1]
        after = {"position": state["position"] + length}
        r = w["embedding"][ids]
        turn = self.rotation(state["position"], length)
        for i in range(c.n_layer):
            prefix = f"layers.{i}."
            run = partial(checkpoint, self.block, use_reentrant=False) if self.recompute else self.block
            r, after[prefix + "conv"], after[prefix + "scan"] = run(
                i, r, state[prefix + "conv"], state[prefix + "scan"], turn
            )
        if last_only:
            r = r[:, -1:]
        return F.linear(norm(r, w["norm"]), w["head"]), after

    def block(self, i, r, conv, scan, turn):
        w, prefix = self.weights, f"layers.{i}."
        u = norm(r, w[prefix + "norm"])
        x, z = F.linear(u, w[prefix + "in_proj"]).chunk(2, -1)
        x, conv = convolve(x, w[prefix + "conv_weight"], w[prefix + "conv_bias"], conv)
        x = (x + torch.sqrt(x * x + 4)) / 2 - 1
        mix = self.channel if self.config.kinds[i] == MAMBA1 else self.heads
        y, scan = mix(prefix, x, scan, turn)
        y = y * z * (0.5 + z / (2 * (1 + z.abs())))
        return r + F.linear(y, w[prefix + "out_proj"]) * self.gate, conv, scan

    def channel(self, prefix, x, h, turn):
        c, w = self.config, self.weights
        dt, b, c_ = F.linear(x, w[prefix + "x_proj"]).split([c.dt_rank, c.mamba1_d_state, c.mamba1_d_state], -1)
        # The modulation is in units of a decay's last place.
        modulation = F.linear(dt, w[prefix + "dt_proj"]) * 2.0 ** (FORMATS.activation - FORMATS.decay)
        base, ys = w[prefix + "decay"], []
        # The gradient of an index is as large as what is indexed; that of all parts together is made once.
        for x_t, b_t, c_t, modulation_t in zip(*(a.unbind(1) for a in (x, b, c_, modulation)), strict=True):
            decay = (base + modulation_t[..., None]).clamp(0, self.longest)
            h = torch.lerp(x_t[..., None] * b_t[:, None], h, decay)
            ys.append(torch.matmul(h, c_t[..., None])[..., 0])
        return torch.stack(ys, 1) + x * w[prefix + "skip"], h

    def heads(self, prefix, x, h, turn):
        c, w = self.config, self.weights
        batch, length = x.shape[:2]
        modulation, b, c_ = F.linear(x, w[prefix + "x_proj"]).split([c.nheads, c.mamba2_d_state, c.mamba2_d_state], -1)
        if turn is not None:
            b, c_ = rotate(b, *turn), rotate(c_, *turn)
        modulation = modulation * 2.0 ** (FORMATS.activation - FORMATS.exponent)
        largest = FORMATS.chunk_decay["n_max"] / (1 << FORMATS.exponent)
        decay = torch.exp2(-(w[prefix + "decay"][:, 0] + modulation).clamp(0, largest))
        x = x.reshape(batch, length, c.nheads, c.headdim)
        y, h = ssd(x * (1 - decay)[..., None], decay, b, c_, h, min(self.chunk, length))
        y = y + x * w[prefix + "skip"][:, None]
        return y.reshape(batch, length, c.d_inner), h

    def rotation(self, position, length):
        if not self.config.rotate:
            return None
        positions = np.arange(position, position + length)
        _, gam, quadrant = rotations(positions, self.config.mamba2_d_state // 2, FORMATS.rotation)
        sine = torch.from_numpy(gam).float() / (1 << FORMATS.rotation)
        angle = torch.asin(sine) + torch.from_numpy(quadrant).float() * (torch.pi / 2)
        return torch.cos(angle).to(self.device), torch.sin(angle).to(self.device)


def norm(r, gain):
    return F.layer_norm(r, r.shape[-1:], gain)


def convolve(x, weight, bias, state):
    padded = torch.cat([state, x], 1)
    y = F.conv1d(padded.transpose(1, 2), weight[:, None], bias, groups=len(weight)).transpose(1, 2)
    return y, padded[:, -3:]


def rotate(x, cosine, sine):
    even, odd = x[..., 0::2], x[..., 1::2]
    return torch.stack([even * cosine - odd * sine, even * sine + odd * cosine], -1).flatten(-2)


def ssd(x, decay, b, c, h, chunk):
    """Return the outputs of a multi-head scan and the state after it, as matrix products within and between chunks.

    x is [B L H P], decay [B L H], b and c [B L S], h [B H P S].
    """
    length = x.shape[1]
    tail = -length % chunk
    x, decay, b, c = (
        F.pad(a, (0, 0) * (a.dim() - 2) + (0, tail), value=one) for a, one in ((x, 0), (decay, 1), (b, 0), (c, 0))
    )
    x, decay, b, c = (a.unflatten(1, (-1, chunk)) for a in (x, decay, b, c))
    values = x.transpose(2, 3)  # [B C H L P]
    total = decay.log().cumsum(2).transpose(2, 3)  # [B C H L]
    between = total[..., :, None] - total[..., None, :]  # from the later to the earlier
    causal = torch.ones(chunk, chunk, dtype=torch.bool, device=x.device).tril()
    weights = between.masked_fill(~causal, -torch.inf).exp() * (c @ b.transpose(2, 3))[:, :, None]
    left = (total[..., -1:] - total).exp()[..., None]
    added = (values * left).transpose(3, 4) @ b[:, :, None]  # [B C H P S]
    faded = total[..., -1].exp()[..., None, None]
    before = []
    for i in range(x.shape[1]):
        before.append(h)
        h = h * faded[:, i] + added[:, i]
    carried = c[:, :, None] @ torch.stack(before, 1).transpose(3, 4) * total.exp()[..., None]
    y = (weights @ values + carried).transpose(2, 3).flatten(1, 2)
    return y[:, :length], h
