"""Counts of the packaged model: the formula gives what lowering gives, and the file is of these ops and this model."""

import json

import pytest

from mamba_integer.backends.files.folder import TRAINED, load_model
from mamba_integer.conformance.circuits import counts, models, pages
from mamba_integer.conformance.circuits.calls import layer_calls
from mamba_integer.conformance.circuits.scaling import axes, counted, direct_count
from mamba_integer.spec.contract import OPS
from mamba_integer.spec.model import ModelConfig, initial_parameters

MODEL = json.loads(pages.MODELS.read_text())
# Three of everything that a formula extends, so that it has to foretell a count.
SMALL = ModelConfig(
    "small",
    8,
    d_model=3,
    d_inner=9,
    n_layer=2,
    mamba1_d_state=3,
    mamba2_d_state=2,
    nheads=3,
    headdim=3,
    dt_rank=3,
    chunk_size=4,
)


@pytest.fixture(scope="module")
def small_calls():
    layers = layer_calls(SMALL, initial_parameters(SMALL, 0), tokens=3)
    return [call for calls in layers.values() for call in calls]


def test_the_formula_gives_the_count_of_a_lowered_call(small_calls):
    extended = {call.op: call for call in small_calls if axes(call)}
    assert extended.keys() >= {"selective_scan", "ssd_chunk_scan", "ternary_linear", "norm_quantize", "silu_gate"}
    for call in extended.values():
        assert counted(call, axes(call)) == direct_count(call), call.op


def test_a_size_that_widens_a_sum_is_no_axis(small_calls):
    by_op = {call.op: axes(call) for call in small_calls}
    assert by_op["ssd_chunk_scan"] == ["H", "P"]
    assert by_op["selective_scan"] == ["D"]
    assert by_op["norm_quantize"] == by_op["ternary_linear"] == ["..."]


def test_the_file_is_of_these_ops_and_this_model():
    recorded = json.loads(counts.COUNTS.read_text())
    assert MODEL["ops_sha256"] == models.digest_of(recorded["ops"]), "count the model anew"
    checkpoint = load_model(TRAINED[models.PACKAGED]).checkpoint
    assert MODEL["weights_sha256"] == models.digest_of_weights(checkpoint.parameters)
    assert MODEL["kinds"] == list(checkpoint.config.kinds)
    for row in MODEL["layers"]:
        assert row["ops"].keys() <= OPS.keys()
        assert sum(share["constraints"] for share in row["ops"].values()) == row["counts"]["constraints"]
