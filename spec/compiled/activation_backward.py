"""Numba twins of ``spec.ops.activation_backward``."""

__all__: list[str] = []
