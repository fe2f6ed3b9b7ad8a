"""The products of a step with the ops around them, for as many rows as tensor cores take at once.

Rows are quantised once, by a kernel of their own: a program that did it again would take longer than the launch. The
product is computed transposed, as in `ternary_product`, in tiles so small that a step's few columns keep every
processor busy.
"""

import torch
import triton
import triton.language as tl

from mamba_integer.spec.integers import RESIDUAL_BITS

from . import integers
from .activation import squareplus_of
from .instructions import ternary_digits
from .launch import launch, words
from .overlap import early, start_next, wait_for_inputs
from .ternary_product import scale_sum

ROWS = (16, 32)
COLUMNS = (64, 32, 16)
PROGRAMS = 128  # that keep every processor busy
BYTES = 128  # of a column's weights at once
WARPS = 4
STAGES = 3


@triton.jit
def tile_of(columns, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """Return the rows and the columns of a program's tile."""
    program, blocks = tl.program_id(0), tl.cdiv(columns, COLUMNS)
    return program // blocks * ROWS + tl.arange(0, ROWS), program % blocks * COLUMNS + tl.arange(0, COLUMNS)


@triton.jit
def product(
    q_pointer,
    e_pointer,
    w_pointer,
    m,
    n,
    rows,
    columns,
    depth,
    num: tl.constexpr,
    shift: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    BYTES: tl.constexpr,
):
    """Return a tile of the scaled product, transposed: byte j of a column's weights meets word j of a row."""
    j = tl.arange(0, BYTES)
    q_tile = q_pointer + tl.minimum(m, rows - 1)[:, None] * depth + j[None, :]
    w_tile = w_pointer + tl.minimum(n, columns - 1)[:, None] * depth + j[None, :]
    sums = tl.zeros([COLUMNS, ROWS], tl.int32)
    for start in range(0, depth, BYTES):
        inside = (start + j < depth)[None, :]
        byte = tl.load(w_tile + start, mask=inside, other=0)
        word = tl.load(q_tile + start, mask=inside, other=0)
        for i in tl.static_range(4):
            q = tl.trans((word >> (8 * i)).to(tl.int8))
            sums = tl.dot(ternary_digits(byte, i), q, sums, out_dtype=tl.int32)
    e = tl.load(e_pointer + m, mask=m < rows, other=0)
    return scale_sum(sums, e[None, :], num, shift, (1 << shift) >> 1)


@triton.jit
def enter_kernel(
    xz_pointer,
    state_pointer,
    q_pointer,
    e_pointer,
    w_pointer,
    taps_pointer,
    bias_pointer,
    rows,
    columns,
    depth,
    num: tl.constexpr,
    shift: tl.constexpr,
    s: tl.constexpr,
    f: tl.constexpr,
    offset: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    BYTES: tl.constexpr,
):
    """Project to x and z; convolve x with the state, which moves on in place, and squareplus."""
    start_next()
    m, n = tile_of(columns, ROWS, COLUMNS)
    wait_for_inputs()
    xz = product(q_pointer, e_pointer, w_pointer, m, n, rows, columns, depth, num, shift, ROWS, COLUMNS, BYTES)
    inside = (n < columns)[:, None] & (m < rows)[None, :]
    channels = columns // 2
    convolved = inside & (n < channels)[:, None]
    past = state_pointer + m[None, :] * 3 * channels + n[:, None]
    x0 = tl.load(past, mask=convolved, other=0)
    x1 = tl.load(past + channels, mask=convolved, other=0)
    x2 = tl.load(past + 2 * channels, mask=convolved, other=0)
    taps, known = taps_pointer + 4 * n, n < channels
    total = tl.load(bias_pointer + n, mask=known, other=0)[:, None]
    total += tl.load(taps, mask=known, other=0).to(tl.int32)[:, None] * x0
    total += tl.load(taps + 1, mask=known, other=0).to(tl.int32)[:, None] * x1
    total += tl.load(taps + 2, mask=known, other=0).to(tl.int32)[:, None] * x2
    total += tl.load(taps + 3, mask=known, other=0).to(tl.int32)[:, None] * xz
    x = squareplus_of(integers.saturate(integers.shift_round(total, s), 16), f, offset).to(tl.int16)
    tl.debug_barrier()  # what is written in place, every thread has read
    tl.store(past, x1, mask=convolved)
    tl.store(past + channels, x2, mask=convolved)
    tl.store(past + 2 * channels, xz, mask=convolved)
    tl.store(xz_pointer + m[None, :] * columns + n[:, None], tl.where(convolved, x, xz), mask=inside)


@triton.jit
def project_kernel(
    y_pointer,
    q_pointer,
    e_pointer,
    w_pointer,
    rows,
    columns,
    depth,
    num: tl.constexpr,
    shift: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    BYTES: tl.constexpr,
):
    start_next()
    m, n = tile_of(columns, ROWS, COLUMNS)
    wait_for_inputs()
    y = product(q_pointer, e_pointer, w_pointer, m, n, rows, columns, depth, num, shift, ROWS, COLUMNS, BYTES)
    inside = (n < columns)[:, None] & (m < rows)[None, :]
    tl.store(y_pointer + m[None, :] * columns + n[:, None], y, mask=inside)


@triton.jit
def leave_kernel(
    r_pointer,
    q_pointer,
    e_pointer,
    w_pointer,
    rows,
    columns,
    depth,
    num: tl.constexpr,
    shift: tl.constexpr,
    gate_num: tl.constexpr,
    gate_shift: tl.constexpr,
    bits: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    BYTES: tl.constexpr,
):
    """Project, and add to the residual stream in place."""
    start_next()
    m, n = tile_of(columns, ROWS, COLUMNS)
    wait_for_inputs()
    inside = (n < columns)[:, None] & (m < rows)[None, :]
    place = r_pointer + m[None, :] * columns + n[:, None]
    r = tl.load(place, mask=inside, other=0)
    o = product(q_pointer, e_pointer, w_pointer, m, n, rows, columns, depth, num, shift, ROWS, COLUMNS, BYTES)
    r += integers.shift_round(o.to(tl.int32) * gate_num, gate_shift)
    tl.debug_barrier()  # what is written in place, every thread has read
    tl.store(place, integers.saturate(r, bits), mask=inside)


@triton.jit
def quantise_kernel(q_pointer, e_pointer, x_pointer, pitch, WIDTH: tl.constexpr, BLOCK: tl.constexpr):
    """Quantise a row; rows are ``pitch`` elements apart."""
    start_next()
    row, column = tl.program_id(0).to(tl.int64), tl.arange(0, BLOCK)
    wait_for_inputs()
    inside = column < WIDTH
    x = tl.load(x_pointer + row * pitch + column, mask=inside, other=0).to(tl.int32)
    e = tl.maximum(integers.bit_length(tl.max(tl.abs(x))) - 7, 0)
    q = integers.saturate(integers.shift_round(x, e), 8)
    tl.store(q_pointer + row * WIDTH + column, q.to(tl.int8), mask=inside)
    tl.store(e_pointer + row, e)


def launch_product(kernel, results, quantised, w, *arrays, **constants):
    """Run one of the kernels that multiply quantised rows by packed weights; ``arrays`` are its other inputs."""
    q, e = quantised
    rows, columns = e.numel(), w.shape[0]
    height = next((size for size in ROWS if rows <= size), ROWS[-1])
    bands = triton.cdiv(rows, height)
    width = next((size for size in COLUMNS if bands * triton.cdiv(columns, size) >= PROGRAMS), COLUMNS[-1])
    tile = {"ROWS": height, "COLUMNS": width, "BYTES": min(BYTES, max(32, triton.next_power_of_2(w.shape[1])))}
    programs = bands * triton.cdiv(columns, width)
    inputs = words(q), e, w, *arrays
    sizes = rows, columns, w.shape[1]
    options = {"num_warps": WARPS, "num_stages": STAGES, **early()}
    launch(kernel, programs, results, inputs, *sizes, **constants, **tile, **options)


def enter(xz, state, quantised, w, taps, bias, *, scale, s, squareplus):
    """Write [x z] of rows after their norm: x is convolved with the state, which moves on in place, and squareplus."""
    launch_product(enter_kernel, (xz, state), quantised, w, taps, bias, **scale, s=s, **squareplus)


def project(quantised, w, *, scale):
    """Return `ternary_linear` of some rows."""
    y = torch.empty((quantised[1].numel(), w.shape[0]), dtype=torch.int16, device=w.device)
    launch_product(project_kernel, (y,), quantised, w, **scale)
    return y


def leave(r, quantised, w, *, scale, gate):
    """Add the product of some rows to the residual stream, in place."""
    gate = {f"gate_{name}": value for name, value in gate.items()}
    launch_product(leave_kernel, (r,), quantised, w, **scale, **gate, bits=RESIDUAL_BITS)


def quantise(x, width):
    """Return `quantize_rows` of the first columns of dense rows."""
    q = torch.empty((x.shape[0], width), dtype=torch.int8, device=x.device)
    e = torch.empty(x.shape[0], dtype=torch.int32, device=x.device)
    block = triton.next_power_of_2(width)
    options = {"num_warps": min(max(block // 512, 1), 16), **early()}
    launch(quantise_kernel, x.shape[0], (q, e), (x,), x.shape[1], WIDTH=width, BLOCK=block, **options)
    return q, e
