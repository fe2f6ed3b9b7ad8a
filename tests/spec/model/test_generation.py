"""The same seed gives the same text: on every backend, in every batch, across a pause; scores and traces are exact."""

import json
import tracemalloc
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from mamba_integer import backends
from mamba_integer.backends.files.container import CheckpointError
from mamba_integer.backends.files.hashing import tensor_hash
from mamba_integer.backends.files.state import load_session, save_session, save_state
from mamba_integer.backends.files.trace import Traced, TraceError, diff_traces, header
from mamba_integer.spec.contract import DomainError
from mamba_integer.spec.integers import Dyadic
from mamba_integer.spec.model import CONFIGS, LanguageModel, ModelConfig, State, initial_parameters
from mamba_integer.spec.model.generation import (
    MOST_TOKENS,
    GenerationError,
    Options,
    Session,
    generate,
    inverse_temperature,
    read,
    share,
)
from mamba_integer.spec.model.scoring import ScoreError, bits_per_byte, score, show

TINY = CONFIGS["tiny"]
MINI = ModelConfig("mini", 32, 16, 32, 2, mamba1_d_state=4, mamba2_d_state=4, nheads=2, headdim=16, dt_rank=2)
PROMPTS = [list(b"It was"), list(b"the best of times"), list(b"x")]
DRAWS = Options(12, seed=2**64 - 1, inverse_temperature=inverse_temperature("0.8"), top_k=40, top_p=share("0.95"))
OTHERS = ["numba", "torch", "triton"]


def model_on(backend: str, config: ModelConfig = TINY) -> LanguageModel:
    return LanguageModel(config, initial_parameters(config, seed=1), backends.load(backend, "cpu"))


def write(model, prompts, options):
    """Return the tokens of each row."""
    return np.array([session.last for session in generate(model, read(model, prompts), options)]).T.tolist()


@pytest.mark.parametrize("backend", OTHERS)
@pytest.mark.parametrize("greedy", [True, False])
def test_every_backend_writes_the_same(backend, greedy):
    few = replace(DRAWS, max_tokens=1 if backend == "triton" else 3, greedy=greedy)
    prompts = [[1, 2], [3]]
    assert write(model_on(backend, MINI), prompts, few) == write(model_on("golden", MINI), prompts, few)


@pytest.mark.parametrize("backend", ["golden", "numba", "torch"])
def test_a_row_alone_writes_what_it_writes_in_a_batch(backend):
    model = model_on(backend)
    batch = write(model, PROMPTS, DRAWS)
    assert batch == [write(model, [prompt], replace(DRAWS, stream=row))[0] for row, prompt in enumerate(PROMPTS)]
    assert batch == write(model_on("golden"), PROMPTS, DRAWS)


def test_seed_and_stream_matter_and_greedy_takes_the_maximum():
    model = model_on("golden")
    first = write(model, PROMPTS[:1], DRAWS)
    assert write(model, PROMPTS[:1], replace(DRAWS, seed=7)) != first
    assert write(model, PROMPTS[:1], replace(DRAWS, stream=1)) != first
    logits, _ = model.prefill(np.array([PROMPTS[0]], np.int32), model.new_state(1), last_only=True)
    greedy = write(model, PROMPTS[:1], Options(1, greedy=True))
    assert greedy == [[int(np.argmax(logits))]]
    assert write(model, PROMPTS[:1], Options(1, seed=3, top_k=1)) == greedy
    assert write(model, PROMPTS[:1], Options(1, seed=3, top_p=1)) == greedy


@pytest.mark.parametrize(("first", "second"), [("golden", "torch"), ("torch", "numba"), ("numba", "golden")])
def test_a_saved_session_goes_on_as_if_never_interrupted(first, second, tmp_path):
    whole = write(model_on("golden"), PROMPTS, DRAWS)
    model, path = model_on(first), tmp_path / "state"
    *_, session = generate(model, read(model, PROMPTS), replace(DRAWS, max_tokens=5))
    save_session(path, session, model, "a" * 64)
    model = model_on(second)
    session = read(model, [[], [], []], load_session(path, model, "a" * 64))
    rest = [one.last for one in generate(model, session, replace(DRAWS, max_tokens=7))]
    assert np.array(rest).T.tolist() == [row[5:] for row in whole]


def test_a_session_reads_on():
    model = model_on("numba")
    halves = read(model, [PROMPTS[1][9:]], read(model, [PROMPTS[1][:9]]))
    whole = read(model, [PROMPTS[1]])
    assert halves.state.positions == whole.state.positions
    assert all(np.array_equal(a, whole.state.arrays[name]) for name, a in halves.state.arrays.items())


@pytest.mark.parametrize("piece", [1, 3, 15, 16, 17])
def test_pieces_of_a_prompt_change_nothing(piece):
    model, told = model_on("golden", MINI), []
    prompt = [i % 32 for i in range(17)]
    _, whole = model.prefill(np.array([prompt[:-1]], np.int32), model.new_state(1))
    session = read(model, [prompt, [5]], piece=piece, progress=told.append)
    assert sum(told) == 16 and max(told) <= piece and session.last.tolist() == [16, 5]
    assert session.state.positions == (16, 0)
    for name, array in whole.arrays.items():
        assert np.array_equal(session.state.arrays[name][:1], array), name


