"""The devices of this machine. Without a GPU, Triton's interpreter is chosen before a test imports Triton."""

import os

import pytest
import torch

if not torch.cuda.is_available():
    # PyTorch's compiler imports Triton.
    os.environ.setdefault("TRITON_INTERPRET", "1")

DEVICES = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]


@pytest.fixture(scope="session", params=DEVICES)
def device(request) -> str:
    """Each device that this machine has."""
    return request.param
