"""``spec.ops.gradient`` on unbounded integers."""

__all__: list[str] = []
