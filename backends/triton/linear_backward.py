"""Triton versions of ``spec.ops.linear_backward``."""

__all__: list[str] = []
