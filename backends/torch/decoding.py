"""Decoding without the host: a step of the network, the choice of the token and the advance of the position, replayed.

A step reads and writes buffers that stay where they are, so that on a CUDA device it is captured once as a graph, and
several steps as another. The host launches a block of steps, and while they run it reads the tokens of those before,
and nothing else. A state leaves the buffers only when somebody asks for it; it is then computed again from the text as
it was before its block, which is exact because a step depends on the buffers alone.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from typing import Any, Protocol
from weakref import WeakKeyDictionary

import numpy as np
import torch

from mamba_integer.spec.contract import trusted_values
from mamba_integer.spec.model.blocks import Call, Network
from mamba_integer.spec.model.config import MAMBA2
from mamba_integer.spec.model.formats import CHUNK_STATE
from mamba_integer.spec.model.generation import LateSession, Options, Session, choose
from mamba_integer.spec.model.language_model import LanguageModel, rotations
from mamba_integer.spec.model.state import State

from .arrays import copy_all

BLOCK = 64
SEVERAL = 8  # steps of a graph: from graph to graph a device takes longer than from kernel to kernel
ROWS = "token", "position", "stream"  # of each row of a text
WARM_UP = 2  # steps before a capture, in which kernels are compiled and loaded
MOST_IDLE = 4  # decoders that wait for a text with the same batch and options
ALIGNMENT = 256  # bytes
PIECE = 1 << 24  # bytes that are copied at once
OPEN_CHUNK = CHUNK_STATE[1:]  # a step in place leaves what lies beyond the fill

Copy = tuple[torch.Tensor, ...]
Turns = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


@dataclass(frozen=True)
class Buffers:
    """The arrays that a step reads and writes.

    ``memory`` holds, in bytes, the arrays that make a text, which are all that a step depends on, but for its place in
    the block. They are views of it, so that a copy of it is a copy of them all. ``state`` are the arrays of a
    `State`. ``token``, ``position`` and ``stream`` are int32 (B,). ``count`` is the number of the step in its block,
    int64 (1,); ``tokens`` are those of the block, int32 (block, B), and ``rotation`` the coefficients of its positions,
    three arrays (block, B, pairs), or None.
    """

    memory: torch.Tensor
    state: dict[str, torch.Tensor]
    token: torch.Tensor
    position: torch.Tensor
    stream: torch.Tensor
    count: torch.Tensor
    tokens: torch.Tensor
    rotation: Turns | None


def in_one_memory(arrays: Mapping[str, torch.Tensor]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Return zeros that have the place of these arrays, as bytes, and their views of the arrays' shapes and types."""
    starts = list(accumulate((-(-a.nbytes // ALIGNMENT) * ALIGNMENT for a in arrays.values()), initial=0))
    device = next(iter(arrays.values())).device
    memory = torch.zeros(starts[-1], dtype=torch.uint8, device=device)
    places = zip(arrays.items(), starts, strict=False)
    return memory, {name: memory[i : i + a.nbytes].view(a.dtype).view(a.shape) for (name, a), i in places}


class Step(Protocol):
    """The two parts of a step on buffers, around the choice of the token."""

    def prepare(self) -> None:
        """Make what the step keeps beside a text that was put into the buffers."""

    def logits(self) -> torch.Tensor:
        """Read the tokens, leave the new state in the buffers, and return the logits."""

    def advance(self, chosen: torch.Tensor) -> None:
        """Keep the chosen tokens, and go on to the next position."""


class ComposedStep:
    """A step by the ops, one after the other."""

    def __init__(self, network: Network, chunk_size: int, buffers: Buffers):
        self.network, self.chunk_size, self.buffers = network, chunk_size, buffers

    def prepare(self) -> None:
        """Keep nothing."""

    def logits(self) -> torch.Tensor:
        buffers = self.buffers
        tables, count = buffers.rotation, buffers.count
        lam, gam, quadrant = (table.index_select(0, count)[0] for table in tables) if tables else (None, None, None)
        rotation = (lam, gam, quadrant) if tables else None
        call = Call(False, rotation, buffers.position % self.chunk_size, None)
        logits, after = self.network(call, buffers.token, buffers.state)
        torch._foreach_copy_(list(buffers.state.values()), [after[name] for name in buffers.state])
        return logits

    def advance(self, chosen: torch.Tensor) -> None:
        buffers = self.buffers
        buffers.token.copy_(chosen)
        buffers.tokens.index_copy_(0, buffers.count, chosen[None])
        buffers.position.add_(1)
        buffers.count.add_(1)


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
        self.ops, self.config, self.formats = model.ops, model.config, model.formats
        self.options, self.block = options, block
        self.device = device_of(model)
        self.chunked = [f"layers.{i}" for i, kind in enumerate(model.config.kinds) if kind == MAMBA2]
        self.pairs = model.config.mamba2_d_state // 2
        rotation = self.turns_of_block(batch) if model.rotates else None
        count, tokens = self.zeros(1, dtype=torch.int64), self.zeros(block, batch)
        rows = {name: self.zeros(batch) for name in ROWS}
        memory, views = in_one_memory({**model.new_state(batch).arrays, **rows})
        token, position, stream = (views.pop(name) for name in ROWS)
        self.buffers = Buffers(memory, views, token, position, stream, count, tokens, rotation)
        fused = getattr(model.ops, "fused_step", lambda *_: None)
        arguments = model.network, model.config, self.buffers
        self.parts: Step = fused(*arguments) or ComposedStep(model.network, model.config.chunk_size, self.buffers)
        sizes = [size for size in (SEVERAL, 1) if size <= block]
        once = self.captured if self.device.type == "cuda" else self.in_turn
        self.graphs = [(size, once(size)) for size in sizes]

    def zeros(self, *shape: int, dtype: torch.dtype = torch.int32) -> torch.Tensor:
        return torch.zeros(shape, dtype=dtype, device=self.device)

    def turns_of_block(self, batch: int) -> Turns:
        """Return room for the coefficients of a block's positions."""
        lam, gam = (self.zeros(self.block, batch, self.pairs) for _ in range(2))
        return lam, gam, self.zeros(self.block, batch, self.pairs, dtype=torch.int8)

    def step(self) -> None:
        """Read the token of each row, choose the next, and leave it and the new state in the buffers."""
        buffers = self.buffers
        with trusted_values():
            logits = self.parts.logits()
            # The position of a token that is written is the number of tokens before it.
            position = buffers.position if self.options.greedy else buffers.position + 1
            self.parts.advance(choose(self.ops, self.formats, logits, buffers.stream, position, self.options))

    def in_turn(self, steps: int) -> Callable[[], None]:
        """Return what makes so many steps, one after the other."""

        def run() -> None:
            for _ in range(steps):
                self.step()

        return run

    def captured(self, steps: int) -> Callable[[], None]:
        """Return what replays so many steps as one CUDA graph."""
        side = torch.cuda.Stream(self.device)
        with torch.cuda.device(self.device):
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                for _ in range(WARM_UP):
                    self.buffers.count.zero_()
                    self.step()
            torch.cuda.current_stream().wait_stream(side)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                self.in_turn(steps)()
        return graph.replay

    def start_block(self, positions: np.ndarray, steps: int) -> None:
        """Make ready for a block of at most so many steps of rows at these positions.

        The host makes the coefficients of each position once, and the device spreads them: for 64 rows the host took as
        long as the steps (H200).
        """
        self.buffers.count.zero_()
        if self.buffers.rotation:
            distinct, place = np.unique(positions + np.arange(steps)[:, None], return_inverse=True)
            places, coefficients = self.load(place.reshape(-1)), rotations(distinct, self.pairs, self.formats.rotation)
            for table, array in zip(self.buffers.rotation, coefficients, strict=True):
                torch.index_select(self.load(array), 0, places, out=table[:steps].view(-1, self.pairs))

    def load(self, array: np.ndarray) -> torch.Tensor:
        tensor = torch.from_numpy(array)
        if self.device.type != "cuda":
            return tensor.to(self.device)
        return tensor.pin_memory().to(self.device, non_blocking=True)  # else the host waits for the steps in front

    def run(self, first: int, steps: int) -> Callable[[], np.ndarray]:
        """Start the next steps of a block, after so many first ones; return what waits for their tokens, (steps, B)."""
        left = steps
        for size, replay in self.graphs:
            for _ in range(left // size):
                replay()
            left %= size
        return self.reading(self.buffers.tokens[first : first + steps])

    def reading(self, tokens: torch.Tensor) -> Callable[[], np.ndarray]:
        """Start to copy tokens to the host; return what waits for them."""
        if self.device.type != "cuda":
            return tokens.clone().numpy
        copy = torch.empty_like(tokens, device="cpu", pin_memory=True)
        with torch.cuda.device(self.device):
            copy.copy_(tokens, non_blocking=True)
            end = torch.cuda.current_stream().record_event()

        def wait() -> np.ndarray:
            end.synchronize()
            return copy.numpy()

        return wait

    def save(self) -> Copy:
        """Return a copy of the text in the buffers."""
        return tuple(piece.clone() for piece in self.buffers.memory.split(PIECE))

    def restore(self, saved: Copy) -> None:
        for piece, copy in zip(self.buffers.memory.split(PIECE), saved, strict=True):
            piece.copy_(copy)
        self.parts.prepare()

    def begin(self, session: Session, stream: int) -> None:
        """Put a text into the buffers; row i draws from ``stream + i``."""
        buffers, positions = self.buffers, np.array(session.state.positions, np.int32)
        rows = np.stack([session.last, positions, np.arange(len(positions), dtype=np.int32) + np.int32(stream)])
        arrays = [session.state.arrays[name] for name in buffers.state]
        copy_all([*buffers.state.values(), *(getattr(buffers, n) for n in ROWS)], [*arrays, *self.load(rows)])
        self.parts.prepare()

    def state_after(self, restore: Callable[[], None], positions: np.ndarray, steps: int) -> State:
        """Return the state that a text has so many steps after it was restored; the buffers are as before."""
        present = self.save()
        restore()
        self.start_block(positions, steps)
        self.run(0, steps)
        arrays = {name: array.clone() for name, array in self.buffers.state.items()}
        fill = self.buffers.position % self.config.chunk_size
        self.restore(present)
        opened = torch.arange(self.config.chunk_size, device=self.device) < fill[:, None]
        for name in (f"{label}.{name}" for label in self.chunked for name in OPEN_CHUNK):
            arrays[name] *= opened.reshape(*opened.shape, *[1] * (arrays[name].ndim - 2))
        return State(arrays, tuple((positions + steps).tolist()))

    def write(self, session: Session, max_tokens: int, stream: int) -> Iterator[Session]:
        """Yield the session after each step, when all steps of its block are started.

        The first step of all is read alone, so that nobody waits for a block of them.
        """
        positions = np.array(session.state.positions, np.int64)
        self.begin(session, stream)
        restore: Callable[[], None] = partial(self.begin, session, stream)
        written: Iterator[Session] = iter(())
        for start in range(0, max_tokens, self.block):
            steps, before = min(self.block, max_tokens - start), positions + start
            if start:
                restore = partial(self.restore, self.save())
            self.start_block(before, steps)
            parts = [(0, steps)] if start or steps == 1 else [(0, 1), (1, steps - 1)]
            for first, count in parts:
                tokens = self.run(first, count)
                yield from written  # while the device is at the next steps
                written = self.sessions(tokens, restore, before, first)
        yield from written

    def sessions(
        self, tokens: Callable[[], np.ndarray], restore: Callable[[], None], positions: np.ndarray, first: int
    ) -> Iterator[Session]:
        for steps, last in enumerate(tokens(), first + 1):
            yield LateSession(last, partial(self.state_after, restore, positions, steps))


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
