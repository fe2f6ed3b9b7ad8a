"""Backward of the scans."""

__all__: list[str] = []
