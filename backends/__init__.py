"""Backends: implementations of the specification's ops. See `protocol` for what a backend is."""

from .protocol import Backend, BackendError, UnsupportedError, load
