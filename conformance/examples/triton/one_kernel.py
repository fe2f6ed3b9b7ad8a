"""A backend of one Triton kernel: an op, and two functions that bring arrays to its device and back."""

import torch
import triton
import triton.language as tl

BLOCK = 1024


def default_device():
    return "cuda" if torch.cuda.is_available() else "cpu"  # a CPU needs TRITON_INTERPRET=1


def from_numpy(array, device):
    return torch.from_numpy(array.copy()).to(device)


def to_numpy(tensor):
    return tensor.cpu().numpy()


@triton.jit
def residual_add_kernel(r, x, y, num, shift, count, BLOCK: tl.constexpr):
    place = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = place < count
    product = tl.load(x + place, inside, 0).to(tl.int64) * num
    update = (product + ((1 << shift) >> 1)) >> shift  # C1
    whole = tl.load(r + place, inside, 0) + update
    limit = (1 << 23) - 1
    tl.store(y + place, tl.minimum(tl.maximum(whole, -limit), limit).to(tl.int32), inside)  # C2


def residual_add(r, x, *, num, shift):
    r, x = r.contiguous(), x.contiguous()  # the suite also calls with views
    y = torch.empty_like(r)
    if count := y.numel():
        residual_add_kernel[(triton.cdiv(count, BLOCK),)](r, x, y, num, shift, count, BLOCK)
    return y
