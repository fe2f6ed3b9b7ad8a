"""IntegerMamba: the golden model's integers, whole, in steps, compiled and exported; only fitting state dicts."""

import copy
import pickle

import numpy as np
import pytest
import torch

from mamba_integer.backends.files.folder import TRAINED, load_model
from mamba_integer.backends.torch.module import IntegerMamba
from mamba_integer.spec import compiled
from mamba_integer.spec.contract import DomainError
from mamba_integer.spec.model import CONFIGS, LanguageModel, initial_parameters, parameter_formats

TINY = CONFIGS["tiny"]
BATCH, LENGTH, MAX_POSITIONS = 2, 11, 40
IDS = torch.tensor(np.random.default_rng(0).integers(0, TINY.vocab_size, (BATCH, LENGTH)).astype(np.int32))


def module(seed: int) -> IntegerMamba:
    return IntegerMamba(TINY, initial_parameters(TINY, seed), max_positions=MAX_POSITIONS)


@pytest.fixture(scope="module")
def model() -> IntegerMamba:
    return module(1)


@pytest.fixture(scope="module")
def golden():
    """Logits and state of the golden model after the whole of IDS."""
    model = LanguageModel(TINY, initial_parameters(TINY, seed=1))
    return model.prefill(IDS.numpy(), model.new_state(BATCH))


def assert_golden(golden, logits, state):
    """Compare logits, and the state of the module that made them, with the golden ones: dtype, shape, every integer."""
    assert same(logits.numpy(), golden[0])
    converted = module(1).state_to_numpy(state)
    assert converted.positions == golden[1].positions and converted.arrays.keys() == golden[1].arrays.keys()
    assert all(same(array, golden[1].arrays[name]) for name, array in converted.arrays.items())


def same(got: np.ndarray, want: np.ndarray) -> bool:
    return got.dtype == want.dtype and got.shape == want.shape and np.array_equal(got, want)


def step_by_step(model, state=None):
    logits = []
    for i in range(LENGTH):
        step, state = model(IDS[:, i], state)
        logits.append(step)
    return torch.stack(logits, 1), state


def test_prefill_is_golden(model, golden):
    assert_golden(golden, *model(IDS))


def test_steps_are_golden(model, golden):
    assert_golden(golden, *step_by_step(model))


def test_pieces_are_golden(model, golden):
    first, state = model(IDS[:, :4])
    last, state = model(IDS[:, 4:], state, last_only=True)
    assert same(first.numpy(), golden[0][:, :4])
    assert_golden((golden[0][:, -1], golden[1]), last, state)


def test_states_are_exchanged_with_the_specification(model, golden):
    reference = LanguageModel(TINY, initial_parameters(TINY, seed=1))
    want, _ = reference.step(IDS[:, 0].numpy(), golden[1])
    got, _ = model(IDS[:, 0], model.state_from_numpy(golden[1]))
    assert same(got.numpy(), want)


def test_a_compiled_module_is_golden(model, golden):
    """One graph, no break; steps at growing positions share one compilation."""
    torch.compiler.reset()
    graph = torch.compile(model, fullgraph=True, backend="aot_eager")
    assert_golden(golden, *graph(IDS))
    _, state = graph(IDS[:, 0], model.new_state(BATCH))
    with torch.compiler.set_stance("fail_on_recompile"):
        graph(IDS[:, 1], state)


def test_a_compiled_module_refuses_a_token_out_of_range(model):
    graph = torch.compile(model, fullgraph=True, backend="aot_eager")
    with pytest.raises(RuntimeError, match=r"argument ids: found a value outside, allowed \[0, 255\]"):
        graph(IDS + TINY.vocab_size)


def test_an_exported_prefill_is_golden(model, golden, tmp_path):
    """Batch and length are symbols; the program is saved, loaded, and run at other sizes."""
    state, batch, length = model.new_state(BATCH), torch.export.Dim("batch"), torch.export.Dim("length")
    shapes = ({0: batch, 1: length}, {name: {0: batch} for name in state})
    torch.export.save(torch.export.export(model, (IDS, state), dynamic_shapes=shapes), tmp_path / "model.pt2")
    program = torch.export.load(tmp_path / "model.pt2").module()
    assert_golden(golden, *program(IDS, state))
    logits, _ = program(IDS[:1, :5], model.new_state(1))
    assert same(logits.numpy(), golden[0][:1, :5])
    with pytest.raises(RuntimeError, match="argument ids: found a value outside"):
        program(IDS - TINY.vocab_size, state)


