"""Backward of the ternary linear layer."""

__all__: list[str] = []
