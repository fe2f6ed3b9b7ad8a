"""Backends: implementations of the specification's ops. See `protocol` for what a backend is.

The names are loaded when they are first used: so the command line is ready for Ctrl-C before NumPy is loaded.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .protocol import Backend, BackendError, UnsupportedError, load

__all__ = ["Backend", "BackendError", "UnsupportedError", "load"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(importlib.import_module(".protocol", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
