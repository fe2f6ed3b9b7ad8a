"""Torch versions of ``spec.ops.optimizer``."""

__all__: list[str] = []
