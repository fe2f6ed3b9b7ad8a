"""The float32 twins of integer training: the same network, data, optimizer and schedule, ternary weights or dense."""

import numpy as np
import torch
import torch.nn.functional as F

from benchmarks.float_model import FloatModel, scale_of
from mamba_integer.spec.model.config import ModelConfig
from mamba_integer.spec.training.masters import MASTER_BITS, TERNARY_LIMIT, initial_masters, masters_of
from mamba_integer.spec.training.options import Options

# Steps that a device with lanes to spare computes as one matrix product.
CHUNK = 256
LOG2 = float(np.log(2))
ONE = float(1 << MASTER_BITS)
# The root mean square of a fresh ternary matrix's digits, of which a quarter is zero, over that of its masters.
DENSE = 0.75**0.5 / (TERNARY_LIMIT / ONE / 3**0.5)


class FloatTraining:
    """Lion on float32 masters. ``ternary``: weights are the signs of the larger masters; gradients pass through."""

    def __init__(self, config: ModelConfig, options: Options, ternary: bool, device: str, recompute: bool = False):
        self.config, self.options, self.ternary, self.recompute = config, options, ternary, recompute
        self.rules = masters_of(config)
        initial = initial_masters(config, options.seed)
        self.masters = {n: (torch.from_numpy(a).float() / ONE).to(device).requires_grad_() for n, a in initial.items()}
        self.momenta = {name: torch.zeros_like(master) for name, master in self.masters.items()}
        self.steps = 0

    def model(self) -> FloatModel:
        weights = {}
        for name, master in self.masters.items():
            if self.rules[name].projection != "ternary_project":
                weights[name] = master
            elif self.ternary:
                digits = torch.where(2 * master.abs() > master.abs().mean(), master.sign(), 0.0)
                weights[name] = (master + (digits - master).detach()) * scale_of(name, master.shape[1])
            else:
                weights[name] = master * (DENSE * scale_of(name, master.shape[1]))
        return FloatModel(self.config, weights, CHUNK, self.recompute)

    def loss(self, ids: torch.Tensor) -> torch.Tensor:
        """Return the bits of every token."""
        model = self.model()
        logits, _ = model.prefill(ids[:, :-1], model.new_state(len(ids)))
        return F.cross_entropy(logits.flatten(0, 1) * LOG2, ids[:, 1:].flatten(), reduction="none") / LOG2

    def step(self, ids: torch.Tensor) -> torch.Tensor:
        """Take one step; return the mean bits per token."""
        loss = self.loss(ids).mean()
        gradients = torch.autograd.grad(loss, list(self.masters.values()))
        rate = self.rate()
        with torch.no_grad():
            for (name, master), gradient in zip(self.masters.items(), gradients, strict=True):
                rule, momentum = self.rules[name], self.momenta[name]
                update = torch.sign(7 * momentum + gradient)
                momentum += (gradient - momentum) / 64
                decay = self.options.decay / 65536 if rule.decays else 0.0
                master -= rate * 2.0**rule.rate_doublings * (update + decay * master)
                master.clamp_(rule.low / ONE, rule.high / ONE)
        self.steps += 1
        return loss.detach()

    def rate(self) -> float:
        o, step = self.options, self.steps
        if step < o.warmup:
            return o.rate * (step + 1) / o.warmup / ONE
        return (o.last_rate + (o.rate - o.last_rate) * (o.steps - step) / (o.steps - o.warmup)) / ONE
