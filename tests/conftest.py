"""Without a GPU, Triton's interpreter is chosen before a test imports Triton, as PyTorch's compiler does."""

import os

import torch

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")
