"""Torch versions of ``spec.ops.norm_backward``."""

__all__: list[str] = []
