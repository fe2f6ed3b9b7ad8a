"""The kernels of a step against the golden ops one after the other: logits and every array of the state."""

import os
from itertools import product

import numpy as np
import pytest
import torch

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")

from mamba_integer import backends
from mamba_integer.backends.torch.decoding import Decoder
from mamba_integer.backends.triton import step_network, step_products, step_wide
from mamba_integer.spec.model import LanguageModel, ModelConfig, State, initial_parameters
from mamba_integer.spec.model.config import MAMBA1, MAMBA2
from mamba_integer.spec.model.generation import Options, Session

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
SIZES = dict(d_model=20, d_inner=36, n_layer=1, mamba1_d_state=3, mamba2_d_state=6, nheads=2, headdim=18, dt_rank=5)
POSITIONS = 7, 9  # the first row's step is the last of its chunk


def config_of(kind, rotate):
    return ModelConfig("drawn", 11, **SIZES, pattern=(kind,), rotate=rotate, chunk_size=4)


def drawn_state(model, source) -> State:
    """Return a state of any values of the formats, with as much of the open chunks as the positions say."""
    arrays = {}
    for name, format in model.state_formats(len(POSITIONS)).items():
        array = source.integers(format.low, format.high, format.shape, endpoint=True).astype(format.dtype)
        if ".open_" in name:
            for row, position in enumerate(POSITIONS):
                array[row, position % model.config.chunk_size :] = 0
        arrays[name] = array
    return State(arrays, POSITIONS)


@pytest.mark.parametrize(
    ("wide", "kind", "rotate"),
    [*product([False, True], [MAMBA1], [False]), *product([False, True], [MAMBA2], [True]), (False, MAMBA2, False)],
)
def test_a_step_is_that_of_the_golden_ops(wide, kind, rotate, monkeypatch):
    monkeypatch.setattr(step_network, "FEW_ROWS", 1 if wide else 8)
    monkeypatch.setattr(step_products, "PROGRAMS", 1)  # large tiles: a program is what costs time in the interpreter
    monkeypatch.setattr(step_wide, "PROGRAMS", 1)
    config = config_of(kind, rotate)
    parameters, source = initial_parameters(config, seed=3), np.random.default_rng(5)
    golden = LanguageModel(config, parameters)
    model = LanguageModel(config, parameters, backends.load("triton", DEVICE))
    state, last = drawn_state(golden, source), np.array([10, 3], np.int32)
    want, after = golden.step(last, state)

    decoder = Decoder(model, len(POSITIONS), Options(1, greedy=True), block=1)
    assert isinstance(decoder.parts, step_network.WideStep) == wide
    decoder.begin(Session(model.state_from_numpy(state), last), stream=0)
    for table, turns in zip(
        decoder.buffers.rotation or (), decoder.rotation_of_block(np.array(POSITIONS)), strict=False
    ):
        table.copy_(turns)
    decoder.buffers.count.zero_()
    assert np.array_equal(model.to_numpy(decoder.parts.logits()), want)
    for name, array in after.arrays.items():
        result = model.to_numpy(decoder.buffers.state[name])
        if ".open_" in name:  # nothing reads what lies beyond the fill
            fills = [(position + 1) % config.chunk_size for position in POSITIONS]
            pairs = [(result[row, :fill], array[row, :fill]) for row, fill in enumerate(fills)]
        else:
            pairs = [(result, array)]
        assert all(one.dtype == other.dtype and np.array_equal(one, other) for one, other in pairs), name
