"""``spec.ops.scan_backward`` on unbounded integers."""

__all__: list[str] = []
