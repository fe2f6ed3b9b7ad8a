"""IntegerMamba: the golden model's integers, whole, in steps, compiled and exported; only fitting state dicts."""

import copy
import pickle
import sys
import textwrap
from functools import cache

import numpy as np
import pytest
import torch

from mamba_integer.backends.files.folder import TRAINED, load_model
from mamba_integer.backends.torch.arrays import to_numpy
from mamba_integer.backends.torch.module import IntegerMamba
from mamba_integer.spec import compiled
from mamba_integer.spec.contract import DomainError
from mamba_integer.spec.model import CONFIGS, LanguageModel, initial_parameters, parameter_formats

TINY = CONFIGS["tiny"]
BATCH, LENGTH, MAX_POSITIONS = 2, 11, 40
TOKENS = np.random.default_rng(0).integers(0, TINY.vocab_size, (BATCH, LENGTH)).astype(np.int32)
IDS = torch.tensor(TOKENS)


def module(seed: int) -> IntegerMamba:
    return IntegerMamba(TINY, initial_parameters(TINY, seed), max_positions=MAX_POSITIONS)


@pytest.fixture(scope="module")
def model(device) -> IntegerMamba:
    return module(1).to(device)


@pytest.fixture(scope="module")
def ids(device) -> torch.Tensor:
    return torch.tensor(TOKENS, device=device)


@pytest.fixture(scope="module")
def golden():
    """Logits and state of the golden model after the whole of TOKENS."""
    model = LanguageModel(TINY, initial_parameters(TINY, seed=1))
    return model.prefill(TOKENS, model.new_state(BATCH))


def assert_golden(golden, logits, state):
    """Compare logits, and the state of the module that made them, with the golden ones: dtype, shape, every integer."""
    assert same(logits, golden[0])
    converted = converter().state_to_numpy(state)
    assert converted.positions == golden[1].positions and converted.arrays.keys() == golden[1].arrays.keys()
    assert all(same(array, golden[1].arrays[name]) for name, array in converted.arrays.items())


@cache
def converter() -> IntegerMamba:
    return module(1)


def same(got: torch.Tensor | np.ndarray, want: np.ndarray) -> bool:
    got = to_numpy(got) if isinstance(got, torch.Tensor) else got
    return got.dtype == want.dtype and got.shape == want.shape and np.array_equal(got, want)


def step_by_step(model, ids, state=None):
    logits = []
    for i in range(LENGTH):
        step, state = model(ids[:, i], state)
        logits.append(step)
    return torch.stack(logits, 1), state


def test_prefill_is_golden(model, ids, golden):
    assert_golden(golden, *model(ids))


def test_steps_are_golden(model, ids, golden):
    assert_golden(golden, *step_by_step(model, ids))


def test_pieces_are_golden(model, ids, golden):
    first, state = model(ids[:, :4])
    last, state = model(ids[:, 4:], state, last_only=True)
    assert same(first, golden[0][:, :4])
    assert_golden((golden[0][:, -1], golden[1]), last, state)


def test_states_are_exchanged_with_the_specification(model, ids, golden):
    reference = LanguageModel(TINY, initial_parameters(TINY, seed=1))
    want, _ = reference.step(TOKENS[:, 0], golden[1])
    got, _ = model(ids[:, 0], model.state_from_numpy(golden[1]))
    assert same(got, want)


def test_a_compiled_module_is_golden(model, ids, golden):
    """One graph, no break; steps at growing positions share one compilation."""
    torch.compiler.reset()
    graph = torch.compile(model, fullgraph=True, backend="aot_eager")
    assert_golden(golden, *graph(ids))
    _, state = graph(ids[:, 0], model.new_state(BATCH))
    with torch.compiler.set_stance("fail_on_recompile"):
        graph(ids[:, 1], state)


def test_compiled_and_exported_modules_refuse_a_token_out_of_range():
    """On the CPU alone: on CUDA the error is the device's, and ends the process's use of it."""
    model = module(1)
    state = model.new_state(BATCH)
    graph = torch.compile(model, fullgraph=True, backend="aot_eager")
    program = torch.export.export(model, (IDS, state)).module()
    for run in (graph, program):
        with pytest.raises(RuntimeError, match=r"argument ids: found a value outside, allowed \[0, 255\]"):
            run(IDS + TINY.vocab_size, state)


def test_an_exported_prefill_is_golden(model, ids, golden, tmp_path):
    """Batch and length are symbols; the program is saved, loaded, and run at other sizes."""
    state, batch, length = model.new_state(BATCH), torch.export.Dim("batch"), torch.export.Dim("length")
    shapes = ({0: batch, 1: length}, {name: {0: batch} for name in state})
    torch.export.save(torch.export.export(model, (ids, state), dynamic_shapes=shapes), tmp_path / "model.pt2")
    program = torch.export.load(tmp_path / "model.pt2").module()
    assert_golden(golden, *program(ids, state))
    logits, _ = program(ids[:1, :5], model.new_state(1))
    assert same(logits, golden[0][:1, :5])


def test_an_exported_step_is_golden(model, ids, golden):
    program = torch.export.export(model, (ids[:, 0], model.new_state(BATCH))).module()
    assert_golden(golden, *step_by_step(program, ids, model.new_state(BATCH)))


def test_a_state_dict_has_the_stored_parameters_and_comes_back(golden):
    state_dict = module(1).state_dict()
    for name, format in parameter_formats(TINY).items():
        assert str(state_dict[name].dtype) == f"torch.{format.dtype}" and tuple(state_dict[name].shape) == format.shape
    assert state_dict.keys() == parameter_formats(TINY).keys()
    other = module(2)
    assert not same(other(IDS)[0], golden[0])
    other.load_state_dict(state_dict)
    assert_golden(golden, *other(IDS))


