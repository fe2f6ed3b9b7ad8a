"""``spec.ops.linear_backward`` on unbounded integers."""

__all__: list[str] = []
