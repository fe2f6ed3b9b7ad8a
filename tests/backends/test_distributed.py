"""Ranks exchange arrays of any layout, in the narrowest width that holds every sum; children get variables."""

import os

import numpy as np
import pytest
import torch

from mamba_integer.backends import distributed
from mamba_integer.backends.distributed import joined
from mamba_integer.backends.launch import RankError, free_address, launch
from mamba_integer.backends.processors import cores, variables
from mamba_integer.conformance.engine.workers import processes


def test_arrays_of_any_layout_are_summed():
    array = np.arange(6, dtype=np.int64).reshape(2, 3)
    tensor = torch.arange(6).view(2, 3)
    with joined(0, 1, "cpu", free_address()) as ranks:
        reversed_array, transposed, expanded = ranks.sum([array[:, ::-1], tensor.t(), tensor[:1].expand(4, 3)])
    assert np.array_equal(reversed_array, array[:, ::-1])
    assert torch.equal(transposed, tensor.t())
    assert torch.equal(expanded, tensor[:1].expand(4, 3))


ENDS = 0, 1, -1, 2**30 - 1, 2**30, -(2**30), -(2**30) - 1, 2**40, 2**62 - 1, -(2**62), 5, 6


def exchange_all_ends(rank: int, addresses: tuple[str, str]) -> None:
    for narrow, address in enumerate(addresses):
        exchange_ends(rank, address, bool(narrow))
    raise RankError(f"rank {rank} summed {len(ENDS)} ends twice")


def exchange_ends(rank: int, address: str, narrow: bool) -> None:
    widths: list[torch.dtype] = []
    all_reduce = distributed.dist.all_reduce

    def noted(tensor, *arguments, **options):
        widths.append(tensor.dtype)
        return all_reduce(tensor, *arguments, **options)

    distributed.dist.all_reduce = noted
    distributed.PIECE = 4
    wide = False  # whether the exchange before had a sum that doesn't fit
    with joined(rank, 2, "cpu", address) as ranks:
        for end in ENDS:
            array, tensor = np.array([[end, 1, rank], [5, 5, 5]], np.int64), torch.tensor([7, end if rank else 0, 7])
            added = [array, tensor[1:2].expand(2), array[:0], tensor.new_tensor([rank])]
            want = [[[2 * end, 2, 1], [10] * 3], [end] * 2, [], [1]]
            fits = -(2**30) <= end < 2**30
            del widths[:]
            sums = ranks.sums(narrow)
            for one in added:
                sums.add(one)
            first = sums.totals()
            numbers, right = sums.settle(np.array([end, -rank], np.int64))
            assert numbers.tolist() == [[end, 0], [end, -1]]
            assert right == (fits or wide)
            totals = sums.totals()
            assert [total.tolist() for total in totals] == want
            assert not right or [total.tolist() for total in first] == want
            assert isinstance(totals[0], np.ndarray) and isinstance(totals[1], torch.Tensor)
            assert totals[3].dtype == (torch.int32 if narrow else torch.int64)
            # A piece of six, then one of the rest; each alone in its dtype, or again in it.
            assert widths == ([torch.int64, torch.int32, torch.int64] if wide else [torch.int32] * 2) + (
                [] if right else [torch.int64] * 2
            )
            wide = not fits
            assert array.tolist() == [[end, 1, rank], [5, 5, 5]]
    distributed.dist.all_reduce = all_reduce


def test_sums_travel_in_int32_exactly_where_they_fit():
    """And stay so, if they are asked to."""
    before = dict(os.environ)
    with pytest.raises(RankError, match=f"summed {len(ENDS)} ends twice"):
        launch(2, exchange_all_ends, (free_address(), free_address()))
    assert dict(os.environ) == before


def test_variables_of_children_are_put_back(monkeypatch):
    monkeypatch.setenv("MAMBA_INTEGER_OLD", "1")
    before = dict(os.environ)
    with variables({"MAMBA_INTEGER_OLD": 2, "MAMBA_INTEGER_NEW": 3}):
        assert (os.environ["MAMBA_INTEGER_OLD"], os.environ["MAMBA_INTEGER_NEW"]) == ("2", "3")
    assert dict(os.environ) == before


def test_pools_of_processes_leave_the_environment_alone(monkeypatch):
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "3")
    before = dict(os.environ)
    with processes(1) as pool, processes(1, sharing=2):
        assert dict(os.environ) == before
        assert pool.submit(os.getenv, "NUMBA_NUM_THREADS").result(60) == str(max(2, cores()))
        assert pool.submit(os.getenv, "OPENBLAS_NUM_THREADS").result(60) == "3"
    assert dict(os.environ) == before
