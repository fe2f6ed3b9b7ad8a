"""``spec.ops.activation_backward`` on unbounded integers."""

__all__: list[str] = []
