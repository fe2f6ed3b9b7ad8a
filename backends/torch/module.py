"""The language model as an ``nn.Module`` with integer buffers.

    import torch
    from mamba_integer.backends.files.folder import TRAINED, load_model
    from mamba_integer.backends.torch.module import IntegerMamba

    tokenizer = load_model(TRAINED["shakespeare"]).tokenizer
    model = IntegerMamba.from_pretrained("shakespeare")  # and .to("cuda") for a GPU
    ids = torch.tensor([tokenizer.encode("ROMEO:")], dtype=torch.int32)
    logits, state = model(ids, last_only=True)  # prefill: ids is [B L]
    written = []
    for _ in range(8):
        token = logits.argmax(-1).int()
        written.append(token.item())
        logits, state = model(token, state)  # one step: ids is [B]
    text = tokenizer.decode(written)

Logits are in Q.8 and to the base 2: ``(logits * (math.log(2) / 256)).log_softmax(-1)`` are natural log-probabilities.
A call never writes to the state that it is given, so one state may be continued in several ways.

The network is the specification's, composed of custom ops, so ``torch.compile(model, fullgraph=True)`` and
``torch.export`` see one graph, and every integer is the golden model's. A process that loads an exported program must
import `custom_ops` first.
"""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import nn

from mamba_integer.spec.arrays import type_text
from mamba_integer.spec.contract import DomainError, Tensor
from mamba_integer.spec.model import (
    FORMATS,
    Formats,
    ModelConfig,
    State,
    initial_parameters,
    parameter_formats,
    state_formats,
)
from mamba_integer.spec.model.blocks import Call, Network
from mamba_integer.spec.model.formats import check_arrays
from mamba_integer.spec.model.language_model import rotations
from mamba_integer.spec.model.state import check_state

from .arrays import ARRAYS, to_numpy
from .custom_ops import TRACED, TrustedOps

POSITIONS = "positions"
TABLES = ("rotation_lam", "rotation_gam", "rotation_quadrant")
MAX_POSITIONS, MOST_POSITIONS = 4096, 1 << 20


class Buffers(Mapping):
    """The buffers of a module and its submodules by their full names, looked up at every use: ``.to`` replaces them."""

    def __init__(self, root: nn.Module):
        self.modules = dict(root.named_modules())

    def __getitem__(self, name: str) -> torch.Tensor:
        module, _, buffer = name.rpartition(".")
        return self.modules[module]._buffers[buffer]  # type: ignore[return-value]

    def __iter__(self) -> Iterator[str]:
        return (name for name, _ in self.modules[""].named_buffers())

    def __len__(self) -> int:
        return len(list(iter(self)))


