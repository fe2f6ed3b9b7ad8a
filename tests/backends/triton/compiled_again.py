"""Print, as JSON, the ops of a training step for which other shifts would compile a kernel again; nothing is compiled.

Run as ``TRITON_INTERPRET=0 python compiled_again.py``. Each op is called twice, with the parameters that training
changes from step to step at other values; a launch is known by what Triton would specialise it on.
"""

import json
from random import Random

import torch
from triton.backends.compiler import GPUTarget
from triton.runtime.driver import driver
from triton.runtime.jit import JITFunction

from mamba_integer.backends import load
from mamba_integer.conformance.engine.cases import draw_case
from mamba_integer.spec import trusted_values

# By op: values at which a kernel that was specialised on them would be another, 1 and 16 being Triton's own.
CHANGING = {
    "bitshift_norm_backward": {"e": (-3, 1, 16)},
    "lion_update": {"lr": (1, 16, 300), "m_shift": (-1, 0, 16), "g_up": (0, 1, 16), "g_down": (0, 1, 16)},
    "residual_add_backward": {"shift": (1, 3, 16)},
    "round_to_int16": {"shift": (0, 1, 16)},
    "saturate_backward": {"shift": (0, 1, 16)},
    "ssd_chunk_scan_backward": {name: (0, 1, 16) for name in ("s_x", "s_d", "s_b", "s_c")},
    "stochastic_round_rows": {"shift": (1, 7, 16), "seed": (1, 5, 1 << 40), "step": (0, 1, 16), "first": (0, 1, 16)},
    "ternary_linear_backward": {"shift": (1, 3, 16)},
}


class NoDevice:
    """A driver that only names its target."""

    def get_current_target(self):
        return GPUTarget("cuda", 90, 32)


def specialised(kernel, arguments, constants):
    """Return what a launch is specialised on: types, constants, and the integers that are 1 or multiples of 16."""
    key = [kernel.fn.__name__]
    values = dict(zip((p.name for p in kernel.params), arguments, strict=False)) | constants
    for parameter in kernel.params:
        value = values.get(parameter.name)
        if parameter.is_constexpr:
            key.append(repr(value))
        elif isinstance(value, int):
            wide = not -(1 << 31) <= value < 1 << 31
            key.append(repr((wide, *(() if parameter.do_not_specialize else (value == 1, value % 16 == 0)))))
        else:
            key.append(repr(getattr(value, "dtype", None)))
    return tuple(key)


def launches(op, arrays, parameters) -> list[tuple[str, ...]]:
    seen: list[tuple[str, ...]] = []

    def only_look(self, *arguments, grid, warmup, **constants):
        seen.append(specialised(self, arguments, constants))

    run, JITFunction.run = JITFunction.run, only_look
    try:
        load("triton", "cpu").call(op, arrays, parameters)
    finally:
        JITFunction.run = run
    return seen


def main() -> None:
    driver.set_active(NoDevice())
    again = {}
    with trusted_values():
        for op, changes in CHANGING.items():
            source = Random(0)
            case = draw_case(op, source)
            while not all(array.size for array in case.arrays):
                case = draw_case(op, source)
            arrays = [torch.tensor(array) for array in case.arrays]
            calls = [{name: values[i] for name, values in changes.items()} for i in range(3)]
            first, *others = (launches(op, arrays, dict(case.parameters) | call) for call in calls)
            again[op] = sorted({key[0] for other in others for key in set(other) - set(first)})
            assert first, f"{op} launches nothing"
    print(json.dumps(again))


if __name__ == "__main__":
    main()
