"""Numba twins of ``spec.ops.loss_backward``."""

__all__: list[str] = []
