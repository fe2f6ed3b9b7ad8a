"""Backward of the residual connection."""

__all__: list[str] = []
