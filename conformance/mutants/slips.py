"""All slips, each a backend that is found by its name."""

from importlib import import_module

from .slip import SLIPS, Slip

for kind in (
    "layout",
    "memory",
    "size",
    "far",
    "number",
    "chunk",
    "unseen",
    "tiles",
    "vectors",
    "hidden",
    "wide",
    "rare",
    "kept",
    "alias",
    "places",
    "floats",
):
    import_module(f"{__package__}.slips_{kind}")


def __getattr__(name: str) -> Slip:
    if name in SLIPS:
        return SLIPS[name]
    raise AttributeError(name)
