"""The benchmark of training on a CPU verifies before it times, and tells what was timed."""

from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parent.parent
SIZES = "tiny", 1, 8


@pytest.fixture
def benchmark(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    from benchmarks import cpu_training

    monkeypatch.setattr(cpu_training, "VERIFIED", (1, 4))
    monkeypatch.setattr(cpu_training, "TIMED", 1)
    threads = torch.get_num_threads()
    yield cpu_training
    torch.set_num_threads(threads)


def test_a_turn_of_integers_is_verified_and_the_twin_starts_with_its_loss(benchmark):
    from benchmarks.tables import cpu_training_table

    names = benchmark.NUMBA, benchmark.TORCH_ALONE
    rows = [benchmark.row_of(name, [benchmark.turn(name, *SIZES)], 8) for name in names]
    benchmark.compare_first_losses(rows)
    assert rows[0]["integers_verified"] > 100_000
    old = rows[0] | {"model": benchmark.BEFORE, "spec_version": "0.4.0", "seconds": 0.5, "tokens_per_second": 16.0}
    report = {"config": "tiny", "batch": 1, "length": 8, "turns": 1, "before": "abc", "rows": [*rows, old]}
    report |= {"machine": "a machine", "date": "2026-01-01", "commit": "0" * 40}
    table = cpu_training_table(report)
    assert f"| {benchmark.BEFORE} | 500.0 | 16 |" in table and "commit abc, specification 0.4.0" in table
    with pytest.raises(SystemExit, match="aren't the same network"):
        benchmark.compare_first_losses([rows[0], rows[1] | {"bits_per_token": 0.0}])


def test_a_step_that_differs_is_not_timed(benchmark, monkeypatch):
    right = benchmark.integer_step

    def wrong(backend, *sizes):
        step, state = right(backend, *sizes)
        if backend == "golden":
            state().masters["norm"][0] += 1
        return step, state

    monkeypatch.setattr(benchmark, "integer_step", wrong)
    with pytest.raises(SystemExit, match="differs"):
        benchmark.turn(benchmark.NUMBA, *SIZES)


def test_a_commit_is_unpacked(benchmark, tmp_path):
    if not (ROOT / ".git").exists():
        pytest.skip("no git checkout")
    benchmark.unpack("HEAD", tmp_path)
    assert (tmp_path / ".ci/editable/mamba_integer/spec/version.py").exists()
