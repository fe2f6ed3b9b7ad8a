"""Decoding without the host: a step of the network, the choice of the token and the advance of the position, replayed.

A step reads and writes buffers that stay where they are, so that on a CUDA device it is captured once as a graph.
The host launches a block of steps and then reads the tokens of the block back, and nothing else. A state leaves the
buffers only when somebody asks for it; it is then computed again from the copy that was made before its block, which is
exact because a step depends on the buffers alone.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch

from mamba_integer.spec.contract import trusted_values
from mamba_integer.spec.model.blocks import Call
from mamba_integer.spec.model.config import MAMBA2
from mamba_integer.spec.model.formats import CHUNK_STATE
from mamba_integer.spec.model.generation import LateSession, Options, Session, choose
from mamba_integer.spec.model.language_model import LanguageModel, rotations
from mamba_integer.spec.model.state import State

BLOCK = 32
WARM_UP = 2  # steps before a capture, in which kernels are compiled and loaded
MOST_IDLE = 4  # decoders that wait for a text with the same batch and options

OPEN_CHUNK = CHUNK_STATE[1:]  # a step in place leaves what is beyond the fill

Buffers = dict[str, torch.Tensor]


class Decoder:
    """The steps of texts with one batch size and one set of options, on the buffers of one text.

    Parameters
    ----------
    model : LanguageModel
        On the Torch or the Triton backend.
    batch : int
    options : Options
        ``max_tokens`` and ``stream`` are not read: they are the text's.
    block : int
        Steps between two readings of tokens.
    """

    def __init__(self, model: LanguageModel, batch: int, options: Options, block: int = BLOCK):
        self.network, self.config, self.formats = model.network, model.config, model.formats
        self.options, self.block = options, block
        self.device = device_of(model)
        self.chunked = [f"layers.{i}" for i, kind in enumerate(model.config.kinds) if kind == MAMBA2]
        self.state: Buffers = dict(model.new_state(batch).arrays)
        self.text: Buffers = {name: self.zeros(batch) for name in ("token", "position", "stream")}
        self.count = self.zeros(1, dtype=torch.int64)
        self.tokens = self.zeros(block, batch)
        self.rotation = self.rotation_of_block(np.zeros(batch, np.int64)) if model.rotates else None
        fuse = getattr(model.ops, "step_network", lambda *_: None)
        fused = fuse(self.network, self.state, self.text["position"], self.rotation, self.count)
        self.logits = fused or self.composed
        self.replay = self.captured() if self.device.type == "cuda" else self.step

    def zeros(self, *shape: int, dtype: torch.dtype = torch.int32) -> torch.Tensor:
        return torch.zeros(shape, dtype=dtype, device=self.device)

    def step(self) -> None:
        """Read the token of each row, choose the next, and leave it and the new state in the buffers."""
        token, position, stream = self.text.values()
        with trusted_values():
            logits = self.logits(token)
            position += 1
            token.copy_(choose(self.network.ops, self.formats, logits, stream, position, self.options))
        self.tokens.index_copy_(0, self.count, token[None])
        self.count += 1

    def composed(self, ids: torch.Tensor) -> torch.Tensor:
        """Return the logits by the ops, one after the other, and leave the new state in the buffers."""
        rotation = tuple(table.index_select(0, self.count)[0] for table in self.rotation) if self.rotation else None
        call = Call(False, rotation, self.text["position"] % self.config.chunk_size, None)
        logits, after = self.network(call, ids, self.state)
        torch._foreach_copy_(list(self.state.values()), [after[name] for name in self.state])
        return logits

    def captured(self):
        """Return what replays a step as a CUDA graph."""
        side = torch.cuda.Stream(self.device)
        with torch.cuda.device(self.device):
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                for _ in range(WARM_UP):
                    self.step()
            torch.cuda.current_stream().wait_stream(side)
            self.count.zero_()
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                self.step()
        return graph.replay

    def rotation_of_block(self, positions: np.ndarray) -> tuple[torch.Tensor, ...]:
        """Return the coefficients of the positions of a block's steps, each [block, B, pairs]."""
        steps = positions + np.arange(self.block)[:, None]
        pairs = self.config.mamba2_d_state // 2
        coefficients = rotations(steps.reshape(-1), pairs, self.formats.rotation)
        return tuple(torch.from_numpy(a.reshape(*steps.shape, pairs)).to(self.device) for a in coefficients)

    def run(self, positions: np.ndarray, steps: int) -> np.ndarray:
        """Run at most ``block`` steps of rows at these positions; return a copy of their tokens, [steps, B]."""
        if self.rotation:
            for table, coefficients in zip(self.rotation, self.rotation_of_block(positions), strict=True):
                table.copy_(coefficients)
        self.count.zero_()
        for _ in range(steps):
            self.replay()
        return self.tokens[:steps].cpu().numpy().copy()

    def save(self) -> Buffers:
        """Return a copy of what a text is."""
        return {name: array.clone() for name, array in (self.state | self.text).items()}

    def restore(self, saved: Mapping[str, torch.Tensor]) -> None:
        for name, array in (self.state | self.text).items():
            array.copy_(saved[name])

    def begin(self, session: Session, stream: int) -> None:
        """Put a text into the buffers; row i draws from ``stream + i``."""
        rows = np.arange(session.state.batch, dtype=np.int32) + np.int32(stream)
        text = {"token": session.last, "position": np.array(session.state.positions, np.int32), "stream": rows}
        self.restore({**session.state.arrays, **{name: torch.from_numpy(array) for name, array in text.items()}})

    def state_after(self, saved: Buffers, positions: np.ndarray, steps: int) -> State:
        """Return the state that a text has so many steps after a copy; the buffers are as before."""
        present = self.save()
        self.restore(saved)
        self.run(positions, steps)
        arrays = {name: array.clone() for name, array in self.state.items()}
        fill = self.text["position"] % self.config.chunk_size
        open_ = torch.arange(self.config.chunk_size, device=self.device) < fill[:, None]
        for label in self.chunked:
            for name in OPEN_CHUNK:
                array = arrays[f"{label}.{name}"]
                array *= open_.reshape(*open_.shape, *[1] * (array.ndim - 2))
        self.restore(present)
        return State(arrays, tuple((positions + steps).tolist()))

    def write(self, session: Session, max_tokens: int, stream: int) -> Iterator[Session]:
        """Yield the session after each step."""
        positions = np.array(session.state.positions, np.int64)
        self.begin(session, stream)
        for first in range(0, max_tokens, self.block):
            steps = min(self.block, max_tokens - first)
            saved = self.save()
            for i, last in enumerate(self.run(positions, steps)):
                yield LateSession(last, self.after(saved, positions, i + 1))
            positions = positions + steps

    def after(self, saved: Buffers, positions: np.ndarray, steps: int):
        return lambda: self.state_after(saved, positions, steps)


