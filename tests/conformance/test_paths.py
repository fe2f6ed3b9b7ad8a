"""Every path of our own backends is taken by a listed case; one that isn't, or that races, is reported."""

import numpy as np
import pytest

from mamba_integer import spec
from mamba_integer.conformance import paths
from mamba_integer.conformance.engine import listed as listing
from mamba_integer.conformance.engine.comparison import Failure
from mamba_integer.spec.compiled import primitives, threads


@pytest.mark.parametrize("op", spec.OPS)
def test_listed_cases_take_every_launch_of_triton(op):
    assert not paths.untaken(paths.triton_launches([op]))


def test_a_tile_that_no_case_takes_is_reported(monkeypatch):
    monkeypatch.setattr(paths, "listed", lambda op: [])
    assert "argmax: argmax_kernel(BLOCK=4096, num_warps=8)" in paths.untaken(paths.triton_launches(["argmax"]))


@pytest.mark.parametrize("op, asks", [("ternary_linear", True), ("argmax", False)])
def test_a_target_that_no_choice_asks_for_is_told(op, asks):
    with paths.targeting(paths.PLAIN) as asked:
        paths.listed_launches(op)
    assert bool(asked) == asks


def test_what_is_launched_is_taken_down_and_not_run():
    with paths.launches("shift_round") as taken:
        from mamba_integer.backends import load

        backend = load("triton")
        backend.call("shift_round", [backend.load(np.arange(9, dtype=np.int32))], {"s": 1})
    assert taken == {("shift_round_kernel", (("BLOCK", 1024),))}


def test_both_versions_of_a_kernel_run_and_are_counted():
    counts = paths.numba_paths(["isqrt"], repetitions=2)
    ran = {version: counts[f"{primitives.__name__}._isqrt", version] for version in threads.VERSIONS}
    assert ran["parallel"] == 2 * ran["serial"] > 0
    assert sum(counts.values()) == sum(ran.values())


def test_a_kernel_that_never_ran_is_reported():
    lines = paths.untaken(paths.numba_runs(["isqrt"]))
    assert f"{primitives.__name__}._saturate, serial" in lines
    assert not any("._isqrt" in line for line in lines)


def test_processes_that_share_the_ops_add_up_what_they_ran():
    lines = paths.untaken(paths.numba_runs(["isqrt", "saturate"], jobs=2))
    assert set(paths.untaken(paths.numba_runs(["isqrt"]))) - set(lines) == {
        f"{primitives.__name__}._saturate, {version}" for version in threads.VERSIONS
    }


def test_every_kernel_belongs_to_an_op_of_the_listed_cases():
    """The counters know all kernels, so that `make conformance` can ask for all of them."""
    assert len(threads.RUNS) == 2 * len({kernel for kernel, _ in threads.RUNS}) >= 112


def test_a_race_among_threads_is_found(monkeypatch):
    """A kernel whose parallel version is wrong now and then passes on one thread alone."""
    turns = iter(range(10**6))
    right = primitives._saturate

    def racing(*arguments):
        result = right(*arguments)
        return result ^ 1 if threads.WORTH_SPREADING == 0 and next(turns) % 5 == 4 else result

    monkeypatch.setattr(primitives, "_saturate", racing)
    with pytest.raises(Failure):
        paths.numba_paths(["saturate"])


def test_listed_cases_are_the_same_every_time():
    first, second = ([case.to_json() for case in listing.listed("softmax_pow2")] for _ in range(2))
    assert first == second and len(first) > 5
