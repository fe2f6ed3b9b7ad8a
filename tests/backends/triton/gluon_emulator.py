"""Gluon on NumPy: kernels of staged scans run without a GPU, their PTX statement by statement.

A tensor is an array, a layout is nothing, and shared memory is bytes. Inline assembly of four elements per lane runs on
the registers of warps whose lanes hold two rows by two columns of a tile, as the kernels lay them out. That layout and
the fragments of `mma` are restated here from NVIDIA's description of PTX.
"""

import importlib.util
import inspect
import re
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

import mamba_integer.backends.triton as triton_backend
from mamba_integer.backends.triton import gluon_names

LANE = np.arange(32)
GROUP, MEMBER = LANE // 4, LANE % 4


class Tensor(np.ndarray):
    type = SimpleNamespace(layout=None)

    def to(self, dtype, bitcast=False):
        return self.view(dtype) if bitcast else self.astype(dtype)

    def __iadd__(self, other):
        return self + other

    def __isub__(self, other):
        return self - other

    def __index__(self):
        return int(self.item())


def tensor(values) -> Any:
    return np.asarray(values).view(Tensor)


class Scalar(Tensor):
    """An integer argument of a kernel, which asks whether it is a pointer to one; what is computed is a tensor."""

    __array_priority__ = -1.0
    dtype = SimpleNamespace(is_ptr=lambda: False)

    def __array_wrap__(self, array, context=None, return_scalar=False):
        return tensor(array)

    def to(self, dtype, bitcast=False):
        return tensor(self).to(dtype, bitcast)


def scalar(value) -> Any:
    return np.asarray(value, np.int32).view(Scalar)


class Pointer:
    def __init__(self, array, offset=0):
        self.array, self.offset = array, np.asarray(offset, np.int64)

    def __add__(self, other):
        return Pointer(self.array, self.offset + np.asarray(other))

    def places(self, mask):
        """Return which elements a mask leaves, all of which lie in the array, and the mask at the offsets' shape."""
        inside = np.broadcast_to(True if mask is None else np.asarray(mask), np.broadcast(self.offset, mask).shape)
        offset = np.broadcast_to(self.offset, inside.shape)
        assert np.all(~inside | ((offset >= 0) & (offset < self.array.size))), "outside the array"
        return offset, inside


class Shared:
    def __init__(self, memory, dtype, shape, order, start=0):
        self.memory, self.dtype, self.shape, self.order, self.start = memory, dtype, tuple(shape), order, start

    def strides(self):
        """Return the stride of each axis: those before the layout's own lie outermost."""
        leading, strides, size = len(self.shape) - len(self.order), [0] * len(self.shape), 1
        for axis in [*(leading + axis for axis in self.order), *range(leading - 1, -1, -1)]:
            strides[axis], size = size, size * self.shape[axis]
        return strides

    def elements(self):
        places = sum(
            np.expand_dims(np.arange(size) * stride, tuple(a for a in range(len(self.shape)) if a != axis))
            for axis, (size, stride) in enumerate(zip(self.shape, self.strides(), strict=True))
        )
        return self.start + np.asarray(places)

    def index(self, i):
        assert 0 <= int(i) < self.shape[0]
        start = self.start + int(i) * self.strides()[0]
        return Shared(self.memory, self.dtype, self.shape[1:], self.order, start)

    def load(self, layout):
        return tensor(self.memory.view(self.dtype)[self.elements()])

    def store(self, values):
        assert values.shape == self.shape and values.dtype == self.dtype
        self.memory.view(self.dtype)[self.elements()] = values


def int32(values):
    return (np.asarray(values, np.int64) & 0xFFFFFFFF).astype(np.uint32).view(np.int32)


def bytes_of(words):
    return np.ascontiguousarray(int32(words)).view(np.uint8).reshape(*words.shape, 4)


