"""Triton versions of ``spec.ops.scan_backward``."""

__all__: list[str] = []
