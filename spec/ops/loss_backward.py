"""Backward of the cross-entropy."""

__all__: list[str] = []