def test_a_prompt_is_read_in_pieces_unasked(monkeypatch):
    model, sizes = model_on("numba", MINI), []
    prefill = model.prefill

    def counted(ids, *arguments, **options):
        sizes.append(ids.shape[1])
        return prefill(ids, *arguments, **options)

    monkeypatch.setattr(model, "prefill", counted)
    read(model, [[0] * 1100])
    assert sizes == [512, 512, 75]


@pytest.mark.parametrize("work", [lambda model, ids: read(model, [ids]), score])
def test_memory_does_not_grow_with_a_text(work, monkeypatch):
    model, ids = model_on("numba", MINI), np.zeros(1 << 20, np.int32)
    work(model, ids[:2048])
    logits = np.zeros((1, 4096, MINI.vocab_size), np.int16)

    def idle(part, state, last_only=False):
        return logits[:, : part.shape[1]], state

    monkeypatch.setattr(model, "prefill", idle)
    tracemalloc.start()
    try:
        work(model, ids)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < ids.nbytes / 4


def test_a_text_has_a_last_token():
    """At the limit the last token is read and written; one more is refused before any work."""
    model = model_on("golden", MINI)
    last = replace(model.new_state(1), positions=(MOST_TOKENS - 2,))
    session = read(model, [[1]], Session(last, np.array([0], np.int32)))
    assert [one.state.positions for one in generate(model, session, Options(1))] == [(MOST_TOKENS,)]
    with pytest.raises(DomainError, match=f"found a text of {MOST_TOKENS + 1} tokens, allowed at most {MOST_TOKENS}"):
        next(generate(model, session, Options(2)))
    with pytest.raises(DomainError, match="positions"):
        read(model, [[1, 2, 3]], Session(last, np.array([0], np.int32)))
    with pytest.raises(DomainError, match="positions"):
        score(model, range(MOST_TOKENS + 2))


@pytest.mark.parametrize(
    ("arrays", "says"),
    [({}, "nothing"), ({"last": [256]}, "256"), ({"last": [-1]}, "-1"), ({"last": [1, 2]}, "shape")],
)
def test_a_file_that_is_no_session(arrays, says, tmp_path):
    model, path = model_on("golden"), tmp_path / "state"
    state = model.new_state(1)
    added = {name: np.array(value, np.int32) for name, value in arrays.items()}
    save_state(path, State({**state.arrays, **added}, state.positions), "a" * 64)
    with pytest.raises(CheckpointError, match=says):
        load_session(path, model, "a" * 64)


@pytest.mark.parametrize("prompts", [[[]], [[1], []]])
def test_an_empty_prompt_is_an_error(prompts):
    with pytest.raises(GenerationError, match="no token"):
        read(model_on("golden"), prompts)


def test_prompts_that_do_not_fit():
    model = model_on("golden")
    with pytest.raises(GenerationError, match="rows of the session"):
        read(model, [[1], [2]], read(model, [[1]]))
    with pytest.raises(DomainError):
        read(model, [[256, 0]])


@pytest.mark.parametrize(
    "wrong",
    [{"seed": -1}, {"seed": 2**64}, {"top_k": 0}, {"top_p": 0}, {"top_p": 65537}, {"stream": -1}, {"max_tokens": -1}],
)
def test_options_out_of_their_range(wrong):
    with pytest.raises(GenerationError, match=next(iter(wrong))):
        Options(**{"max_tokens": 1, **wrong})


def test_temperatures_are_the_nearest_dyadic():
    assert inverse_temperature("0.8") == Dyadic(20480, 14)
    for text in ("1", "1.", "1.000", "3", "0.7", "0.00004", "12.5", "60000"):
        factor = inverse_temperature(text)
        assert abs(Fraction(factor.num, 1 << factor.shift) - 1 / Fraction(text)) <= Fraction(1, 2 << factor.shift)
        assert factor.num >= 2**14 or factor.shift == 15 or 2 * factor.num >= 2**15 - 1
    for text in ("0", "0.0", "1e9", "-1", "nan", "", "1/2", "0.00001", "100000", "٣"):
        with pytest.raises(GenerationError, match="temperature"):
            inverse_temperature(text)


def test_shares_are_in_q16():
    assert [share(text) for text in ("1", "0.5", ".25", "0.9", "0.000001")] == [65536, 32768, 16384, 58982, 1]
    for text in ("0", "1.01", "x"):
        with pytest.raises(GenerationError, match="top_p"):
            share(text)


TEXT = list(b"It was the best of times, it was the worst of times")