class IntegerMamba(nn.Module):
    """An integer language model whose parameters are buffers: int8, int16, int32, and uint8 for packed ternary digits.

    The state dict has the names, shapes and dtypes of ``spec.model.parameter_formats``, as a checkpoint has.

    Parameters
    ----------
    config : ModelConfig
    parameters : dict of NumPy arrays by name, optional
        Left out, those of a fresh model of seed 0.
    max_positions : int in [1, 2**20]
        Tokens that a row may read, where the config rotates by position: the tables of the rotation have this many
        rows. Making them takes about a quarter of a millisecond per row.

    Raises
    ------
    DomainError
        A parameter is missing, unknown, of another shape or dtype, or out of its range; also on ``load_state_dict``,
        before a buffer is written.

    Notes
    -----
    Integers carry no gradient, so nothing here trains; `spec.training` does. ``.half()`` and ``.float()`` change
    nothing.
    """

    embedding: torch.Tensor

    def __init__(
        self,
        config: ModelConfig,
        parameters: Mapping[str, np.ndarray] | None = None,
        *,
        max_positions: int = MAX_POSITIONS,
        formats: Formats = FORMATS,
    ):
        super().__init__()
        self.parameter_formats = parameter_formats(config, formats)
        if type(max_positions) is not int:
            raise DomainError("IntegerMamba", "max_positions", type_text(max_positions), "a Python int")
        if not 1 <= max_positions <= MOST_POSITIONS:
            raise DomainError("IntegerMamba", "max_positions", max_positions, f"[1, {MOST_POSITIONS}]")
        self.config, self.formats, self.max_positions = config, formats, max_positions
        self.layers = nn.ModuleList(nn.Module() for _ in config.kinds)
        self.state_formats = state_formats(config, 1, formats)
        parameters = initial_parameters(config, 0, formats) if parameters is None else parameters
        check_arrays(parameters, self.parameter_formats)
        for name in self.parameter_formats:
            module, _, buffer = name.rpartition(".")
            self.get_submodule(module).register_buffer(buffer, torch.tensor(parameters[name]))
        if config.rotates:
            tables = rotations(np.arange(max_positions), config.mamba2_d_state // 2, formats.rotation)
            for name, table in zip(TABLES, tables, strict=True):
                self.register_buffer(name, torch.tensor(table), persistent=False)
        self.network = Network(config, formats, TrustedOps, Buffers(self))
        self.register_load_state_dict_pre_hook(check_state_dict)

    @classmethod
    def from_pretrained(cls, path: str | Path, *, max_positions: int = MAX_POSITIONS) -> "IntegerMamba":
        """Return the model of a folder, of a checkpoint file, or of the name of a model that comes with the package.

        Reading files needs the ``app`` extra: ``pip install "mamba-integer[torch,app]"``.

        Raises
        ------
        DomainError
            The path is neither a str nor a path.
        CheckpointError, TokenizerError
            A file can't be used; see `backends.files.folder.load_model`.
        """
        from mamba_integer.backends.files.folder import TRAINED, load_model

        if not isinstance(path, str | os.PathLike):
            allowed = f"a str or a pathlib.Path: a folder, a file or one of {', '.join(TRAINED)}"
            raise DomainError("IntegerMamba.from_pretrained", "path", type_text(path), allowed)
        checkpoint = load_model(TRAINED.get(str(path), Path(path))).checkpoint
        return cls(checkpoint.config, checkpoint.parameters, max_positions=max_positions)

    def forward(
        self, ids: torch.Tensor, state: Mapping[str, torch.Tensor] | None = None, last_only: bool = False
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Read a sequence in each row, or one token, after those that the state has read.

        Parameters
        ----------
        ids : int32 tensor, shape (B, L), or (B,) for one step; in [0, vocab_size - 1]
        state : dict of tensors by name, optional
            As an earlier call returned it; left out, the rows have read nothing. It holds the arrays of
            ``spec.model.state_formats`` and the int32 ``positions`` of shape (B,), the tokens that each row has read.
        last_only : bool
            Return the logits after the last token alone; needs L >= 1.

        Returns
        -------
        logits : int16 tensor, shape (B, L, vocab_size), or (B, vocab_size) for one step or ``last_only``; Q.8, base 2
        state : dict of tensors by name

        Raises
        ------
        DomainError
            ids of another dtype or rank or out of range; a row that reads more than ``max_positions`` tokens; a state
            of another batch or model. Under ``torch.compile`` and ``torch.export`` a value out of range is a
            RuntimeError, on CUDA an asynchronous one.

        Notes
        -----
        In eager code on CUDA, the checks of ids and positions wait for the device; a compiled call doesn't wait.
        """
        TRACED.check("IntegerMamba", "ids", ids)
        if ids.dtype != torch.int32 or ids.dim() not in (1, 2):
            kind = f"{ids.dtype} of {ids.dim()} dimensions"
            raise DomainError("IntegerMamba", "ids", kind, "int32 (ids.int()) of shape (B, L) or (B,)")
        sequence = ids.dim() == 2
        if last_only and sequence and ids.shape[1] == 0:
            raise DomainError("IntegerMamba", "ids", "length 0", "length 1 or more with last_only")
        state = self.new_state(ids.shape[0]) if state is None else state
        self._check_state(state, ids.shape[0])
        check_values("ids", ids, self.config.vocab_size - 1)
        positions = state[POSITIONS]
        steps = positions[:, None] + torch.arange(ids.shape[1] if sequence else 1, dtype=torch.int32, device=ids.device)
        if self.config.rotates:
            check_values(POSITIONS, steps, self.max_positions - 1)
        call = Call(sequence, self._rotation(steps), positions % self.config.chunk_size, None)
        logits, after = self.network(call, ids, state, last_only and sequence)
        return logits, after | {POSITIONS: positions + steps.shape[1]}

    def new_state(self, batch: int) -> dict[str, torch.Tensor]:
        """Return the state of ``batch`` rows that have read nothing."""
        device = self.embedding.device
        arrays = {
            name: torch.zeros((batch, *format.shape[1:]), dtype=getattr(torch, format.dtype), device=device)
            for name, format in self.state_formats.items()
        }
        return arrays | {POSITIONS: torch.zeros(batch, dtype=torch.int32, device=device)}

    def state_to_numpy(self, state: Mapping[str, torch.Tensor]) -> State:
        """Return a state as the specification's, for a file or another backend."""
        check_mapping(state)
        arrays = {name: to_numpy(state[name]) for name in self.state_formats}
        return State(arrays, tuple(state[POSITIONS].tolist()))

    def state_from_numpy(self, state: State) -> dict[str, torch.Tensor]:
        """Return a state of NumPy arrays as this module's.

        Raises
        ------
        DomainError
            An array is missing, unknown, of another shape or dtype, or out of its proved range.
        """
        check_state("state_from_numpy", state)
        wanted = state_formats(self.config, state.batch, self.formats)
        check_arrays(state.arrays, wanted, argument="state.arrays")
        arrays = {**state.arrays, POSITIONS: np.array(state.positions, np.int32)}
        return {name: torch.tensor(array, device=self.embedding.device) for name, array in arrays.items()}

    def _rotation(self, steps: torch.Tensor) -> tuple[Any, ...] | None:
        if not self.config.rotates:
            return None
        rows = steps.reshape(-1).long()
        return tuple(getattr(self, name)[rows] for name in TABLES)

    def _check_state(self, state: Mapping[str, torch.Tensor], batch: int) -> None:
        check_mapping(state)
        wanted = {**{name: (f.shape[1:], f.dtype) for name, f in self.state_formats.items()}, POSITIONS: ((), "int32")}
        for name, (shape, dtype) in wanted.items():
            if name not in state:
                raise DomainError("IntegerMamba", f"state {name}", "nothing", f"a tensor of shape {(batch, *shape)}")
            TRACED.check("IntegerMamba", f"state {name}", state[name])
            if tuple(state[name].shape) != (batch, *shape):
                raise DomainError("IntegerMamba", f"state {name}", tuple(state[name].shape), (batch, *shape))
            if state[name].dtype != getattr(torch, dtype):
                raise DomainError("IntegerMamba", f"state {name}", f"{state[name].dtype}", dtype)


def check_mapping(state: Any) -> None:
    if not isinstance(state, Mapping):
        allowed = "a dict as an earlier call returned it, or of a State: state_from_numpy(state)"
        raise DomainError("IntegerMamba", "state", type_text(state), allowed)


def check_values(name: str, array: torch.Tensor, last: int) -> None:
    """Raise unless the values lie in [0, last]: at once in eager code, else as a node of the graph."""
    if torch.compiler.is_compiling() or array.is_meta:
        inside = ((array >= 0) & (array <= last)).all()
        torch._assert_async(inside, f"IntegerMamba: argument {name}: found a value outside, allowed [0, {last}]")
    elif array.numel():
        Tensor(name, "int32", "...", 0, last).check_values("IntegerMamba", array, SimpleNamespace())


def check_state_dict(module: nn.Module, state_dict: Mapping[str, Any], prefix: str, *_: Any) -> None:
    """Raise DomainError for a parameter that the module can't take; PyTorch itself tells missing and unknown names."""
    for name, format in module.parameter_formats.items():  # type: ignore[union-attr, operator]
        if prefix + name in state_dict:
            ARRAYS.check("model", name, state_dict[prefix + name])
            format.check(name, state_dict[prefix + name])
