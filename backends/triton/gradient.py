"""Triton versions of ``spec.ops.gradient``."""

__all__: list[str] = []
