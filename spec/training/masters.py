"""Master weights: int32 in Q.24, from which the parameters that a model computes with are projected at each step."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..contract import find_op
from ..model.config import ModelConfig
from ..model.formats import FORMATS, Format, Formats, parameter_formats
from ..model.initial import below, initial_parameters
from ..philox import random_words

MASTER_BITS = 24
LARGEST = 1 << 28

# High word of the streams that draw ternary masters.
MASTER_DOMAIN = 5
# Ternary masters start uniform in [-a, a], of root mean square 2**-5; only their ratios matter to the projection.
TERNARY_LIMIT = 908093
# A digit of a stored model as the master it may have come from.
TERNARY_ROOT = 1 << 19

# log2 of a role's learning rate over that of the ternary masters. Lion's updates have one size, so rates follow the
# size of what they change: an embedding is 32 times a ternary master, a decay near one must move in small steps.
RATE_DOUBLINGS = {"embedding": 3, "norm": 2, "conv_weight": 2, "conv_bias": 2, "skip": 0, "decay": -2}
DECAYING = ("embedding",)


@dataclass(frozen=True)
class Master:
    """The rule by which one parameter is trained: its projection, the range of its master, its rate."""

    shape: tuple[int, ...]
    projection: str
    shift: int
    low: int
    high: int
    rate_doublings: int
    decays: bool

    def rate(self, rate: int) -> int:
        return rate << self.rate_doublings if self.rate_doublings >= 0 else rate >> -self.rate_doublings


PROJECTIONS = {"int16": "round_to_int16", "int8": "requantize", "int32": "shift_round"}


def role(name: str) -> str:
    return name.rsplit(".", 1)[-1]


def master(name: str, format: Format) -> Master:
    if format.digits:
        return Master((format.shape[0], format.digits), "ternary_project", 0, -LARGEST, LARGEST, 0, True)
    shift = MASTER_BITS - int(format.q.removeprefix("Q."))
    low, high = (max(-LARGEST, min(LARGEST, bound << shift)) for bound in (format.low, format.high))
    kind = role(name)
    return Master(format.shape, PROJECTIONS[format.dtype], shift, low, high, RATE_DOUBLINGS[kind], kind in DECAYING)


def masters_of(config: ModelConfig, formats: Formats = FORMATS) -> dict[str, Master]:
    """Return how each parameter of a model is trained, by name, in the order in which they are stored."""
    return {name: master(name, format) for name, format in parameter_formats(config, formats).items()}


def initial_masters(config: ModelConfig, seed: int, formats: Formats = FORMATS) -> dict[str, np.ndarray]:
    """Return the masters of a fresh model: a function of the sizes and the seed alone."""
    parameters = initial_parameters(config, seed, formats)
    result = {}
    for index, (name, rule) in enumerate(masters_of(config, formats).items()):
        if rule.projection == "ternary_project":
            words = random_words(seed, (MASTER_DOMAIN << 32) | index, int(np.prod(rule.shape)))
            result[name] = (below(words, 2 * TERNARY_LIMIT + 1) - TERNARY_LIMIT).reshape(rule.shape).astype(np.int32)
        else:
            result[name] = lifted(parameters[name], rule)
    return result


def lifted(parameter: np.ndarray, rule: Master) -> np.ndarray:
    """Return the master that is projected to this parameter."""
    if rule.projection == "ternary_project":
        digits = find_op("unpack_ternary").golden(parameter, K=rule.shape[1])
        return digits.astype(np.int32) * np.int32(TERNARY_ROOT)
    return np.clip(parameter.astype(np.int64) << rule.shift, rule.low, rule.high).astype(np.int32)


def project(ops: Any, masters: Mapping[str, Any], rules: Mapping[str, Master]) -> dict[str, Any]:
    """Return the parameters of a model from its masters, on one backend."""
    result = {}
    for name, array in masters.items():
        rule = rules[name]
        shift = {"shift_round": {"s": rule.shift}, "ternary_project": {}}.get(rule.projection, {"shift": rule.shift})
        result[name] = getattr(ops, rule.projection)(array, **shift)
    return result
