"""The calls of ops that a model and its training make: by layer, with their sizes, parameters and packed weights."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from mamba_integer.spec.contract import OPS, find_op
from mamba_integer.spec.model import CONFIGS, LanguageModel, ModelConfig, initial_parameters
from mamba_integer.spec.training import Options, Run, initial_state, train_step


@dataclass(frozen=True, eq=False)
class OpCall:
    op: str
    sizes: dict[str, int]
    leading: tuple[int, ...]
    parameters: dict[str, int]
    arrays: tuple[np.ndarray, ...]


class RecordingOps:
    """The golden ops, and each call of them, by the layer whose tensor is observed next."""

    def __init__(self) -> None:
        self.waiting: list[OpCall] = []
        self.layers: dict[str, list[OpCall]] = {}

    def __getattr__(self, name: str) -> Any:
        if name not in OPS:
            raise AttributeError(name)

        def run(*arrays: Any, **parameters: int) -> Any:
            contract = find_op(name)
            at = vars(contract.bind(arrays, parameters))
            sizes = {size: n for size, n in at.items() if size not in parameters and size != "leading"}
            self.waiting.append(OpCall(name, sizes, at.get("leading", ()), parameters, arrays))
            return contract.golden(*arrays, **parameters)

        return run

    def observe(self, layer: str, name: str, array: Any) -> None:
        self.layers.setdefault(layer, []).extend(self.waiting)
        self.waiting = []

    def calls(self) -> Iterator[OpCall]:
        for calls in (*self.layers.values(), self.waiting):
            yield from calls


@cache
def used_parameters() -> dict[str, dict[str, int]]:
    """Return the parameters with which the tiny model and its training call ops, by op; of an op's calls, the last."""
    config, ops = CONFIGS["tiny"], RecordingOps()
    run = Run(config, Options(steps=1000, batch=1, length=config.chunk_size), ops)
    train_step(run, initial_state(run), np.zeros((1, config.chunk_size + 1), np.int32))
    model = LanguageModel(config, initial_parameters(config, 0), ops)
    _, state = model.prefill(np.zeros((1, 1), np.int32), model.new_state(1))
    model.step(np.zeros(1, np.int32), state)
    return {call.op: call.parameters for call in ops.calls()}


def layer_calls(config: ModelConfig, parameters: Mapping[str, np.ndarray], tokens: int) -> dict[str, list[OpCall]]:
    """Return the calls of each layer of a model, which reads the first tokens of a text."""
    ops = RecordingOps()
    model = LanguageModel(config, parameters, ops)
    model.prefill(np.zeros((1, tokens), np.int32), model.new_state(1), observe=ops.observe)
    return ops.layers