def mma(kind, a, b, c):
    """Multiply 16 x 32 bytes by 32 x 8 int8 in each warp: four, two and four registers of each lane."""
    left, right = np.zeros((len(a[0]), 16, 32), np.int64), np.zeros((len(a[0]), 32, 8), np.int64)
    for register in range(4):
        values = bytes_of(a[register]).view({"u8": np.uint8, "s8": np.int8}[kind])
        for j in range(4):
            left[:, GROUP + 8 * (register % 2), 4 * MEMBER + j + 16 * (register // 2)] = values[..., j]
    for register in range(2):
        for j in range(4):
            right[:, 4 * MEMBER + j + 16 * register, GROUP] = bytes_of(b[register]).view(np.int8)[..., j]
    product = left @ right
    places = [(GROUP + 8 * (register // 2), 2 * MEMBER + register % 2) for register in range(4)]
    return [int32(product[:, row, column] + c[i]) for i, (row, column) in enumerate(places)]


def permute_bytes(a, b, selector):
    pool, word = np.concatenate([bytes_of(a), bytes_of(b)], axis=-1), np.zeros(a.shape, np.int64)
    for i in range(4):
        nibble = int32(selector) >> (4 * i)
        byte = np.take_along_axis(pool, (nibble & 7)[..., None].astype(np.int64), -1)[..., 0].astype(np.int64)
        word |= np.where(nibble & 8, np.where(byte & 128, 255, 0), byte) << (8 * i)
    return int32(word)


def dot_bytes(a, b, c):
    return int32(np.sum(bytes_of(a).view(np.int8).astype(np.int64) * bytes_of(b).view(np.int8), axis=-1) + c)


def packed_halves(high, low):
    high, low = (np.clip(int32(a), -(1 << 15), (1 << 15) - 1).astype(np.int64) & 0xFFFF for a in (high, low))
    return int32(high << 16 | low)


def by_halves(rule):
    """Return an instruction that takes two int16 of each word by themselves."""

    def instruction(a, b):
        a, b = (np.ascontiguousarray(int32(word)).view(np.int16) for word in (a, b))
        return rule(a, b).view(np.int32)

    return instruction


INSTRUCTIONS = {
    "max.s16x2": by_halves(np.maximum),
    "min.s16x2": by_halves(np.minimum),
    "add.s16x2": by_halves(np.add),
    "shr.u32": lambda a, b: int32((int32(a).astype(np.int64) & 0xFFFFFFFF) >> b),
    "dp4a.s32.s32": dot_bytes,
    "cvt.pack.sat.s16.s32": packed_halves,
    "mad.lo.s32": lambda a, b, c: int32(int32(a).astype(np.int64) * int32(b) + int32(c)),
    "mov.b32": int32,
    "prmt.b32": permute_bytes,
    "shl.b32": lambda a, b: int32(a.astype(np.int64) << b),
    "shr.s32": lambda a, b: int32(a) >> int32(b),
    "shr.s64": lambda a, b: a >> b,
    "and.b32": lambda a, b: int32(a) & int32(b),
    "add.s32": lambda a, b: int32(a.astype(np.int64) + b),
    "add.s64": lambda a, b: a + b,
    "mul.lo.s32": lambda a, b: int32(int32(a).astype(np.int64) * int32(b)),
    "min.s32": lambda a, b: np.minimum(int32(a), int32(b)),
    "max.s32": lambda a, b: np.maximum(int32(a), int32(b)),
    "not.b32": lambda a: ~int32(a),
    "shf.r.wrap.b32": lambda low, high, s: int32(
        (int32(high).astype(np.int64) << 32 | int32(low).astype(np.int64) & 0xFFFFFFFF) >> (s & 31)
    ),
    "mul.wide.s32": lambda a, b: int32(a).astype(np.int64) * int32(b),
    "xor.b32": lambda a, b: int32(a) ^ int32(b),
    "mad.wide.s32": lambda a, b, c: int32(a).astype(np.int64) * int32(b) + c,
    "setp.eq.s32": lambda a, b: int32(a) == int32(b),
    "selp.b32": lambda a, b, chosen: np.where(chosen, int32(a), int32(b)),
    "cvt.s64.s32": lambda a: int32(a).astype(np.int64),
    "cvt.u32.u64": int32,
}


def run_ptx(code, registers, shape):
    def value(name):
        return np.full(shape, int(name, 0), np.int64) if re.match(r"-?\d", name) else registers[name]

    for statement in filter(None, map(str.strip, code.strip()[1:-1].split(";"))):
        instruction, operands = statement.split(None, 1)
        if instruction == ".reg":
            continue
        names = [re.findall(r"[^\s,{}]+", group) for group in re.findall(r"\{[^}]*\}|[^\s,]+", operands)]
        values = [[value(name) for name in group] for group in names[1:]]
        if instruction.startswith("mma"):
            results = mma(instruction.split(".")[-3], *values)
        elif instruction == "mov.b64" and len(names[0]) == 2:
            results = [int32(values[0][0]), int32(values[0][0] >> 32)]
        elif instruction == "mov.b64":
            low, high = values[0]
            results = [(int32(high).astype(np.int64) << 32) | (int32(low).astype(np.int64) & 0xFFFFFFFF)]
        elif instruction in ("sub.cc.s32", "subc.s32"):
            a, b = (int32(group[0]).astype(np.int64) & 0xFFFFFFFF for group in values)
            if instruction == "sub.cc.s32":
                registers["carry"] = (a < b).astype(np.int64)
                results = [int32(a - b)]
            else:
                results = [int32(a - b - registers["carry"])]
        elif instruction in ("add.cc.u32", "addc.s32"):
            a, b = (int32(group[0]).astype(np.int64) & 0xFFFFFFFF for group in values)
            total = a + b + (registers["carry"] if instruction == "addc.s32" else 0)
            if instruction == "add.cc.u32":
                registers["carry"] = total >> 32
            results = [int32(total)]
        elif instruction in ("mad.lo.cc.s32", "madc.hi.s32"):
            a, b, c = (int32(group[0]).astype(np.int64) for group in values)
            if instruction == "mad.lo.cc.s32":
                total = (a * b & 0xFFFFFFFF) + (c & 0xFFFFFFFF)
                registers["carry"] = total >> 32
            else:
                total = (a * b >> 32) + c + registers["carry"]
            results = [int32(total)]
        else:
            results = [INSTRUCTIONS[instruction](*(group[0] for group in values))]
        registers.update(zip(names[0], results, strict=True))


def inline_assembly(code, constraints, arguments, dtype, is_pure, pack):
    dtypes = dtype if isinstance(dtype, tuple) else (dtype,)
    halves = dtype is np.int16  # two of them are a register
    arguments, count = np.broadcast_arrays(*arguments), 1 if halves else len(dtypes) * pack
    assert constraints.count("=") == count and constraints.count(",") + 1 == count + pack * len(arguments)
    shape: tuple[int, ...] = arguments[0].shape
    places: list[Any] = [()]
    if pack == 4:
        rows, columns = shape
        row_warp, column_warp = np.divmod(np.arange(rows // 16 * (columns // 8)), columns // 8)
        lane_row, lane_column = 16 * row_warp[:, None] + 2 * GROUP, 8 * column_warp[:, None] + 2 * MEMBER
        places = [(lane_row + i, lane_column + j) for i in range(2) for j in range(2)]
    if halves:
        places = [(slice(None), slice(j, None, 2)) for j in range(2)]
    registers = {
        f"${count + pack * i + j}": np.asarray(argument)[place]
        for i, argument in enumerate(arguments)
        for j, place in enumerate(places)
    }
    run_ptx(code, registers, registers[f"${count}"].shape)
    results = [tensor(np.zeros(shape, kind)) for kind in dtypes]
    for i, result in enumerate(results):
        for j, place in enumerate(places):
            result[place] = registers["$0"] << (16 - 16 * j) >> 16 if halves else registers[f"${pack * i + j}"]
    return tuple(results) if isinstance(dtype, tuple) else results[0]


def load(pointer, mask=None, other=0):
    offset, inside = pointer.places(mask)
    return tensor(
        np.where(inside, pointer.array.reshape(-1)[np.where(inside, offset, 0)], pointer.array.dtype.type(other))
    )


def store(pointer, values, mask=None):
    offset, inside = pointer.places(mask)
    pointer.array.reshape(-1)[offset[inside]] = np.broadcast_to(values, offset.shape)[inside]


def atomic_add(pointer, values, mask=None, sem=None):
    offset, inside = pointer.places(mask)
    np.add.at(pointer.array.reshape(-1), offset[inside], np.broadcast_to(values, offset.shape)[inside])


def where(condition, a, b):
    return tensor(np.where(condition, *(np.int32(value) if isinstance(value, int) else value for value in (a, b))))


def jit(function=None, **options):
    return function or (lambda function: function)


PROGRAM = [0]
gluon = SimpleNamespace(jit=jit)
gl = SimpleNamespace(
    **{name: getattr(np, name) for name in ("int8", "int16", "int32", "uint32", "int64", "float32")},
    constexpr=lambda value: value,
    BlockedLayout=lambda *arguments: None,
    SliceLayout=lambda *arguments: None,
    SwizzledSharedLayout=lambda vector, per_phase, phases, order: order,
    allocate_shared_memory=lambda dtype, shape, order: Shared(
        np.full(np.prod(shape) * np.dtype(dtype).itemsize, 0x77, np.uint8), dtype, shape, order
    ),
    program_id=lambda axis: tensor(np.int32(PROGRAM[0])),
    static_range=range,
    cdiv=lambda a, b: -(-a // b),
    arange=lambda first, last, layout: tensor(np.arange(first, last, dtype=np.int32)),
    full=lambda shape, value, dtype, layout=None: tensor(np.full(shape, value, dtype)),
    zeros=lambda shape, dtype, layout: tensor(np.zeros(shape, dtype)),
    zeros_like=lambda a: tensor(np.zeros_like(np.asarray(a))),
    where=where,
    minimum=lambda a, b: tensor(np.minimum(a, b)),
    maximum=lambda a, b: tensor(np.maximum(a, b)),
    sum=lambda a, axis: tensor(np.sum(a, axis=axis, dtype=a.dtype)),
    split=lambda a: (tensor(a[..., 0]), tensor(a[..., 1])),
    join=lambda a, b: tensor(np.stack([a, b], axis=-1)),
    reshape=lambda a, shape: tensor(np.reshape(a, shape)),
    permute=lambda a, axes: tensor(np.transpose(a, axes)),
    expand_dims=lambda a, axis: tensor(np.expand_dims(a, axis)),
    broadcast=lambda a, b: tuple(map(tensor, np.broadcast_arrays(a, b))),
    convert_layout=lambda a, layout: a,
    inline_asm_elementwise=inline_assembly,
    load=load,
    store=store,
    atomic_add=atomic_add,
)


def reinterpret(shared, dtype, shape, order):
    assert np.prod(shape) * np.dtype(dtype).itemsize == np.prod(shared.shape) * np.dtype(shared.dtype).itemsize
    return Shared(shared.memory, dtype, shape, order)


def launch(kernel, programs, results, inputs, *integers, num_warps, maxnreg=None, **constants):
    """Run a kernel's programs one after the other, on tensors of the CPU."""
    parameters = inspect.signature(kernel).parameters
    known = {name for name in constants if parameters[name].annotation is gl.constexpr}
    scalars = {name: scalar(value) for name, value in constants.items() if name not in known}
    with np.errstate(over="ignore"):
        for PROGRAM[0] in range(programs):
            arrays = [Pointer(array.numpy()) for array in (*results, *inputs)]
            kernel(*arrays, *map(scalar, integers), **constants | scalars)


def emulated(monkeypatch, names):
    """Return modules of kernels in Gluon as new ones, whose kernels are functions of the emulation."""
    for name in ("gl", "gluon", "reinterpret"):
        monkeypatch.setattr(gluon_names, name, globals()[name])
    monkeypatch.setattr(gluon_names, "HAS_GLUON", True)
    monkeypatch.setattr(gluon_names, "barrier", lambda: None)
    modules = []
    for name in names:
        path = Path(triton_backend.__file__).with_name(f"{name}.py")
        full_name = f"{triton_backend.__name__}.{name}"
        module_spec = importlib.util.spec_from_file_location(full_name, path)
        module = importlib.util.module_from_spec(module_spec)
        monkeypatch.setitem(sys.modules, full_name, module)
        monkeypatch.setattr(triton_backend, name, module, raising=False)
        module_spec.loader.exec_module(module)
        modules.append(module)
    return modules
