"""Circuits of whole blocks and models for tokens of one text: the network itself, run on wires."""

from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np

from mamba_integer.spec.bounds import Interval
from mamba_integer.spec.integers import RESIDUAL_BITS
from mamba_integer.spec.model.blocks import BLOCKS, Call, LayerWeights
from mamba_integer.spec.model.config import MAMBA1, MAMBA2, ModelConfig
from mamba_integer.spec.model.formats import FORMATS, Formats, state_formats
from mamba_integer.spec.model.initial import initial_parameters

from .arrays import wires
from .lowering import PUBLIC, Builder, CircuitOps, Statement

RESIDUAL = Interval.signed(RESIDUAL_BITS)
BLOCK_KINDS = (MAMBA1, MAMBA2)


class CountingOps(CircuitOps):
    """The ops of one circuit, and the number of constraints that each has added."""

    def __init__(self, builder: Builder):
        self.builder = builder
        self.by_op: Counter[str] = Counter()

    def __getattr__(self, name: str) -> Any:
        run = super().__getattr__(name)

        def counted(*arrays: Any, **parameters: int) -> Any:
            before = len(self.builder.circuit.constraints)
            results = run(*arrays, **parameters)
            self.by_op[name] += len(self.builder.circuit.constraints) - before
            return results

        return counted


def small_config(kind: str, d_model: int, d_inner: int, d_state: int) -> ModelConfig:
    """Return a model of one block, small enough for a proof in seconds. Its B and C are not rotated."""
    heads = max(1, d_inner // 8)
    return ModelConfig(
        "block",
        16,
        d_model=d_model,
        d_inner=d_inner,
        n_layer=1,
        pattern=(kind,),
        mamba1_d_state=d_state,
        mamba2_d_state=d_state,
        nheads=heads,
        headdim=d_inner // heads,
        dt_rank=max(1, d_model // 16),
        rotate=False,
        chunk_size=4,
    )


def block_statement(
    config: ModelConfig, tokens: int = 1, seed: int = 0, formats: Formats = FORMATS
) -> tuple[Statement, Counter[str]]:
    """Return the circuit of a model's first block over the first tokens of a text, and its constraints by op.

    The weights are those of a new model, and constants of the circuit; the text's state is still zero. Public are the
    residual stream before and after the block, and the state that it leaves.
    """
    config = replace(config, n_layer=1)
    weights = initial_parameters(config, seed, formats)
    builder = Builder()
    ops = CountingOps(builder)
    block = BLOCKS[config.kinds[0]]("layers.0", config, formats, ops, LayerWeights("layers.0", weights))
    random = np.random.default_rng(seed)
    limit = 1 << (formats.residual + 2)
    residual = random.integers(-limit, limit, (1, tokens, config.d_model)).astype(np.int32)
    state = {name: wires(np.zeros(f.shape, f.dtype)) for name, f in state_formats(config, 1, formats).items()}
    call = Call(True, None, np.zeros(1, np.int32), None)
    after, arrays = block(call, builder.input("residual", residual, RESIDUAL, PUBLIC), state)
    builder.publish("residual", after)
    for name, array in arrays.items():
        builder.publish(name, array)
    return builder.statement(), ops.by_op
