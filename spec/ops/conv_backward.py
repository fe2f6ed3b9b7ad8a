"""Backward of the convolution."""

__all__: list[str] = []
