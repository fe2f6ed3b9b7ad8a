"""Options of a training run, as validated data. Everything here determines the checkpoint's hash."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

# 1.0 in the units of master weights and of learning rates.
ONE = 1 << 24


class OptionsError(ValueError):
    """An option that makes no run: names it, what was found and what is allowed."""

    def __init__(self, name: str, found: Any, allowed: str):
        self.option, self.found, self.allowed = name, found, allowed
        super().__init__(f"training option {name}: found {found!r}, allowed {allowed}")


@dataclass(frozen=True)
class Options:
    """
    Parameters
    ----------
    steps : int
        Updates of the whole run; the schedule ends there.
    batch, length : int
        Sequences of a step, and tokens that each predicts.
    seed : int
        Of the initial weights, the data order and the stochastic rounding; 64 bits.
    rate : int
        Peak learning rate of the ternary masters, in units of 2**-24.
    last_rate : int
        Learning rate at the end.
    warmup : int
        Steps until the peak.
    decay : int
        Weight decay of the ternary masters and the embedding, Q.16.
    gradient_bits : int
        Width of the gradients of activations as operands of the matrix products: 16, or 8 for one int8 product
        instead of two.
    """

    steps: int
    batch: int = 16
    length: int = 256
    seed: int = 0
    rate: int = 1 << 13
    last_rate: int = 1 << 9
    warmup: int = 20
    decay: int = 1 << 15
    gradient_bits: int = 16

    def __post_init__(self):
        allowed = {
            "steps": (1, (1 << 31) - 1),
            "batch": (1, 1 << 16),
            "length": (1, 1 << 16),
            "seed": (0, (1 << 64) - 1),
            "rate": (0, ONE >> 3),
            "last_rate": (0, self.rate if type(self.rate) is int else 0),
            "warmup": (0, self.steps - 1 if type(self.steps) is int else 0),
            "decay": (0, (1 << 16) - 1),
        }
        for name, (low, high) in allowed.items():
            value = getattr(self, name)
            if type(value) is not int or not low <= value <= high:
                raise OptionsError(name, value, f"an integer from {low} to {high}")
        if self.gradient_bits not in (8, 16):
            raise OptionsError("gradient_bits", self.gradient_bits, "8 or 16")

    @property
    def schedule(self) -> dict[str, int]:
        return {"peak": self.rate, "warmup": self.warmup, "total": self.steps, "last": self.last_rate}

    def to_dict(self) -> dict[str, int]:
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Options":
        names = [field.name for field in fields(cls)]
        if sorted(data) != sorted(names):
            raise OptionsError("(names)", sorted(data), f"{names}")
        return cls(**data)
