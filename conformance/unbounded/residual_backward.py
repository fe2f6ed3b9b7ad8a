"""``spec.ops.residual_backward`` on unbounded integers."""

__all__: list[str] = []
