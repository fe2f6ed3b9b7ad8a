"""Torch versions of ``spec.ops.activation_backward``."""

__all__: list[str] = []