def test_a_copy_is_a_model_of_its_own(golden):
    model = module(1)
    copies = [copy.deepcopy(model), pickle.loads(pickle.dumps(model))]
    model.load_state_dict(module(2).state_dict(), assign=True)
    for duplicate in copies:
        assert_golden(golden, *duplicate(IDS))
    assert torch.equal(model(IDS)[0], module(2)(IDS)[0])
    logits, state = torch.func.functional_call(model, copies[0].state_dict(), (IDS,))
    assert_golden(golden, logits, state)


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
        ("norm", lambda tensor: tensor.to_sparse(), "argument norm: found layout torch.sparse_coo"),
        ("head", lambda tensor: tensor | 0xAA & ~0x55, "argument head: found .* 2-bit codes"),
    ],
)
def test_a_state_dict_out_of_the_domain_is_refused_before_it_is_written(name, change, message):
    model = module(1)
    state_dict = {key: torch.zeros_like(tensor) for key, tensor in model.state_dict().items()}
    with pytest.raises(DomainError, match=message):
        model.load_state_dict(state_dict | {name: change(model.state_dict()[name])})
    assert all(torch.equal(model.state_dict()[key], tensor) for key, tensor in module(1).state_dict().items())


def test_a_wrong_call_names_the_argument(model, ids):
    fresh = model.new_state(BATCH)
    for tokens, state, message in (
        (ids.long(), fresh, "argument ids: found torch.int64 of 2 dimensions"),
        (ids.tolist(), fresh, "argument ids: found a list, allowed a Torch tensor"),
        (ids.cpu().numpy(), fresh, "argument ids: found a numpy.ndarray, allowed a Torch tensor"),
        (ids[None], fresh, "argument ids: found torch.int32 of 3 dimensions"),
        (ids + 256, fresh, r"argument ids: found \d+ at index .*, allowed \[0, 255\]"),
        (ids[:1], fresh, r"argument state layers.0.conv: found \(2, 3, 128\), allowed \(1, 3, 128\)"),
        (ids, {"positions": fresh["positions"]}, "argument state layers.0.conv: found nothing"),
        (ids.to_sparse(), fresh, "argument ids: found layout torch.sparse_coo, allowed torch.strided"),
        (ids, 5, "argument state: found an int, allowed a dict"),
        (ids, model.state_to_numpy(fresh), r"argument state: found a .*State, allowed .* state_from_numpy\(state\)"),
        (ids, fresh | {"positions": [0, 0]}, "argument state positions: found a list, allowed a Torch tensor"),
        (ids, fresh | {"positions": fresh["positions"].long()}, "state positions: found torch.int64, allowed int32"),
        (ids.repeat(1, 4), fresh, r"argument positions: found 40 at index .*, allowed \[0, 39\]"),
    ):
        with pytest.raises(DomainError, match=message):
            model(tokens, state)
    with pytest.raises(DomainError, match="length 0"):
        model(ids[:, :0], fresh, last_only=True)
    for convert in (model.state_to_numpy, model.state_from_numpy):
        with pytest.raises(DomainError, match="argument state: found an int, allowed a "):
            convert(5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: IntegerMamba("tiny"), "argument config: found a str, allowed a ModelConfig"),
        (lambda: IntegerMamba(TINY, max_positions=0), r"argument max_positions: found 0, allowed \[1, 1048576\]"),
        (lambda: IntegerMamba(TINY, max_positions=1.5), "argument max_positions: found a float, allowed a Python int"),
        (lambda: IntegerMamba(TINY, [1]), "argument parameters: found a list, allowed a dict of arrays by name: emb"),
        (lambda: IntegerMamba.from_pretrained(5), "argument path: found an int, allowed a str or a pathlib.Path"),
        (
            lambda: IntegerMamba(TINY, initial_parameters(TINY, 0) | {"norm": [1]}),
            "argument norm: found a list, allowed a NumPy array",
        ),
    ],
)
def test_a_model_made_of_something_else_names_the_argument(make, message):
    with pytest.raises(DomainError, match=message):
        make()


def test_a_compiled_module_names_the_argument():
    """Dynamo's error shows the one that the module raises."""
    torch.compiler.reset()
    model = module(1)
    graph = torch.compile(model, fullgraph=True, backend="aot_eager")
    for tokens, state, found in (
        (IDS.long(), None, "'ids', 'torch.int64 of 2 dimensions', 'int32"),
        (IDS[:1], model.new_state(BATCH), "'state layers.0.conv', (2, 3, 128), (1, 3, 128)"),
    ):
        with pytest.raises(RuntimeError) as error:
            graph(tokens, state)
        assert f"DomainError('IntegerMamba', {found}" in str(error.value)


def test_a_packaged_model_comes_by_name_and_by_path(device, ids):
    checkpoint = load_model(TRAINED["shakespeare"]).checkpoint
    reference = LanguageModel(checkpoint.config, checkpoint.parameters, compiled)
    want, _ = reference.prefill(TOKENS[:, :3], reference.new_state(BATCH))
    for path in ("shakespeare", TRAINED["shakespeare"]):
        got, _ = IntegerMamba.from_pretrained(path, max_positions=8).to(device)(ids[:, :3])
        assert same(got, want)


def test_the_example_writes_what_generate_writes(cli):
    example = sys.modules[IntegerMamba.__module__].__doc__.split("\n\n", 1)[1].split("\n\nLogits", 1)[0]
    names: dict = {}
    exec(textwrap.dedent(example), names)
    done = cli("generate", "--prompt", "ROMEO:", "--greedy", "--max-tokens", 8)
    assert names["text"] == done.out.removesuffix("\n")
