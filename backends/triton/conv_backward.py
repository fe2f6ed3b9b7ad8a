"""Triton versions of ``spec.ops.conv_backward``."""

__all__: list[str] = []
