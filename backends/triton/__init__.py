"""The ops as Triton kernels for CUDA. Without a CUDA device they run in Triton's interpreter, on CPU tensors.

They are tuned and judged on Hopper (sm_90), and compile for these targets too. Where Triton has Gluon, products of many
rows and the gradients of their rows have kernels of Hopper's own (`hopper_product`, `hopper_requant`), and the
selective scans of NVIDIA's GPUs since Ampere copy their inputs ahead (`staged_scan`, `staged_walk`). Other targets, and
sizes whose rows can't be copied in pieces of 16 bytes, take plain Triton. Ampere and Ada (sm_80, sm_89) lack the matrix
instructions whose operand comes from registers without a copy, so `ternary_linear` of many rows gains less there.
Blackwell (sm_100) has other matrix instructions. AMD's CDNA 3 (gfx942) lacks the instructions of `instructions`:
two-term and four-term dots and byte selections are several instructions there.
"""

import os

import torch

if not torch.cuda.is_available():
    # Triton reads this when a kernel is decorated, so it must be set before the first kernel module is imported.
    os.environ.setdefault("TRITON_INTERPRET", "1")
    import triton

    if os.environ["TRITON_INTERPRET"] == "1" and isinstance(triton.language.sum, triton.JITFunction):
        raise ImportError("triton was imported before its interpreter was chosen: set TRITON_INTERPRET=1 at the start")

if os.environ.get("TRITON_INTERPRET") == "1":
    from .interpreter import quicken

    quicken()

from mamba_integer.backends.torch.arrays import ARRAYS, concatenate, default_device, from_numpy, to_numpy
from mamba_integer.backends.torch.decoding import decode

from .activation import *
from .activation_backward import *
from .compiled import compiled_for
from .conv import *
from .conv_backward import *
from .embedding import *
from .embedding_backward import *
from .gradient import *
from .linear import *
from .linear_backward import *
from .loss import *
from .loss_backward import *
from .norm import *
from .norm_backward import *
from .optimizer import *
from .packing import *
from .primitives import *
from .replay import *
from .residual import *
from .residual_backward import *
from .rotation import *
from .sampling import *
from .scan import *
from .scan_backward import *
from .ssd_chunk import *
from .ssd_chunk_backward import *
from .ssd_chunk_step import *
from .step_network import fused_step
from .transform import *
from .variants import variant, variants

# Where kernels are interpreted, a program at a time, the suite takes fewer cases, each of about so many elements.
interpreted = 140 if os.environ.get("TRITON_INTERPRET") == "1" else 0
