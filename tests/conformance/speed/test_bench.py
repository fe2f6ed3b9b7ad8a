"""The command ``bench`` times what it has verified, beside the floor and the peers, and says which peers are absent."""

import importlib
import json
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from mamba_integer.backends.app.command_line import app
from mamba_integer.backends.app.main import MISMATCH
from mamba_integer.conformance.speed import measure, peers, workloads
from mamba_integer.conformance.speed.clocks import PEAKS, peak_of
from mamba_integer.conformance.speed.measure import Ceilings
from mamba_integer.conformance.speed.table import lines
from mamba_integer.conformance.speed.workloads import Growth, ternary_linear
from mamba_integer.spec import OPS

BANDWIDTH = 1e9
SMALL = ternary_linear(4, 16, 8, True)


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(workloads, "WORKLOADS", [SMALL])
    growth = Growth("ternary_linear", "N", lambda K, N: ternary_linear(2, K, N, True), {"K": 16, "N": 4}, (1, 2))
    monkeypatch.setattr(workloads, "GROWTH", [growth])
    monkeypatch.setattr(measure, "copy_bandwidth", lambda device: BANDWIDTH)
    monkeypatch.setattr(measure, "median_seconds", lambda call, device: call() and 1e-3)


def test_every_backend_of_the_device_is_timed_beside_its_floor(small, tmp_path):
    done = CliRunner().invoke(app, ["bench", "--device", "cpu", "--json", "--plots", str(tmp_path)])
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    assert [row["backend"] for row in report["rows"]] == ["golden", "numba", "torch"]
    moved = 4 * 16 + 4 * 4 + 8 * 4 + 2 * 4 * 8  # q, e, packed weights, y
    for row in report["rows"]:
        assert (row["bytes"], row["floor_seconds"], row["bound"]) == (moved, moved / BANDWIDTH, "bytes")
        assert (row["seconds"], row["operations"], row["integers_verified"]) == (1e-3, 2 * 4 * 16 * 8, 32)
    assert [row["grows"] for row in report["growth"]] == [["N", 4], ["N", 8]]
    assert {path.name for path in tmp_path.iterdir()} == {"roofline-cpu.png", "growth-cpu.png"}


def test_a_backend_has_the_names_that_other_commands_know(small):
    done = CliRunner().invoke(app, ["bench", "--device", "cpu", "--backend", "numpy", "--json"])
    assert done.exit_code == 0, done.output
    assert [row["backend"] for row in json.loads(done.stdout)["rows"]] == ["golden"]


def test_what_is_named_twice_is_timed_once(small, monkeypatch):
    asked = []
    here = measure.backends_here
    monkeypatch.setattr(measure, "backends_here", lambda devices: asked.append(devices) or here(devices))
    twice = [part for _ in range(2) for part in ("--device", "cpu", "--backend", "golden", "--op", SMALL.op)]
    done = CliRunner().invoke(app, ["bench", *twice, "--json"])
    assert done.exit_code == 0, done.output
    assert len(json.loads(done.stdout)["rows"]) == 1 and asked == [["cpu"]]


def test_a_wrong_result_is_not_timed(small, monkeypatch):
    right = measure.load("golden")
    wrong = SimpleNamespace(
        name="golden",
        device="cpu",
        load=right.load,
        store=lambda array: array + 1,
        call=right.call,
    )
    monkeypatch.setattr(measure, "backends_here", lambda devices: [wrong])
    monkeypatch.setattr("mamba_integer.backends.app.environment.device_name", lambda backend: "cpu")
    done = CliRunner().invoke(app, ["bench", "--device", "cpu", "--json"])
    assert done.exit_code == MISMATCH
    assert json.loads(done.stdout)["rows"] == []
    assert f"{SMALL.name}: golden on cpu differs from numba" in done.stderr


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--op", "isqrt"], "no workload of isqrt for cpu; timed are ternary_linear"),
        (["--backend", "triton"], "found 'triton', allowed on cpu: golden, numba, torch"),
        (["--device", "tpu"], "--device: found 'tpu', allowed cpu"),
    ],
)
def test_a_call_that_times_nothing_is_an_error(small, arguments, message):
    done = CliRunner().invoke(app, ["bench", "--device", "cpu", *arguments], standalone_mode=False)
    assert done.exit_code != 0 and message in f"{done.exception} {done.output}"


def test_the_floor_is_the_largest_of_bytes_products_and_instructions():
    ceilings = object.__new__(Ceilings)
    ceilings.bandwidth, ceilings.peak = BANDWIDTH, PEAKS["H100"]
    assert ceilings.floor(SMALL, moved=10**9) == (1.0, "bytes")
    heavy = ternary_linear(4096, 4096, 8192, False)
    assert ceilings.floor(heavy, moved=1) == (heavy.multiply_adds / PEAKS["H100"].int8_multiply_adds, "products")


def test_peaks_are_those_of_the_device():
    assert peak_of("cuda (NVIDIA H100 80GB HBM3)") is PEAKS["H100"]
    assert peak_of("cuda (some other card)") is None


def test_absent_and_refusing_peers_are_named():
    absent = peers.Peer("nobody's kernel", "no_such_package", lambda workload, device: None)
    assert peers.timed(absent, SMALL, "cpu", lambda call: 1.0)["absent"] == "no_such_package isn't installed"
    partial = peers.Peer("scan", "torch", lambda workload, device: importlib.import_module("no_such_kernels"))
    assert (
        peers.timed(partial, SMALL, "cpu", lambda call: 1.0)["absent"] == "torch is installed without no_such_kernels"
    )
    refusing = peers.Peer("int8", "torch", lambda workload, device: [].index)
    assert peers.timed(refusing, SMALL, "cpu", lambda call: 1.0)["absent"].startswith("TypeError: ")


def test_peers_run_where_their_packages_are(monkeypatch):
    rows = peers.peer_rows(SMALL, "cpu", lambda call: len(call()))
    assert {row["peer"]: row.get("seconds") for row in rows}["bf16 matmul"] == 4


def test_peers_are_of_ops_that_are_timed():
    timed = {workload.op for workload in workloads.WORKLOADS} | {"ternary_linear_requant"}
    assert set(peers.PEERS) <= timed and timed <= set(OPS)


def test_the_table_compares_with_each_peer():
    measured = {"workload": "w", "backend": "triton", "device": "cuda", "seconds": 2e-6, "floor_seconds": 1e-6}
    compared = [{"peer": "float", "seconds": 3e-6}, {"peer": "other", "absent": "other isn't installed"}]
    titles, cells = lines([measured | {"peers": compared}])
    assert titles == ["workload", "Triton, cuda", "floor, cuda", "share of floor, Triton", "times as fast as"]
    assert cells == [["w", "2.0", "1.0", "50%", "float: 1.50, other: other isn't installed"]]