class Decoders:
    """The decoders of one model that no text uses at present: a decoder's buffers are those of one text."""

    def __init__(self) -> None:
        self.idle: list[tuple[Any, Decoder]] = []

    @contextmanager
    def borrow(self, model: LanguageModel, batch: int, options: Options, block: int) -> Iterator[Decoder]:
        kind = batch, block, options.greedy, None if options.greedy else tuple(options.sampling.items())
        place = next((i for i, (other, _) in enumerate(self.idle) if other == kind), None)
        decoder = Decoder(model, batch, options, block) if place is None else self.idle.pop(place)[1]
        try:
            yield decoder
        finally:
            self.idle = [*self.idle, (kind, decoder)][-MOST_IDLE:]


DECODERS: WeakKeyDictionary[LanguageModel, Decoders] = WeakKeyDictionary()


def device_of(model: LanguageModel) -> torch.device:
    return model.network.weights["embedding"].device


def decode(model: LanguageModel, session: Session, options: Options) -> Iterator[Session] | None:
    """Return what yields the sessions of `generate`, or None on a device where the host is no hindrance."""
    return blocks_of_steps(model, session, options) if device_of(model).type == "cuda" else None


def blocks_of_steps(model: LanguageModel, session: Session, options: Options, block: int = BLOCK) -> Iterator[Session]:
    """Yield the sessions of `generate`, computed in blocks of steps, on any device."""
    decoders = DECODERS.setdefault(model, Decoders())
    with decoders.borrow(model, session.state.batch, options, block) as decoder:
        yield from decoder.write(session, options.max_tokens, options.stream)
