"""Backward of the normalisation."""

__all__: list[str] = []