def test_an_exported_step_is_golden(model, golden):
    program = torch.export.export(model, (IDS[:, 0], model.new_state(BATCH))).module()
    assert_golden(golden, *step_by_step(program, model.new_state(BATCH)))


def test_a_state_dict_has_the_stored_parameters_and_comes_back(golden):
    state_dict = module(1).state_dict()
    for name, format in parameter_formats(TINY).items():
        assert str(state_dict[name].dtype) == f"torch.{format.dtype}" and tuple(state_dict[name].shape) == format.shape
    assert state_dict.keys() == parameter_formats(TINY).keys()
    other = module(2)
    assert not same(other(IDS)[0].numpy(), golden[0])
    other.load_state_dict(state_dict)
    assert_golden(golden, *other(IDS))


def test_a_copy_is_a_model_of_its_own(golden):
    model = module(1)
    copies = [copy.deepcopy(model), pickle.loads(pickle.dumps(model))]
    model.load_state_dict(module(2).state_dict(), assign=True)
    for duplicate in copies:
        assert_golden(golden, *duplicate(IDS))
    assert same(model(IDS)[0].numpy(), module(2)(IDS)[0].numpy())


def test_moving_moves_all(model):
    moved = copy.deepcopy(model).to("meta")
    logits, state = moved(IDS.to("meta"), last_only=True)
    assert {logits.device.type, *(array.device.type for array in state.values())} == {"meta"}
    assert logits.shape == (BATCH, TINY.vocab_size)
    assert all(not buffer.is_floating_point() for buffer in copy.deepcopy(model).half().buffers())


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("norm", lambda tensor: tensor.int(), "argument norm: found dtype int32, allowed int16"),
        ("norm", lambda tensor: tensor[1:], r"argument norm: found shape \(63,\)"),
        ("layers.0.decay", lambda tensor: tensor - 32767, "argument layers.0.decay: found -"),
        ("head", lambda tensor: tensor | 0xAA & ~0x55, "argument head: found .* 2-bit codes"),
    ],
)
def test_a_state_dict_out_of_the_domain_is_refused_before_it_is_written(name, change, message):
    model = module(1)
    state_dict = {key: torch.zeros_like(tensor) for key, tensor in model.state_dict().items()}
    with pytest.raises(DomainError, match=message):
        model.load_state_dict(state_dict | {name: change(model.state_dict()[name])})
    assert all(torch.equal(model.state_dict()[key], tensor) for key, tensor in module(1).state_dict().items())


def test_a_wrong_call_names_the_argument(model):
    state = model.new_state(BATCH)
    for ids, given, message in (
        (IDS.long(), state, "argument ids: found torch.int64 of 2 dimensions"),
        (IDS[None], state, "argument ids: found torch.int32 of 3 dimensions"),
        (IDS + 256, state, r"argument ids: found \d+ at index .*, allowed \[0, 255\]"),
        (IDS[:1], state, r"argument state layers.0.conv: found \(2, 3, 128\), allowed \(1, 3, 128\)"),
        (IDS, {"positions": state["positions"]}, "argument state layers.0.conv: found nothing"),
        (IDS.repeat(1, 4), state, r"argument positions: found 40 at index .*, allowed \[0, 39\]"),
    ):
        with pytest.raises(DomainError, match=message):
            model(ids, given)
    with pytest.raises(DomainError, match="length 0"):
        model(IDS[:, :0], state, last_only=True)
    with pytest.raises(DomainError, match="max_positions: found 0"):
        IntegerMamba(TINY, max_positions=0)


def test_a_packaged_model_comes_by_name_and_by_path():
    checkpoint = load_model(TRAINED["shakespeare"]).checkpoint
    reference = LanguageModel(checkpoint.config, checkpoint.parameters, compiled)
    want, _ = reference.prefill(IDS[:, :3].numpy(), reference.new_state(BATCH))
    for path in ("shakespeare", TRAINED["shakespeare"]):
        got, _ = IntegerMamba.from_pretrained(path, max_positions=8)(IDS[:, :3])
        assert same(got.numpy(), want)
