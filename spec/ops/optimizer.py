"""The integer optimizer."""

__all__: list[str] = []
