"""Backward of the embedding."""

__all__: list[str] = []
