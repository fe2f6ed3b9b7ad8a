"""The shape of a model, as validated data."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

MAMBA1, MAMBA2 = "mamba1", "mamba2"
KINDS = (MAMBA1, MAMBA2)
CHUNK_SIZES = tuple(1 << q for q in range(2, 9))

# The largest value of each integer field, as far as the ops go; the least is 1.
LARGEST = {"vocab_size": 65536, "d_model": 2**14, "d_inner": 2**15, "dt_rank": 2**14, "n_layer": 1024}


class ConfigError(ValueError):
    """A config that makes no model: names the field, what was found and what is allowed."""

    def __init__(self, field: str, found: Any, allowed: Any):
        self.field, self.found, self.allowed = field, found, allowed
        super().__init__(f"config field {field}: found {found!r}, allowed {allowed}")


@dataclass(frozen=True)
class ModelConfig:
    """Sizes of a language model.

    Parameters
    ----------
    name : str
    vocab_size : int
        Token ids are in [0, vocab_size - 1].
    d_model, d_inner : int
        Channels of the residual stream, and inside a block.
    n_layer : int
    pattern : tuple of "mamba1" and "mamba2"
        The kinds of blocks, repeated over the layers.
    mamba1_d_state : int
        State elements of each channel of a "mamba1" block.
    mamba2_d_state, nheads, headdim : int
        A "mamba2" block has ``nheads * headdim == d_inner``; its state is ``headdim`` by ``mamba2_d_state`` a head.
    dt_rank : int
        Width of the bottleneck before the decay modulation of a "mamba1" block.
    rotate : bool
        Whether B and C of a "mamba2" block are rotated by their position; ``mamba2_d_state`` is then even.
    chunk_size : int, a power of two from 4 to 256
        Positions of a chunk of a "mamba2" block, whose state is rounded once per chunk.
    """

    name: str
    vocab_size: int
    d_model: int
    d_inner: int
    n_layer: int
    pattern: tuple[str, ...] = KINDS
    mamba1_d_state: int = 16
    mamba2_d_state: int = 64
    nheads: int = 24
    headdim: int = 64
    dt_rank: int = 48
    rotate: bool = True
    chunk_size: int = 64

    def __post_init__(self):
        for field in fields(self):
            value = getattr(self, field.name)
            if field.type is int:
                largest = LARGEST.get(field.name, LARGEST["d_inner"])
                if type(value) is not int or not 1 <= value <= largest:
                    raise ConfigError(field.name, value, f"an integer from 1 to {largest}")
            elif field.type in (str, bool) and type(value) is not field.type:
                raise ConfigError(field.name, value, f"a {field.type.__name__}")
        if not self.name.isprintable():
            raise ConfigError("name", self.name, "printable characters")
        if type(self.pattern) is not tuple or not self.pattern or any(k not in KINDS for k in self.pattern):
            raise ConfigError("pattern", self.pattern, f"a tuple of {' and '.join(KINDS)}, not empty")
        if self.nheads * self.headdim != self.d_inner:
            raise ConfigError(
                "nheads", self.nheads, f"nheads * headdim ({self.headdim}) equal to d_inner ({self.d_inner})"
            )
        if self.chunk_size not in CHUNK_SIZES:
            raise ConfigError("chunk_size", self.chunk_size, f"one of {', '.join(map(str, CHUNK_SIZES))}")
        if self.rotate and self.mamba2_d_state % 2:
            raise ConfigError("mamba2_d_state", self.mamba2_d_state, "an even number, because rotate is true")

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kind of each layer."""
        return tuple(self.pattern[i % len(self.pattern)] for i in range(self.n_layer))

    @property
    def rotates(self) -> bool:
        """Whether any layer rotates by position."""
        return self.rotate and MAMBA2 in self.kinds

    def to_dict(self) -> dict[str, Any]:
        """Return plain data that JSON can hold."""
        return asdict(self) | {"pattern": list(self.pattern)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "ModelConfig":
        """Return the config that `to_dict` gave; every field must be there, and nothing else.

        Raises
        ------
        ConfigError
            An unknown or missing field, or a value that is not allowed.
        """
        names = [field.name for field in fields(cls)]
        for name in data:
            if name not in names:
                raise ConfigError(name, "an unknown field", f"fields {names}")
        for name in names:
            if name not in data:
                raise ConfigError(name, "nothing", "a value")
        pattern = data["pattern"]
        return cls(**{**data, "pattern": tuple(pattern) if isinstance(pattern, list) else pattern})


CONFIGS = {
    config.name: config
    for config in (
        ModelConfig(
            "tiny",
            256,
            d_model=64,
            d_inner=128,
            n_layer=2,
            mamba1_d_state=16,
            mamba2_d_state=16,
            nheads=4,
            headdim=32,
            dt_rank=4,
            chunk_size=16,
        ),
        ModelConfig("verse", 256, d_model=256, d_inner=768, n_layer=8, nheads=12, dt_rank=16),
        ModelConfig("small", 4096, d_model=384, d_inner=768, n_layer=8, nheads=12, dt_rank=24),
        ModelConfig("base", 4096, d_model=768, d_inner=1536, n_layer=24),
    )
}


def find_config(name: str) -> ModelConfig:
    if name not in CONFIGS:
        raise ConfigError("name", name, f"one of {', '.join(CONFIGS)}")
    return CONFIGS[name]
