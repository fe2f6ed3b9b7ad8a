"""The kernels of a step against the golden ops one after the other: logits and every array of the state."""

import os
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pytest
import torch

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")

from mamba_integer import backends
from mamba_integer.backends.torch.decoding import Decoder, blocks_of_steps
from mamba_integer.backends.triton import step_network, step_products, step_sliced
from mamba_integer.spec.contract import trusted_values
from mamba_integer.spec.model import LanguageModel, ModelConfig, State, initial_parameters
from mamba_integer.spec.model.config import KINDS, MAMBA1, MAMBA2
from mamba_integer.spec.model.generation import Options, Session, steps

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
SIZES = dict(d_model=20, d_inner=36, mamba1_d_state=3, mamba2_d_state=6, nheads=2, headdim=18, dt_rank=5)
FEW, WIDE = 8, 0  # rows for which a product's program takes one row


def config_of(pattern=KINDS, **sizes) -> ModelConfig:
    fields = {"vocab_size": 11, "n_layer": len(pattern), "chunk_size": 4, **SIZES, **sizes}
    return ModelConfig("drawn", pattern=pattern, **fields)


@dataclass(frozen=True)
class Case:
    """One step of rows at some positions, from a state of any values of the formats."""

    few: int
    config: ModelConfig
    positions: tuple[int, ...]
    seed: int = 5
    edge: bool = False  # whether the state's values are at the ends of their ranges

    @cached_property
    def golden(self) -> LanguageModel:
        return LanguageModel(self.config, initial_parameters(self.config, seed=3))

    @cached_property
    def last(self) -> np.ndarray:
        source = np.random.default_rng(self.seed)
        return source.integers(0, self.config.vocab_size, len(self.positions)).astype(np.int32)

    @cached_property
    def state(self) -> State:
        source, arrays = np.random.default_rng(self.seed), {}
        for name, format in self.golden.state_formats(len(self.positions)).items():
            array = source.integers(format.low, format.high, format.shape, endpoint=True)
            if self.edge:
                array = np.where(array * 2 > format.low + format.high, format.high, format.low)
            if ".open_" in name:  # as much of the open chunks as the positions say
                for row, position in enumerate(self.positions):
                    array[row, position % self.config.chunk_size :] = 0
            arrays[name] = array.astype(format.dtype)
        return State(arrays, self.positions)

    def model(self) -> LanguageModel:
        return LanguageModel(self.config, initial_parameters(self.config, seed=3), backends.load("triton", DEVICE))

    def differences(self, model: LanguageModel, monkeypatch) -> list[str]:
        """Return the names of the arrays that differ after a step of the kernels."""
        monkeypatch.setattr(step_network, "FEW_ROWS", self.few)
        decoder = Decoder(model, len(self.positions), Options(1, greedy=True), block=1)
        assert isinstance(decoder.parts, step_network.WideStep) == (self.few == WIDE)
        decoder.begin(Session(model.state_from_numpy(self.state), self.last), stream=0)
        decoder.start_block(np.array(self.positions), 1)
        with trusted_values():
            logits = model.to_numpy(decoder.parts.logits())
        right, after = self.golden.step(self.last, self.state)
        pairs = {"logits": [(logits, right)]}
        for name, array in after.arrays.items():
            result = model.to_numpy(decoder.buffers.state[name])
            pairs[name] = [(result, array)]
            if ".open_" in name:  # nothing reads what lies beyond the fill
                fills = [(position + 1) % self.config.chunk_size for position in self.positions]
                pairs[name] = [(result[row, :fill], array[row, :fill]) for row, fill in enumerate(fills)]
        return [name for name, two in pairs.items() if any(unlike(*pair) for pair in two)]


def unlike(one, other) -> bool:
    return one.dtype != other.dtype or not np.array_equal(one, other)