@pytest.mark.parametrize("backend", ["golden", "numba", "torch"])
@pytest.mark.parametrize("chunk", [1, 7, 50, 512])
def test_a_score_depends_on_no_chunk_and_no_backend(backend, chunk):
    golden = model_on("golden")
    logits, _ = golden.prefill(np.array([TEXT], np.int32), golden.new_state(1))
    losses = golden.ops.cross_entropy_pow2(logits[:, :-1], np.array([TEXT[1:]], np.int32), f=8)
    told = []
    result = score(model_on(backend), TEXT, chunk, told.append)
    assert (result.loss, result.tokens) == (sum(losses.reshape(-1).tolist()), len(TEXT) - 1)
    assert sum(told) == len(TEXT) - 1


def test_a_score_is_near_what_the_logits_say():
    """A fresh model predicts nothing: about 8 bits per byte, which a float cross-entropy confirms."""
    golden = model_on("golden")
    logits, _ = golden.prefill(np.array([TEXT[:-1]], np.int32), golden.new_state(1))
    exact = logits[0] / 256
    truth = np.log2((2.0**exact).sum(1)) - exact[np.arange(len(TEXT) - 1), TEXT[1:]]
    bits = bits_per_byte(score(golden, TEXT), len(TEXT) - 1)
    assert 7 < bits < 10
    assert abs(float(bits) - truth.mean()) < 0.01


def test_scores_need_two_tokens_and_are_shown_by_integers():
    with pytest.raises(ScoreError, match="score: found 1, allowed 2 tokens or more"):
        score(model_on("golden"), [1])
    assert [show(Fraction(1, 3)), show(Fraction(2, 3)), show(Fraction(1, 4), 1)] == ["0.3333", "0.6667", "0.3"]


def trace(path, backend, config=TINY, steps=3):
    model = model_on(backend, config)
    prompts = [[1, 2], [3]]
    records = [header("a" * 64)]
    traced = Traced(model, records.append)
    list(generate(traced, read(traced, prompts), Options(steps, seed=5)))
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return records


@pytest.mark.parametrize("backend", OTHERS)
def test_traces_are_equal_on_every_backend(backend, tmp_path):
    records = trace(tmp_path / "a", "golden", MINI, 1)
    assert [r["layer"] for r in records[1:]] == ["embedding", "layers.0", "layers.1", "head"] * 2
    assert [r["positions"] for r in records[1::4]] == [[0], [1, 0]]
    trace(tmp_path / "b", backend, MINI, 1)
    assert diff_traces(tmp_path / "a", tmp_path / "b") is None


def test_the_first_place_is_found(tmp_path, monkeypatch):
    """One value of one tensor is changed in the second step: the trace says where."""
    trace(tmp_path / "a", "numba")
    model = model_on("numba")
    run, calls = model.ops.silu_gate, []

    def planted(y, z, *, f):
        calls.append(None)
        result = run(y, z, f=f).copy()
        if len(calls) == 6:  # the prompt has 2 layers of calls, each step 2 more
            result[0, 0] ^= 1
        return result

    model.ops.silu_gate = planted
    records = [header("a" * 64)]
    traced = Traced(model, records.append)
    list(generate(traced, read(traced, [[1, 2], [3]]), Options(3, seed=5)))
    (tmp_path / "b").write_text("".join(json.dumps(record) + "\n" for record in records))
    difference = diff_traces(tmp_path / "a", tmp_path / "b")
    assert (difference.place, difference.tensor) == ("call 2, token 2, 1, layers.1", "gated")
    assert difference.a != difference.b and len(difference.a) == len(difference.b) == 16


def test_a_trace_that_ends_early_or_is_of_another_model(tmp_path):
    records = trace(tmp_path / "a", "golden")
    lines = [json.dumps(record) + "\n" for record in records]
    (tmp_path / "b").write_text("".join(lines[:-1]))
    assert diff_traces(tmp_path / "a", tmp_path / "b").b == "ends before"
    (tmp_path / "b").write_text(json.dumps(header("b" * 64)) + "\n" + "".join(lines[1:]))
    assert diff_traces(tmp_path / "a", tmp_path / "b").tensor == "checkpoint_sha256"
    (tmp_path / "b").write_text("".join([*lines[:5], *lines[9:]]))
    assert "call 2" in diff_traces(tmp_path / "a", tmp_path / "b").b


@pytest.mark.parametrize("content", ["", "{}\n", "[1]\n", "x", '{"format": "mamba-integer/trace"}\n'])
def test_a_file_that_is_no_trace(content, tmp_path):
    trace(tmp_path / "a", "golden", steps=1)
    (tmp_path / "b").write_text(content)
    with pytest.raises(TraceError):
        diff_traces(tmp_path / "a", tmp_path / "b")
    with pytest.raises(TraceError, match="can't be read"):
        diff_traces(tmp_path / "a", tmp_path / "none")


def test_a_hash_says_dtype_shape_and_every_value():
    x = np.arange(6, dtype=np.int16)
    others = [x.astype(np.int32), x.reshape(2, 3), x + np.int16(1), x[::-1]]
    assert len({tensor_hash(a) for a in (x, *others)}) == 5
    assert tensor_hash(np.arange(12, dtype=np.int16)[::2] // 2) == tensor_hash(x)
