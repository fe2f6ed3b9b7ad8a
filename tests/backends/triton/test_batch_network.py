"""A step of many rows as fused kernels is the network's own step, integer by integer."""

import numpy as np
import torch

from mamba_integer import backends
from mamba_integer.backends.torch.decoding import Buffers
from mamba_integer.backends.triton import step_network
from mamba_integer.spec import trusted_values
from mamba_integer.spec.model import LanguageModel, ModelConfig, initial_parameters
from mamba_integer.spec.model.state import State

SMALL = ModelConfig(
    "small",
    40,
    d_model=12,
    d_inner=16,
    n_layer=2,
    mamba1_d_state=3,
    mamba2_d_state=6,
    nheads=2,
    headdim=8,
    dt_rank=3,
    chunk_size=4,
)
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def test_steps_of_many_rows_are_the_ordinary_ones(monkeypatch):
    monkeypatch.setattr(step_network, "FEW_ROWS", 1)
    rows = 2
    parameters = initial_parameters(SMALL, seed=3)
    golden = LanguageModel(SMALL, parameters, backends.load("golden"))
    model = LanguageModel(SMALL, parameters, backends.load("triton", DEVICE))
    ids = np.random.default_rng(5).integers(0, SMALL.vocab_size, (rows, 5)).astype(np.int32)
    _, want = golden.prefill(ids[:, :3], golden.new_state(rows))
    arrays = dict(model.state_from_numpy(want).arrays)
    last, position = model.from_numpy(ids[:, 3]), model.from_numpy(np.array(want.positions, np.int32))
    rotation = tuple(table.reshape(rows, 2, -1).swapaxes(0, 1).contiguous() for table in model._rotation(want, 2))
    count, tokens = torch.zeros(1, dtype=torch.int64, device=DEVICE), torch.zeros_like(last).expand(2, rows).clone()
    buffers = Buffers(arrays, last, position, torch.zeros_like(last), count, tokens, rotation)
    fused = step_network.fused_step(model.network, SMALL, buffers)
    assert type(fused) is step_network.BatchStep
    for step in range(3, 5):
        logits, want = golden.step(ids[:, step], want)
        with trusted_values():
            assert np.array_equal(model.to_numpy(fused.logits()), logits)
            fused.advance(model.from_numpy(ids[:, min(step + 1, 4)]))
        after = model.state_to_numpy(State(arrays, want.positions)).arrays
        fill = want.positions[0] % SMALL.chunk_size
        for name, array in want.arrays.items():
            open_ = name.split(".")[-1].startswith("open_")
            assert np.array_equal(after[name][:, :fill] if open_ else after[name], array[:, :fill] if open_ else array)


def test_sizes_that_are_no_words_are_left_to_the_ops():
    odd = ModelConfig("odd", 40, d_model=6, d_inner=8, n_layer=1, nheads=1, headdim=8, dt_rank=2, chunk_size=4)
    model = LanguageModel(odd, initial_parameters(odd, seed=0), backends.load("triton", DEVICE))
    rows = torch.zeros(step_network.FEW_ROWS + 1, dtype=torch.int32, device=DEVICE)
    assert step_network.fused_step(model.network, odd, Buffers({}, rows, rows, rows, rows, rows, None)) is None
