"""The choice among cuBLASLt's offers, with a library that stands for it where there is no GPU."""

from types import SimpleNamespace

import pytest
import torch

from mamba_integer.conformance.speed import clocks, cublaslt

NOT_SUPPORTED = 15


class Library:
    """It offers as many algorithms as there are statuses, and answers each product with its algorithm's status."""

    def __init__(self, *statuses: int) -> None:
        self.statuses = statuses

    def __getattr__(self, name: str):
        return lambda *arguments: 0

    def cublasLtMatmulAlgoGetHeuristic(self, *arguments) -> int:
        offers, count = arguments[-2], arguments[-1]._obj
        for number in range(len(self.statuses)):
            offers[number].algorithm[0] = number
        count.value = len(self.statuses)
        return 0

    def cublasLtMatmul(self, *arguments) -> int:
        return self.statuses[arguments[12][0]]


@pytest.fixture
def product(monkeypatch):
    def timed(call, device):
        call()
        return 1.0

    def of(*statuses: int):
        monkeypatch.setattr(cublaslt, "library", lambda: Library(*statuses))
        return cublaslt.int8_product(4, 32, 16, "cpu")

    monkeypatch.setattr(clocks, "median_seconds", timed)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: SimpleNamespace(cuda_stream=0))
    return of


def test_an_offer_that_is_refused_is_passed_over(product):
    product(NOT_SUPPORTED, 0)()


def test_the_chosen_algorithm_lasts_as_long_as_the_call(product):
    call = product(NOT_SUPPORTED, 0)
    kept = [(cublaslt.Heuristic * cublaslt.OFFERS)() for _ in range(64)]  # in the memory of the offers, if it is free
    assert {algorithm for offers in kept for algorithm in offers[1].algorithm} == {0}
    call()


@pytest.mark.parametrize("statuses", [(), (NOT_SUPPORTED, NOT_SUPPORTED)])
def test_where_no_offer_runs_the_peer_is_absent_with_the_reason(product, statuses):
    with pytest.raises(RuntimeError, match=f"no algorithm of {len(statuses)} offered for 4 x 32 x 16 runs"):
        product(*statuses)
