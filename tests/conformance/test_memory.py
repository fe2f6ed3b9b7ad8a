"""Ops return fresh results that belong to the caller; they change neither inputs nor the memory beside them."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from mamba_integer import spec
from mamba_integer.backends import Backend, load
from mamba_integer.conformance.engine.calls import Caller, check_case
from mamba_integer.conformance.engine.comparison import Failure
from mamba_integer.conformance.engine.listed import listed
from mamba_integer.conformance.engine.run import conform
from mamba_integer.conformance.mutants import forward as broken

BUFFERS: dict[tuple[int, ...], np.ndarray] = {}


def into_one_buffer(v):
    result = BUFFERS.setdefault(v.shape, np.empty(v.shape, np.int32))
    result[...] = spec.isqrt.golden(v)
    return result


def input_where_nothing_changes(x, *, bits):
    y = spec.saturate.golden(x, bits=bits)
    return x if np.array_equal(x, y) else y


def remembered():
    calls: dict[tuple, np.ndarray] = {}

    def bit_length(x):
        return calls.setdefault((x.shape, x.tobytes()), spec.bit_length.golden(x))

    return bit_length


def beside(x, *, s):
    if isinstance(x.base, np.ndarray) and x.base.ndim == 1 and x.base.size > x.size:
        x.base[-1] ^= 1
    return spec.shift_round.golden(x, s=s)


def expanded(logits, *, f, q):
    p = spec.softmax_pow2.golden(logits, f=f, q=q)
    return np.broadcast_to(p.dtype.type(1 << q), p.shape) if p.shape[-1] == 1 else p


BUGS = {
    "the call changed the result of an earlier call": ("isqrt", into_one_buffer),
    "a result shares memory with an input": ("saturate", input_where_nothing_changes),
    "wrote beside its input x": ("shift_round", beside),
    "a result is an expanded view": ("softmax_pow2", expanded),
}


@pytest.mark.parametrize("says", BUGS)
def test_memory_that_is_not_the_callers_is_a_failure(says):
    op, wrong = BUGS[says]
    (failure,) = conform(Backend("wrong", broken.Golden(**{op: wrong})), [op], preset="smoke").failures
    assert failure.kind in ("memory", "mutation") and says in failure.message


def test_a_result_that_is_remembered_and_returned_again_is_a_failure():
    backend = Backend("wrong", broken.Golden(bit_length=remembered()))
    (failure,) = conform(backend, ["bit_length"], preset="smoke").failures
    assert failure.kind in ("memory", "value")


def test_memory_that_nobody_wrote_is_not_zero():
    torch_ops = load("torch", "cpu").ops

    def zeros_not_written(v):
        root = torch_ops.isqrt(v)
        result = torch.empty_like(root)
        result[root != 0] = root[root != 0]
        return result

    backend = Backend("wrong", SimpleNamespace(**vars(torch_ops) | {"isqrt": zeros_not_written}))
    (failure,) = conform(backend, ["isqrt"], preset="smoke").failures
    assert failure.kind == "value" and "got 2147483647, want 0" in failure.message
    assert not torch.are_deterministic_algorithms_enabled()


def doubled_in_16_bits(a, b):
    return a << 1 if np.shares_memory(a, b) else spec.saturating_add.golden(a, b)


def missed_by(op, wrong):
    """Return whether what is listed for an op finds no failure of a backend."""
    caller = Caller(Backend("wrong", broken.Golden(**{op: wrong})))
    try:
        for case in listed(op):
            check_case(caller, case)
    except Failure:
        return False
    return True


def test_one_array_that_is_two_inputs_is_a_case():
    assert missed_by("saturating_add", spec.saturating_add.golden)
    assert not missed_by("saturating_add", doubled_in_16_bits)


def test_a_partial_backend_is_held_to_it_as_well():
    class Partial:
        isqrt = staticmethod(into_one_buffer)

    (failure,) = conform(Backend("partial", Partial()), ["isqrt"], preset="smoke").failures
    assert failure.kind == "memory"


@pytest.mark.parametrize("name", ["golden", "numba", "torch"])
def test_results_of_our_backends_are_fresh(name):
    ops = ["causal_conv1d", "saturate", "residual_add", "rope"]
    assert not conform(load(name, "cpu"), ops, preset="smoke").failures


def test_a_sole_failing_case_is_counted():
    wrong = broken.after("isqrt", lambda result, *_: result + 1)
    (result,) = conform(Backend("wrong", broken.Golden(isqrt=wrong)), ["isqrt"], preset="smoke").results
    assert result.status == "failed" and result.cases == 1 and result.integers > 0
