"""Numba twins of ``spec.ops.residual_backward``."""

__all__: list[str] = []
