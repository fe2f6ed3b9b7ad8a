"""Backward of the activations."""

__all__: list[str] = []