WIDER = dict(d_model=68, d_inner=96, headdim=48, mamba2_d_state=34, mamba1_d_state=17, dt_rank=18, vocab_size=70)
# A row's step is the last of its chunk, or the first of its text.
CASES = {
    "few rows": Case(FEW, config_of(), (7, 9), seed=6),
    "many rows": Case(WIDE, config_of(), (7, 0, 9), seed=7),
    "few rows, edges": Case(FEW, config_of(), (3,), edge=True),
    "many rows, edges": Case(WIDE, config_of(), (3, 2), edge=True),
    "few rows, wider": Case(FEW, config_of(**WIDER), (2,), seed=8),
    "many rows, wider": Case(WIDE, config_of(**WIDER), (1, 3), seed=9),
    "without rotation": Case(FEW, config_of((MAMBA2,), rotate=False), (6,), seed=10),
    "few rows, three chunked blocks": Case(FEW, config_of((MAMBA2, MAMBA1, MAMBA2, MAMBA2)), (3, 2), seed=12),
    "many rows without rotation": Case(WIDE, config_of((MAMBA2, MAMBA1), rotate=False), (6, 3), seed=11),
}


@pytest.fixture(autouse=True)
def large_tiles(monkeypatch):
    for module in (step_products, step_sliced):
        monkeypatch.setattr(module, "PROGRAMS", 1)  # a program is what costs time in the interpreter


@pytest.mark.parametrize("name", CASES)
def test_a_step_is_that_of_the_golden_ops(name, monkeypatch):
    case = CASES[name]
    assert case.differences(case.model(), monkeypatch) == []


@pytest.mark.parametrize("few", [FEW, WIDE], ids=["few rows", "many rows"])
def test_what_a_step_keeps_is_right_in_the_next(few, monkeypatch):
    monkeypatch.setattr(step_network, "FEW_ROWS", few)
    case = Case(few, config_of((MAMBA2,)), (2, 0), seed=13)
    options, model = Options(5, greedy=True), case.model()  # over the end of a chunk of each row
    start = Session(model.state_from_numpy(case.state), case.last)
    texts = list(blocks_of_steps(model, start, options, block=3))
    right = list(steps(case.golden, Session(case.state, case.last), options))
    assert [text.last.tolist() for text in texts] == [text.last.tolist() for text in right]
    for i in (4, 1):  # the later first: an earlier state is computed again from what was kept of it
        after = model.state_to_numpy(texts[i].state)
        assert [name for name, array in right[i].state.arrays.items() if unlike(after.arrays[name], array)] == []


def test_the_programs_of_a_product_share_its_columns(monkeypatch):
    monkeypatch.setattr(step_products, "PROGRAMS", 8)
    case = CASES["few rows"]
    assert case.differences(case.model(), monkeypatch) == []


def test_programs_share_the_heads_of_open_chunks(monkeypatch):
    monkeypatch.setattr(step_network, "FACTORS", step_network.LEAST_TILE)  # one head for each
    case = CASES["few rows, three chunked blocks"]
    assert case.differences(case.model(), monkeypatch) == []


@pytest.mark.parametrize("name", ["few rows", "many rows"])
@pytest.mark.parametrize(
    ("weights", "array", "pattern"),
    [
        ("in_proj", "layers.0.conv", KINDS[:1]),
        ("x_proj", "layers.0.scan", KINDS[:1]),
        ("dt_proj", "layers.0.scan", KINDS[:1]),
        ("out_proj", "layers.1.conv", KINDS),
        ("head", "logits", KINDS[:1]),
    ],
)
def test_a_scale_of_twice_its_size_is_found(name, weights, array, pattern, monkeypatch):
    case = replace(CASES[name], config=config_of(pattern))
    model = case.model()
    scales = [model.network.head_scale] if weights == "head" else [b.scales[weights] for b in model.network.blocks]
    for scale in scales:
        monkeypatch.setitem(scale, "shift", scale["shift"] - 1)
    assert array in case.differences(model, monkeypatch)


def test_states_that_no_program_holds_are_left_to_the_ops():
    config = config_of((MAMBA1,), mamba1_d_state=step_network.MOST_STATES + 1)
    model = LanguageModel(config, initial_parameters(config, seed=3), backends.load("triton", DEVICE))
    assert not isinstance(Decoder(model, 1, Options(1, greedy=True)).parts, step_network.FusedStep)
