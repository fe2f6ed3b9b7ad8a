"""Decoding in blocks of steps writes the tokens and the states of the ordinary steps."""

from dataclasses import replace

import numpy as np
import pytest

from mamba_integer import backends
from mamba_integer.backends.torch.decoding import blocks_of_steps
from mamba_integer.spec.model import CONFIGS, LanguageModel, initial_parameters
from mamba_integer.spec.model.generation import Options, generate, inverse_temperature, read, steps

TINY = CONFIGS["tiny"]
PROMPTS = [list(b"It was the best of times"), list(b"x"), list(b"a chunk has 16."), list(b"y")]  # two of one length
DRAWS = Options(21, seed=2**64 - 1, stream=5, inverse_temperature=inverse_temperature("0.8"), top_k=40)


@pytest.fixture(scope="module")
def model(device) -> LanguageModel:
    return LanguageModel(TINY, initial_parameters(TINY, seed=1), backends.load("torch", device))


def assert_same(model, session, want):
    assert session.last.dtype == np.int32
    assert session.last.tolist() == want.last.tolist()
    assert session.state.positions == want.state.positions
    one, other = (model.state_to_numpy(s.state).arrays for s in (session, want))
    assert list(one) == list(other)
    for name, array in other.items():
        assert one[name].dtype == array.dtype
        assert np.array_equal(one[name], array), name


@pytest.mark.parametrize("options", [DRAWS, replace(DRAWS, greedy=True)], ids=["sampled", "greedy"])
def test_every_step_is_the_ordinary_one(model, options):
    start = read(model, PROMPTS)
    sessions = blocks_of_steps(model, start, options, block=8)
    for session, want in zip(sessions, steps(model, start, options), strict=True):
        assert_same(model, session, want)


def test_an_earlier_session_keeps_its_state(model):
    start = read(model, PROMPTS)
    want = list(steps(model, start, DRAWS))
    sessions = list(blocks_of_steps(model, start, DRAWS, block=4))
    for i in (20, 3, 4, 9, 0):
        assert_same(model, sessions[i], want[i])


def test_texts_that_are_written_in_turns_do_not_mix(model):
    few = replace(DRAWS, max_tokens=5)
    starts = [read(model, [prompt]) for prompt in PROMPTS]
    want = [[session.last.tolist() for session in steps(model, start, few)] for start in starts]
    turns = zip(*(blocks_of_steps(model, start, few, block=2) for start in starts), strict=True)
    assert [list(row) for row in zip(*([s.last.tolist() for s in turn] for turn in turns), strict=True)] == want


def test_generate_decodes_in_blocks_where_the_device_is_a_gpu(model, device):
    start = read(model, PROMPTS)
    session = next(iter(generate(model, start, DRAWS)))
    assert (type(session).__name__ == "LateSession") == (device == "cuda")
    assert_same(model, session, next(steps(model, start, DRAWS)))
