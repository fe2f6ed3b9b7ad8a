"""The host's side of `step_row`."""

import torch
import triton

from .step_network import FusedStep
from .step_row import COUNT, ENTER, HEAD, LEAVE, PROJECT, SCAN, WHOLE, step_kernel
from .step_shape import shape_of, table_of

PROGRAMS = 264
ROWS, CHANNELS, SPLIT, WARPS = 1, 16, 1, 4
REGISTERS = None


class RowStep(FusedStep):
    def __init__(self, network, config, buffers):
        super().__init__(network, buffers)
        device = buffers.token.device
        self.whole = device.type == "cuda"
        blocks = config.nheads * triton.cdiv(config.headdim, CHANNELS)
        groups = triton.cdiv(self.rows, ROWS)
        members = min(blocks, PROGRAMS // groups)
        if members < blocks:
            members = triton.cdiv(blocks, triton.cdiv(blocks, members))
        self.programs = groups * members
        self.shape = shape_of(
            network,
            config,
            ROWS,
            members,
            CHANNELS,
            split=SPLIT,
            warps=WARPS,
            out_columns=min(32, triton.next_power_of_2(triton.cdiv(config.d_model, members))),
            head_columns=min(64, triton.next_power_of_2(triton.cdiv(config.vocab_size, members))),
        )
        words = groups * ROWS * config.n_layer * self.shape.pitch
        self.words = torch.zeros(words, dtype=torch.int32, device=device)
        self.numbers = torch.zeros(groups, dtype=torch.int32, device=device)
        self.table = table_of(config, {**self.weights, **self.state}).to(device)
        self.result = torch.empty((self.rows, config.vocab_size), dtype=torch.int16, device=device)

    def logits(self):
        b, w = self.buffers, self.weights
        layers = self.shape.layers
        launches = (
            [(0, layers, WHOLE)]
            if self.whole
            else [
                *((i, i + 1, phase) for i in range(layers) for phase in (ENTER, PROJECT, SCAN, LEAVE)),
                (0, 0, HEAD),
                (0, 0, COUNT),
            ]
        )
        for first, last, phase in launches:
            step_kernel[(self.programs,)](
                self.result,
                self.words,
                self.numbers,
                self.table,
                (b.token, b.position, b.count),
                b.rotation or (None, None, None),
                (w["embedding"], w["norm"], w["head"]),
                self.rows,
                first,
                last,
                SHAPE=self.shape,
                PHASE=phase.value,
                num_warps=WARPS,
                **({"launch_cooperative_grid": True} if self.whole else {}),
                **({"maxnreg": REGISTERS} if REGISTERS else {}),
            )
        return self.result
