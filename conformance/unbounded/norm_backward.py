"""``spec.ops.norm_backward`` on unbounded integers."""

__all__: list[str] = []
